//! The command line: what runs the control plane, and what asks a running one over the API (api.md §1).

mod api;
mod apikey;
mod app;
mod audit;
mod audit_verify;
mod body;
mod certificate;
mod client;
mod completions;
mod connection;
mod database;
mod delete;
mod device;
mod env;
mod error;
mod file;
mod import;
mod keys;
mod list;
mod openapi;
mod org;
mod otp;
mod output;
mod owner;
mod place;
mod pool;
mod revocation;
mod rewrap;
mod serve;
mod sync;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::error::{CommandError, EXIT_CODES};
use self::output::{say, tell};

/// Keypost: OAuth tokens for fleets of devices, from the edge.
///
/// `serve`, `migrate`, `root`, `owner` and `keys rewrap` run the control plane; all their settings come from the environment, and
/// `.env.example` lists them. All other commands ask a running control plane, at --url or KEYPOST_URL, with the API key that
/// KEYPOST_API_KEY or --api-key-file holds.
#[derive(Debug, Parser)]
#[command(name = "keypost", version, arg_required_else_help = true, after_help = EXIT_CODES)]
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
    /// Organizations.
    Org(org::OrgArgs),
    /// Owners of organizations, who sign in as people do.
    Owner(owner::OwnerArgs),
    /// Environments of an organization, each with a client pool.
    Env(env::EnvArgs),
    /// The client pool of an environment: how its tokens are issued.
    Pool(pool::PoolArgs),
    /// Devices of an environment.
    Device(device::DeviceArgs),
    /// Apps on a device, each of which can have tokens.
    App(app::AppArgs),
    /// One-time passwords, which activate an app.
    Otp(otp::OtpArgs),
    /// Devices with certificates: roots, what is denied, and why one does not get in.
    Certificate(certificate::CertificateArgs),
    /// Signing keys of a client pool, and the master key under which they rest.
    Keys(keys::KeysArgs),
    /// Service clients of an environment, bound to no device.
    Client(client::ClientArgs),
    /// Tokens that have been revoked.
    Revocation(revocation::RevocationArgs),
    /// API keys.
    #[command(name = "apikey")]
    ApiKey(apikey::ApiKeyArgs),
    /// Who did what, when, and from where.
    Audit(audit::AuditArgs),
    /// What is on its way to the edge.
    Sync(sync::SyncArgs),
    /// Print the API's OpenAPI document.
    #[command(name = "openapi")]
    OpenApi,
    /// Print the script that lets a shell complete these commands.
    Completions(completions::CompletionsArgs),
}

#[derive(Debug, Subcommand)]
enum RootCommand {
    /// Print the root's public key as a JWK, to be pinned in the Worker. Makes the root where there is none.
    Show,
}

impl Cli {
    /// Carries the command out.
    pub async fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Serve => serve::serve().await,
            Command::Migrate => database::migrate().await,
            Command::Root(RootCommand::Show) => database::show_root().await,
            Command::Org(args) => args.run().await,
            Command::Owner(args) => args.run().await,
            Command::Env(args) => args.run().await,
            Command::Pool(args) => args.run().await,
            Command::Device(args) => args.run().await,
            Command::App(args) => args.run().await,
            Command::Otp(args) => args.run().await,
            Command::Certificate(args) => args.run().await,
            Command::Keys(args) => args.run().await,
            Command::Client(args) => args.run().await,
            Command::Revocation(args) => args.run().await,
            Command::ApiKey(args) => args.run().await,
            Command::Audit(args) => args.run().await,
            Command::Sync(args) => args.run().await,
            Command::OpenApi => openapi::show(),
            Command::Completions(args) => args.run(),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                if !error.is_silent() {
                    tell(&format!("keypost: {error}"));
                }
                error.exit_code()
            }
        }
    }
}
