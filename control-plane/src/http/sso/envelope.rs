//! The envelope in which single sign-on answers (api.md §4):
//! `{"success", "message", "data", "error": {"code", "details"}}`.
//!
//! Handlers and extractors fail with a [`Problem`] as everywhere; on its way out it is put into the envelope
//! ([`in_envelope`]), wherever it comes from: a fallback, a limit or a panic too.

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::problem::{FieldError, Problem};
use super::openid;

/// Where answers are in the envelope.
const IN_ENVELOPE: [&str; 2] = ["/api/auth", "/api/organization"];
/// What answers in the shape of OAuth.
const IN_OAUTH: [&str; 2] = ["/api/auth/token", "/api/auth/userinfo"];
/// What answers with pages.
const ON_PAGES: [&str; 3] =
    ["/api/auth/authorize", "/api/auth/authorize/sign-in", "/api/auth/authorize/sign-up"];

/// An answer of single sign-on.
#[derive(Serialize, ToSchema)]
pub(super) struct Envelope<T> {
    /// Whether it was done.
    success: bool,
    /// What was done, or why not, for people.
    message: String,
    /// What was asked for; null where it was not done.
    data: Option<T>,
    /// Why not; null where it was done.
    #[schema(value_type = Option<EnvelopeError>)]
    error: Option<EnvelopeError>,
}

/// What is answered where something was not done.
#[derive(ToSchema)]
#[schema(as = Refusal)]
#[expect(dead_code, reason = "it describes what `put_in` writes, for the API's document")]
pub(in crate::http) struct RefusalAnswer {
    /// Always false.
    success: bool,
    /// Why not, for people.
    message: String,
    /// Always null.
    data: Option<serde_json::Value>,
    /// Why not, for programs.
    error: EnvelopeError,
}

/// Why something was not done.
#[derive(Serialize, ToSchema)]
pub(super) struct EnvelopeError {
    /// For programs; never changes.
    code: String,
    /// The fields that are wrong.
    details: Vec<FieldError>,
}

impl<T: Serialize> Envelope<T> {
    /// What was done.
    pub(super) fn of(message: &str, data: T) -> Self {
        Self { success: true, message: message.to_owned(), data: Some(data), error: None }
    }

    /// As an answer of this status.
    pub(super) fn answer(&self, status: StatusCode) -> Response {
        match serde_json::to_vec(self) {
            Ok(body) => respond(status, body),
            Err(error) => Problem::internal(&error).into_response(),
        }
    }
}

/// 200 for what has nothing to show: `data` is an empty object.
pub(super) fn done(message: &str) -> Response {
    Envelope::of(message, serde_json::json!({})).answer(StatusCode::OK)
}

fn respond(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether a path is one of single sign-on.
pub(super) fn is_single_sign_on(path: &str) -> bool {
    let is_within =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    IN_ENVELOPE.iter().any(|prefix| is_within(prefix))
}

/// What a problem looks like outside.
pub(in crate::http) enum Dress {
    /// In the envelope.
    Envelope,
    /// As OAuth tells it.
    OAuth,
    /// A page for people.
    Page,
}

impl Dress {
    /// What it looks like at this path; none where it stays as it is.
    pub(in crate::http) fn at(path: &str) -> Option<Self> {
        if IN_OAUTH.contains(&path) {
            Some(Self::OAuth)
        } else if ON_PAGES.contains(&path) {
            Some(Self::Page)
        } else {
            is_single_sign_on(path).then_some(Self::Envelope)
        }
    }
}

/// Puts the problems of single sign-on into the envelope, or into what its path answers with.
pub(in crate::http) async fn in_envelope(request: Request, next: Next) -> Response {
    let dress = Dress::at(request.uri().path());
    let mut response = next.run(request).await;
    let Some(dress) = dress else { return response };
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) => {
            let answer = match dress {
                Dress::Envelope => put_in(&problem, response.status()),
                Dress::OAuth => openid::error_of(&problem, response.status()),
                Dress::Page => openid::page_of(&problem, response.status()),
            };
            with_headers_of(answer, &response)
        }
        None => response,
    }
}

/// The problem in the envelope.
fn put_in(problem: &Problem, status: StatusCode) -> Response {
    let (code, detail, errors) = problem.tell();
    let envelope: Envelope<()> = Envelope {
        success: false,
        message: detail.to_owned(),
        data: None,
        error: Some(EnvelopeError { code: code.to_owned(), details: errors.to_vec() }),
    };
    // Whatever is wrong with a request of single sign-on, it is never 422 (api.md §4).
    let status = match status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::CONFLICT,
        other => other,
    };
    // Nothing in it can fail to serialise: texts.
    respond(status, serde_json::to_vec(&envelope).unwrap_or_default())
}

/// An answer in the place of another, with the headers that the other had.
fn with_headers_of(mut answer: Response, before: &Response) -> Response {
    let status = answer.status();
    let headers = answer.headers_mut();
    for (name, value) in before.headers() {
        if ![CONTENT_TYPE, CONTENT_LENGTH, CACHE_CONTROL, WWW_AUTHENTICATE].contains(name) {
            headers.insert(name, value.clone());
        }
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.entry(WWW_AUTHENTICATE).or_insert(HeaderValue::from_static("Bearer realm=\"keypost\""));
    }
    answer
}
