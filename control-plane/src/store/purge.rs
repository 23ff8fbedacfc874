//! Rows that nobody needs any more, of whatever owner. Each question removes at most `limit` of them and says how many;
//! rows that somebody holds are left for the next time.

use keypost_shared::id::PoolId;
use keypost_shared::kv_key::KvKey;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::{StoreError, hash, id};
use crate::service::audit::{ChainedEvent, event_hash};

/// Removes one-time passwords that ended before a time, used or not.
pub async fn otps(tx: &mut PgConnection, before: OffsetDateTime, limit: u16) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select device_app_id from otp where expires_at < $1 order by expires_at limit $2 for update skip locked
         )
         delete from otp o using due where o.device_app_id = due.device_app_id",
        before,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets the secrets before the current ones of clients, once they no longer count. Answers with the documents that still
/// name them. Those say themselves when they end; but what they say must be what the rows say.
pub async fn previous_client_secrets(
    tx: &mut PgConnection,
    now: OffsetDateTime,
    limit: u16,
) -> Result<Vec<KvKey>, StoreError> {
    let rows = sqlx::query!(
        "with due as (
             select client_id from oauth_client where previous_secret_expires_at <= $1
              order by previous_secret_expires_at limit $2 for update skip locked
         )
         update oauth_client c set previous_secret_hash = null, previous_secret_expires_at = null
           from due where c.client_id = due.client_id
         returning c.pool_id, c.client_id",
        now,
        i64::from(limit),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| Ok(KvKey::Client(PoolId(row.pool_id), id("oauth_client.client_id", &row.client_id)?)))
        .collect()
}

/// Forgets the keys before the current ones of organizations' API keys, once they no longer count. Those of global keys
/// stay known: one that KEYPOST_ADMIN_API_KEY still holds would be added again.
pub async fn previous_api_keys(
    tx: &mut PgConnection,
    now: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select id from api_key where previous_expires_at <= $1 and org_id is not null
              order by previous_expires_at limit $2 for update skip locked
         )
         update api_key k set previous_key_hash = null, previous_expires_at = null from due where k.id = due.id",
        now,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Removes the answers to requests that were made before a time.
pub async fn idempotency(
    tx: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select id from idempotency where created_at < $1 order by created_at limit $2 for update skip locked
         )
         delete from idempotency i using due where i.id = due.id",
        before,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Removes the counts of new devices in hours that began before a time.
pub async fn provisioning_hours(
    tx: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select pool_id, hour from provisioning_hour where hour < $1
              order by hour limit $2 for update skip locked
         )
         delete from provisioning_hour h using due where h.pool_id = due.pool_id and h.hour = due.hour",
        before,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Removes refusals that ended before a time.
pub async fn refused_devices(
    tx: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select pool_id, device_id from refused_device where until < $1
              order by until limit $2 for update skip locked
         )
         delete from refused_device r using due
          where r.pool_id = due.pool_id and r.device_id = due.device_id",
        before,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets devices that were deleted before a time.
pub async fn deleted_devices(
    tx: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select pool_id, device_id from deleted_device where deleted_at < $1
              order by deleted_at limit $2 for update skip locked
         )
         delete from deleted_device d using due
          where d.pool_id = due.pool_id and d.device_id = due.device_id",
        before,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Removes revocations of tokens that expired before a time.
pub async fn revoked_tokens(
    tx: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select id from revoked_token where expires_at < $1 order by expires_at limit $2 for update skip locked
         )
         delete from revoked_token r using due where r.id = due.id",
        before,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Removes jobs over all documents that ended before a time. The latest of each kind stays, for whoever asks how it went.
pub async fn sync_jobs(tx: &mut PgConnection, before: OffsetDateTime, limit: u16) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select id from sync_job as old
              where finished_at < $1
                and exists (select from sync_job as later
                             where later.kind = old.kind and (later.started_at, later.id) > (old.started_at, old.id))
              order by finished_at limit $2 for update skip locked
         )
         delete from sync_job j using due where j.id = due.id",
        before,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// What became of the beginning of a chain of audit events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainPurge {
    /// So many events were removed.
    Removed(u64),
    /// The event at this place is missing or is not what its hash says. Nothing from there on is removed: it is evidence.
    Broken {
        /// Its place.
        seq: i64,
    },
}

/// The next chain after another, in the order of their names, whose oldest event is older than `before`.
pub async fn next_chain(
    tx: &mut PgConnection,
    after: Option<&str>,
    before: OffsetDateTime,
) -> Result<Option<String>, StoreError> {
    let chain = sqlx::query_scalar!(
        "select c.org_id
           from audit_chain c
          where ($1::text is null or c.org_id > $1)
            and c.purged_seq < c.seq
            and (select e.occurred_at from audit_event e
                  where e.org_id = c.org_id and e.seq > c.purged_seq order by e.seq limit 1) < $2
          order by c.org_id
          limit 1",
        after,
        before,
    )
    .fetch_optional(tx)
    .await?;
    Ok(chain)
}

/// Removes the beginning of a chain, up to the first event that is not older than `before`. The chain keeps the place and
/// the hash of the last event that was removed, so that what is left can still be checked.
///
/// What is removed is checked first: whoever takes out an event must not have its trace cleared away with time.
pub async fn audit_chain(
    connection: &mut PgConnection,
    chain: &str,
    before: OffsetDateTime,
    limit: u16,
) -> Result<ChainPurge, StoreError> {
    let mut tx = connection.begin().await?;
    // Who writes to the chain waits for as long as a batch takes.
    let head =
        sqlx::query!("select purged_seq, purged_hash from audit_chain where org_id = $1 for update", chain)
            .fetch_one(&mut *tx)
            .await?;
    let events = sqlx::query!(
        "select seq, occurred_at, actor_kind, actor_id, actor_name, action, target_kind, target_id, env_id,
                changes::text, address, request_id, hash
           from audit_event
          where org_id = $1 and seq > $2
          order by seq
          limit $3",
        chain,
        head.purged_seq,
        i64::from(limit),
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut seq = head.purged_seq;
    let mut last = hash("audit_chain.purged_hash", head.purged_hash)?;
    for row in events.into_iter().take_while(|row| row.occurred_at < before) {
        let event = ChainedEvent {
            chain: chain.to_owned(),
            seq: row.seq,
            occurred_at: row.occurred_at,
            actor_kind: row.actor_kind,
            actor_id: row.actor_id,
            actor_name: row.actor_name,
            action: row.action,
            target_kind: row.target_kind,
            target_id: row.target_id,
            env_id: row.env_id,
            changes: row.changes.unwrap_or_default(),
            address: row.address,
            request_id: row.request_id,
        };
        if row.seq != seq + 1 || event_hash(&last, &event).as_slice() != row.hash {
            return Ok(ChainPurge::Broken { seq: seq + 1 });
        }
        seq = row.seq;
        last = hash("audit_event.hash", row.hash)?;
    }
    let done = sqlx::query!("delete from audit_event where org_id = $1 and seq <= $2", chain, seq)
        .execute(&mut *tx)
        .await?;
    sqlx::query!(
        "update audit_chain set purged_seq = $2, purged_hash = $3 where org_id = $1",
        chain,
        seq,
        last.as_slice(),
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(ChainPurge::Removed(done.rows_affected()))
}
