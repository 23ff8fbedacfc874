//! The Worker's configuration: what it trusts and what it can open.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::edge_report::{SharedSecret, SharedSecretError};
use crate::jwe::{SealingKey, SealingKeyError};
use crate::jwk::EcPublicJwk;
use crate::kms::Credentials;
use crate::kms::sigv4::CredentialsError;

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
    /// How AWS KMS is reached, for pools whose keys sign there; none where there are no such pools.
    pub kms: Option<KmsAccess>,
}

/// How the edge reaches AWS KMS.
#[derive(Clone, Debug)]
pub struct KmsAccess {
    /// What its requests are signed with.
    pub credentials: Credentials,
    /// Where it is, without a slash at the end; none for AWS's own, in the region of each key.
    pub endpoint: Option<String>,
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
    /// What begins with `AWS_`
    pub aws: AwsVariables<'a>,
}

/// What says how AWS KMS is reached. All may be empty.
#[derive(Clone, Copy, Default)]
pub struct AwsVariables<'a> {
    /// `AWS_ACCESS_KEY_ID`
    pub access_key_id: &'a str,
    /// `AWS_SECRET_ACCESS_KEY`
    pub secret_access_key: &'a str,
    /// `AWS_SESSION_TOKEN`
    pub session_token: &'a str,
    /// `AWS_ENDPOINT_URL_KMS`
    pub endpoint_url_kms: &'a str,
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
    /// The credentials for AWS are no credentials, or one half of them is missing.
    #[error("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN {0}")]
    AwsCredentials(#[from] CredentialsError),
    /// `AWS_ENDPOINT_URL_KMS` is none that credentials may be used at.
    #[error("AWS_ENDPOINT_URL_KMS must be https://HOST without a path, or http:// on this machine, or empty")]
    KmsEndpoint,
}

impl EdgeConfig {
    /// Reads the values.
    pub fn parse(variables: Variables<'_>) -> Result<Self, EdgeConfigError> {
        /// A key may carry more members, such as `kid`, but not the private half: a variable of the Worker is no place for it.
        #[derive(Deserialize)]
        struct Private {
            d: Option<IgnoredAny>,
        }
        let read = serde_json::from_str::<Vec<EcPublicJwk>>(variables.root_public_keys);
        let roots = read.map_err(|_| EdgeConfigError::Roots)?;
        let private: Vec<Private> =
            serde_json::from_str(variables.root_public_keys).map_err(|_| EdgeConfigError::Roots)?;
        if private.iter().any(|root| root.d.is_some()) {
            return Err(EdgeConfigError::Roots);
        }
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
            kms: parse_kms(variables.aws)?,
        })
    }
}

fn parse_kms(variables: AwsVariables<'_>) -> Result<Option<KmsAccess>, EdgeConfigError> {
    let AwsVariables { access_key_id, secret_access_key, session_token, endpoint_url_kms } = variables;
    let endpoint = match endpoint_url_kms.trim().trim_end_matches('/') {
        "" => None,
        url if is_kms_endpoint(url) => Some(url.to_owned()),
        _ => return Err(EdgeConfigError::KmsEndpoint),
    };
    if access_key_id.is_empty() && secret_access_key.is_empty() {
        return Ok(None);
    }
    let session_token = Some(session_token.trim()).filter(|token| !token.is_empty());
    let credentials = Credentials::new(access_key_id.trim(), secret_access_key.trim(), session_token)?;
    Ok(Some(KmsAccess { credentials, endpoint }))
}

/// A scheme, a host and perhaps a port. In plain HTTP on this machine alone: a request would show what is signed, and who
/// answers would not be known.
fn is_kms_endpoint(url: &str) -> bool {
    let is_authority = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']'))
    };
    match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(authority), _) => is_authority(authority),
        (None, Some(authority)) => {
            let host = match authority.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                _ => authority,
            };
            is_authority(authority) && matches!(host, "127.0.0.1" | "localhost" | "[::1]")
        }
        (None, None) => false,
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
            aws: AwsVariables::default(),
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
                aws: AwsVariables::default(),
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

    #[test]
    fn kms_is_reached_with_whole_credentials_and_not_over_an_open_network() {
        let good = AwsVariables { access_key_id: "AKID", secret_access_key: "hunter2", ..Default::default() };
        assert!(parse_kms(AwsVariables::default()).unwrap().is_none());
        assert!(parse_kms(good).unwrap().unwrap().endpoint.is_none());
        for bad in [
            AwsVariables { access_key_id: "", ..good },
            AwsVariables { secret_access_key: "", ..good },
            AwsVariables { session_token: "a b", ..good },
        ] {
            let error = parse_kms(bad).unwrap_err();
            assert!(matches!(error, EdgeConfigError::AwsCredentials(_)));
            assert!(!error.to_string().contains("hunter2"));
        }
        for endpoint in [
            "https://kms.example",
            "https://kms.example:8443/",
            "http://127.0.0.1:5000",
            "http://localhost",
            "http://[::1]:1",
        ] {
            let kms = parse_kms(AwsVariables { endpoint_url_kms: endpoint, ..good }).unwrap().unwrap();
            assert_eq!(kms.endpoint.as_deref(), Some(endpoint.trim_end_matches('/')));
        }
        for endpoint in [
            "kms.example",
            "http://kms.example",
            "http://127.0.0.1.example",
            "http://127.0.0.1@kms.example",
            "https://kms.example/path",
            "https://user@kms.example",
            "https://",
            "ftp://kms.example",
        ] {
            let refused = parse_kms(AwsVariables { endpoint_url_kms: endpoint, ..good });
            assert_eq!(refused.err(), Some(EdgeConfigError::KmsEndpoint), "{endpoint}");
        }
    }
}
