//! `/healthz` and `/readyz`, for whoever runs the process.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::{App, answer};
use crate::service::sync;

/// How long the database may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz))
}

/// That it runs.
#[derive(Serialize, ToSchema)]
struct Probe {
    status: &'static str,
    version: &'static str,
}

/// That it can do its work, and whether it keeps up.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Readiness {
    /// `ready`, or `amber`: requests are answered, but what they change reaches the edge late.
    status: &'static str,
    version: &'static str,
    /// How long the oldest document has waited to be published.
    oldest_pending_seconds: u64,
}

/// Whether the process runs.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "Probes", responses((status = 200, body = Probe)))]
async fn healthz() -> Response {
    answer(&Probe { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Whether it can do its work.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "Probes", responses((status = 200, body = Readiness)))]
async fn readyz(State(app): State<App>) -> Result<Response, Problem> {
    match timeout(PATIENCE, sync::readiness(app.context())).await {
        Ok(Ok(readiness)) => Ok(answer(&Readiness {
            status: if readiness.is_late { "amber" } else { "ready" },
            version: env!("CARGO_PKG_VERSION"),
            oldest_pending_seconds: readiness.oldest_seconds,
        })),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Problem::unavailable()),
    }
}
