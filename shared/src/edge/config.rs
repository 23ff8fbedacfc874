//! The Worker's configuration: what it trusts and what it can open.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::edge_report::{SharedSecret, SharedSecretError};
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
    /// The secrets shared with the control plane: the first one signs what the edge reports.
    pub shared_secrets: Vec<SharedSecret>,
    /// Where the control plane is, without a slash at the end; none where reports go to KV alone.
    pub control_plane_url: Option<String>,
}

/// The Worker's variables and secrets, as text.
#[derive(Clone, Copy)]
pub struct Variables<'a> {
    /// `ROOT_PUBLIC_KEYS`
    pub root_public_keys: &'a str,
    /// `MIN_TRUST_VERSION`: 0 where empty
    pub min_trust_version: &'a str,
    /// `EDGE_SEALING_KEY`
    pub edge_sealing_key: &'a str,
    /// `EDGE_SHARED_SECRET`
    pub edge_shared_secret: &'a str,
    /// `CONTROL_PLANE_URL`: may be empty
    pub control_plane_url: &'a str,
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
    /// `EDGE_SHARED_SECRET` is no list of secrets.
    #[error("EDGE_SHARED_SECRET {0}")]
    SharedSecrets(#[from] SharedSecretError),
    /// `CONTROL_PLANE_URL` is no URL.
    #[error("CONTROL_PLANE_URL must begin with https:// or http://, or be empty")]
    ControlPlaneUrl,
}

impl EdgeConfig {
    /// Reads the values.
    pub fn parse(variables: Variables<'_>) -> Result<Self, EdgeConfigError> {
        /// A public key that may carry more members, such as `kid`, but not the private half: a variable of the Worker is
        /// no place for it.
        #[derive(Deserialize)]
        struct Root {
            #[serde(flatten)]
            key: EcPublicJwk,
            d: Option<IgnoredAny>,
        }
        let roots: Vec<Root> =
            serde_json::from_str(variables.root_public_keys).map_err(|_| EdgeConfigError::Roots)?;
        if roots.iter().any(|root| root.d.is_some()) {
            return Err(EdgeConfigError::Roots);
        }
        let roots: Vec<EcPublicJwk> = roots.into_iter().map(|root| root.key).collect();
        if !(1..=2).contains(&roots.len()) || roots.iter().any(|root| root.coordinates().is_none()) {
            return Err(EdgeConfigError::Roots);
        }
        let min_trust_version = match variables.min_trust_version.trim() {
            "" => 0,
            number => number.parse().map_err(|_| EdgeConfigError::MinTrustVersion)?,
        };
        let control_plane_url = match variables.control_plane_url.trim().trim_end_matches('/') {
            "" => None,
            url if url.starts_with("https://") || url.starts_with("http://") => Some(url.to_owned()),
            _ => return Err(EdgeConfigError::ControlPlaneUrl),
        };
        Ok(Self {
            roots,
            min_trust_version,
            sealing_keys: SealingKey::parse_list(variables.edge_sealing_key)?,
            shared_secrets: SharedSecret::parse_list(variables.edge_shared_secret)?,
            control_plane_url,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = r#"[{"kty":"EC","crv":"P-256","kid":"r","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]"#;

    fn parse(roots: &str, min_trust_version: &str, key: &str) -> Result<EdgeConfig, EdgeConfigError> {
        EdgeConfig::parse(Variables {
            root_public_keys: roots,
            min_trust_version,
            edge_sealing_key: key,
            edge_shared_secret: &"A".repeat(43),
            control_plane_url: "",
        })
    }

    #[test]
    fn each_wrong_value_is_named() {
        let key = "A".repeat(43);
        assert!(parse(ROOT, "", &key).is_ok());
        assert_eq!(parse(ROOT, "17", &key).unwrap().min_trust_version, 17);
        for roots in ["", "{}", "[]", r#"[{"kty":"RSA"}]"#] {
            assert_eq!(parse(roots, "0", &key).err(), Some(EdgeConfigError::Roots), "{roots}");
        }
        assert_eq!(parse(ROOT, "-1", &key).err(), Some(EdgeConfigError::MinTrustVersion));
        let (one, short) = (&ROOT[1..ROOT.len() - 1], ROOT.replace("MKBCTN", "MKBC"));
        assert_eq!(parse(&format!("[{one},{one}]"), "0", &key).unwrap().roots.len(), 2);
        for roots in [&format!("[{one},{one},{one}]"), &short] {
            assert_eq!(parse(roots, "0", &key).err(), Some(EdgeConfigError::Roots), "{roots}");
        }
        let private = ROOT.replace(r#""kid":"r""#, r#""d":"hunter2""#);
        assert_eq!(parse(&private, "0", &key).err(), Some(EdgeConfigError::Roots));
        let error = parse(ROOT, "0", "hunter2").unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
    #[test]
    fn the_control_plane_may_be_unknown_its_secret_not() {
        let key = "A".repeat(43);
        let with = |secret: &str, url: &str| {
            EdgeConfig::parse(Variables {
                root_public_keys: ROOT,
                min_trust_version: "",
                edge_sealing_key: &key,
                edge_shared_secret: secret,
                control_plane_url: url,
            })
        };
        assert_eq!(with(&key, "").unwrap().control_plane_url, None);
        let url = with(&key, " https://keypost.example/ ").unwrap().control_plane_url;
        assert_eq!(url.as_deref(), Some("https://keypost.example"));
        assert_eq!(with(&key, "keypost.example").err(), Some(EdgeConfigError::ControlPlaneUrl));
        let error = with("hunter2", "").unwrap_err();
        assert_eq!(error, EdgeConfigError::SharedSecrets(SharedSecretError));
        assert!(!error.to_string().contains("hunter2"));
    }
}
