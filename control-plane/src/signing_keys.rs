//! Looks after the signing keys of all pools: of all control planes on a database one does it at a time. Makes the pools of
//! organizations that have none for their people.
//!
//! Each pool says when it is due (`client_pool.keys_due_at`), so a round looks at few of many. Where a pool's keys cannot
//! be seen to, it is due again a little later, and the others have their turn meanwhile.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::service::{Context, signing_key, sso};
use crate::store::signing_key::PoolOwner;
use crate::store::{self, AdvisoryLock, StoreError};

/// The most pools of one round.
const POOLS: i64 = 100;
/// The most of them at a time: a backend may be slow.
const AT_ONCE: usize = 4;
/// How often organizations without a pool for their people are looked for: those from before there were such pools, and
/// those that an older version makes next to this one.
const MISSING: Duration = Duration::from_secs(60);

/// What it works with.
pub struct SigningKeys {
    /// The rules.
    pub context: Context,
    /// How often it looks.
    pub interval: Duration,
}

/// The task at work.
pub struct RunningSigningKeys {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What a round has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Pools that were due.
    pub due: usize,
    /// Those of them that could not be seen to.
    pub failed: usize,
}

impl SigningKeys {
    /// Sets it to work on the current runtime.
    pub fn start(self) -> RunningSigningKeys {
        let stop = CancellationToken::new();
        let told = stop.clone();
        let task = tokio::spawn(async move {
            let mut failing = false;
            let mut look_for_missing = Instant::now();
            while told.run_until_cancelled(sleep(self.interval)).await.is_some() {
                match told.run_until_cancelled(self.round()).await {
                    Some(Err(error)) => {
                        if !failing {
                            tracing::warn!(%error, "signing keys cannot be looked after");
                        }
                        failing = true;
                    }
                    Some(Ok(_)) => failing = false,
                    None => {}
                }
                if look_for_missing <= Instant::now() {
                    look_for_missing = Instant::now() + MISSING;
                    told.run_until_cancelled(self.look_after_people()).await;
                }
            }
        });
        RunningSigningKeys { stop, task }
    }

    /// Makes the pools for people that are missing, and lets their tokens live as long as they shall.
    async fn look_after_people(&self) {
        if let Err(error) = sso::pool::add_missing(&self.context).await {
            tracing::warn!(%error, "pools for people cannot be made");
        }
        if let Err(error) = sso::pool::keep_token_ttl(&self.context).await {
            tracing::warn!(%error, "how long tokens of people live cannot be changed");
        }
    }

    /// Looks after the pools that are due now, unless another control plane is about it.
    pub async fn round(&self) -> Result<Round, StoreError> {
        // Mostly nothing is due, and then nothing is locked.
        let now = self.context.clock.now();
        if store::signing_key::due_pools(&mut *self.context.db.acquire().await?, 1, now).await?.is_empty() {
            return Ok(Round::default());
        }
        // Not a connection of the pool's, which are there for requests. The lock ends with it, whatever happens.
        let options = self.context.db.connect_options();
        let mut connection = PgConnection::connect_with(options.as_ref()).await?;
        let round = if store::try_lock_for_connection(&mut connection, AdvisoryLock::SigningKeys).await? {
            self.look(&mut connection).await
        } else {
            Ok(Round::default())
        };
        store::unlock_and_close(connection).await?;
        round
    }

    async fn look(&self, connection: &mut PgConnection) -> Result<Round, StoreError> {
        let now = self.context.clock.now();
        let due = store::signing_key::due_pools(connection, POOLS, now).await?;
        let mut round = Round { due: due.len(), failed: 0 };
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for owner in due {
            let (context, permits) = (self.context.clone(), permits.clone());
            tasks.spawn(async move {
                // Nobody closes it.
                let _permit = permits.acquire_owned().await;
                let done = signing_key::look_after(&context, &owner).await;
                if let Err(error) = &done {
                    tracing::error!(pool = %owner.pool(), %error, "a pool's signing keys could not be seen to");
                    context.metrics.signing_key_failed();
                    put_off(&context, &owner).await;
                }
                done.is_ok()
            });
        }
        while let Some(done) = tasks.join_next().await {
            if !matches!(done, Ok(true)) {
                round.failed += 1;
            }
        }
        Ok(round)
    }
}

/// Lets the others have their turn first. Where the database fails, so has everything else.
async fn put_off(context: &Context, owner: &PoolOwner) {
    let due_at = context.clock.now() + signing_key::retry_after(context);
    let put_off = async {
        let mut connection = context.db.acquire().await?;
        store::signing_key::set_due(&mut connection, owner, due_at).await
    };
    if let Err(error) = put_off.await {
        tracing::debug!(%error, "a pool's signing keys stay due");
    }
}

impl RunningSigningKeys {
    /// Stops. What is just being done is undone by the database, and done after the next start.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "looking after signing keys broke off");
        }
    }
}
