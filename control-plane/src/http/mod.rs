//! The HTTP surface (api.md §1, §2): what comes in, who may, and what goes out.
//!
//! One file per resource, each with its request and answer types and its handlers. Around all of them stand, from the
//! outside in: the request id, the log and the metrics ([`middleware`]), the rate limit of the address, panics, the time
//! limit, and then the routes.

mod access;
mod activation;
mod address;
mod api_key;
mod audit;
mod body;
mod certificate;
mod certificate_explanation;
mod client_pool;
mod creation;
mod deletion;
mod denied_certificate;
mod device;
mod device_app;
mod device_import;
mod edge_report;
mod environment;
mod fields;
mod import_rows;
mod json;
mod metrics;
mod middleware;
mod openapi;
mod organization;
mod otp;
mod precondition;
mod probes;
mod problem;
mod publisher_key;
mod query;
mod rate_limit;
mod revocation;
mod service_client;
mod signing_key;
mod sso;
mod streamed_body;
mod sync;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;

pub use self::address::PeerAddress;
use self::edge_report::ReportLimits;
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
    sign_in_attempts: FailedAttempts,
    surroundings: Surroundings,
    backlog: BacklogReading,
    edge_reports: ReportLimits,
}

impl App {
    /// An application over these rules. `trusted_proxies` are those whose `X-Forwarded-For` counts.
    pub fn new(context: Context, trusted_proxies: Vec<IpNet>, limits: RateLimitConfig) -> Self {
        let surroundings = Surroundings::new(context.metrics.clone(), trusted_proxies, limits);
        Self(Arc::new(AppState {
            context,
            activation_attempts: FailedAttempts::new(),
            sign_in_attempts: FailedAttempts::new(),
            surroundings,
            backlog: BacklogReading::default(),
            edge_reports: ReportLimits::new(),
        }))
    }

    fn context(&self) -> &Context {
        &self.0.context
    }
}

/// All routes.
pub fn router(app: App) -> Router {
    let (routes, api) = documented().split_for_parts();
    let routes = routes
        .merge(edge_report::routes())
        .merge(openapi::pages(openapi::complete(api)))
        .fallback(Problem::no_such_route)
        .method_not_allowed_fallback(Problem::method_not_allowed);
    let limited = middleware::limited(routes, &app.0.surroundings);
    let limited = limited.layer(from_fn_with_state(app.clone(), sso::cors));
    middleware::identified(limited, &app.0.surroundings).with_state(app)
}

/// The OpenAPI document of all routes.
pub fn api_document() -> serde_json::Value {
    openapi::complete(documented().into_openapi())
}

fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(probes::routes())
        .merge(metrics::routes())
        .merge(organization::routes())
        .merge(environment::routes())
        .merge(client_pool::routes())
        .merge(device::routes())
        .merge(device_app::routes())
        .merge(device_import::routes())
        .merge(otp::routes())
        .merge(certificate::routes())
        .merge(certificate_explanation::routes())
        .merge(denied_certificate::routes())
        .merge(signing_key::routes())
        .merge(revocation::routes())
        .merge(service_client::routes())
        .merge(api_key::routes())
        .merge(audit::routes())
        .merge(sync::routes())
        .merge(publisher_key::routes())
        .merge(activation::routes())
        .merge(sso::routes())
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
