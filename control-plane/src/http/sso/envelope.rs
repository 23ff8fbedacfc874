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

/// Where answers are in the envelope.
const IN_ENVELOPE: [&str; 2] = ["/api/auth", "/api/organization"];
/// What answers in the shapes of OAuth and OpenID Connect.
const OTHERWISE: [&str; 3] = ["/api/auth/authorize", "/api/auth/token", "/api/auth/userinfo"];

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

/// Puts the problems of single sign-on into the envelope.
pub(in crate::http) async fn in_envelope(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_within = |prefix: &&str| {
        path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let applies = IN_ENVELOPE.iter().any(|prefix| is_within(&prefix)) && !OTHERWISE.contains(&path);
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) if applies => put_in(&problem, &response),
        _ => response,
    }
}

/// The problem in the envelope, with the headers that the answer has.
fn put_in(problem: &Problem, response: &Response) -> Response {
    let (code, detail, errors) = problem.tell();
    let envelope: Envelope<()> = Envelope {
        success: false,
        message: detail.to_owned(),
        data: None,
        error: Some(EnvelopeError { code: code.to_owned(), details: errors.to_vec() }),
    };
    // Nothing in it can fail to serialise: texts.
    let mut answer = respond(response.status(), serde_json::to_vec(&envelope).unwrap_or_default());
    let headers = answer.headers_mut();
    for (name, value) in response.headers() {
        if ![CONTENT_TYPE, CONTENT_LENGTH, WWW_AUTHENTICATE].contains(name) {
            headers.insert(name, value.clone());
        }
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"keypost\""));
    }
    answer
}
