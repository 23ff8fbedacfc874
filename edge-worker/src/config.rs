//! The Worker's bindings: variables, secrets and the KV namespace.

use keypost_shared::edge::{AwsVariables, EdgeConfig, EdgeConfigError, Variables};
use wasm_bindgen::prelude::*;

use crate::platform::KvNamespace;

#[wasm_bindgen]
extern "C" {
    /// What wrangler.toml and the Worker's secrets say. Whatever is not set is `undefined`.
    pub(crate) type Bindings;

    #[wasm_bindgen(method, getter, js_name = KEYPOST_KV)]
    fn keypost_kv(this: &Bindings) -> Option<KvNamespace>;

    #[wasm_bindgen(method, getter, js_name = ROOT_PUBLIC_KEYS)]
    fn root_public_keys(this: &Bindings) -> JsValue;

    #[wasm_bindgen(method, getter, js_name = MIN_TRUST_VERSION)]
    fn min_trust_version(this: &Bindings) -> JsValue;

    #[wasm_bindgen(method, getter, js_name = EDGE_SEALING_KEY)]
    fn edge_sealing_key(this: &Bindings) -> JsValue;

    #[wasm_bindgen(method, getter, js_name = EDGE_SHARED_SECRET)]
    fn edge_shared_secret(this: &Bindings) -> JsValue;

    #[wasm_bindgen(method, getter, js_name = CONTROL_PLANE_URL)]
    fn control_plane_url(this: &Bindings) -> JsValue;

    #[wasm_bindgen(method, getter, js_name = AWS_ACCESS_KEY_ID)]
    fn aws_access_key_id(this: &Bindings) -> JsValue;

    #[wasm_bindgen(method, getter, js_name = AWS_SECRET_ACCESS_KEY)]
    fn aws_secret_access_key(this: &Bindings) -> JsValue;

    #[wasm_bindgen(method, getter, js_name = AWS_SESSION_TOKEN)]
    fn aws_session_token(this: &Bindings) -> JsValue;

    #[wasm_bindgen(method, getter, js_name = AWS_ENDPOINT_URL_KMS)]
    fn aws_endpoint_url_kms(this: &Bindings) -> JsValue;
}

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

impl Bindings {
    /// The variables and secrets.
    pub(crate) fn config(&self) -> Result<EdgeConfig, ConfigError> {
        Ok(EdgeConfig::parse(Variables {
            root_public_keys: &text("ROOT_PUBLIC_KEYS", &self.root_public_keys())?,
            min_trust_version: &text("MIN_TRUST_VERSION", &self.min_trust_version())?,
            edge_sealing_key: &text("EDGE_SEALING_KEY", &self.edge_sealing_key())?,
            edge_shared_secret: &text("EDGE_SHARED_SECRET", &self.edge_shared_secret())?,
            // Without it, what the edge has to tell waits in KV.
            control_plane_url: &optional("CONTROL_PLANE_URL", &self.control_plane_url())?,
            // Without these there are no pools whose keys sign in KMS.
            aws: AwsVariables {
                access_key_id: &optional("AWS_ACCESS_KEY_ID", &self.aws_access_key_id())?,
                secret_access_key: &optional("AWS_SECRET_ACCESS_KEY", &self.aws_secret_access_key())?,
                session_token: &optional("AWS_SESSION_TOKEN", &self.aws_session_token())?,
                endpoint_url_kms: &optional("AWS_ENDPOINT_URL_KMS", &self.aws_endpoint_url_kms())?,
            },
        })?)
    }

    /// The KV namespace.
    pub(crate) fn kv(&self) -> Result<KvNamespace, ConfigError> {
        self.keypost_kv().ok_or(ConfigError::Missing("KEYPOST_KV"))
    }
}

fn text(name: &'static str, value: &JsValue) -> Result<String, ConfigError> {
    if value.is_undefined() {
        return Err(ConfigError::Missing(name));
    }
    value.as_string().ok_or(ConfigError::NotText(name))
}

/// What may be left out, and is empty then.
fn optional(name: &'static str, value: &JsValue) -> Result<String, ConfigError> {
    if value.is_undefined() { Ok(String::new()) } else { text(name, value) }
}
