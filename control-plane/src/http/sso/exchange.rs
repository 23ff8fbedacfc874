//! `POST /api/auth/sso-exchange`

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
use super::caller::{SignInSource, app_of_key, invalid_token};
use super::envelope::Envelope;
use super::sign_in::own_task;
use super::token_pair::TokenPairAnswer;
use crate::service::sso::exchange::{self, ExchangeError};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(sso_exchange))
}

/// What somebody has, and for which app they want it.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = SsoExchange)]
struct ExchangeRequest {
    /// An access token of a user of a client app that counts now.
    #[schema(value_type = String)]
    current_access_token: SecretText,
    /// The key (`app_…`) of the other app, which is of the same organization.
    #[schema(value_type = String)]
    target_client_app_api_key: SecretText,
}

impl FromFields for ExchangeRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let current_access_token = fields.required("currentAccessToken", fields::text).map(SecretText::new);
        let target_client_app_api_key =
            fields.required("targetClientAppApiKey", fields::text).map(SecretText::new);
        Some(Self {
            current_access_token: current_access_token?,
            target_client_app_api_key: target_client_app_api_key?,
        })
    }
}

/// Get a pair of tokens for another client app of the same organization, in the same session.
///
/// A token that does not count, or is an owner's, is refused with 401, and so is a key that does not count; the client app of
/// another organization with 404.
#[utoipa::path(
    post,
    path = "/api/auth/sso-exchange",
    operation_id = "ssoExchange",
    tag = "Single sign-on: signing in",
    request_body = ExchangeRequest,
    responses((status = 200, body = Envelope<TokenPairAnswer>))
)]
async fn sso_exchange(
    State(app): State<App>,
    SignInSource(_, source): SignInSource,
    JsonBody(request): JsonBody<ExchangeRequest>,
) -> Result<Response, Problem> {
    let ExchangeRequest { current_access_token: token, target_client_app_api_key: key } = request;
    let (holder, target) = app_of_key(&app, key.expose()).await?;
    let pair = own_task(async move {
        exchange::exchange(app.context(), source, token.expose(), &holder.org, target).await
    })
    .await??;
    let answer = TokenPairAnswer::of(&pair).echoing(Some(&key));
    Ok(Envelope::of("Exchanged", answer).answer(StatusCode::OK))
}

impl From<ExchangeError> for Problem {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Token => invalid_token(),
            ExchangeError::OtherOrganization => Problem::not_found("client app"),
            ExchangeError::Session(error) => error.into(),
        }
    }
}
