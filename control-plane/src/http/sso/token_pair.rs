//! What whoever signs in, refreshes or exchanges gets.

use keypost_shared::secret::SecretText;
use serde::Serialize;
use utoipa::ToSchema;

use crate::service::sso::access_token::UserClaims;
use crate::service::sso::session::TokenPair;

/// A pair of tokens, with what the access token says of the person.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TokenPair)]
pub(super) struct TokenPairAnswer {
    /// A JWT, to be verified by the key set of the organization's sso pool.
    access_token: String,
    /// What to go on with, once.
    refresh_token: String,
    #[schema(value_type = String)]
    token_type: &'static str,
    /// How long the access token lives, in seconds.
    expires_in: i64,
    user_claims: UserClaims,
    /// The organization's key, at the owner's signup alone: shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    org_owner_api_key: Option<String>,
    /// The client app's key that the caller sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_app_api_key: Option<String>,
}

impl TokenPairAnswer {
    pub(super) fn of(pair: &TokenPair) -> Self {
        Self {
            access_token: pair.access_token.expose().to_owned(),
            refresh_token: pair.refresh_token.expose().to_owned(),
            token_type: "Bearer",
            expires_in: pair.expires_in,
            user_claims: pair.claims.clone(),
            org_owner_api_key: None,
            client_app_api_key: None,
        }
    }

    /// With the key of the organization, which has just been made.
    pub(super) fn with_owner_key(self, key: &str) -> Self {
        Self { org_owner_api_key: Some(key.to_owned()), ..self }
    }

    /// With the key of the client app, if one was sent.
    pub(super) fn echoing(self, key: Option<&SecretText>) -> Self {
        Self { client_app_api_key: key.map(|key| key.expose().to_owned()), ..self }
    }
}
