//! The Worker's bindings: variables, secrets and the KV namespace.

use keypost_shared::edge::{AwsVariables, EdgeConfig, EdgeConfigError, Variables};

use crate::shell;

/// Which binding is missing or wrong, and why. Never shows a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// It is not there at all.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// A variable that wrangler.toml gives as a number, table or array.
    #[error("{0} must be text, in quotation marks")]
    NotText(&'static str),
    /// It is there and does not parse.
    #[error(transparent)]
    Invalid(#[from] EdgeConfigError),
}

/// What the variables and secrets say. Fails without a KV namespace too.
pub(crate) fn read() -> Result<EdgeConfig, ConfigError> {
    if !shell::has_kv() {
        return Err(ConfigError::Missing("KEYPOST_KV"));
    }
    Ok(EdgeConfig::parse(Variables {
        root_public_keys: &text("ROOT_PUBLIC_KEYS")?,
        min_trust_version: &text("MIN_TRUST_VERSION")?,
        edge_sealing_key: &text("EDGE_SEALING_KEY")?,
        edge_shared_secret: &text("EDGE_SHARED_SECRET")?,
        // Without it, what the edge has to tell waits in KV.
        control_plane_url: &optional("CONTROL_PLANE_URL")?,
        // Without these there are no pools whose keys sign in KMS.
        aws: AwsVariables {
            access_key_id: &optional("AWS_ACCESS_KEY_ID")?,
            secret_access_key: &optional("AWS_SECRET_ACCESS_KEY")?,
            session_token: &optional("AWS_SESSION_TOKEN")?,
            endpoint_url_kms: &optional("AWS_ENDPOINT_URL_KMS")?,
        },
    })?)
}

fn text(name: &'static str) -> Result<String, ConfigError> {
    find(name)?.ok_or(ConfigError::Missing(name))
}

/// What may be left out, and is empty then.
fn optional(name: &'static str) -> Result<String, ConfigError> {
    Ok(find(name)?.unwrap_or_default())
}

fn find(name: &'static str) -> Result<Option<String>, ConfigError> {
    let value = shell::variable(name);
    if value.is_undefined() {
        return Ok(None);
    }
    value.as_string().map(Some).ok_or(ConfigError::NotText(name))
}
