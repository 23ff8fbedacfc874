//! OpenID Connect (api.md §4): the page that people sign in at, tokens for what it gives, and who a token is for.

mod authorize;
mod browser;
mod document;
mod form_token;
mod page;
mod refusal;
mod token;
mod user_info;

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::App;
use crate::http::problem::Problem;

pub(in crate::http) use self::document::OAuthErrorAnswer;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(authorize::ask, authorize::ask_by_form))
        .routes(routes!(authorize::sign_in_page, authorize::sign_in))
        .routes(routes!(authorize::sign_up_page, authorize::sign_up))
        .routes(routes!(token::token))
        .routes(routes!(user_info::user_info, user_info::user_info_by_post))
}

/// A problem as the person at a browser is told of it.
pub(super) fn page_of(problem: &Problem, status: StatusCode) -> Response {
    let (_, detail, _) = problem.tell();
    page::refused(status, &format!("The request was not answered: {detail}."))
}

/// A problem in OAuth's shape.
pub(super) fn error_of(problem: &Problem, status: StatusCode) -> Response {
    let (_, detail, _) = problem.tell();
    let error = match status {
        StatusCode::UNAUTHORIZED => "invalid_token",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "temporarily_unavailable",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request",
    };
    let mut response = token::error_answer(status, error, detail);
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"keypost\", error=\"invalid_token\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}
