//! `publication`: what KV must be told (design §5).
//!
//! Rows are always locked in the order of their keys, or skipped where another transaction has them, so that changes and
//! publishers never wait for each other in a circle.

mod clients;
mod comparison;
mod lease;
mod sweep;

use std::collections::BTreeSet;

use keypost_shared::kv_key::KvKey;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::clients::{mark_all_clients, sweep_clients};
pub use self::comparison::{Expected, MarkedPage, digests, expected, mark_page};
pub use self::lease::{
    Failed, LeaseRequest, Leased, Written, complete, fail, lease, next_due, release, renew,
};
pub use self::sweep::{pools_signed_by, sweep_due, sweep_signed_by_others};
use super::{StoreError, corrupt};

/// The channel on which processes tell each other that something has been marked.
pub const CHANNEL: &str = "keypost_publication";

/// What goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
pub enum Priority {
    /// What takes something away, and the trust that everything else hangs on.
    Revocation = 0,
    /// What somebody changed.
    Change = 1,
    /// What is signed again so that it stays fresh.
    Resign = 2,
}

/// A key that a change has marked: once this generation of it is published, so is the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The KV key.
    pub key: KvKey,
    /// The generation that the change made.
    pub generation: i64,
    /// The last version that a document of the key was given before the change: those that follow show it.
    pub version: i64,
}

/// The backlog.
#[derive(Clone, Debug)]
pub struct Backlog {
    /// How many keys wait.
    pub pending: i64,
    /// How many of them have failed and will be tried again.
    pub failing: i64,
    /// Since when the one waits that has waited longest.
    pub oldest: Option<OffsetDateTime>,
    /// The same of those that have something new to say, and do not only wait to be repeated.
    pub oldest_unwritten: Option<OffsetDateTime>,
    /// When something was last written.
    pub last_published_at: Option<OffsetDateTime>,
    /// Why the key failed that was tried last among those that fail now.
    pub last_error: Option<String>,
}

/// Marks keys as stale, in the transaction of the change that makes them so. They are written after it commits.
///
/// A transaction marks once, with all its keys: that keeps the order in which rows are locked.
pub async fn mark(
    tx: &mut PgConnection,
    keys: &[KvKey],
    priority: Priority,
    now: OffsetDateTime,
) -> Result<Vec<Mark>, StoreError> {
    let pools: Vec<Option<Uuid>> = keys.iter().map(|key| key.pool().map(|pool| pool.0)).collect();
    // A key that was waiting keeps the time of its oldest mark and its more urgent priority. One that keeps failing
    // keeps its pause; one that only waits to be repeated does not, because now there is something new to say.
    // Who listens is told when the transaction commits.
    let rows = sqlx::query!(
        "with marked as (
             insert into publication as p (key, pool_id, generation, published_generation, priority, marked_at)
             select distinct on (wanted.key collate \"C\") wanted.key, wanted.pool_id, 1, 0, $3, $4
               from unnest($1::text[], $2::uuid[]) as wanted (key, pool_id)
              order by wanted.key collate \"C\"
             on conflict (key) do update
                set generation = p.generation + 1,
                    pool_id = excluded.pool_id,
                    priority = case when p.generation > p.published_generation
                                    then least(p.priority, excluded.priority) else excluded.priority end,
                    marked_at = case when p.generation > p.published_generation
                                     then least(p.marked_at, excluded.marked_at) else excluded.marked_at end,
                    not_before = case when p.attempts > 0 then p.not_before end
             returning key, generation, version
         )
         select key, generation, version from marked cross join pg_notify($5, '')",
        &names(keys),
        &pools as _,
        priority as i16,
        now,
        CHANNEL,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| Ok(Mark { key: kv_key(&row.key)?, generation: row.generation, version: row.version }))
        .collect()
}

/// Whether all these marks have been published.
pub async fn is_published(tx: &mut PgConnection, marks: &[Mark]) -> Result<bool, StoreError> {
    let names: Vec<String> = marks.iter().map(|mark| mark.key.to_string()).collect();
    let generations: Vec<i64> = marks.iter().map(|mark| mark.generation).collect();
    let waiting = sqlx::query_scalar!(
        r#"select exists (
               select from unnest($1::text[], $2::bigint[]) as wanted (key, generation)
                 join publication p on p.key = wanted.key
                where p.published_generation < wanted.generation
           ) as "waiting!""#,
        &names,
        &generations,
    )
    .fetch_one(tx)
    .await?;
    Ok(!waiting)
}

/// Those of `keys` of which a document has ever been written.
pub async fn ever_published(tx: &mut PgConnection, keys: &[KvKey]) -> Result<BTreeSet<KvKey>, StoreError> {
    let published = sqlx::query_scalar!(
        "select key from publication where key = any($1) and published_generation > 0",
        &names(keys),
    )
    .fetch_all(tx)
    .await?;
    published.iter().map(|key| kv_key(key)).collect()
}

/// The version of the document that was written last at `key`; none where there is none.
pub async fn published_version(tx: &mut PgConnection, key: &KvKey) -> Result<Option<u64>, StoreError> {
    let version =
        sqlx::query_scalar!("select published_version from publication where key = $1", key.to_string(),)
            .fetch_optional(tx)
            .await?;
    Ok(version.flatten().map(i64::unsigned_abs))
}

/// How much waits, how much of it has failed, and since when the oldest of it waits.
pub async fn waiting(tx: &mut PgConnection) -> Result<(i64, i64, Option<OffsetDateTime>), StoreError> {
    let row = sqlx::query!(
        r#"select count(*) as "pending!", count(*) filter (where attempts > 0) as "failing!", min(marked_at) as oldest
             from publication
            where generation > published_generation"#,
    )
    .fetch_one(tx)
    .await?;
    Ok((row.pending, row.failing, row.oldest))
}

/// Since when the key waits that has waited longest. Reads three rows however many wait.
pub async fn oldest_mark(tx: &mut PgConnection) -> Result<Option<OffsetDateTime>, StoreError> {
    let oldest = sqlx::query_scalar!(
        "select min(oldest) from generate_series(0, 2) as wanted (priority)
          cross join lateral (select min(marked_at) as oldest from publication
                               where generation > published_generation and priority = wanted.priority) as marks",
    )
    .fetch_one(tx)
    .await?;
    Ok(oldest)
}

/// What waits, and how it goes.
pub async fn backlog(tx: &mut PgConnection) -> Result<Backlog, StoreError> {
    let row = sqlx::query!(
        r#"select count(*) as "pending!", count(*) filter (where attempts > 0) as "failing!", min(marked_at) as oldest,
                  min(marked_at) filter (where attempts > 0 or not_before is null) as oldest_unwritten,
                  (select max(published_at) from publication) as last_published_at,
                  (select last_error from publication
                    where generation > published_generation and last_error is not null
                    order by not_before desc nulls last
                    limit 1) as last_error
             from publication
            where generation > published_generation"#,
    )
    .fetch_one(tx)
    .await?;
    Ok(Backlog {
        pending: row.pending,
        failing: row.failing,
        oldest: row.oldest,
        oldest_unwritten: row.oldest_unwritten,
        last_published_at: row.last_published_at,
        last_error: row.last_error,
    })
}

fn names(keys: &[KvKey]) -> Vec<String> {
    keys.iter().map(KvKey::to_string).collect()
}

fn kv_key(text: &str) -> Result<KvKey, StoreError> {
    text.parse().map_err(|error| corrupt("publication.key", error))
}
