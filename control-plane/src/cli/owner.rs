//! `keypost owner`: asks the database, not a server.

use std::env;

use clap::{Args, Subcommand};
use sqlx::{Connection, PgConnection};
use time::format_description::well_known::Rfc3339;

use super::error::CommandError;
use super::output::{say, tell};
use crate::clock::{Clock, SystemClock};
use crate::config::CommonConfig;
use crate::entropy::{Entropy, SystemEntropy};
use crate::service::sso::owner_reset;
use crate::store::StoreError;
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct OwnerArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a code with which an owner who has forgotten their password sets another one, once, within a day:
    /// POST /api/auth/password-reset. The one before is good no more. This asks the database that DATABASE_URL names.
    PasswordReset {
        /// The owner's username or email address.
        owner: String,
    },
}

impl OwnerArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        match self.verb {
            Verb::PasswordReset { owner } => password_reset(&owner).await,
        }
    }
}

async fn password_reset(owner: &str) -> Result<(), CommandError> {
    let config = CommonConfig::read(&|name| env::var_os(name))?;
    telemetry::start(&config.log);
    let mut connection =
        PgConnection::connect_with(&config.database.options).await.map_err(StoreError::from)?;
    let (now, mut rng) = (SystemClock.now(), SystemEntropy.rng());
    let code = owner_reset::make_code(&mut connection, owner, now, &mut rng).await?;
    let Some((code, expires_at)) = code else { return Err(CommandError::NoSuchOwner) };
    if let Ok(until) = expires_at.format(&Rfc3339) {
        tell(&format!("good once, until {until}"));
    }
    tell(r#"set another password: POST /api/auth/password-reset {"code": "...", "newPassword": "..."}"#);
    say(code.expose())
}
