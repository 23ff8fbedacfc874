//! The commands over the database alone: `migrate` and `root show`.

use std::env;

use serde::Serialize;

use super::{CommandError, say};
use crate::clock::{Clock, SystemClock};
use crate::config::{CommonConfig, RootConfig};
use crate::entropy::{Entropy, SystemEntropy};
use crate::kms::{Kms, KmsAccess, KmsTimes};
use crate::metrics::Metrics;
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
    let kms = Kms::new(KmsAccess::Environment, KmsTimes::default(), Metrics::new());
    let (now, rng) = (SystemClock.now(), SystemEntropy.rng());
    let root = RootSigner::load(&config.root, &db, &config.master_key, &kms, now, rng).await?;
    say(&serde_json::to_string(&RootJwk { key: root.public(), kid: root.kid() })?)
}
