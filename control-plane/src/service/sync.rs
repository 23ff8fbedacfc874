//! How publishing goes, and work on all documents.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Context;
use super::access::GlobalScope;
use super::audit::{Event, Target};
use super::change::Change;
use crate::entropy::random_uuid;
use crate::metrics::Waiting;
use crate::store::publication::Backlog;
use crate::store::sync_job::{JobKind, SyncJob};
use crate::store::{self, StoreError};

/// What waits to be published, and the work on all documents.
pub struct Sync {
    /// What waits.
    pub backlog: Backlog,
    /// For how long the oldest of it has waited, in seconds.
    pub oldest_seconds: u64,
    /// The latest job of each kind.
    pub jobs: Vec<SyncJob>,
}

/// Whether publishing keeps up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// For how long the oldest mark has waited, in seconds.
    pub oldest_seconds: u64,
    /// Whether that is longer than it should be.
    pub is_late: bool,
}

/// Why a job was not begun.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// One of its kind goes on.
    #[error("one of its kind goes on")]
    Running,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What waits to be published, for the metrics.
pub async fn waiting(context: &Context) -> Result<Waiting, StoreError> {
    let mut connection = context.connection().await?;
    let (pending, failing, oldest) = store::publication::waiting(&mut connection).await?;
    let oldest_seconds = age(context, oldest);
    Ok(Waiting {
        documents: pending.unsigned_abs(),
        failing: failing.unsigned_abs(),
        oldest_seconds,
        is_late: oldest_seconds > context.late_after.as_secs(),
    })
}

/// What waits to be published, and how far the jobs are.
pub async fn read(context: &Context, _: GlobalScope) -> Result<Sync, StoreError> {
    let mut connection = context.connection().await?;
    // In this order: what an ended job marked is in a backlog that is read after it.
    let jobs = store::sync_job::latest(&mut connection).await?;
    let backlog = store::publication::backlog(&mut connection).await?;
    let oldest_seconds = age(context, backlog.oldest);
    Ok(Sync { backlog, oldest_seconds, jobs })
}

/// Has every document marked, or compared. Answers with the job's id.
pub async fn begin(context: &Context, scope: &GlobalScope, kind: JobKind) -> Result<Uuid, JobError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let id = random_uuid(&mut change.rng());
    let now = change.now();
    store::sync_job::insert(change.tx(), id, kind, now)
        .await
        .map_err(|error| if error.is_duplicate() { JobError::Running } else { error.into() })?;
    let target = Target { org: None, env: None, kind: "sync", id: id.to_string() };
    change.record(Event::new(target, kind.as_str(), serde_json::json!({})));
    change.commit().await?;
    context.publications.wake();
    Ok(id)
}

/// Whether the database answers, and whether publishing keeps up.
pub async fn readiness(context: &Context) -> Result<Readiness, StoreError> {
    let mut connection = context.connection().await?;
    let oldest_seconds = age(context, store::publication::oldest_mark(&mut connection).await?);
    Ok(Readiness { oldest_seconds, is_late: oldest_seconds > context.late_after.as_secs() })
}

fn age(context: &Context, since: Option<OffsetDateTime>) -> u64 {
    let age = since.map(|since| context.now() - since).unwrap_or_default();
    age.whole_seconds().try_into().unwrap_or(0)
}
