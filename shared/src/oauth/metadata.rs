//! Authorization server metadata (RFC 8414), served under its two well-known URLs and OpenID Connect's.

use serde::Serialize;

use crate::jwk::SigningAlg;

/// What a client can discover about an issuer.
#[derive(Clone, Debug, Serialize)]
pub struct AuthorizationServerMetadata<'a> {
    issuer: &'a str,
    token_endpoint: String,
    jwks_uri: String,
    /// None: a device pool has no authorization endpoint. The member must be there all the same (RFC 8414 §2).
    response_types_supported: [&'static str; 0],
    grant_types_supported: [&'static str; 1],
    token_endpoint_auth_methods_supported: [&'static str; 2],
    // OpenID Connect Discovery §3 requires these two, and its clients check them.
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [SigningAlg; 1],
}

impl<'a> AuthorizationServerMetadata<'a> {
    /// The metadata of a device pool.
    pub fn of_device_pool(issuer: &'a str) -> Self {
        Self {
            issuer,
            token_endpoint: format!("{issuer}/oauth2/token"),
            jwks_uri: format!("{issuer}/.well-known/jwks.json"),
            response_types_supported: [],
            grant_types_supported: ["client_credentials"],
            token_endpoint_auth_methods_supported: ["client_secret_basic", "client_secret_post"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: [SigningAlg::ES256],
        }
    }
}
