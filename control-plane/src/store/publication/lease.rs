//! Leasing marked rows, and giving them back.

use std::collections::HashSet;
use std::time::Duration;

use keypost_shared::id::Kid;
use keypost_shared::kv_key::KvKey;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Priority, kv_key, names};
use crate::clock::unix_millis;
use crate::store::StoreError;

/// A key that this publisher may write, for as long as its lease lasts.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The KV key.
    pub key: KvKey,
    /// The generation that will have been published.
    pub generation: i64,
    /// The version for the document.
    pub version: u64,
    /// How often in a row it has failed.
    pub attempts: u32,
}

/// Which rows a publisher asks for.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest {
    /// Names the lease.
    pub lease_id: Uuid,
    /// The priorities, from and to.
    pub priorities: (Priority, Priority),
    /// Only `v1/trust`: as long as there is no key that may sign the rest.
    pub only_trust: bool,
    /// The most rows.
    pub limit: u16,
    /// How long the lease lasts.
    pub duration: Duration,
    /// How long after a request that was given up its writes may still land.
    pub late_write_window: Duration,
}

/// A document that has been written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The KV key.
    pub key: KvKey,
    /// The generation that was leased.
    pub generation: i64,
    /// The digest of the document's content; none where the key was deleted.
    pub digest: Option<[u8; 32]>,
    /// The key that signed it.
    pub signed_by: Option<Kid>,
    /// When it is to be signed again.
    pub resign_at: Option<OffsetDateTime>,
}

/// A key that could not be written.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The KV key.
    pub key: KvKey,
    /// When to try again.
    pub not_before: OffsetDateTime,
    /// Why, for people.
    pub error: String,
}

/// When the next waiting row of these priorities is due: a time that is over where one is due now, none where nothing
/// waits. Where very many wait for their pause to end, only the first of them are looked at.
pub async fn next_due(
    tx: &mut PgConnection,
    priorities: (Priority, Priority),
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, StoreError> {
    // In the order of the index, because a mere `exists` walks through the table, most of which may have been written already.
    let due = sqlx::query_scalar!(
        "select coalesce(
             (select $3::timestamptz from publication
               where generation > published_generation
                 and priority between $1 and $2
                 and (not_before is null or not_before <= $3)
                 and (leased_until is null or leased_until <= $3)
                 and (published_at is null or published_at <= $3 - interval '1 second')
               order by priority, marked_at
               limit 1),
             (select min(greatest(not_before, leased_until, published_at + interval '1 second'))
                from (select * from publication
                       where generation > published_generation and priority between $1 and $2
                       order by priority, marked_at
                       limit 1000) as waiting))",
        priorities.0 as i16,
        priorities.1 as i16,
        now,
    )
    .fetch_one(tx)
    .await?;
    Ok(due)
}

/// Leases what is due, most urgent and oldest first, and gives each key its next version: from here on, whatever
/// happens, no document of the key gets that version again.
///
/// A row is due when it is pending, nobody holds it, its pause is over, and it was not written within the last second
/// (KV takes one write a second per key). Whoever let a lease run out may still have a request under way.
pub async fn lease(
    tx: &mut PgConnection,
    request: &LeaseRequest,
    now: OffsetDateTime,
) -> Result<Vec<Leased>, StoreError> {
    let LeaseRequest { lease_id, priorities, only_trust, limit, duration, late_write_window } = *request;
    // By their places in the table, because a join of ten thousand keys reads all of it. They are locked, so they stay there.
    let rows = sqlx::query!(
        "with due as (
             select ctid from publication
              where generation > published_generation
                and priority between $3 and $4
                and (not_before is null or not_before <= $1)
                and (leased_until is null or leased_until <= $1)
                and (published_at is null or published_at <= $1 - interval '1 second')
                and (not $5 or key = 'v1/trust')
              order by priority, marked_at
              limit $6
                for update skip locked
         )
         update publication p
            set lease_id = $2,
                leased_until = $7,
                version = greatest(p.version + 1, $8),
                uncertain_until = case when p.lease_id is null then p.uncertain_until
                                       else greatest(p.uncertain_until, $9) end
          where p.ctid = any (array(select ctid from due))
         returning p.key, p.generation, p.version, p.attempts",
        now,
        lease_id,
        priorities.0 as i16,
        priorities.1 as i16,
        only_trust,
        i64::from(limit),
        now + duration,
        unix_millis(now),
        now + late_write_window,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Leased {
                key: kv_key(&row.key)?,
                generation: row.generation,
                version: row.version.unsigned_abs(),
                attempts: row.attempts.unsigned_abs(),
            })
        })
        .collect()
}

/// Lets a lease on `keys` last longer, and says on which of them it still stands: another publisher may have taken some
/// over.
pub async fn renew(
    tx: &mut PgConnection,
    lease_id: Uuid,
    keys: &[KvKey],
    leased_until: OffsetDateTime,
) -> Result<Vec<KvKey>, StoreError> {
    let (mine, _) = lock_in_order(tx, lease_id, keys).await?;
    sqlx::query!("update publication set leased_until = $2 where key = any($1)", &names(&mine), leased_until)
        .execute(tx)
        .await?;
    Ok(mine)
}

