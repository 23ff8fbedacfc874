//! The commands over the database alone: `migrate` and `root show`.

use std::env;

use serde::Serialize;

use super::{CommandError, say};
use crate::clock::{Clock, SystemClock};
use crate::config::{CommonConfig, RootConfig};
use crate::entropy::{Entropy, SystemEntropy};
use crate::root::RootSigner;
use crate::{store, telemetry};

/// Brings the database up to date.
pub(super) async fn migrate() -> Result<(), CommandError> {
    let config = CommonConfig::read(&|name| env::var_os(name))?;
    telemetry::start(&config.log);
    store::migrate(&store::connect(&config.database)).await?;
    Ok(())
}

/// Prints the root's public key.
pub(super) async fn show_root() -> Result<(), CommandError> {
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
