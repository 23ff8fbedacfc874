//! Housekeeping: removes, in the background, what nobody needs any more.
//!
//! Of all control planes on a database one does it at a time, on a connection of its own, in small batches with pauses
//! between them: a request never waits for it longer than for another request. It may stop after any batch, and begins
//! again where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Sub;
use std::sync::Arc;
use std::time::Duration;

use keypost_shared::id::{ClientId, PoolId};
use keypost_shared::kv_key::KvKey;
use rand_core::RngCore;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::service::edge_report::MAX_AGE;
use crate::store::publication::Priority;
use crate::store::purge::{self, ChainPurge};
use crate::store::{self, AdvisoryLock, StoreError, revoked_record, sso};

/// How often it runs.
const INTERVAL: Duration = Duration::from_secs(600);
/// The most rows of one transaction.
const BATCH: u16 = 500;
/// The pause between two batches.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a one-time password is kept after it has expired, for whoever asks why a device came too late.
const OTP_KEPT: time::Duration = time::Duration::days(1);
/// How long an answer is given again (api.md). An hour longer, so that no clock that is behind loses one.
const IDEMPOTENCY_KEPT: time::Duration = time::Duration::hours(25);
/// How long devices that came in an hour, and devices that were deleted, are remembered: reports of the edge are asked
/// about them, and older ones are void by their age. A day longer, so that no clock that is ahead forgets too early.
const EDGE_REPORTS_KEPT: time::Duration = MAX_AGE.saturating_add(time::Duration::days(1));
/// How long a refusal is kept after it has ended. The document that keeps the device out goes by `until`, with the row or
/// without it; an hour longer, so that a control plane whose clock is behind still finds it.
const REFUSAL_KEPT: time::Duration = time::Duration::hours(1);

/// How long a job over all documents is kept after it has ended, but for the latest of its kind.
const SYNC_JOBS_KEPT: time::Duration = time::Duration::days(30);
/// How long a revocation is kept after its token has expired: longer than clocks differ.
const REVOCATION_KEPT: time::Duration = time::Duration::hours(1);
/// How long sessions, refresh tokens, codes and keys of single sign-on are kept after they have ended: longer than clocks
/// differ.
const SSO_KEPT: time::Duration = time::Duration::hours(1);
/// How long failed sign-ins are remembered after the last: by then all of them are forgiven.
const FAILURES_KEPT: time::Duration = time::Duration::days(3);
/// How long the networks are remembered from which somebody has signed in.
const NETWORKS_KEPT: time::Duration = time::Duration::days(90);
/// The longest that a `v1/trust` counts after it has been replaced: the longest window that a pool may have, and a day.
const LONGEST_TRUST: time::Duration = time::Duration::days(8);

/// What housekeeping works with.
#[derive(Clone)]
pub struct Housekeeping {
    /// The database.
    pub db: PgPool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What is counted.
    pub metrics: Metrics,
    /// How long audit events are kept; none for ever.
    pub audit_retention: Option<time::Duration>,
}

