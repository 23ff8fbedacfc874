//! `keypost serve`.

use std::env;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{CommandError, say};
use crate::clock::{Clock, SystemClock};
use crate::config::{Mode, ServeConfig};
use crate::edge_reports::EdgeReports;
use crate::entropy::{Entropy, SystemEntropy};
use crate::envelope::Envelopes;
use crate::housekeeping::Housekeeping;
use crate::http::{self, App};
use crate::key_maker::KeyMaker;
use crate::kms::{Kms, KmsAccess, KmsTimes};
use crate::kv::KvApi;
use crate::metrics::Metrics;
use crate::publisher::{Publications, Publisher, PublisherSettings};
use crate::root::RootSigner;
use crate::server::ServerLimits;
use crate::service::api_key_use::ApiKeyUses;
use crate::service::sso::password::Passwords;
use crate::service::{self, Context};
use crate::signing_keys::SigningKeys;
use crate::{server, store, telemetry};

/// Requests under way have six seconds after a signal. What the publisher is about has the rest of ten.
const LIMITS: ServerLimits = ServerLimits {
    head: Duration::from_secs(30),
    // Cloudflare's proxy keeps connections to an origin for 900 s, and most clients for 90 s or less.
    idle: Duration::from_secs(930),
    send: Duration::from_secs(60),
    drain: Duration::from_secs(6),
};
/// The time that a batch under way has after that. What does not end in time is written again by the next start.
const PUBLISHER_STOP: Duration = Duration::from_millis(2500);
/// The time for writing down when keys were last used, between the two.
const USES_WRITE: Duration = Duration::from_secs(1);

/// How far Cloudflare's list of KV may lag behind what was written. A local KV lists what it has.
const LIST_LAG: Duration = Duration::from_secs(60);

/// How often KV is searched for reports of the edge that have not come otherwise.
const EDGE_REPORTS: Duration = Duration::from_secs(10);
/// How often it is asked whose signing keys are due.
const SIGNING_KEYS: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT.
pub(super) async fn serve() -> Result<(), CommandError> {
    let config = ServeConfig::read(&|name| env::var_os(name))?;
    let traces = telemetry::start_with_traces(&config.common.log, config.traces.as_ref())?;
    // Signals count from here on, so that one that comes during the start is not lost.
    let stop = stop_on_signal()?;

    let db = store::connect(&config.common.database);
    store::migrate(&db).await?;
    let clock = Arc::new(SystemClock);
    let entropy = Arc::new(SystemEntropy);
    let metrics = Metrics::new();
    let kms = Kms::new(KmsAccess::Environment, KmsTimes::default(), metrics.clone());
    let (now, rng) = (clock.now(), entropy.rng());
    let root = RootSigner::load(&config.root, &db, &config.master_key, &kms, now, rng).await?;
    root.try_out().await?;
    root.take_over(&db, now).await?;
    let kv = KvApi::new(&config.kv, config.kv.timeout)?;
    let publications = Publications::new(db.clone(), Publications::PATIENCE);
    let context = Context {
        db: db.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        key_maker: KeyMaker {
            master_key: config.master_key.clone(),
            entropy: entropy.clone(),
            clock: clock.clone(),
            kms: kms.clone(),
            db: db.clone(),
        },
        key_times: config.key_times,
        master_key: config.master_key.clone(),
        kms,
        publications: publications.clone(),
        metrics: metrics.clone(),
        passwords: Passwords::new(config.password_cost, metrics.clone()),
        api_key_uses: ApiKeyUses::default(),
        edge_url: config.edge_url.clone(),
        public_url: config.public_url.clone(),
        mode: config.mode,
        edge_secrets: config.edge_secrets,
        late_after: config.late_after,
        sso: config.sso,
    };

    let housekeeping = Housekeeping {
        db: db.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        metrics: metrics.clone(),
        audit_retention: config.audit_retention,
    };

    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|reason| CommandError::Listen { address: config.listen, reason })?;
    // Last of all that can fail, because the key is never to be had again.
    if let Some(key) = service::api_key::ensure_first(&context, config.admin_api_key.as_ref()).await? {
        say(&format!("The first global admin API key, shown this once: {}", key.expose()))?;
    }
    let edge_reports = EdgeReports { context: context.clone(), kv: kv.clone(), interval: EDGE_REPORTS };
    let signing_keys = SigningKeys { context: context.clone(), interval: SIGNING_KEYS };
    let publisher = Publisher {
        db: db.clone(),
        clock,
        entropy,
        kv,
        root,
        master_key: config.master_key,
        envelopes: Envelopes::new(context.kms.clone()),
        sealing_key: config.sealing_key,
        edge_url: config.edge_url,
        public_url: config.public_url,
        settings: PublisherSettings::new(
            config.kv.batch_size,
            config.publisher_schedule,
            config.kv.timeout,
            if config.mode == Mode::Dev { Duration::ZERO } else { LIST_LAG },
        ),
        publications,
        metrics,
    }
    .start();
    let housekeeping = housekeeping.start();
    let edge_reports = edge_reports.start();
    let signing_keys = signing_keys.start();
    tracing::info!(address = %listener.local_addr()?, "listening");

    let uses = context.api_key_uses.clone();
    let router = http::router(App::new(context, config.trusted_proxies, config.rate_limits));
    tokio::select! {
        () = server::serve(listener, router, stop, LIMITS) => {}
        () = uses.keep_writing(&db) => {}
    }
    if !matches!(tokio::time::timeout(USES_WRITE, uses.write(&db)).await, Ok(Ok(()))) {
        tracing::warn!("when API keys were last used could not be written down");
    }
    // The batch under way is a matter of milliseconds; where it is not, the database undoes it.
    let housekeeping = tokio::time::timeout(PUBLISHER_STOP, async {
        tokio::join!(housekeeping.stop(), edge_reports.stop(), signing_keys.stop());
    });
    // Until now it has published what the last requests changed.
    let (publisher, housekeeping) =
        tokio::join!(tokio::time::timeout(PUBLISHER_STOP, publisher.stop()), housekeeping);
    if housekeeping.is_err() {
        tracing::warn!("housekeeping was cut off by the shutdown; it goes on after the next start");
    }
    if publisher.is_err() {
        tracing::warn!("a call to KV was cut off by the shutdown; its documents will be written again");
    }
    tracing::info!("stopped");
    traces.stop().await;
    Ok(())
}

fn stop_on_signal() -> Result<CancellationToken, io::Error> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        told.cancel();
    });
    Ok(stop)
}
