//! What a device's certificate must have because the first one had it (design §8): the same CN under another O or another
//! root is not the same device.

use serde::{Deserialize, Serialize};

use super::anchors::PoolAnchors;
use super::identity::DeviceIdentity;
use crate::certificate::Fingerprint;

/// The O, CN and roots that a device was provisioned with, or that its first certificate had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificatePins {
    /// The subject's O; none where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The subject's CN; none where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// The roots, by the SHA-256 of the whole certificate.
    pub roots: Vec<Fingerprint>,
}

impl CertificatePins {
    /// The pins that a device gets from its first certificate.
    pub fn of(identity: &DeviceIdentity) -> Self {
        Self {
            organization: identity.organization.clone(),
            common_name: identity.common_name.clone(),
            roots: vec![identity.root],
        }
    }

    /// The first of the pins that a certificate does not have.
    ///
    /// A root that the pool no longer has binds nothing: or else a device whose owner has moved from one root to another
    /// would be locked out with its new certificate, and there is no chain to the old root any more that could be
    /// mistaken for it. While both are there, a root counts as a pinned one where it has the same key, or where the pool
    /// says that it replaces it.
    pub fn unmet(&self, identity: &DeviceIdentity, anchors: &PoolAnchors) -> Option<&'static str> {
        if self.organization != identity.organization {
            return Some("O");
        }
        if self.common_name != identity.common_name {
            return Some("CN");
        }
        let mut present = self.roots.iter().filter(|root| anchors.contains(root)).peekable();
        if present.peek().is_some() && !present.any(|root| anchors.stands_for(&identity.root, root)) {
            return Some("root");
        }
        None
    }
}
