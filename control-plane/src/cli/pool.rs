//! `keypost pool`

use clap::{Args, Subcommand};

use super::body::{Body, Json};
use super::connection::ConnectionArgs;
use super::error::CommandError;
use super::place::InEnv;

#[derive(Debug, Args)]
pub(super) struct PoolArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the client pool of an environment.
    Get {
        #[command(flatten)]
        within: InEnv,
    },
    /// Change the client pool of an environment.
    Update {
        #[command(flatten)]
        within: InEnv,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct ChangeArgs {
    /// How long its tokens are valid.
    #[arg(long, value_name = "SECONDS")]
    token_ttl: Option<u32>,
    /// How old what the edge knows may be before it stops issuing tokens.
    #[arg(long, value_name = "SECONDS")]
    max_staleness: Option<u32>,
    /// How long a signing key signs before the next one takes over.
    #[arg(long, value_name = "SECONDS")]
    rotation_period: Option<u32>,
    /// What its tokens look like.
    #[arg(long, value_name = "PROFILE", value_parser = ["device", "rfc9068"])]
    claims_profile: Option<String>,
    /// Who its tokens are for. As often as needed.
    #[arg(long)]
    audience: Vec<String>,
    /// A web origin that may call the pool's endpoints. As often as needed.
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// A list that is to be empty.
    #[arg(long, value_name = "FIELD", value_parser = ["audience", "corsOrigins"])]
    clear: Vec<String>,
    /// Any other fields, as a JSON Merge Patch (RFC 7396): JSON, or @FILE.
    #[arg(long, value_name = "JSON")]
    patch: Option<Json>,
}

impl PoolArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let (api, output) = self.connection.open()?;
        match self.verb {
            Verb::Get { within } => output.one(&api.get(&within.place().then("pool")).await?),
            Verb::Update { within, change } => {
                let body = Body::default()
                    .with_some("tokenTtlSeconds", change.token_ttl.as_ref())?
                    .with_some("maxStalenessSeconds", change.max_staleness.as_ref())?
                    .with_some("rotationPeriodSeconds", change.rotation_period.as_ref())?
                    .with_some("claimsProfile", change.claims_profile.as_ref())?
                    .with_list("audience", &change.audience)?
                    .with_list("corsOrigins", &change.cors_origin)?
                    .without(&change.clear)
                    .over(change.patch.as_ref())?;
                output.one(&api.patch(&within.place().then("pool"), body.to_bytes()?).await?)
            }
        }
    }
}
