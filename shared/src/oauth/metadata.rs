//! Authorization server metadata (RFC 8414), served under its two well-known URLs and OpenID Connect's.

use serde::Serialize;

use crate::assertion::AssertionAlg;
use crate::device_certificate::ProvisioningMode;
use crate::document::{PoolDocument, PoolKind};
use crate::jwk::SigningAlg;

/// The grant type of RFC 7523 §2.1.
pub const JWT_BEARER_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The grant type of RFC 8693 §2.1.
pub const TOKEN_EXCHANGE_GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// How clients authenticate, at every endpoint that takes client authentication.
const AUTH_METHODS: [&str; 3] = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
/// How client apps do: all that they have is their key.
const APP_AUTH_METHODS: &[&str] = &["client_secret_basic", "client_secret_post"];
/// How they do where people's tokens come from: those that can keep no key prove themselves by PKCE (RFC 7636).
const SIGN_IN_AUTH_METHODS: &[&str] = &["client_secret_basic", "client_secret_post", "none"];

/// What a client can discover about an issuer.
#[derive(Clone, Debug, Serialize)]
pub struct AuthorizationServerMetadata<'a> {
    issuer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint: Option<String>,
    jwks_uri: String,
    /// None for a device pool, which has no authorization endpoint. The member must be there all the same (RFC 8414 §2).
    response_types_supported: &'static [&'static str],
    grant_types_supported: Vec<&'static str>,
    token_endpoint_auth_methods_supported: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    token_endpoint_auth_signing_alg_values_supported: &'static [&'static str],
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    revocation_endpoint_auth_signing_alg_values_supported: &'static [&'static str],
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    introspection_endpoint_auth_signing_alg_values_supported: &'static [&'static str],
    // OpenID Connect Discovery §3 requires these two, and its clients check them.
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [SigningAlg; 1],
    #[serde(flatten)]
    sign_in: Option<SignIn>,
}

/// What only the issuer of people's tokens has: where they sign in, and what OpenID Connect asks to be told of it.
#[derive(Clone, Debug, Serialize)]
struct SignIn {
    authorization_endpoint: String,
    userinfo_endpoint: String,
    response_modes_supported: [&'static str; 1],
    scopes_supported: [&'static str; 4],
    claims_supported: &'static [&'static str],
    code_challenge_methods_supported: [&'static str; 1],
    /// Initiating User Registration via OpenID Connect §4.
    prompt_values_supported: [&'static str; 5],
    /// The answer names its issuer (RFC 9207 §3).
    authorization_response_iss_parameter_supported: bool,
    /// Where this is not said, it means true (OpenID Connect Discovery §3).
    request_uri_parameter_supported: bool,
}

/// The claims of ID tokens and of the user info.
const CLAIMS: &[&str] = &[
    "sub",
    "iss",
    "aud",
    "exp",
    "iat",
    "auth_time",
    "nonce",
    "sid",
    "preferred_username",
    "name",
    "given_name",
    "family_name",
    "updated_at",
    "email",
    "email_verified",
    "user_metadata",
];

impl<'a> AuthorizationServerMetadata<'a> {
    /// The metadata of a pool's issuer.
    pub fn of(pool: &'a PoolDocument) -> Self {
        match pool.kind {
            PoolKind::Device => Self::of_device_pool(pool),
            PoolKind::Sso => Self::of_sso_pool(pool),
        }
    }

    /// Assertions as a grant are offered where the pool takes certificates and has a root.
    fn of_device_pool(pool: &'a PoolDocument) -> Self {
        let issuer = &pool.issuer;
        let certificates = pool.provisioning.mode != ProvisioningMode::Off && !pool.trust_anchors.is_empty();
        let mut grant_types = vec!["client_credentials"];
        grant_types.extend(certificates.then_some(JWT_BEARER_GRANT));
        Self {
            issuer,
            token_endpoint: Some(format!("{issuer}/oauth2/token")),
            jwks_uri: format!("{issuer}/.well-known/jwks.json"),
            response_types_supported: &[],
            grant_types_supported: grant_types,
            token_endpoint_auth_methods_supported: &AUTH_METHODS,
            token_endpoint_auth_signing_alg_values_supported: &AssertionAlg::NAMES,
            revocation_endpoint: format!("{issuer}/oauth2/revoke"),
            revocation_endpoint_auth_methods_supported: &AUTH_METHODS,
            revocation_endpoint_auth_signing_alg_values_supported: &AssertionAlg::NAMES,
            introspection_endpoint: format!("{issuer}/oauth2/introspect"),
            introspection_endpoint_auth_methods_supported: &AUTH_METHODS,
            introspection_endpoint_auth_signing_alg_values_supported: &AssertionAlg::NAMES,
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: [SigningAlg::ES256],
            sign_in: None,
        }
    }

    /// People sign in at the control plane; what verifies, explains and revokes their tokens is at the edge.
    fn of_sso_pool(pool: &'a PoolDocument) -> Self {
        let sign_in_url = pool.sign_in_url.as_deref();
        Self {
            token_endpoint: sign_in_url.map(|url| format!("{url}/api/auth/token")),
            response_types_supported: &["code"],
            grant_types_supported: vec!["authorization_code", "refresh_token", TOKEN_EXCHANGE_GRANT],
            token_endpoint_auth_methods_supported: SIGN_IN_AUTH_METHODS,
            token_endpoint_auth_signing_alg_values_supported: &[],
            revocation_endpoint_auth_methods_supported: APP_AUTH_METHODS,
            revocation_endpoint_auth_signing_alg_values_supported: &[],
            introspection_endpoint_auth_methods_supported: APP_AUTH_METHODS,
            introspection_endpoint_auth_signing_alg_values_supported: &[],
            sign_in: sign_in_url.map(|url| SignIn {
                authorization_endpoint: format!("{url}/api/auth/authorize"),
                userinfo_endpoint: format!("{url}/api/auth/userinfo"),
                response_modes_supported: ["query"],
                scopes_supported: ["openid", "profile", "email", "offline_access"],
                claims_supported: CLAIMS,
                code_challenge_methods_supported: ["S256"],
                prompt_values_supported: ["none", "login", "consent", "select_account", "create"],
                authorization_response_iss_parameter_supported: true,
                request_uri_parameter_supported: false,
            }),
            ..Self::of_device_pool(pool)
        }
    }
}
