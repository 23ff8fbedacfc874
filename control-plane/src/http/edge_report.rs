//! `POST /api/edge/report`: what the edge tells, and nobody else can. It is no part of the management plane, and so of
//! the OpenAPI document: its form is in `shared/src/edge_report.rs`.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use keypost_shared::edge_report::{
    EdgeReport, MAX_REPORT, REPORT_PATH, ReportError, SIGNATURE_HEADER, SignedReport, TIMESTAMP_HEADER,
};
use keypost_shared::time::UnixTime;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::body::read_at_most;
use super::problem::Problem;
use super::{App, answer};
use crate::clock::unix;
use crate::service::edge_report::{self, Outcome, ReportFailure};
use crate::service::revocation;

/// A report is as old as the way from the edge takes: what is older, or from the future, may have been kept by somebody.
/// What comes too late comes by KV, where it cannot be kept.
const WINDOW_SECONDS: i64 = 300;
/// The most bodies that are read at once: whoever sends them may be anybody.
const MOST_READ: usize = 256;
/// The most reports that are taken up at once: each has a connection to the database.
const MOST_TAKEN_UP: usize = 4;
/// How long a report waits for its turn.
const PATIENCE: Duration = Duration::from_secs(20);

/// What bounds the reports that are worked on at once.
pub(super) struct ReportLimits {
    reading: Semaphore,
    taking_up: Semaphore,
}

impl ReportLimits {
    pub(super) fn new() -> Self {
        Self { reading: Semaphore::new(MOST_READ), taking_up: Semaphore::new(MOST_TAKEN_UP) }
    }
}

pub(super) fn routes() -> Router<App> {
    Router::new().route(REPORT_PATH, post(report))
}

/// What has come of a report.
#[derive(Serialize)]
struct ReportAnswer {
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

async fn report(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let report = receive(&app, request).await?;
    let turn = timeout(PATIENCE, app.0.edge_reports.taking_up.acquire()).await;
    // Dropped once the report is taken up.
    let _turn = turn.ok().and_then(Result::ok).ok_or_else(Problem::timed_out)?;
    let report = match report {
        EdgeReport::Device(report) => report,
        EdgeReport::Revocation(report) => {
            let outcome = revocation::take_up(app.context(), &report).await?;
            return Ok(answer(&ReportAnswer { outcome: outcome.name(), code: None }));
        }
    };
    let outcome = edge_report::take_up(app.context(), &report).await.map_err(|failure| match failure {
        ReportFailure::Store(error) => Problem::from(error),
        ReportFailure::Internal(reason) => Problem::internal(&reason),
    })?;
    let code = match outcome {
        Outcome::Refused(code) => Some(code.to_string()),
        _ => None,
    };
    Ok(answer(&ReportAnswer { outcome: outcome.name(), code }))
}

/// Reads a report and makes sure that the edge has sent it, just now.
async fn receive(app: &App, request: Request) -> Result<EdgeReport, Problem> {
    let reading = app.0.edge_reports.reading.try_acquire().map_err(|_| Problem::timed_out())?;
    let timestamp = header(request.headers(), TIMESTAMP_HEADER).and_then(|text| text.parse().ok());
    let signature = header(request.headers(), SIGNATURE_HEADER).map(str::to_owned);
    let (Some(timestamp), Some(signature)) = (timestamp, signature) else {
        return Err(Problem::not_the_edge());
    };
    let bytes = read_at_most(request, MAX_REPORT).await?;
    drop(reading);
    let body = String::from_utf8(bytes).map_err(|_| Problem::not_the_edge())?;
    let context = app.context();
    let now = unix(context.clock.now()).0;
    if !(now.saturating_sub(WINDOW_SECONDS)..=now.saturating_add(WINDOW_SECONDS)).contains(&timestamp) {
        return Err(Problem::not_the_edge());
    }
    let signed = SignedReport { timestamp: UnixTime(timestamp), signature, body };
    signed.verify(&context.edge_secrets).map_err(|error| match error {
        // Rightly signed: by an edge of another version.
        ReportError::Body(_) => Problem::malformed_body("the report is not understood"),
        _ => Problem::not_the_edge(),
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl Problem {
    /// 401 for a report that the edge has not signed, or not just now.
    fn not_the_edge() -> Self {
        let title = "It is not from the edge";
        let detail = "the report is not signed with the shared secret, or its time is not now";
        Self::of(StatusCode::UNAUTHORIZED, "report_not_authentic", title, detail)
    }
}
