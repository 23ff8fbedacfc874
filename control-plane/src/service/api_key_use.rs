//! When API keys were last used: noted in memory, and written down now and then, not with each request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::time::sleep;
use uuid::Uuid;

use crate::store::{self, StoreError};

/// How often uses are written down. What is noted since is lost if the process is killed.
const PERIOD: Duration = Duration::from_secs(60);
/// How many rows one statement changes.
const BATCH: usize = 1000;

/// The uses that have not been written down yet: the last one of each key, so there are never more than keys.
#[derive(Clone, Debug, Default)]
pub struct ApiKeyUses(Arc<Mutex<HashMap<Uuid, OffsetDateTime>>>);

impl ApiKeyUses {
    /// The key was used.
    pub fn note(&self, key: Uuid, at: OffsetDateTime) {
        let mut uses = self.uses();
        let last = uses.entry(key).or_insert(at);
        *last = at.max(*last);
    }

    /// Writes down what has been noted. What is not written, for whatever reason, stays noted.
    pub async fn write(&self, db: &PgPool) -> Result<(), StoreError> {
        let noted: Vec<(Uuid, OffsetDateTime)> = self.uses().iter().map(|(key, at)| (*key, *at)).collect();
        for batch in noted.chunks(BATCH) {
            let mut connection = db.acquire().await?;
            store::api_key::note_uses(&mut connection, batch).await?;
            let mut uses = self.uses();
            for (key, written) in batch {
                // A use that came meanwhile is for the next time.
                if uses.get(key) == Some(written) {
                    uses.remove(key);
                }
            }
        }
        Ok(())
    }

    /// Writes them down again and again, for ever.
    pub async fn keep_writing(&self, db: &PgPool) {
        loop {
            sleep(PERIOD).await;
            if let Err(error) = self.write(db).await {
                tracing::warn!(%error, "when API keys were last used could not be written down; it will be tried again");
            }
        }
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<Uuid, OffsetDateTime>> {
        // What is in it is right after every statement, whoever panicked.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
