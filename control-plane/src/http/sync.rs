//! `/api/internal/sync`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::{Everything, SyncWrite};
use super::body::NoBody;
use super::problem::Problem;
use super::{App, answer};
use crate::service::sync::{self, JobError};
use crate::store::sync_job::{JobKind, JobState, SyncJob};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read)).routes(routes!(rebuild)).routes(routes!(verify))
}

/// What waits to be written to KV, and the work on all documents.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Sync)]
struct SyncAnswer<'a> {
    /// How many documents wait.
    pending: i64,
    /// How many of them have failed, and are tried again.
    failing: i64,
    /// How long the oldest of them has waited.
    oldest_pending_seconds: u64,
    #[serde(with = "time::serde::rfc3339::option")]
    last_published_at: Option<OffsetDateTime>,
    /// Why the document failed that was tried last among those that fail now.
    last_error: Option<&'a str>,
    /// The latest job of each kind.
    jobs: Vec<JobAnswer<'a>>,
}

/// Work on all documents.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SyncJob)]
struct JobAnswer<'a> {
    job_id: String,
    /// `rebuild` or `verify`.
    kind: &'static str,
    /// `running`, `done` or `failed`.
    state: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    /// Whether it has ended, and all that had been marked by then has been written.
    published: bool,
    /// Documents that were looked at.
    checked: i64,
    /// Documents that were marked, to be written or deleted.
    marked: i64,
    /// Documents that KV lacked.
    missing: i64,
    /// Documents that KV had otherwise.
    differing: i64,
    /// What stood in KV, and nothing owned it.
    unowned: i64,
    /// Documents that were just being written, and so were not compared.
    skipped: i64,
    /// Keys in KV that are not Keypost's, and were left alone.
    strange: i64,
    /// Why the last step failed; it is tried again unless the job has failed.
    last_error: Option<&'a str>,
}

/// A job that has begun.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SyncJobStarted)]
struct StartedAnswer {
    job_id: String,
}

/// See what waits to be written to KV, and how far the jobs are.
#[utoipa::path(
    get,
    path = "/api/internal/sync",
    operation_id = "getSync",
    tag = "Publishing",
    responses((status = 200, body = SyncAnswer))
)]
async fn read(State(app): State<App>, everything: Everything<SyncWrite>) -> Result<Response, Problem> {
    let sync = sync::read(app.context(), everything.scope).await?;
    let oldest = sync.backlog.oldest_unwritten;
    Ok(answer(&SyncAnswer {
        pending: sync.backlog.pending,
        failing: sync.backlog.failing,
        oldest_pending_seconds: sync.oldest_seconds,
        last_published_at: sync.backlog.last_published_at,
        last_error: sync.backlog.last_error.as_deref(),
        jobs: sync.jobs.iter().map(|job| shown(job, oldest)).collect(),
    }))
}

/// Write every document to KV anew, in the background.
#[utoipa::path(
    post,
    path = "/api/internal/sync/rebuild",
    operation_id = "rebuildSync",
    tag = "Publishing",
    responses((status = 202, body = StartedAnswer))
)]
async fn rebuild(
    State(app): State<App>,
    everything: Everything<SyncWrite>,
    _: NoBody,
) -> Result<Response, Problem> {
    begin(&app, everything, JobKind::Rebuild).await
}

/// Compare what stands in KV with what should, in the background, and mend what differs.
#[utoipa::path(
    post,
    path = "/api/internal/sync/verify",
    operation_id = "verifySync",
    tag = "Publishing",
    responses((status = 202, body = StartedAnswer))
)]
async fn verify(
    State(app): State<App>,
    everything: Everything<SyncWrite>,
    _: NoBody,
) -> Result<Response, Problem> {
    begin(&app, everything, JobKind::Verify).await
}

async fn begin(app: &App, everything: Everything<SyncWrite>, kind: JobKind) -> Result<Response, Problem> {
    match sync::begin(app.context(), &everything.scope, kind).await {
        Ok(id) => Ok((StatusCode::ACCEPTED, answer(&StartedAnswer { job_id: shown_id(id) })).into_response()),
        Err(JobError::Running) => Err(Problem::of(
            StatusCode::CONFLICT,
            "job_running",
            "It goes on already",
            "a job of this kind is running: GET /api/internal/sync shows how far it is",
        )),
        Err(JobError::Store(error)) => Err(error.into()),
    }
}

fn shown(job: &SyncJob, oldest_mark: Option<OffsetDateTime>) -> JobAnswer<'_> {
    let ended = job.finished_at.filter(|_| job.state == JobState::Done);
    let counts = &job.counts;
    JobAnswer {
        job_id: shown_id(job.id),
        kind: job.kind.as_str(),
        state: job.state.as_str(),
        started_at: job.started_at,
        finished_at: job.finished_at,
        published: ended.is_some_and(|ended| oldest_mark.is_none_or(|oldest| oldest > ended)),
        checked: counts.checked,
        marked: counts.marked,
        missing: counts.missing,
        differing: counts.differing,
        unowned: counts.unowned,
        skipped: counts.skipped,
        strange: counts.strange,
        last_error: job.last_error.as_deref(),
    }
}

fn shown_id(id: Uuid) -> String {
    id.hyphenated().to_string()
}
