//! The Worker's configuration: what it trusts and what it can open.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::jwe::{SealingKey, SealingKeyError};
use crate::jwk::EcPublicJwk;

/// What the Worker is given by its variables and secrets.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// The pinned root keys: one, or two while the root is being replaced.
    pub roots: Vec<EcPublicJwk>,
    /// `v1/trust` documents below this version count no longer.
    pub min_trust_version: u64,
    /// The keys under which signing keys are sealed: one, or two while they are being rotated.
    pub sealing_keys: Vec<SealingKey>,
}

/// Which variable or secret of the Worker is wrong, and why. Never shows a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EdgeConfigError {
    /// `ROOT_PUBLIC_KEYS` is no JSON array of one or two P-256 public JWKs.
    #[error(
        "ROOT_PUBLIC_KEYS must be a JSON array of one or two P-256 public keys (JWK), as `keypost root show` prints"
    )]
    Roots,
    /// `MIN_TRUST_VERSION` is no number.
    #[error("MIN_TRUST_VERSION must be a whole number, 0 or more")]
    MinTrustVersion,
    /// `EDGE_SEALING_KEY` is no list of keys.
    #[error("EDGE_SEALING_KEY {0}")]
    SealingKeys(#[from] SealingKeyError),
}

impl EdgeConfig {
    /// Reads the values of `ROOT_PUBLIC_KEYS`, `MIN_TRUST_VERSION` (0 where empty) and `EDGE_SEALING_KEY`.
    pub fn parse(
        root_public_keys: &str,
        min_trust_version: &str,
        edge_sealing_key: &str,
    ) -> Result<Self, EdgeConfigError> {
        /// A public key that may carry more members, such as `kid`, but not the private half: a variable of the Worker is
        /// no place for it.
        #[derive(Deserialize)]
        struct Root {
            #[serde(flatten)]
            key: EcPublicJwk,
            d: Option<IgnoredAny>,
        }
        let roots: Vec<Root> = serde_json::from_str(root_public_keys).map_err(|_| EdgeConfigError::Roots)?;
        if roots.iter().any(|root| root.d.is_some()) {
            return Err(EdgeConfigError::Roots);
        }
        let roots: Vec<EcPublicJwk> = roots.into_iter().map(|root| root.key).collect();
        if !(1..=2).contains(&roots.len()) || roots.iter().any(|root| root.coordinates().is_none()) {
            return Err(EdgeConfigError::Roots);
        }
        let min_trust_version = match min_trust_version.trim() {
            "" => 0,
            number => number.parse().map_err(|_| EdgeConfigError::MinTrustVersion)?,
        };
        Ok(Self { roots, min_trust_version, sealing_keys: SealingKey::parse_list(edge_sealing_key)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = r#"[{"kty":"EC","crv":"P-256","kid":"r","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]"#;

    #[test]
    fn each_wrong_value_is_named() {
        let key = "A".repeat(43);
        assert!(EdgeConfig::parse(ROOT, "", &key).is_ok());
        assert_eq!(EdgeConfig::parse(ROOT, "17", &key).unwrap().min_trust_version, 17);
        for roots in ["", "{}", "[]", r#"[{"kty":"RSA"}]"#] {
            assert_eq!(EdgeConfig::parse(roots, "0", &key).err(), Some(EdgeConfigError::Roots), "{roots}");
        }
        assert_eq!(EdgeConfig::parse(ROOT, "-1", &key).err(), Some(EdgeConfigError::MinTrustVersion));
        let (one, short) = (&ROOT[1..ROOT.len() - 1], ROOT.replace("MKBCTN", "MKBC"));
        assert_eq!(EdgeConfig::parse(&format!("[{one},{one}]"), "0", &key).unwrap().roots.len(), 2);
        for roots in [&format!("[{one},{one},{one}]"), &short] {
            assert_eq!(EdgeConfig::parse(roots, "0", &key).err(), Some(EdgeConfigError::Roots), "{roots}");
        }
        let private = ROOT.replace(r#""kid":"r""#, r#""d":"hunter2""#);
        assert_eq!(EdgeConfig::parse(&private, "0", &key).err(), Some(EdgeConfigError::Roots));
        let error = EdgeConfig::parse(ROOT, "0", "hunter2").unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
