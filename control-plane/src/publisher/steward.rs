//! The steward: marks what is due to be signed again and what a change of an environment has left to be marked, and takes
//! the steps of the publisher keys' schedule.

use std::sync::Arc;
use std::time::Duration;

use keypost_shared::host::PrivateKey;
use keypost_shared::kv_key::KvKey;
use keypost_shared::publisher_key::{Step, plan};
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Publisher;
use crate::clock::unix;
use crate::crypto_at_rest::{KeyPurpose, SealError};
use crate::store::publication::Priority;
use crate::store::{self, AdvisoryLock, StoreError};

/// By then every location finds what has just been published.
const LISTS_SPREAD: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
enum StewardError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<sqlx::Error> for StewardError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

pub(super) struct Steward {
    publisher: Arc<Publisher>,
}

impl Steward {
    pub(super) fn new(publisher: Arc<Publisher>) -> Self {
        Self { publisher }
    }

    /// Looks after the documents until told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut refreshed = self.publisher.publications.subscribe_refreshed();
        let mut failing = false;
        while !stop.is_cancelled() {
            refreshed.borrow_and_update();
            match self.round().await {
                Ok(true) => continue,
                Ok(false) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "keeping documents fresh stands still");
                    }
                    failing = true;
                }
            }
            // A first v1/trust that has just been written lets the first key sign at once, and what has been signed again
            // makes room for more.
            let waiting = timeout(self.publisher.settings.sweep, refreshed.changed());
            stop.run_until_cancelled(waiting).await;
        }
    }

    /// One look. Says whether there is reason to look again at once.
    async fn round(&self) -> Result<bool, StewardError> {
        let now = self.publisher.clock.now();
        let steps = self.take_key_steps(now).await?;
        let limit = self.publisher.settings.batch_size;
        let mut tx = self.publisher.db.begin().await?;
        let mut marked = store::publication::sweep_due(&mut tx, limit, now).await?;
        if let Some(signer) = store::publisher_key::signer(&mut tx).await? {
            marked += store::publication::sweep_signed_by_others(&mut tx, &signer.kid, limit, now).await?;
        }
        tx.commit().await?;
        // A transaction of its own: it waits for rows, so it must hold none that were locked in another order.
        let mut tx = self.publisher.db.begin().await?;
        let sweeping = store::publication::sweep_clients(&mut tx, limit, now).await?;
        tx.commit().await?;
        let mut tx = self.publisher.db.begin().await?;
        let begun = store::client_pool::begin_revocation_lists(&mut tx, now - LISTS_SPREAD).await?;
        if !begun.is_empty() {
            store::publication::mark(&mut tx, &begun, Priority::Change, now).await?;
        }
        tx.commit().await?;
        if steps > 0 || marked > 0 || sweeping || !begun.is_empty() {
            self.publisher.publications.wake();
        }
        Ok(steps > 0 || sweeping)
    }

    /// Takes the steps that are due, unless another process is about it. Says how many.
    async fn take_key_steps(&self, now: OffsetDateTime) -> Result<usize, StewardError> {
        let settings = &self.publisher.settings;
        // What a retired key signed last may be on its way for the length of a lease and of a late write.
        let retired_before = now - settings.lease - settings.late_write_window;
        let mut tx = self.publisher.db.begin().await?;
        if !store::try_lock(&mut tx, AdvisoryLock::PublisherKeys).await? {
            return Ok(0);
        }
        let keys = store::publisher_key::all(&mut tx, retired_before).await?;
        store::publisher_key::forget_removed(&mut tx, retired_before).await?;
        let steps = plan(&keys, unix(now), settings.schedule);
        let mut trust_changes = false;
        for step in &steps {
            trust_changes |= self.take(&mut tx, step, now).await?;
        }
        if trust_changes {
            store::publication::mark(&mut tx, &[KvKey::Trust], Priority::Revocation, now).await?;
        }
        tx.commit().await?;
        Ok(steps.len())
    }

    /// Takes one step. Says whether `v1/trust` must be published for it.
    async fn take(
        &self,
        tx: &mut PgConnection,
        step: &Step,
        now: OffsetDateTime,
    ) -> Result<bool, StewardError> {
        match step {
            Step::Create => {
                let mut rng = self.publisher.entropy.rng();
                let key = PrivateKey::generate(&mut rng);
                let sealed = self.publisher.master_key.seal(KeyPurpose::Publisher, &key, &mut rng)?;
                store::publisher_key::insert(tx, key.kid(), key.public(), &sealed, now).await?;
                tracing::info!(kid = %key.kid(), "a publisher key has been made");
                Ok(true)
            }
            Step::TakeOver(kid) => {
                store::publisher_key::take_over(tx, kid, now).await?;
                tracing::info!(%kid, "a publisher key signs from now on");
                Ok(false)
            }
            Step::Remove(kid) => {
                store::publisher_key::delete(tx, kid).await?;
                tracing::info!(%kid, "a publisher key leaves");
                Ok(true)
            }
        }
    }
}