/// Notes what has been written, and gives the rows back.
///
/// - A mark is cleared only if its generation has not moved since the lease.
/// - Where an earlier request may still land after this one, the key is marked once more for the time when it no longer
///   can, so that the older document does not last.
/// - Where the lease was lost, another publisher has written the key too, and nobody knows who was last: the key is
///   marked again.
///
/// Answers with the keys on which the lease stood.
pub async fn complete(
    tx: &mut PgConnection,
    lease_id: Uuid,
    written: &[Written],
    leased_at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Vec<KvKey>, StoreError> {
    let keys: Vec<KvKey> = written.iter().map(|row| row.key.clone()).collect();
    let (mine, lost) = lock_in_order(tx, lease_id, &keys).await?;
    // The rows are locked, and the lease stands on them: to ask for it again would only mislead the planner, which takes a
    // lease for a row or two, and compares ten thousand rows with ten thousand.
    let held: HashSet<&KvKey> = mine.iter().collect();
    let written: Vec<&Written> = written.iter().filter(|row| held.contains(&row.key)).collect();
    let keys: Vec<KvKey> = written.iter().map(|row| row.key.clone()).collect();
    let generations: Vec<i64> = written.iter().map(|row| row.generation).collect();
    let digests: Vec<Option<Vec<u8>>> =
        written.iter().map(|row| row.digest.map(|digest| digest.to_vec())).collect();
    let signers: Vec<Option<String>> =
        written.iter().map(|row| row.signed_by.clone().map(String::from)).collect();
    let resign: Vec<Option<OffsetDateTime>> = written.iter().map(|row| row.resign_at).collect();
    sqlx::query!(
        "update publication p
            set published_generation = w.generation,
                published_version = case when w.digest is null then null else p.version end,
                generation = case when p.uncertain_until > $6 and p.generation = w.generation
                                  then p.generation + 1 else p.generation end,
                priority = case when p.generation = w.generation then 2 else p.priority end,
                marked_at = case when p.generation = w.generation then $7 else p.marked_at end,
                not_before = case when p.uncertain_until > $6 and p.generation = w.generation
                                  then p.uncertain_until end,
                uncertain_until = case when p.uncertain_until > $6 then p.uncertain_until end,
                digest = w.digest, publisher_kid = w.publisher_kid, resign_at = w.resign_at, published_at = $7,
                attempts = 0, last_error = null, lease_id = null, leased_until = null
           from unnest($1::text[], $2::bigint[], $3::bytea[], $4::text[], $5::timestamptz[])
                as w (key, generation, digest, publisher_kid, resign_at)
          where p.key = w.key",
        &names(&keys),
        &generations,
        &digests as _,
        &signers as _,
        &resign as _,
        leased_at,
        now,
    )
    .execute(&mut *tx)
    .await?;
    mark_lost(tx, &lost, None, now).await?;
    Ok(mine)
}

/// Notes what could not be written, and gives the rows back. Where the outcome is unknown, the write may still land until
/// `may_land_until`.
pub async fn fail(
    tx: &mut PgConnection,
    lease_id: Uuid,
    failed: &[Failed],
    may_land_until: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let keys: Vec<KvKey> = failed.iter().map(|row| row.key.clone()).collect();
    let (mine, lost) = lock_in_order(tx, lease_id, &keys).await?;
    let held: HashSet<&KvKey> = mine.iter().collect();
    let failed: Vec<&Failed> = failed.iter().filter(|row| held.contains(&row.key)).collect();
    let keys: Vec<KvKey> = failed.iter().map(|row| row.key.clone()).collect();
    let not_before: Vec<OffsetDateTime> = failed.iter().map(|row| row.not_before).collect();
    let errors: Vec<String> = failed.iter().map(|row| row.error.clone()).collect();
    sqlx::query!(
        "update publication p
            set attempts = least(p.attempts + 1, 1000000), not_before = f.not_before, last_error = f.error,
                uncertain_until = greatest(p.uncertain_until, $4), lease_id = null, leased_until = null
           from unnest($1::text[], $2::timestamptz[], $3::text[]) as f (key, not_before, error)
          where p.key = f.key",
        &names(&keys),
        &not_before,
        &errors,
        may_land_until,
    )
    .execute(&mut *tx)
    .await?;
    // What certainly was not written does no harm without a lease.
    if may_land_until.is_some() {
        mark_lost(tx, &lost, may_land_until, now).await?;
    }
    Ok(())
}

/// Gives rows back untried.
pub async fn release(tx: &mut PgConnection, lease_id: Uuid, keys: &[KvKey]) -> Result<(), StoreError> {
    let (mine, _) = lock_in_order(tx, lease_id, keys).await?;
    sqlx::query!(
        "update publication set lease_id = null, leased_until = null where key = any($1)",
        &names(&mine),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Marks keys again that were written without a lease on them, or may yet be until `may_land_until`.
async fn mark_lost(
    tx: &mut PgConnection,
    lost: &[KvKey],
    may_land_until: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    if lost.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update publication p
            set priority = case when p.generation > p.published_generation then p.priority else 1 end,
                marked_at = case when p.generation > p.published_generation then p.marked_at else $2 end,
                generation = p.generation + 1,
                not_before = case when p.attempts > 0 then p.not_before end,
                uncertain_until = greatest(p.uncertain_until, $3)
          where p.key = any($1)",
        &names(lost),
        now,
        may_land_until,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Locks rows in the order of their keys, and tells those on which the lease stands from those on which it was lost.
async fn lock_in_order(
    tx: &mut PgConnection,
    lease_id: Uuid,
    keys: &[KvKey],
) -> Result<(Vec<KvKey>, Vec<KvKey>), StoreError> {
    let rows = sqlx::query!(
        r#"select key, coalesce(lease_id = $2, false) as "mine!"
             from publication where key = any($1) order by key for update"#,
        &names(keys),
        lease_id,
    )
    .fetch_all(tx)
    .await?;
    let (mut mine, mut lost) = (Vec::new(), Vec::new());
    for row in rows {
        if row.mine { &mut mine } else { &mut lost }.push(kv_key(&row.key)?);
    }
    Ok((mine, lost))
}
