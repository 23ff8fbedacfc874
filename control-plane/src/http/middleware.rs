//! What every request goes through.

use std::any::Any;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Extensions, HeaderValue};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use rand_core::OsRng;
use tokio::time::{Instant, sleep};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

use super::address::client_address;
use super::problem::Problem;
use super::rate_limit::{RateLimits, Standings, UsedUp};
use super::sso::in_envelope;
use crate::config::RateLimitConfig;
use crate::entropy::random_uuid;
use crate::metrics::{Metrics, known_method};
use crate::telemetry::traces;

/// The request's id, in its extensions.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

const REQUEST_ID: &str = "x-request-id";
/// How long an answer may take to begin. Who streams a body of any size takes it as a
/// [`StreamedBody`](super::streamed_body::StreamedBody), which lifts this limit and that on the size of bodies, and has a
/// limit on the time between two pieces instead.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What stands around the routes.
#[derive(Clone)]
pub(super) struct Surroundings(Arc<SurroundingsState>);

struct SurroundingsState {
    metrics: Metrics,
    limits: RateLimits,
    trusted_proxies: Vec<IpNet>,
}

impl Surroundings {
    pub(super) fn new(metrics: Metrics, trusted_proxies: Vec<IpNet>, limits: RateLimitConfig) -> Self {
        Self(Arc::new(SurroundingsState { metrics, limits: RateLimits::new(limits), trusted_proxies }))
    }

    pub(super) fn trusted_proxies(&self) -> &[IpNet] {
        &self.0.trusted_proxies
    }

    /// Counts the request with these extensions for the API key that it came with.
    pub(super) fn count_key(&self, extensions: &Extensions, key: Uuid) -> Result<(), Problem> {
        let standings = extensions.get::<Standings>().cloned().unwrap_or_default();
        self.0.limits.count_key(key, &standings).map_err(|used_up| self.refuse(used_up))
    }

    fn refuse(&self, UsedUp { policy, retry_after }: UsedUp) -> Problem {
        self.0.metrics.rate_limited(policy);
        Problem::rate_limited(policy, retry_after)
    }
}

/// The time that an answer may take. It travels with the request, so that who reads a body of any size can lift it.
#[derive(Clone, Default)]
pub(super) struct TimeLimit(Arc<AtomicBool>);

impl TimeLimit {
    /// The answer may take as long as it takes.
    pub(super) fn lift(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Ends when the time is over.
    async fn over(&self) {
        sleep(REQUEST_TIMEOUT).await;
        if self.0.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    }
}

/// Puts around all routes what every request is limited by, the fallbacks included.
pub(super) fn limited<S>(routes: Router<S>, surroundings: &Surroundings) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes
        .layer(from_fn(limit_time))
        .layer(CatchPanicLayer::custom(after_panic))
        .layer(from_fn_with_state(surroundings.clone(), limit_rate))
        .layer(from_fn(in_envelope))
}

/// Puts around everything else what gives every request its id, and tells how it ended.
pub(super) fn identified<S>(routes: Router<S>, surroundings: &Surroundings) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes.layer(from_fn_with_state(surroundings.clone(), identify))
}

/// Gives the request an id, which stands in the answer and in every line that is logged meanwhile, and logs and counts how
/// it ended.
async fn identify(State(surroundings): State<Surroundings>, mut request: Request, next: Next) -> Response {
    let id = incoming_id(&request).unwrap_or_else(new_id);
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let route = route(&request).to_owned();
    // Of the highest level, so that the id stands in what is logged at any.
    let span = tracing::error_span!("request", request_id = %id, %method, route);
    let trace = traces::request(known_method(method.as_str()), &route, &id, request.headers());
    let traced = trace.clone();
    async move {
        let started = Instant::now();
        let mut response = next.run(request).await;
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        let (status, took) = (response.status().as_u16(), started.elapsed());
        traces::answered(&traced, status);
        surroundings.0.metrics.request(method.as_str(), &route, status, took);
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if is_for_operators(&route) {
            tracing::debug!(status, milliseconds, "answered");
        } else {
            tracing::info!(status, milliseconds, "answered");
        }
        response
    }
    .instrument(span)
    .instrument(trace)
    .await
}

/// Refuses what an address sends too fast, and tells in every answer how the client stands.
async fn limit_rate(State(surroundings): State<Surroundings>, mut request: Request, next: Next) -> Response {
    if is_for_operators(route(&request)) {
        return next.run(request).await;
    }
    let standings = Standings::default();
    let address = client_address(request.extensions(), request.headers(), surroundings.trusted_proxies());
    let mut response = match surroundings.0.limits.count_address(address, &standings) {
        Ok(()) => {
            request.extensions_mut().insert(standings.clone());
            next.run(request).await
        }
        Err(used_up) => surroundings.refuse(used_up).into_response(),
    };
    standings.write(response.headers_mut());
    response
}

/// Ends what takes too long.
async fn limit_time(mut request: Request, next: Next) -> Response {
    let limit = TimeLimit::default();
    request.extensions_mut().insert(limit.clone());
    tokio::select! {
        response = next.run(request) => response,
        () = limit.over() => Problem::timed_out().into_response(),
    }
}

/// The template, not the path: ids in paths are many, and what was sent to a wrong path is anybody's text.
fn route(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str)
}

/// What machines ask every few seconds: it would fill the log, and must be answered when nothing else is.
fn is_for_operators(route: &str) -> bool {
    matches!(route, "/healthz" | "/readyz" | "/metrics")
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
    use axum::Extension;
    use axum::body::{Body, to_bytes};
    use axum::http::StatusCode;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn answer_of(routes: Router) -> (StatusCode, String) {
        let request = Request::builder().uri("/").body(Body::empty()).unwrap();
        let surroundings = Surroundings::new(Metrics::new(), Vec::new(), RateLimitConfig::default());
        let routes = identified(limited(routes, &surroundings), &surroundings);
        let response = routes.oneshot(request).await.unwrap();
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

    #[tokio::test(start_paused = true)]
    async fn who_lifts_the_time_limit_may_take_hours() {
        async fn handler(Extension(limit): Extension<TimeLimit>) -> Response {
            limit.lift();
            sleep(Duration::from_secs(3 * 3600)).await;
            Problem::internal(&"at last").into_response()
        }
        let (status, _) = answer_of(Router::new().route("/", get(handler))).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
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
