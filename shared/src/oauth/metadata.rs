//! Authorization server metadata (RFC 8414), served under its two well-known URLs and OpenID Connect's.

use serde::Serialize;

use crate::assertion::AssertionAlg;
use crate::device_certificate::ProvisioningMode;
use crate::document::PoolDocument;
use crate::jwk::SigningAlg;

/// The grant type of RFC 7523 §2.1.
pub const JWT_BEARER_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// How clients authenticate, at every endpoint that takes client authentication.
const AUTH_METHODS: [&str; 3] = ["client_secret_basic", "client_secret_post", "private_key_jwt"];

/// What a client can discover about an issuer.
#[derive(Clone, Debug, Serialize)]
pub struct AuthorizationServerMetadata<'a> {
    issuer: &'a str,
    token_endpoint: String,
    jwks_uri: String,
    /// None: a device pool has no authorization endpoint. The member must be there all the same (RFC 8414 §2).
    response_types_supported: [&'static str; 0],
    grant_types_supported: Vec<&'static str>,
    token_endpoint_auth_methods_supported: [&'static str; 3],
    token_endpoint_auth_signing_alg_values_supported: [&'static str; 6],
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: [&'static str; 3],
    revocation_endpoint_auth_signing_alg_values_supported: [&'static str; 6],
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: [&'static str; 3],
    introspection_endpoint_auth_signing_alg_values_supported: [&'static str; 6],
    // OpenID Connect Discovery §3 requires these two, and its clients check them.
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [SigningAlg; 1],
}

impl<'a> AuthorizationServerMetadata<'a> {
    /// The metadata of a device pool. Assertions as a grant are offered where the pool takes certificates and has a root.
    pub fn of_device_pool(pool: &'a PoolDocument) -> Self {
        let issuer = &pool.issuer;
        let certificates = pool.provisioning.mode != ProvisioningMode::Off && !pool.trust_anchors.is_empty();
        let mut grant_types = vec!["client_credentials"];
        grant_types.extend(certificates.then_some(JWT_BEARER_GRANT));
        Self {
            issuer,
            token_endpoint: format!("{issuer}/oauth2/token"),
            jwks_uri: format!("{issuer}/.well-known/jwks.json"),
            response_types_supported: [],
            grant_types_supported: grant_types,
            token_endpoint_auth_methods_supported: AUTH_METHODS,
            token_endpoint_auth_signing_alg_values_supported: AssertionAlg::NAMES,
            revocation_endpoint: format!("{issuer}/oauth2/revoke"),
            revocation_endpoint_auth_methods_supported: AUTH_METHODS,
            revocation_endpoint_auth_signing_alg_values_supported: AssertionAlg::NAMES,
            introspection_endpoint: format!("{issuer}/oauth2/introspect"),
            introspection_endpoint_auth_methods_supported: AUTH_METHODS,
            introspection_endpoint_auth_signing_alg_values_supported: AssertionAlg::NAMES,
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: [SigningAlg::ES256],
        }
    }
}
