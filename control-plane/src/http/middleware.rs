//! What every request goes through.

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use rand_core::OsRng;
use tokio::time::{Instant, timeout};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use super::problem::Problem;
use crate::entropy::random_uuid;

const REQUEST_ID: &str = "x-request-id";
/// How long an answer may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Puts around all routes what every request goes through, the fallbacks included.
pub(super) fn around<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes.layer(from_fn(limit_time)).layer(CatchPanicLayer::custom(after_panic)).layer(from_fn(identify))
}

/// Gives the request an id, which stands in the answer and in every line that is logged meanwhile, and logs how it ended.
async fn identify(request: Request, next: Next) -> Response {
    let id = incoming_id(&request).unwrap_or_else(new_id);
    let method = request.method().clone();
    // The template, not the path: ids in paths are many, and what was sent to a wrong path is anybody's text.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    // Of the highest level, so that the id stands in what is logged at any.
    let span = tracing::error_span!("request", request_id = %id, %method, route);
    async move {
        let started = Instant::now();
        let mut response = next.run(request).await;
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        let status = response.status().as_u16();
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match route.as_str() {
            "/healthz" | "/readyz" => tracing::debug!(status, milliseconds, "answered"),
            _ => tracing::info!(status, milliseconds, "answered"),
        }
        response
    }
    .instrument(span)
    .await
}

/// Ends what takes too long.
async fn limit_time(request: Request, next: Next) -> Response {
    match timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timed_out().into_response(),
    }
}

/// The answer where a handler panicked. The panic hook has logged where.
fn after_panic(_: Box<dyn Any + Send>) -> Response {
    Problem::internal(&"a handler panicked").into_response()
}

/// An id that came with the request, if it is one that may stand in a log.
fn incoming_id(request: &Request) -> Option<String> {
    let text = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    let sane = (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    sane.then(|| text.to_owned())
}

/// Nothing but the log depends on it, so it comes from the system straight away.
fn new_id() -> String {
    random_uuid(&mut OsRng).hyphenated().to_string()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::StatusCode;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn answer_of(routes: Router) -> (StatusCode, String) {
        let request = Request::builder().uri("/").body(Body::empty()).unwrap();
        let response = around(routes).oneshot(request).await.unwrap();
        assert!(response.headers().contains_key(REQUEST_ID));
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let (parts, body) = response.into_parts();
        (parts.status, String::from_utf8(to_bytes(body, 10_000).await.unwrap().into()).unwrap())
    }

    #[tokio::test]
    async fn a_panic_is_answered_without_its_reason() {
        async fn handler() -> Response {
            panic!("the secret reason")
        }
        let (status, text) = answer_of(Router::new().route("/", get(handler))).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text.contains("\"code\":\"internal\"") && !text.contains("secret"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_given_up() {
        let (status, text) = answer_of(Router::new().route("/", get(std::future::pending::<Response>))).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("\"code\":\"timeout\""), "{text}");
    }

    #[test]
    fn only_ids_that_may_stand_in_a_log_are_taken_over() {
        let given = |id: &str| {
            let request = Request::builder().header(REQUEST_ID, id).body(axum::body::Body::empty()).unwrap();
            incoming_id(&request)
        };
        assert_eq!(given("01HV-abc.def_1"), Some("01HV-abc.def_1".to_owned()));
        for bad in ["", "a b", "a\"b", "a\tb", &"x".repeat(129)] {
            assert_eq!(given(bad), None, "{bad:?}");
        }
    }
}
