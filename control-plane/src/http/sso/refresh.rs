//! `POST /api/auth/refresh`, `POST /api/auth/logout`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keypost_shared::secret::SecretText;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::body::{Fields, FromFields, JsonBody};
use super::super::fields;
use super::super::problem::Problem;
use super::caller::SignInSource;
use super::envelope::{Envelope, done};
use super::sign_in::own_task;
use super::token_pair::TokenPairAnswer;
use crate::service::sso::session::{self, Refreshing};
use crate::service::sso::sign_out;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(refresh)).routes(routes!(log_out))
}

/// A refresh token.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = RefreshToken)]
struct RefreshRequest {
    #[schema(value_type = String)]
    refresh_token: SecretText,
}

impl FromFields for RefreshRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let refresh_token = fields.required("refreshToken", fields::text).map(SecretText::new);
        Some(Self { refresh_token: refresh_token? })
    }
}

/// Get another pair of tokens for a refresh token, which is used up.
///
/// Once more within 10 s counts as a retry, and is answered with a pair of the same session. Any other use of a used token
/// ends the session: somebody else has it.
#[utoipa::path(
    post,
    path = "/api/auth/refresh",
    operation_id = "refresh",
    tag = "Single sign-on: signing in",
    request_body = RefreshRequest,
    responses((status = 200, body = Envelope<TokenPairAnswer>))
)]
async fn refresh(
    State(app): State<App>,
    SignInSource(_, source): SignInSource,
    JsonBody(request): JsonBody<RefreshRequest>,
) -> Result<Response, Problem> {
    let pair = own_task(async move {
        session::refresh(app.context(), source, request.refresh_token.expose(), Refreshing::default()).await
    })
    .await??;
    Ok(Envelope::of("Refreshed", TokenPairAnswer::of(&pair)).answer(StatusCode::OK))
}

/// End the session of a refresh token, with all tokens of it.
#[utoipa::path(
    post,
    path = "/api/auth/logout",
    operation_id = "logOut",
    tag = "Single sign-on: signing in",
    request_body = RefreshRequest,
    responses((status = 200, body = Envelope<serde_json::Value>))
)]
async fn log_out(
    State(app): State<App>,
    SignInSource(_, source): SignInSource,
    JsonBody(request): JsonBody<RefreshRequest>,
) -> Result<Response, Problem> {
    sign_out::sign_out(app.context(), source, request.refresh_token.expose()).await?;
    Ok(done("Signed out"))
}
