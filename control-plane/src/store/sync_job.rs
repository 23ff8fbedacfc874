//! `sync_job`: work on all documents, which goes on in the background.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, corrupt};

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Marks every document, so that all are written anew.
    Rebuild,
    /// Compares KV with the database, and marks what differs.
    Verify,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It goes on.
    Running,
    /// It has come to its end.
    Done,
    /// It has been given up.
    Failed,
}

/// What a job has found and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Documents that were looked at.
    pub checked: i64,
    /// Documents that were marked, to be written or deleted.
    pub marked: i64,
    /// Documents that KV lacks.
    pub missing: i64,
    /// Documents that KV has otherwise.
    pub differing: i64,
    /// What stands in KV, and nothing owns it.
    pub unowned: i64,
    /// Documents that were just being written.
    pub skipped: i64,
    /// Keys in KV that are not Keypost's.
    pub strange: i64,
}

/// A job.
#[derive(Clone, Debug)]
pub struct SyncJob {
    /// Its id.
    pub id: Uuid,
    /// What it does.
    pub kind: JobKind,
    /// How far it is.
    pub state: JobState,
    /// When it was asked for.
    pub started_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
    /// The last key that has been dealt with.
    pub after: String,
    /// Where the next page of KV's list begins.
    pub list_cursor: Option<String>,
    /// What it has found and done.
    pub counts: Counts,
    /// How often in a row a step has failed.
    pub attempts: i32,
    /// Why the last step failed.
    pub last_error: Option<String>,
}

impl JobKind {
    /// Its name in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Rebuild => "rebuild",
            JobKind::Verify => "verify",
        }
    }
}

impl JobState {
    /// Its name in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
        }
    }
}

struct Row {
    id: Uuid,
    kind: String,
    state: String,
    started_at: OffsetDateTime,
    finished_at: Option<OffsetDateTime>,
    after: String,
    list_cursor: Option<String>,
    checked: i64,
    marked: i64,
    missing: i64,
    differing: i64,
    unowned: i64,
    skipped: i64,
    strange: i64,
    attempts: i32,
    last_error: Option<String>,
}

impl Row {
    fn read(self) -> Result<SyncJob, StoreError> {
        let kind = match self.kind.as_str() {
            "rebuild" => JobKind::Rebuild,
            "verify" => JobKind::Verify,
            other => return Err(corrupt("sync_job.kind", other)),
        };
        let state = match self.state.as_str() {
            "running" => JobState::Running,
            "done" => JobState::Done,
            "failed" => JobState::Failed,
            other => return Err(corrupt("sync_job.state", other)),
        };
        Ok(SyncJob {
            id: self.id,
            kind,
            state,
            started_at: self.started_at,
            finished_at: self.finished_at,
            after: self.after,
            list_cursor: self.list_cursor,
            counts: Counts {
                checked: self.checked,
                marked: self.marked,
                missing: self.missing,
                differing: self.differing,
                unowned: self.unowned,
                skipped: self.skipped,
                strange: self.strange,
            },
            attempts: self.attempts,
            last_error: self.last_error,
        })
    }
}

/// Adds a job. A second one of its kind is a duplicate as long as the first is running.
pub async fn insert(
    tx: &mut PgConnection,
    id: Uuid,
    kind: JobKind,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into sync_job (id, kind, state, started_at) values ($1, $2, 'running', $3)",
        id,
        kind.as_str(),
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The jobs that are running, the oldest first.
pub async fn running(connection: &mut PgConnection) -> Result<Vec<SyncJob>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "select id, kind, state, started_at, finished_at, after, list_cursor, checked, marked, missing, differing,
                unowned, skipped, strange, attempts, last_error
           from sync_job where state = 'running' order by started_at, id",
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

/// The latest job of each kind.
pub async fn latest(connection: &mut PgConnection) -> Result<Vec<SyncJob>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "select distinct on (kind) id, kind, state, started_at, finished_at, after, list_cursor, checked, marked,
                missing, differing, unowned, skipped, strange, attempts, last_error
           from sync_job order by kind, started_at desc, id desc",
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

/// Writes down how far a job is.
pub async fn update(tx: &mut PgConnection, job: &SyncJob) -> Result<(), StoreError> {
    let counts = &job.counts;
    sqlx::query!(
        "update sync_job
            set state = $2, finished_at = $3, after = $4, list_cursor = $5, checked = $6, marked = $7, missing = $8,
                differing = $9, unowned = $10, skipped = $11, strange = $12, attempts = $13, last_error = $14
          where id = $1",
        job.id,
        job.state.as_str(),
        job.finished_at,
        job.after,
        job.list_cursor,
        counts.checked,
        counts.marked,
        counts.missing,
        counts.differing,
        counts.unowned,
        counts.skipped,
        counts.strange,
        job.attempts,
        job.last_error,
    )
    .execute(tx)
    .await?;
    Ok(())
}
