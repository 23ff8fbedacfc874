//! `/metrics`, for Prometheus.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::problem::Problem;
use crate::metrics::{self, Readings, Waiting};
use crate::service::{Context, sync};

/// How long the database may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer of the database is good for. Nobody needs a key to ask, so asking must cost little.
const FRESH: Duration = Duration::from_secs(5);

/// What waits to be published, as it was last read.
#[derive(Default)]
pub(super) struct BacklogReading(Mutex<Option<(Instant, Option<Waiting>)>>);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read))
}

/// How it goes, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "Probes",
    responses((status = 200, content_type = "application/openmetrics-text", body = String))
)]
async fn read(State(app): State<App>) -> Result<Response, Problem> {
    let context = app.context();
    let readings = Readings {
        connections: context.db.size(),
        idle_connections: u32::try_from(context.db.num_idle()).unwrap_or(u32::MAX),
        most_connections: context.db.options().get_max_connections(),
        kms_failing: context.kms.failing(),
        backlog: app.0.backlog.get(context).await,
    };
    let text = context.metrics.render(readings).map_err(|error| Problem::internal(&error))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE), (CACHE_CONTROL, "no-store")], text).into_response())
}

impl BacklogReading {
    /// One question at a time: whoever comes meanwhile gets the same answer.
    async fn get(&self, context: &Context) -> Option<Waiting> {
        let mut last = self.0.lock().await;
        if let Some((at, backlog)) = *last
            && at.elapsed() < FRESH
        {
            return backlog;
        }
        let backlog = match timeout(PATIENCE, sync::waiting(context)).await {
            Ok(Ok(backlog)) => Some(backlog),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the backlog cannot be read");
                None
            }
            Err(_) => None,
        };
        *last = Some((Instant::now(), backlog));
        backlog
    }
}
