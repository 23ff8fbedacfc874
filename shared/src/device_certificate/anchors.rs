//! A pool's roots, read once for many chains.

use serde::{Deserialize, Serialize};

use crate::certificate::{CertificateDer, Fingerprint, Problem, TrustAnchor};

/// A root as the pool's document carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTrustAnchor {
    /// The root's certificate.
    pub certificate: CertificateDer,
    /// The root that this one takes the place of: devices that are pinned to that one may come with this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Fingerprint>,
}

/// A pool's roots.
#[derive(Clone, Debug, Default)]
pub struct PoolAnchors {
    anchors: Vec<TrustAnchor>,
    /// For each of them.
    named: Vec<Named>,
}

#[derive(Clone, Debug)]
struct Named {
    fingerprint: Fingerprint,
    replaces: Option<Fingerprint>,
}

impl PoolAnchors {
    /// Reads the roots. One that cannot be read is left out and told: chains to it are refused, all others are not.
    pub fn read(entries: &[PoolTrustAnchor]) -> (Self, Vec<Problem>) {
        let mut read = Self::default();
        let mut problems = Vec::new();
        for PoolTrustAnchor { certificate, replaces } in entries {
            match TrustAnchor::from_der(certificate.as_bytes().to_vec()) {
                Ok(anchor) => {
                    read.named.push(Named { fingerprint: anchor.fingerprint(), replaces: *replaces });
                    read.anchors.push(anchor);
                }
                Err(problem) => problems.push(problem),
            }
        }
        (read, problems)
    }

    /// The roots, as the validator takes them.
    pub fn as_slice(&self) -> &[TrustAnchor] {
        &self.anchors
    }

    /// Whether the pool has this root.
    pub fn contains(&self, root: &Fingerprint) -> bool {
        self.named.iter().any(|own| own.fingerprint == *root)
    }

    /// Whether `root` may stand for `pinned`: it is the same, has the same key, or replaces it, directly or by others.
    pub(super) fn stands_for(&self, root: &Fingerprint, pinned: &Fingerprint) -> bool {
        let same_key = || match (self.find(root), self.find(pinned)) {
            (Some((root, _)), Some((pinned, _))) => root.has_same_key(pinned),
            _ => false,
        };
        if root == pinned || same_key() {
            return true;
        }
        // One step for each root at most, so that a circle has an end.
        let mut current = *root;
        for _ in &self.named {
            match self.find(&current).and_then(|(_, named)| named.replaces) {
                Some(replaced) if replaced == *pinned => return true,
                Some(replaced) => current = replaced,
                None => return false,
            }
        }
        false
    }

    fn find(&self, root: &Fingerprint) -> Option<(&TrustAnchor, &Named)> {
        self.anchors.iter().zip(&self.named).find(|(_, named)| named.fingerprint == *root)
    }
}
