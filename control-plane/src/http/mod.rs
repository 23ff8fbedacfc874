//! The HTTP surface (api.md §1, §2): what comes in, who may, and what goes out.
//!
//! One file per resource, each with its request and answer types and its handlers. Around all of them stand, from the
//! outside in: the request id, the log and the metrics ([`middleware`]), the rate limit of the address, panics, the time
//! limit, and then the routes.

mod access;
mod activation;
mod address;
mod body;
mod client_pool;
mod device;
mod device_app;
mod environment;
mod fields;
mod json;
mod metrics;
mod middleware;
mod organization;
mod otp;
mod probes;
mod problem;
mod rate_limit;
mod streamed_body;
mod sync;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ipnet::IpNet;
use serde::Serialize;

pub use self::address::PeerAddress;
use self::metrics::BacklogReading;
use self::middleware::Surroundings;
use self::problem::Problem;
use crate::config::RateLimitConfig;
use crate::service::Context;
use crate::service::attempts::FailedAttempts;

/// What handlers work with.
#[derive(Clone)]
pub struct App(Arc<AppState>);

struct AppState {
    context: Context,
    activation_attempts: FailedAttempts,
    surroundings: Surroundings,
    backlog: BacklogReading,
}

impl App {
    /// An application over these rules. `trusted_proxies` are those whose `X-Forwarded-For` counts.
    pub fn new(context: Context, trusted_proxies: Vec<IpNet>, limits: RateLimitConfig) -> Self {
        let surroundings = Surroundings::new(context.metrics.clone(), trusted_proxies, limits);
        Self(Arc::new(AppState {
            context,
            activation_attempts: FailedAttempts::new(),
            surroundings,
            backlog: BacklogReading::default(),
        }))
    }

    fn context(&self) -> &Context {
        &self.0.context
    }
}

/// All routes.
pub fn router(app: App) -> Router {
    const ENV: &str = "/api/internal/org/{orgId}/env";
    let env = |rest: &str| format!("{ENV}/{{envId}}{rest}");
    let routes = Router::new()
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(metrics::read))
        .route("/api/internal/org", post(organization::create))
        .route("/api/internal/org/{orgId}", get(organization::read))
        .route(ENV, post(environment::create))
        .route(&env(""), get(environment::read))
        .route(&env("/pool"), get(client_pool::read).patch(client_pool::change))
        .route(&env("/device"), post(device::create))
        .route(&env("/device/{deviceId}"), get(device::read))
        .route(&env("/device/{deviceId}/app"), post(device_app::create))
        .route(&env("/device/{deviceId}/app/{appId}"), get(device_app::read))
        .route(&env("/device/{deviceId}/app/{appId}/otp"), post(otp::create))
        .route("/api/internal/sync", get(sync::read))
        .route("/api/otp/activate", post(activation::activate))
        .fallback(Problem::no_such_route)
        .method_not_allowed_fallback(Problem::method_not_allowed);
    middleware::around(routes, &app.0.surroundings).with_state(app)
}

/// A JSON answer, which nobody keeps: what is answered here is secret or changes.
fn answer(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => {
            let mut response = body.into_response();
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => Problem::internal(&error).into_response(),
    }
}
