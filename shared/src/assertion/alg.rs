//! The algorithms of assertions (RFC 7518 §3.1).

use crate::certificate::{Curve, Hash, KeyKind, SignatureAlgorithm};

/// An algorithm that an assertion may be signed with. All are asymmetric: there is no `none`, and no HMAC that somebody
/// could compute with a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 7518 §3.1")]
pub enum AssertionAlg {
    RS256,
    RS384,
    RS512,
    PS256,
    ES256,
    ES384,
}

impl AssertionAlg {
    /// All of them, by the names that JOSE has for them.
    pub const NAMES: [&'static str; 6] = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384"];

    /// The algorithm of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "PS256" => Self::PS256,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            _ => return None,
        })
    }

    /// How it is verified with a key of this kind; none where the two do not go together.
    pub fn with(self, kind: KeyKind) -> Option<SignatureAlgorithm> {
        Some(match (self, kind) {
            (Self::RS256, KeyKind::Rsa) => SignatureAlgorithm::RsaPkcs1(Hash::Sha256),
            (Self::RS384, KeyKind::Rsa) => SignatureAlgorithm::RsaPkcs1(Hash::Sha384),
            (Self::RS512, KeyKind::Rsa) => SignatureAlgorithm::RsaPkcs1(Hash::Sha512),
            // The salt is as long as the hash (RFC 7518 §3.5).
            (Self::PS256, KeyKind::Rsa) => SignatureAlgorithm::RsaPss { hash: Hash::Sha256, salt_length: 32 },
            (Self::ES256, KeyKind::Ec(curve @ Curve::P256)) => {
                SignatureAlgorithm::Ecdsa { curve, hash: Hash::Sha256 }
            }
            (Self::ES384, KeyKind::Ec(curve @ Curve::P384)) => {
                SignatureAlgorithm::Ecdsa { curve, hash: Hash::Sha384 }
            }
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
        }
    }
}
