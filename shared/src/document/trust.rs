use serde::{Deserialize, Serialize};

use super::Document;
use crate::jwk::EcPublicJwk;

/// `v1/trust`: the publisher keys now valid. Signed by the root, whose public key the Worker pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustDocument {
    /// The keys that may sign the other documents, each known by its thumbprint. A key that is not listed any more has
    /// signed nothing that counts.
    pub publisher_keys: Vec<EcPublicJwk>,
}

impl Document for TrustDocument {
    const TYP: &'static str = "keypost-trust+jws";
    const EXPIRES: bool = true;
}
