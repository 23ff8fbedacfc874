//! `keypost keys rewrap`: asks the database, not a server.

use std::env;

use sqlx::{Connection, PgConnection};

use super::error::CommandError;
use super::output::{say, tell};
use crate::clock::SystemClock;
use crate::config::RootConfig;
use crate::entropy::SystemEntropy;
use crate::rewrap::{self, Rewrapping, Told};
use crate::store::StoreError;
use crate::telemetry;

/// Encrypts all private keys anew under the master key. What goes on, and what could not be done, goes to standard error.
pub(super) async fn rewrap() -> Result<(), CommandError> {
    let config = RootConfig::read(&|name| env::var_os(name))?;
    telemetry::start(&config.common.log);
    let mut connection =
        PgConnection::connect_with(&config.common.database.options).await.map_err(StoreError::from)?;
    let tell_of = |told: Told<'_>| match told {
        Told::Progress { shelf, keys } => tell(&format!("{}: {keys}", shelf.name())),
        Told::Left { shelf, kid, reason } => tell(&format!("{}: {kid} was left: {reason}", shelf.name())),
    };
    let with = Rewrapping { master_key: &config.master_key, entropy: &SystemEntropy, clock: &SystemClock };
    let done = rewrap::rewrap(&mut connection, &with, tell_of).await?;
    if done.left > 0 {
        return Err(CommandError::KeysLeft(done.left));
    }
    say(&format!("{} private keys were encrypted anew; all rest under KEYPOST_MASTER_KEY now.", done.keys))
}
