//! The command line.

mod database;
mod serve;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keypost_shared::secret::{ApiKey, KeyKind};
use sqlx::migrate::MigrateError;

use crate::config::ConfigErrors;
use crate::entropy::{Entropy, SystemEntropy};
use crate::kv::KvSetupError;
use crate::root::RootError;
use crate::store::StoreError;
use crate::telemetry::traces::TracesError;

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
    #[error(transparent)]
    Traces(#[from] TracesError),
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
            Command::Serve => serve::serve().await,
            Command::Migrate => database::migrate().await,
            Command::Root(RootCommand::Show) => database::show_root().await,
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

fn generate_api_key() -> Result<(), CommandError> {
    say(ApiKey::generate(KeyKind::Admin, &mut SystemEntropy.rng()).expose())
}

/// Prints a line for whoever gave the command.
fn say(line: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
