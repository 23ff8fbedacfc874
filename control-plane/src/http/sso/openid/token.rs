//! `/api/auth/token`: tokens for a code, a refresh token, or the token of another app (RFC 6749 §3.2, RFC 8693).

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use keypost_shared::oauth::Form;
use serde::Serialize;

use super::document::{OpenIdTokensAnswer, TokenForm};
use crate::http::App;
use crate::http::access::Source;
use crate::http::body::{media_type, read_at_most};
use crate::http::problem::Problem;
use crate::http::sso::sign_in::own_task;
use crate::service::audit::RequestSource;
use crate::service::sso::openid::client::{self, GrantError};
use crate::service::sso::openid::token_request::{
    ACCESS_TOKEN_TYPE, PresentedClient, TokenError, TokenRequest,
};
use crate::service::sso::openid::tokens::OpenIdTokens;
use crate::service::sso::openid::{code, exchange, refresh};

/// The most bytes of a body: a token of the longest metadata, and room.
const MAX_BODY: usize = 64 * 1024;

/// What an app gets (RFC 6749 §5.1).
#[derive(Serialize)]
struct TokenAnswer<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    /// RFC 8693 §2.2.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
}

/// Why there is none.
pub(super) enum Refused {
    Grant(GrantError),
    Problem(Problem),
}

impl From<GrantError> for Refused {
    fn from(error: GrantError) -> Self {
        Self::Grant(error)
    }
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        Self::Grant(error.into())
    }
}

/// Get tokens for a code, a refresh token, or the access token of another app (RFC 6749 §3.2, RFC 8693).
#[utoipa::path(
    post,
    path = "/api/auth/token",
    operation_id = "getTokens",
    tag = "Single sign-on: OpenID Connect",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = OpenIdTokensAnswer)),
)]
pub(super) async fn token(
    State(app): State<App>,
    Source(source): Source,
    request: Request,
) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    if media_type(&parts.headers).as_deref() != Some("application/x-www-form-urlencoded") {
        return Err(
            TokenError::InvalidRequest("Content-Type must be application/x-www-form-urlencoded").into()
        );
    }
    let authorization = authorization(&parts.headers)?.map(str::to_owned);
    let bytes = read_at_most(Request::from_parts(parts, body), MAX_BODY).await.map_err(Refused::Problem)?;
    let form = Form::parse(&bytes)
        .map_err(|_| TokenError::InvalidRequest("the body must be form-encoded, with each parameter once"))?;
    // What has been used up is answered, or at least done, even where the app has gone away.
    own_task(async move { answer(&app, source, authorization.as_deref(), &form).await })
        .await
        .map_err(Refused::Problem)?
}

async fn answer(
    app: &App,
    source: RequestSource,
    authorization: Option<&str>,
    form: &Form,
) -> Result<Response, Refused> {
    let context = app.context();
    let presented = PresentedClient::find(authorization, form)?;
    let asking = client::authenticate(context, &presented).await.inspect_err(|error| {
        if matches!(error, GrantError::Refused(TokenError::InvalidClient { .. })) {
            context.metrics.authentication_failed();
        }
    })?;
    let (tokens, issued_token_type) = match TokenRequest::parse(form)? {
        TokenRequest::AuthorizationCode { code, redirect_uri, code_verifier } => {
            let redeemed =
                code::redeem(context, source, &asking, &code, &redirect_uri, &code_verifier).await?;
            (redeemed, None)
        }
        TokenRequest::RefreshToken { refresh_token, scope } => {
            (refresh::refresh(context, source, &asking, &refresh_token, scope).await?, None)
        }
        TokenRequest::TokenExchange { subject_token, scope, audience } => {
            let exchanged =
                exchange::exchange(context, source, &asking, &subject_token, scope, audience.as_deref())
                    .await?;
            (exchanged, Some(ACCESS_TOKEN_TYPE))
        }
    };
    Ok(respond(StatusCode::OK, &in_answer(&tokens, issued_token_type)))
}

fn in_answer<'a>(tokens: &'a OpenIdTokens, issued_token_type: Option<&'static str>) -> TokenAnswer<'a> {
    TokenAnswer {
        access_token: tokens.access_token.expose(),
        token_type: "Bearer",
        expires_in: tokens.expires_in,
        refresh_token: tokens.refresh_token.as_ref().map(|token| token.expose()),
        id_token: tokens.id_token.as_ref().map(|token| token.expose()),
        scope: tokens.scope.as_deref().filter(|scope| !scope.is_empty()),
        issued_token_type,
    }
}

/// The one `Authorization` header of a request, if there is any.
fn authorization(headers: &HeaderMap) -> Result<Option<&str>, TokenError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    text.map(Some).ok_or(TokenError::InvalidRequest("there must be one Authorization header"))
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let error = match self {
            Self::Problem(problem) => return problem.into_response(),
            Self::Grant(GrantError::Session(error)) => return Problem::from(error).into_response(),
            Self::Grant(GrantError::Refused(error)) => error,
        };
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = error_answer(status, error.code(), &error.to_string());
        if error == (TokenError::InvalidClient { by_header: true }) {
            let challenge = HeaderValue::from_static("Basic realm=\"keypost\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// An error in OAuth's shape (RFC 6749 §5.2).
pub(super) fn error_answer(status: StatusCode, error: &str, description: &str) -> Response {
    #[derive(Serialize)]
    struct ErrorAnswer<'a> {
        error: &'a str,
        error_description: String,
    }
    // The characters that RFC 6749 §5.2 allows.
    let allowed = |c: &char| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
    let error_description = description.chars().filter(allowed).collect();
    respond(status, &ErrorAnswer { error, error_description })
}

/// A JSON answer that nobody keeps.
pub(super) fn respond(status: StatusCode, body: &impl Serialize) -> Response {
    let body = match serde_json::to_vec(body) {
        Ok(body) => body,
        Err(error) => return Problem::internal(&error).into_response(),
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
