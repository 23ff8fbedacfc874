//! Secrets for development and tests: random, and never shown by `Debug`.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Serialize};

/// 256 random bits in base64url.
#[must_use]
pub fn random_text() -> String {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    Base64UrlUnpadded::encode_string(&bytes)
}

/// The secrets that a control plane and its Worker run with.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StackSecrets {
    /// `KEYPOST_MASTER_KEY`.
    pub master_key: String,
    /// `KEYPOST_EDGE_SEALING_KEY` and the Worker's `EDGE_SEALING_KEY`.
    pub edge_sealing_key: String,
    /// `KEYPOST_EDGE_SHARED_SECRET` and the Worker's `EDGE_SHARED_SECRET`.
    pub edge_shared_secret: String,
    /// `KEYPOST_ADMIN_API_KEY`: well-formed, so it comes from `keypost apikey generate`.
    pub admin_api_key: String,
}

impl StackSecrets {
    /// New ones.
    #[must_use]
    pub fn random(admin_api_key: String) -> Self {
        Self {
            master_key: random_text(),
            edge_sealing_key: random_text(),
            edge_shared_secret: random_text(),
            admin_api_key,
        }
    }
}

impl fmt::Debug for StackSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StackSecrets(..)")
    }
}