/// Housekeeping at work.
pub struct RunningHousekeeping {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Everything that was due has been removed: how many rows of each kind.
    Done(Vec<(&'static str, u64)>),
    /// It was told to stop before it was through.
    Stopped,
    /// Another control plane is about it.
    Elsewhere,
}

/// The kinds of rows whose removal is one statement.
#[derive(Clone, Copy)]
enum Kind {
    Otps,
    PreviousClientSecrets,
    PreviousApiKeys,
    Idempotency,
    ProvisioningHours,
    RefusedDevices,
    DeletedDevices,
    RevokedTokens,
    RevokedRecords,
    StatusBlocks,
    DeletedPools,
    SyncJobs,
    SsoSessions,
    RefreshTokens,
    AuthorizationCodes,
    SsoKeys,
    PasswordResets,
    SignInFailures,
    SignInNetworks,
}

impl Housekeeping {
    /// Sets it to work on the current runtime, for the first time within an interval from now: not all control planes that
    /// start together begin together.
    pub fn start(self) -> RunningHousekeeping {
        let stop = CancellationToken::new();
        let told = stop.clone();
        let first = INTERVAL.mul_f64(f64::from(self.entropy.rng().next_u32()) / f64::from(u32::MAX));
        let task = tokio::spawn(async move {
            let mut pause = first;
            while told.run_until_cancelled(sleep(pause)).await.is_some() {
                self.run_and_tell(&told).await;
                pause = INTERVAL;
            }
        });
        RunningHousekeeping { stop, task }
    }

    async fn run_and_tell(&self, stop: &CancellationToken) {
        let started = Instant::now();
        let run = self.run(stop).await;
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let outcome = match &run {
            Ok(Run::Done(purged)) => {
                let rows: u64 = purged.iter().map(|(_, rows)| rows).sum();
                tracing::info!(rows, ?purged, milliseconds, "housekeeping is done");
                "done"
            }
            Ok(Run::Stopped) => "stopped",
            Ok(Run::Elsewhere) => "elsewhere",
            Err(error) => {
                tracing::warn!(%error, "housekeeping failed and will be tried again");
                "failed"
            }
        };
        self.metrics.housekeeping(outcome);
    }

    /// Removes everything that is due now, unless another control plane is about it.
    pub async fn run(&self, stop: &CancellationToken) -> Result<Run, StoreError> {
        // Not one of the pool's, which are there for requests. The lock ends with it, whatever happens.
        let options: &PgConnectOptions = &self.db.connect_options();
        let mut connection = PgConnection::connect_with(options).await?;
        let run = if store::try_lock_for_connection(&mut connection, AdvisoryLock::Housekeeping).await? {
            self.purge(&mut connection, stop).await
        } else {
            Ok(Run::Elsewhere)
        };
        store::unlock_and_close(connection).await?;
        run
    }

    async fn purge(
        &self,
        connection: &mut PgConnection,
        stop: &CancellationToken,
    ) -> Result<Run, StoreError> {
        let now = self.clock.now();
        let mut purged = Vec::new();
        for kind in Kind::ALL {
            let mut rows = 0;
            loop {
                let batch = kind.purge(connection, now).await?;
                self.metrics.purged(kind.name(), batch);
                rows += batch;
                if batch < u64::from(BATCH) {
                    break;
                }
                if !pause(stop).await {
                    return Ok(Run::Stopped);
                }
            }
            purged.push((kind.name(), rows));
        }
        if let Some(retention) = self.audit_retention {
            match self.purge_audit(connection, now.sub(retention), stop).await? {
                Some(rows) => purged.push(("audit_events", rows)),
                None => return Ok(Run::Stopped),
            }
        }
        Ok(Run::Done(purged))
    }

    /// Removes old audit events, chain by chain, from the beginning of each. None where it was told to stop.
    async fn purge_audit(
        &self,
        connection: &mut PgConnection,
        before: OffsetDateTime,
        stop: &CancellationToken,
    ) -> Result<Option<u64>, StoreError> {
        let mut rows = 0;
        let mut after = None;
        while let Some(chain) = purge::next_chain(connection, after.as_deref(), before).await? {
            match purge::audit_chain(connection, &chain, before, BATCH).await? {
                ChainPurge::Removed(batch) => {
                    self.metrics.purged("audit_events", batch);
                    rows += batch;
                    // A full batch may have left more of the same chain.
                    if batch < u64::from(BATCH) {
                        after = Some(chain);
                    }
                }
                ChainPurge::Broken { seq } => {
                    tracing::error!(
                        chain,
                        seq,
                        "an audit event was altered or removed: its chain is not purged; see `keypost audit verify`"
                    );
                    self.metrics.housekeeping("broken_audit_chain");
                    after = Some(chain);
                }
            }
            if !pause(stop).await {
                return Ok(None);
            }
        }
        Ok(Some(rows))
    }
}

impl Kind {
    const ALL: [Self; 19] = [
        Self::Otps,
        Self::PreviousClientSecrets,
        Self::PreviousApiKeys,
        Self::Idempotency,
        Self::ProvisioningHours,
        Self::RefusedDevices,
        Self::DeletedDevices,
        Self::RevokedTokens,
        Self::RevokedRecords,
        Self::StatusBlocks,
        Self::DeletedPools,
        Self::SyncJobs,
        Self::SsoSessions,
        Self::RefreshTokens,
        Self::AuthorizationCodes,
        Self::SsoKeys,
        Self::PasswordResets,
        Self::SignInFailures,
        Self::SignInNetworks,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::Otps => "otps",
            Kind::PreviousClientSecrets => "previous_client_secrets",
            Kind::PreviousApiKeys => "previous_api_keys",
            Kind::Idempotency => "idempotency",
            Kind::ProvisioningHours => "provisioning_hours",
            Kind::RefusedDevices => "refused_devices",
            Kind::DeletedDevices => "deleted_devices",
            Kind::RevokedTokens => "revoked_tokens",
            Kind::RevokedRecords => "revoked_records",
            Kind::StatusBlocks => "status_blocks",
            Kind::DeletedPools => "deleted_pools",
            Kind::SyncJobs => "sync_jobs",
            Kind::SsoSessions => "sso_sessions",
            Kind::RefreshTokens => "refresh_tokens",
            Kind::AuthorizationCodes => "authorization_codes",
            Kind::SsoKeys => "sso_keys",
            Kind::PasswordResets => "password_resets",
            Kind::SignInFailures => "sign_in_failures",
            Kind::SignInNetworks => "sign_in_networks",
        }
    }

    async fn purge(self, connection: &mut PgConnection, now: OffsetDateTime) -> Result<u64, StoreError> {
        match self {
            Kind::Otps => purge::otps(connection, now - OTP_KEPT, BATCH).await,
            Kind::PreviousClientSecrets => forget_previous_secrets(connection, now).await,
            Kind::PreviousApiKeys => purge::previous_api_keys(connection, now, BATCH).await,
            Kind::Idempotency => purge::idempotency(connection, now - IDEMPOTENCY_KEPT, BATCH).await,
            Kind::ProvisioningHours => {
                purge::provisioning_hours(connection, now - EDGE_REPORTS_KEPT, BATCH).await
            }
            Kind::RefusedDevices => purge::refused_devices(connection, now - REFUSAL_KEPT, BATCH).await,
            Kind::DeletedDevices => purge::deleted_devices(connection, now - EDGE_REPORTS_KEPT, BATCH).await,
            Kind::RevokedTokens => purge::revoked_tokens(connection, now - REVOCATION_KEPT, BATCH).await,
            Kind::RevokedRecords => forget_revoked_records(connection, now).await,
            Kind::StatusBlocks => clear_status_blocks(connection, now).await,
            Kind::DeletedPools => store::deleted_pool::purge(connection, now - REVOCATION_KEPT, BATCH).await,
            Kind::SyncJobs => purge::sync_jobs(connection, now - SYNC_JOBS_KEPT, BATCH).await,
            Kind::SsoSessions => forget_sessions(connection, now).await,
            Kind::RefreshTokens => sso::purge::refresh_tokens(connection, now - SSO_KEPT, BATCH).await,
            Kind::AuthorizationCodes => {
                sso::purge::authorization_codes(connection, now - SSO_KEPT, BATCH).await
            }
            Kind::SsoKeys => forget_sso_keys(connection, now).await,
            Kind::PasswordResets => sso::password_reset::purge(connection, now - SSO_KEPT, BATCH).await,
            Kind::SignInFailures => sso::sign_in_failure::purge(connection, now - FAILURES_KEPT, BATCH).await,
            Kind::SignInNetworks => sso::sign_in_network::purge(connection, now - NETWORKS_KEPT, BATCH).await,
        }
    }
}

/// Removes entries of revocation lists that nothing can contradict any more.
async fn forget_revoked_records(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    while revoked_record::note_unsigned(connection, now, BATCH).await? == u64::from(BATCH) {}
    let mut tx = connection.begin().await?;
    let entries = revoked_record::purgeable(&mut tx, now - LONGEST_TRUST, now, BATCH).await?;
    let shards: BTreeSet<KvKey> = entries.iter().filter_map(revoked_record::shard_key).collect();
    mark_anew(&mut tx, shards.into_iter().collect(), now).await?;
    let gone = revoked_record::purge(&mut tx, &entries, now - LONGEST_TRUST).await?;
    tx.commit().await?;
    Ok(gone)
}

/// Forgets earlier secrets of clients that count no more.
async fn forget_previous_secrets(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    let mut tx = connection.begin().await?;
    let documents = purge::previous_client_secrets(&mut tx, now, BATCH).await?;
    let forgotten = u64::try_from(documents.len()).unwrap_or(u64::MAX);
    mark_anew(&mut tx, documents, now).await?;
    tx.commit().await?;
    Ok(forgotten)
}

/// Removes keys of organizations and client apps that count no more.
async fn forget_sso_keys(connection: &mut PgConnection, now: OffsetDateTime) -> Result<u64, StoreError> {
    let mut tx = connection.begin().await?;
    let (gone, documents) = sso::purge::keys(&mut tx, now - SSO_KEPT, BATCH).await?;
    mark_anew(&mut tx, documents, now).await?;
    tx.commit().await?;
    Ok(gone)
}

/// Has documents made anew whose rows say less than before. Nobody depends on that; but a verification compares them.
async fn mark_anew(
    tx: &mut PgConnection,
    documents: Vec<KvKey>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    if !documents.is_empty() {
        store::publication::mark(tx, &documents, Priority::Resign, now).await?;
    }
    Ok(())
}

/// Removes sessions that have run out, with their refresh tokens, and gives their places in the status lists up.
async fn forget_sessions(connection: &mut PgConnection, now: OffsetDateTime) -> Result<u64, StoreError> {
    let mut tx = connection.begin().await?;
    let sessions = sso::purge::sessions(&mut tx, now - SSO_KEPT, BATCH).await?;
    let mut by_pool: BTreeMap<PoolId, Vec<ClientId>> = BTreeMap::new();
    for (pool, session) in &sessions {
        by_pool.entry(*pool).or_default().push(ClientId::from(*session));
    }
    let mut stale = Vec::new();
    for (pool, blocks) in by_pool {
        // None of their tokens is left, so there is time.
        let lists = store::status_block::release(&mut tx, pool, &blocks, now).await?;
        stale.extend(lists.into_iter().map(|list| KvKey::Status(pool, list)));
    }
    mark_anew(&mut tx, stale, now).await?;
    tx.commit().await?;
    Ok(u64::try_from(sessions.len()).unwrap_or(u64::MAX))
}

/// Clears the bits of blocks that mean nothing any more, and has the lists made anew.
async fn clear_status_blocks(connection: &mut PgConnection, now: OffsetDateTime) -> Result<u64, StoreError> {
    let mut tx = connection.begin().await?;
    let (cleared, lists) = store::status_block::clear(&mut tx, now, BATCH).await?;
    mark_anew(&mut tx, lists, now).await?;
    tx.commit().await?;
    Ok(cleared)
}

impl RunningHousekeeping {
    /// Lets the batch under way end, and stops.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "housekeeping broke off");
        }
    }
}

/// Pauses between two batches. False where it is time to stop.
async fn pause(stop: &CancellationToken) -> bool {
    stop.run_until_cancelled(sleep(PAUSE)).await.is_some()
}
