//! `/healthz` and `/readyz`, for whoever runs the process.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use tokio::time::timeout;

use super::problem::Problem;
use super::{App, answer};
use crate::service::sync;

/// How long the database may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Probe {
    status: &'static str,
    version: &'static str,
}

/// `GET /healthz`: the process runs.
pub(super) async fn healthz() -> Response {
    answer(&Probe { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// `GET /readyz`: it can do its work.
pub(super) async fn readyz(State(app): State<App>) -> Result<Response, Problem> {
    match timeout(PATIENCE, sync::is_ready(app.context())).await {
        Ok(Ok(())) => Ok(answer(&Probe { status: "ready", version: env!("CARGO_PKG_VERSION") })),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Problem::unavailable()),
    }
}
