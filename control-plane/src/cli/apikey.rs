//! `keypost apikey`

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use keypost_shared::id::OrgId;
use keypost_shared::secret::{ApiKey, KeyKind};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::api::Place;
use super::body::Body;
use super::connection::ConnectionArgs;
use super::delete::DeleteArgs;
use super::error::CommandError;
use super::list::ListArgs;
use super::output::{Column, say};
use crate::clock::{Clock, SystemClock};
use crate::entropy::{Entropy, SystemEntropy};
use crate::service::access::Permission;

const COLUMNS: [Column; 7] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("PREFIX", "prefix"),
    ("ORG", "orgId"),
    ("NARROWED TO", "permissions"),
    ("EXPIRES", "expiresAt"),
    ("LAST USED", "lastUsedAt"),
];

#[derive(Debug, Args)]
pub(super) struct ApiKeyArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a fresh admin key, for KEYPOST_ADMIN_API_KEY. It counts once the control plane has started with it.
    ///
    /// This asks no server.
    Generate,
    /// List API keys.
    List(ListArgs),
    /// Show an API key, but for the key itself, which nobody has kept.
    Get {
        /// The key's id.
        id: Uuid,
    },
    /// Create an API key. It can do nothing that the one in use cannot.
    ///
    /// The key stands on standard output alone, this one time; all else goes to standard error.
    Create {
        /// What it is for.
        #[arg(long)]
        name: String,
        /// The one organization that it reaches. Without this it reaches all.
        #[arg(long, short, value_name = "ORG")]
        org: Option<OrgId>,
        /// What it may do. As often as needed. Without this it may do all.
        #[arg(long = "permission", value_name = "PERMISSION", value_parser = PossibleValuesParser::new(Permission::names()))]
        permissions: Vec<String>,
        /// When it ends, such as 2027-01-31T00:00:00Z.
        #[arg(long, value_name = "TIME", value_parser = rfc3339)]
        expires_at: Option<OffsetDateTime>,
        /// In how many days it ends.
        #[arg(long, value_name = "DAYS", conflicts_with = "expires_at", value_parser = clap::value_parser!(u16).range(1..))]
        expires_in_days: Option<u16>,
    },
    /// Delete an API key. It counts no more.
    Delete {
        /// The key's id.
        id: Uuid,
        #[command(flatten)]
        delete: DeleteArgs,
    },
    /// Replace an API key by another one that may do the same.
    ///
    /// The key stands on standard output alone, this one time; all else goes to standard error.
    Rotate {
        /// The key's id.
        id: Uuid,
        /// How long the old key stays valid.
        #[arg(long, value_name = "SECONDS")]
        overlap: Option<u32>,
    },
}

impl ApiKeyArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        if let Verb::Generate = self.verb {
            return say(ApiKey::generate(KeyKind::Admin, &mut SystemEntropy.rng()).expose());
        }
        let (api, output) = self.connection.open()?;
        let all = Place::of(["api-key"]);
        let one = |id: Uuid| all.clone().then(&id.hyphenated().to_string());
        match self.verb {
            Verb::Generate => Ok(()),
            Verb::List(list) => list.print(&api, output, all, &COLUMNS).await,
            Verb::Get { id } => output.one(&api.get(&one(id)).await?),
            Verb::Create { name, org, permissions, expires_at, expires_in_days } => {
                let in_days =
                    expires_in_days.map(|days| SystemClock.now() + time::Duration::days(days.into()));
                let expires_at = expires_at.or(in_days).map(|time| time.format(&Rfc3339)).transpose();
                let expires_at =
                    expires_at.map_err(|_| CommandError::Usage("that time cannot be written"))?;
                let body = Body::default()
                    .with("name", &name)?
                    .with_some("orgId", org.as_ref())?
                    .with_list("permissions", &permissions)?
                    .with_some("expiresAt", expires_at.as_ref())?;
                output.secret(&api.create(&all, body.to_bytes()?).await?, "key")
            }
            Verb::Delete { id, delete } => {
                delete.run(&api, output, &one(id), &format!("the API key {id}")).await
            }
            Verb::Rotate { id, overlap } => {
                let body = Body::default().with_some("overlapSeconds", overlap.as_ref())?;
                output.secret(&api.create(&one(id).then("rotate"), body.to_bytes()?).await?, "key")
            }
        }
    }
}

/// Reads a time.
pub(super) fn rfc3339(text: &str) -> Result<OffsetDateTime, &'static str> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "must be a time such as 2027-01-31T00:00:00Z (RFC 3339)")
}
