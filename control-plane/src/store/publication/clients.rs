//! Marking all clients of a pool, however many there are.

use keypost_shared::id::PoolId;
use keypost_shared::kv_key::KvKey;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{CHANNEL, Priority};
use crate::store::StoreError;

/// Marks the documents of all clients of a pool: the first `limit` of them at once, the rest by [`sweep_clients`], for
/// which a row is left in the same transaction. Whoever asks must hold a lock on the pool's row that keeps new clients
/// out, or one that is being made from the rows of before could be missed.
pub async fn mark_all_clients(
    tx: &mut PgConnection,
    pool: PoolId,
    limit: u16,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    // The sweep locks its row before the rows that it marks, and so must this.
    sqlx::query!("select pool_id from client_sweep where pool_id = $1 for update", pool.0)
        .fetch_optional(&mut *tx)
        .await?;
    if let Some(last) = mark_some(tx, pool, "", limit, now).await? {
        // Where an earlier change's sweep is further on, it begins again.
        sqlx::query!(
            "insert into client_sweep (pool_id, after, marked_at) values ($1, $2, $3)
             on conflict (pool_id) do update
                set after = least(client_sweep.after, excluded.after), marked_at = excluded.marked_at",
            pool.0,
            last,
            now,
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Marks what changes of environments have left over, at most `limit` clients of one pool. Says whether there may be more.
pub async fn sweep_clients(
    tx: &mut PgConnection,
    limit: u16,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let row = sqlx::query!(
        "select pool_id, after from client_sweep order by marked_at, pool_id limit 1 for update skip locked"
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(false) };
    match mark_some(tx, PoolId(row.pool_id), &row.after, limit, now).await? {
        Some(last) => {
            sqlx::query!("update client_sweep set after = $2 where pool_id = $1", row.pool_id, last)
                .execute(tx)
                .await?;
        }
        None => {
            sqlx::query!("delete from client_sweep where pool_id = $1", row.pool_id).execute(tx).await?;
        }
    }
    Ok(true)
}

/// Marks the clients of a pool that come after `after`, at most `limit`, in the order of their keys. Answers with the last
/// one where there may be more.
async fn mark_some(
    tx: &mut PgConnection,
    pool: PoolId,
    after: &str,
    limit: u16,
    now: OffsetDateTime,
) -> Result<Option<String>, StoreError> {
    // As in `mark`, but for the keys, which come from the clients themselves.
    let row = sqlx::query!(
        r#"with page as materialized (
               select client_id from oauth_client
                where pool_id = $1 and client_id > $2
                order by client_id
                limit $3
           ), marked as (
               insert into publication as p (key, pool_id, generation, published_generation, priority, marked_at)
               select $4 || client_id, $1, 1, 0, $5, $6 from page order by client_id
               on conflict (key) do update
                  set generation = p.generation + 1,
                      pool_id = excluded.pool_id,
                      priority = case when p.generation > p.published_generation
                                      then least(p.priority, excluded.priority) else excluded.priority end,
                      marked_at = case when p.generation > p.published_generation
                                       then least(p.marked_at, excluded.marked_at) else excluded.marked_at end,
                      not_before = case when p.attempts > 0 then p.not_before end
           )
           select count(*) as "count!", max(client_id) as last from page"#,
        pool.0,
        after,
        i64::from(limit),
        KvKey::client_prefix(pool),
        Priority::Change as i16,
        now,
    )
    .fetch_one(&mut *tx)
    .await?;
    // Delivered when the transaction commits.
    sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(tx).await?;
    Ok(row.last.filter(|_| row.count >= i64::from(limit)))
}
