//! The publisher: makes KV say what PostgreSQL says (design §5).
//!
//! A change marks the KV keys that it makes stale, in its own transaction ([`store::publication::mark`]). From there on
//! nothing depends on anybody's memory: whichever publisher comes first leases the marked rows, renders the documents from
//! the rows as they are then, writes them in bulk, and clears the marks that have not moved. A crash anywhere leaves a mark
//! or a lease that runs out.
//!
//! - [`Publications`] is what the services hold: it wakes the publisher, and waits for marks to be published
//! - `lane` leases, renders and writes; there are two, so that signing again never holds up a change
//! - `batch` reads the rows of what is leased, at one instant; `render` makes documents from them
//! - `steward` marks what is due to be signed again and takes the steps of the publisher keys' schedule
//! - `sync_job` marks everything, or compares KV with the database, where somebody has asked for it
//! - `pace` keeps within KV's rate limit, and says how long to wait after a failure

mod batch;
mod lane;
pub(crate) mod pace;
mod publications;
mod render;
mod steward;
mod sync_job;

use std::sync::Arc;
use std::time::Duration;

use keypost_shared::jwe::SealingKey;
use keypost_shared::publisher_key::Schedule;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::lane::Lane;
use self::pace::Pace;
pub use self::publications::Publications;
use self::steward::Steward;
use self::sync_job::Jobs;
use crate::clock::Clock;
use crate::crypto_at_rest::MasterKey;
use crate::entropy::Entropy;
use crate::envelope::Envelopes;
use crate::kv::KvApi;
use crate::metrics::Metrics;
use crate::root::RootSigner;
use crate::store;
use crate::store::publication::Priority;

/// How soon a task that panicked starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The publisher's times and sizes.
#[derive(Clone, Debug)]
pub struct PublisherSettings {
    /// The most documents in one call.
    pub batch_size: u16,
    /// How long a lease lasts. Longer than a call to KV may take, or a slow call would lose it.
    pub lease: Duration,
    /// How long after a call was given up its writes may still land.
    pub late_write_window: Duration,
    /// How long the publisher sleeps when nothing wakes it.
    pub poll: Duration,
    /// How often the steward looks for what is due to be signed again.
    pub sweep: Duration,
    /// The least time between two calls to KV.
    pub call_period: Duration,
    /// The least time between two writes of a key, where it is not known whether the first was carried out.
    pub write_interval: Duration,
    /// How far a list of KV may lag behind what was written.
    pub list_lag: Duration,
    /// The pause after the first failure; it doubles with each further one.
    pub first_backoff: Duration,
    /// The longest pause.
    pub longest_backoff: Duration,
    /// How long publisher keys stand and sign.
    pub schedule: Schedule,
}

impl PublisherSettings {
    /// The settings of a real deployment, where a call to KV may take `kv_timeout`. What is left of a lease when a call
    /// begins (three quarters at least) is a second more than that: nobody else writes a key within KV's second.
    pub fn new(batch_size: u16, schedule: Schedule, kv_timeout: Duration, list_lag: Duration) -> Self {
        Self {
            batch_size,
            lease: kv_timeout + kv_timeout / 2 + Duration::from_millis(1_500),
            late_write_window: kv_timeout * 6,
            poll: Duration::from_secs(2),
            sweep: Duration::from_secs(1),
            call_period: pace::CALL_PERIOD,
            write_interval: Duration::from_millis(1_050),
            list_lag,
            first_backoff: Duration::from_secs(1),
            longest_backoff: Duration::from_secs(30),
            schedule,
        }
    }
}

/// All that the publisher works with.
pub struct Publisher {
    /// The database.
    pub db: PgPool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// KV.
    pub kv: KvApi,
    /// Signs `v1/trust`.
    pub root: RootSigner,
    /// Opens the private keys in the database.
    pub master_key: MasterKey,
    /// Opens those of them that are encrypted under data keys of AWS KMS.
    pub envelopes: Envelopes,
    /// Seals signing keys for the edge.
    pub sealing_key: SealingKey,
    /// The prefix of every issuer.
    pub edge_url: String,
    /// This control plane's public URL, where people sign in.
    pub public_url: String,
    /// Times and sizes.
    pub settings: PublisherSettings,
    /// Who wakes it, and who waits for it.
    pub publications: Publications,
    /// What is counted.
    pub metrics: Metrics,
}

/// A publisher at work.
pub struct RunningPublisher {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Publisher {
    /// Sets the publisher to work on the current runtime.
    pub fn start(self) -> RunningPublisher {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let publisher = Arc::new(self);
        let pace = Arc::new(Pace::new(publisher.db.clone(), publisher.settings.call_period));
        for priorities in [(Priority::Revocation, Priority::Change), (Priority::Resign, Priority::Resign)] {
            let (publisher, pace, stopped) = (publisher.clone(), pace.clone(), stop.clone());
            let lane = move || Lane::new(publisher.clone(), pace.clone(), priorities).run(stopped.clone());
            tasks.spawn(keep_running("publishing", lane, stop.clone()));
        }
        let (stewarded, stopped) = (publisher.clone(), stop.clone());
        let steward = move || Steward::new(stewarded.clone()).run(stopped.clone());
        tasks.spawn(keep_running("keeping documents fresh", steward, stop.clone()));
        let (worked, stopped) = (publisher.clone(), stop.clone());
        let jobs = move || Jobs::new(worked.clone(), pace.clone()).run(stopped.clone());
        tasks.spawn(keep_running("work on all documents", jobs, stop.clone()));
        tasks.spawn(listen(publisher, stop.clone()));
        tasks.close();
        RunningPublisher { stop, tasks }
    }
}

/// Runs a task until it ends, and again where it panics: without it, nothing would be published any more, and nobody
/// would notice.
async fn keep_running<F>(what: &'static str, make: impl Fn() -> F, stop: CancellationToken)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Err(error) = tokio::spawn(make()).await {
        tracing::error!(%error, "{what} broke off and starts again");
        stop.run_until_cancelled(tokio::time::sleep(RESTART_PAUSE)).await;
    }
}

impl RunningPublisher {
    /// Lets the calls under way finish, and stops.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// Wakes the publisher when another process has marked something. Without it, polling would find the mark a little later.
async fn listen(publisher: Arc<Publisher>, stop: CancellationToken) {
    let listening = async {
        loop {
            if let Err(error) = listen_once(&publisher).await {
                tracing::debug!(%error, "notifications from the database have stopped; polling goes on");
            }
            tokio::time::sleep(publisher.settings.poll).await;
        }
    };
    stop.run_until_cancelled(listening).await;
}

async fn listen_once(publisher: &Publisher) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(&publisher.db).await?;
    listener.listen(store::publication::CHANNEL).await?;
    loop {
        // None: the connection was lost and made again, and something may have been missed.
        listener.try_recv().await?;
        publisher.publications.wake();
    }
}
