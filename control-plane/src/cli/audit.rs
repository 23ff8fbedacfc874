//! `keypost audit`

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use keypost_shared::id::{EnvId, OrgId};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::api::{Api, Place};
use super::apikey::rfc3339;
use super::audit_verify::verify;
use super::connection::ConnectionArgs;
use super::error::CommandError;
use super::list::ListArgs;
use super::output::Column;

const COLUMNS: [Column; 8] = [
    ("TIME", "occurredAt"),
    ("ORG", "orgId"),
    ("ACTION", "action"),
    ("TARGET", "targetId"),
    ("ENV", "envId"),
    ("ACTOR", "actorName"),
    ("ADDRESS", "address"),
    ("REQUEST", "requestId"),
];

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List who did what, newest first. With --json, also what it changed.
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Print all that was done and matches, newest first, a JSON object a line.
    Export {
        #[command(flatten)]
        filter: Filter,
    },
    /// Check in the database that nothing of it was altered, taken out or put in.
    ///
    /// This asks no server: it reads the database that DATABASE_URL names, and changes nothing. The end of each chain
    /// stands on standard output: note it elsewhere, and give it to a later check with --noted. Who can write the database
    /// can write a whole chain anew, and only what was noted shows it. Findings go to standard error.
    Verify {
        /// Check one organization's events alone.
        #[arg(long, short, value_name = "ORG")]
        org: Option<OrgId>,
        /// A file with what an earlier check printed.
        #[arg(long, value_name = "FILE")]
        noted: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct Filter {
    /// Only what was done in this organization.
    #[arg(long, short, value_name = "ORG", env = "KEYPOST_ORG_ID", hide_env_values = true)]
    org: Option<OrgId>,
    /// Only what was done in environments of this id.
    #[arg(long, short, value_name = "ENV")]
    env: Option<EnvId>,
    /// Only what was done by whoever has this id, such as an API key's.
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Only this, such as device.create.
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to things of this kind, such as device.
    #[arg(long, value_name = "KIND")]
    target_kind: Option<String>,
    /// Only what was done to things of this id.
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    /// Only what was done at this time or later, such as 2027-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = rfc3339)]
    since: Option<OffsetDateTime>,
    /// Only what was done before this time.
    #[arg(long, value_name = "TIME", value_parser = rfc3339)]
    until: Option<OffsetDateTime>,
}

impl Filter {
    fn place(&self) -> Result<Place, CommandError> {
        let text = |time: Option<OffsetDateTime>| {
            let text = time.map(|time| time.format(&Rfc3339)).transpose();
            text.map_err(|_| CommandError::Usage("that time cannot be written"))
        };
        Ok(Place::of(["audit"])
            .with_some("orgId", self.org.as_ref())
            .with_some("envId", self.env.as_ref())
            .with_some("actorId", self.actor.as_ref())
            .with_some("action", self.action.as_ref())
            .with_some("targetKind", self.target_kind.as_ref())
            .with_some("targetId", self.target.as_ref())
            .with_some("since", text(self.since)?)
            .with_some("until", text(self.until)?))
    }
}

impl AuditArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        if let Verb::Verify { org, noted } = self.verb {
            return verify(org.as_ref(), noted.as_deref()).await;
        }
        let (api, output) = self.connection.open()?;
        match self.verb {
            Verb::Verify { .. } => Ok(()),
            Verb::List { filter, list } => list.print(&api, output, filter.place()?, &COLUMNS).await,
            Verb::Export { filter } => export(&api, &filter.place()?.with("format", "ndjson")).await,
        }
    }
}

/// Passes the lines on as they come. Where the server breaks off, so does this, with an error.
async fn export(api: &Api, place: &Place) -> Result<(), CommandError> {
    let mut response = api.stream(place).await?;
    while let Some(lines) = response.chunk().await.map_err(|error| api.unreachable(error))? {
        io::stdout().lock().write_all(&lines)?;
    }
    Ok(io::stdout().lock().flush()?)
}
