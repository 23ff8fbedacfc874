//! `GET /api/auth/validate`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::problem::Problem;
use super::caller::{OptionalBearer, SsoKey, invalid_key, invalid_token};
use super::envelope::Envelope;
use crate::service::sso::access_token::UserClaims;
use crate::service::sso::key_context::{self, KeyContext};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(validate))
}

/// Of which kind the key is.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum KeyType {
    Organization,
    ClientApp,
}

/// On whose behalf somebody asks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Validated)]
struct ValidateAnswer {
    /// Of which kind the key in `apikey` is; null where none was sent.
    key_type: Option<KeyType>,
    organization_id: String,
    organization_name: String,
    /// The client app whose key was sent; null for an organization's key, and without a key.
    #[schema(format = "uuid")]
    client_app_id: Option<String>,
    client_app_name: Option<String>,
    /// What the access token says; null where none was sent.
    user_claims: Option<UserClaims>,
    /// The session of the access token.
    #[schema(format = "uuid")]
    sid: Option<String>,
    /// When the access token ends.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

/// Check the key in `apikey`, an access token as Bearer, or both, and see whose they are.
///
/// Every client app of an organization accepts the access tokens of all of its people; those of another organization are
/// refused.
#[utoipa::path(
    get,
    path = "/api/auth/validate",
    operation_id = "validate",
    tag = "Single sign-on: signing in",
    responses((status = 200, body = Envelope<ValidateAnswer>))
)]
async fn validate(
    State(app): State<App>,
    key: SsoKey,
    OptionalBearer(signed_in): OptionalBearer,
) -> Result<Response, Problem> {
    let (key_type, holder) = match key {
        SsoKey::Absent => (None, None),
        SsoKey::Organization(holder) => (Some(KeyType::Organization), Some(holder)),
        SsoKey::App(holder, ..) => (Some(KeyType::ClientApp), Some(holder)),
    };
    let key_context = match &holder {
        Some(holder) => Some(key_context::find(app.context(), holder).await?.ok_or_else(invalid_key)?),
        None => None,
    };
    let (organization_id, organization_name) = match (&signed_in, &holder, &key_context) {
        (Some(signed_in), Some(holder), _) if signed_in.user.org != holder.org => return Err(invalid_token()),
        (Some(signed_in), ..) => (signed_in.user.org.to_string(), signed_in.org_name.clone()),
        (None, Some(holder), Some(context)) => (holder.org.to_string(), context.org_name.clone()),
        (None, ..) => return Err(invalid_key()),
    };
    let answer = ValidateAnswer {
        key_type,
        organization_id,
        organization_name,
        client_app_id: holder.and_then(|holder| holder.app).map(|app| app.to_string()),
        client_app_name: key_context.and_then(|KeyContext { app_name, .. }| app_name),
        sid: signed_in.as_ref().map(|signed_in| signed_in.session.id.to_string()),
        expires_at: signed_in.as_ref().map(|signed_in| signed_in.expires_at),
        user_claims: signed_in
            .map(|signed_in| UserClaims::of(&signed_in.user, &signed_in.org_name, signed_in.app)),
    };
    Ok(Envelope::of("Valid", answer).answer(StatusCode::OK))
}
