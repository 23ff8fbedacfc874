//! What the services know of the publisher: that it must be woken, and when it is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use keypost_shared::kv_key::KvKey;
use sqlx::PgPool;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout_at};

use crate::store::StoreError;
use crate::store::publication::{Mark, is_published};

/// How often the database is asked while waiting, for the case that another process publishes.
const POLL: Duration = Duration::from_millis(250);
/// How many calls whoever waits may have missed before it asks the database.
const REMEMBERED: usize = 64;

/// What a call to KV has written: the generation of each key.
type WrittenKeys = Arc<HashMap<KvKey, i64>>;

/// Wakes the publisher of this process, and waits for marks to be published by whichever process.
#[derive(Clone)]
pub struct Publications {
    db: PgPool,
    patience: Duration,
    wakes: Arc<watch::Sender<u64>>,
    written: broadcast::Sender<WrittenKeys>,
    refreshed: Arc<watch::Sender<u64>>,
    /// How many answers wait.
    awaited: Arc<watch::Sender<usize>>,
}

/// An answer that waits.
struct Waiting(Arc<watch::Sender<usize>>);

impl Waiting {
    fn new(awaited: &Arc<watch::Sender<usize>>) -> Self {
        awaited.send_modify(|count| *count = count.saturating_add(1));
        Self(awaited.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
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
            written: broadcast::Sender::new(REMEMBERED),
            refreshed: Arc::new(watch::Sender::new(0)),
            awaited: Arc::new(watch::Sender::new(0)),
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
        let _waiting = Waiting::new(&self.awaited);
        let waiting = async {
            let mut written = self.written.subscribe();
            let mut left = marks.to_vec();
            loop {
                // What was written before, or is by another process, only the database knows.
                match self.ask(&left).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%error, "cannot see whether a change has been published"),
                }
                let ask_again = Instant::now() + POLL;
                // Ends with the time, or where so much was written that something was missed.
                while let Ok(Ok(keys)) = timeout_at(ask_again, written.recv()).await {
                    left.retain(|mark| keys.get(&mark.key).is_none_or(|written| *written < mark.generation));
                    if left.is_empty() {
                        return;
                    }
                }
            }
        };
        timeout_at(deadline, waiting).await.is_ok()
    }

    pub(super) fn subscribe_wakes(&self) -> watch::Receiver<u64> {
        self.wakes.subscribe()
    }

    pub(super) fn subscribe_refreshed(&self) -> watch::Receiver<u64> {
        self.refreshed.subscribe()
    }

    /// Whether any answer of this process waits for something to be written.
    pub(super) fn is_awaited(&self) -> bool {
        *self.awaited.borrow() > 0
    }

    /// Ends once an answer of this process waits.
    pub(super) async fn until_awaited(&self) {
        // The sender is this struct's own, so it cannot have gone.
        let _ = self.awaited.subscribe().wait_for(|waiting| *waiting > 0).await;
    }

    /// Says what has been written.
    pub(super) fn note_written(&self, keys: impl Iterator<Item = (KvKey, i64)>) {
        if self.is_awaited() {
            // Nobody may have subscribed yet, and then asks the database.
            let _ = self.written.send(Arc::new(keys.collect()));
        }
    }

    /// Says that `v1/trust` has been written, or documents that were to be signed again.
    pub(super) fn note_refreshed(&self) {
        self.refreshed.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn ask(&self, marks: &[Mark]) -> Result<bool, StoreError> {
        let mut connection = self.db.acquire().await?;
        is_published(&mut connection, marks).await
    }
}
