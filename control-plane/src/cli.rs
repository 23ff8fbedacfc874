//! The command line.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use keypost_shared::secret::{ApiKey, KeyKind};
use serde::Serialize;
use sqlx::migrate::MigrateError;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use crate::config::{CommonConfig, ConfigErrors, RootConfig, ServeConfig};
use crate::entropy::{Entropy, SystemEntropy};
use crate::http::{self, App};
use crate::kv::{KvApi, KvSetupError};
use crate::publisher::{Publications, Publisher, PublisherSettings};
use crate::root::{RootError, RootSigner};
use crate::server::ServerLimits;
use crate::service::{self, Context};
use crate::store::{self, StoreError};
use crate::{server, telemetry};

/// The control plane of Keypost. All settings come from the environment; `.env.example` lists them.
#[derive(Debug, Parser)]
#[command(name = "keypost", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and publish to KV, until SIGTERM or SIGINT. Brings the database up to date first.
    Serve,
    /// Bring the database up to date, and exit.
    Migrate,
    /// The key that signs the trust document.
    #[command(subcommand)]
    Root(RootCommand),
    /// API keys.
    #[command(subcommand, name = "apikey")]
    ApiKey(ApiKeyCommand),
}

#[derive(Debug, Subcommand)]
enum RootCommand {
    /// Print the root's public key as a JWK, to be pinned in the Worker. Makes the root where there is none.
    Show,
}

#[derive(Debug, Subcommand)]
enum ApiKeyCommand {
    /// Print a fresh admin key, for KEYPOST_ADMIN_API_KEY. It counts once the control plane has started with it.
    Generate,
}

/// Requests under way have six seconds after a signal. What the publisher is about has the rest of ten.
const LIMITS: ServerLimits = ServerLimits { head: Duration::from_secs(30), drain: Duration::from_secs(6) };
/// The time that a batch under way has after that. What does not end in time is written again by the next start.
const PUBLISHER_STOP: Duration = Duration::from_secs(3);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error("the database that DATABASE_URL names cannot be brought up to date: {0}")]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Kv(#[from] KvSetupError),
    #[error("{address} cannot be listened on: {reason}")]
    Listen { address: std::net::SocketAddr, reason: io::Error },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl Cli {
    /// Carries the command out.
    pub async fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Serve => serve().await,
            Command::Migrate => migrate().await,
            Command::Root(RootCommand::Show) => show_root().await,
            Command::ApiKey(ApiKeyCommand::Generate) => generate_api_key(),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                #[expect(clippy::print_stderr, reason = "for the person who gave the command")]
                {
                    eprintln!("keypost: {error}");
                }
                ExitCode::FAILURE
            }
        }
    }
}

async fn migrate() -> Result<(), CommandError> {
    let config = CommonConfig::read(&|name| env::var_os(name))?;
    telemetry::start(&config.log);
    store::migrate(&store::connect(&config.database)).await?;
    Ok(())
}

async fn show_root() -> Result<(), CommandError> {
    #[derive(Serialize)]
    struct RootJwk<'a> {
        #[serde(flatten)]
        key: &'a keypost_shared::jwk::EcPublicJwk,
        kid: &'a keypost_shared::id::Kid,
    }

    let config = RootConfig::read(&|name| env::var_os(name))?;
    telemetry::start(&config.common.log);
    let db = store::connect(&config.common.database);
    store::migrate(&db).await?;
    let root =
        RootSigner::load_or_create(&db, &config.master_key, SystemClock.now(), SystemEntropy.rng()).await?;
    say(&serde_json::to_string(&RootJwk { key: root.public(), kid: root.kid() })?)
}

fn generate_api_key() -> Result<(), CommandError> {
    say(ApiKey::generate(KeyKind::Admin, &mut SystemEntropy.rng()).expose())
}

async fn serve() -> Result<(), CommandError> {
    let config = ServeConfig::read(&|name| env::var_os(name))?;
    telemetry::start(&config.common.log);
    // Signals count from here on, so that one that comes during the start is not lost.
    let stop = stop_on_signal()?;

    let db = store::connect(&config.common.database);
    store::migrate(&db).await?;
    let clock = Arc::new(SystemClock);
    let entropy = Arc::new(SystemEntropy);
    let root = RootSigner::load_or_create(&db, &config.master_key, clock.now(), entropy.rng()).await?;
    let kv = KvApi::new(&config.kv, PublisherSettings::KV_TIMEOUT)?;
    let publications = Publications::new(db.clone());
    let context = Context {
        db: db.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        master_key: config.master_key.clone(),
        publications: publications.clone(),
        edge_url: config.edge_url.clone(),
        public_url: config.public_url,
        mode: config.mode,
    };

    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|reason| CommandError::Listen { address: config.listen, reason })?;
    // Last of all that can fail, because the key is never to be had again.
    if let Some(key) = service::api_key::ensure_first(&context, config.admin_api_key.as_ref()).await? {
        say(&format!("The first global admin API key, shown this once: {}", key.expose()))?;
    }
    let publisher = Publisher {
        db: db.clone(),
        clock,
        entropy,
        kv,
        root,
        master_key: config.master_key,
        sealing_key: config.sealing_key,
        edge_url: config.edge_url,
        settings: PublisherSettings::new(config.kv.batch_size, config.publisher_schedule),
        publications,
    }
    .start();
    tracing::info!(address = %listener.local_addr()?, "listening");

    let router = http::router(App::new(context, config.trusted_proxies));
    server::serve(listener, router, stop, LIMITS).await;
    // Until now it has published what the last requests changed.
    if tokio::time::timeout(PUBLISHER_STOP, publisher.stop()).await.is_err() {
        tracing::warn!("a call to KV was cut off by the shutdown; its documents will be written again");
    }
    tracing::info!("stopped");
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

/// Prints a line for whoever gave the command.
fn say(line: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
