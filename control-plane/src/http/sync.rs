//! `/api/internal/sync`

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Everything, SyncWrite};
use super::problem::Problem;
use super::{App, answer};
use crate::service::sync;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read))
}

/// What waits to be written to KV.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Sync)]
struct SyncAnswer<'a> {
    pending: i64,
    oldest_pending_seconds: u64,
    #[serde(with = "time::serde::rfc3339::option")]
    last_published_at: Option<OffsetDateTime>,
    last_error: Option<&'a str>,
}

/// See what waits to be written to KV.
#[utoipa::path(
    get,
    path = "/api/internal/sync",
    operation_id = "getSync",
    tag = "Publishing",
    responses((status = 200, body = SyncAnswer))
)]
async fn read(State(app): State<App>, everything: Everything<SyncWrite>) -> Result<Response, Problem> {
    let (backlog, oldest_pending_seconds) = sync::backlog(app.context(), everything.scope).await?;
    Ok(answer(&SyncAnswer {
        pending: backlog.pending,
        oldest_pending_seconds,
        last_published_at: backlog.last_published_at,
        last_error: backlog.last_error.as_deref(),
    }))
}
