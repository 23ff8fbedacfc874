//! What the services know of the publisher: that it must be woken, and when it is done.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::store::StoreError;
use crate::store::publication::{Mark, is_published};

/// How often the database is asked while waiting, for the case that another process publishes.
const POLL: Duration = Duration::from_millis(250);

/// Wakes the publisher of this process, and waits for marks to be published by whichever process.
#[derive(Clone)]
pub struct Publications {
    db: PgPool,
    patience: Duration,
    wakes: Arc<watch::Sender<u64>>,
    written: Arc<watch::Sender<u64>>,
}

impl Publications {
    /// How long an answer waits for its documents to be in KV (api.md §1, §2).
    pub const PATIENCE: Duration = Duration::from_secs(5);

    /// For changes to this database. An answer waits for its documents as long as `patience` says.
    pub fn new(db: PgPool, patience: Duration) -> Self {
        Self {
            db,
            patience,
            wakes: Arc::new(watch::Sender::new(0)),
            written: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Says that something has been marked. To be called after the transaction has committed; whoever forgets it is
    /// served by the database's notification, a little later.
    pub fn wake(&self) {
        self.wakes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits until all marks have been published, as long as an answer waits. Says whether they have.
    pub async fn published(&self, marks: &[Mark]) -> bool {
        self.published_within(marks, self.patience).await
    }

    /// Waits until all marks have been published, at most until `patience` is over. Says whether they have.
    ///
    /// The change is safe either way, so a database that fails meanwhile only means not to know.
    pub async fn published_within(&self, marks: &[Mark], patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let waiting = async {
            let mut written = self.written.subscribe();
            loop {
                // First note what has been seen, then ask: what is written in between ends the wait at once.
                written.borrow_and_update();
                match self.ask(marks).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%error, "cannot see whether a change has been published"),
                }
                // The sender is this struct's own, so it cannot have gone.
                let _ = tokio::time::timeout(POLL, written.changed()).await;
            }
        };
        timeout_at(deadline, waiting).await.is_ok()
    }

    pub(super) fn subscribe_wakes(&self) -> watch::Receiver<u64> {
        self.wakes.subscribe()
    }

    pub(super) fn subscribe_written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Says that something has been written.
    pub(super) fn note_written(&self) {
        self.written.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn ask(&self, marks: &[Mark]) -> Result<bool, StoreError> {
        let mut connection = self.db.acquire().await?;
        is_published(&mut connection, marks).await
    }
}
