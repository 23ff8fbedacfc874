//! `deleted_pool`: what verifiers need of pools that have been deleted.

use std::collections::BTreeMap;

use keypost_shared::document::PoolDocument;
use keypost_shared::id::{Kid, PoolId};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, id};

/// A pool that has been deleted.
pub struct DeletedPool {
    /// Its document.
    pub document: PoolDocument,
    /// When nobody needs it any more.
    pub until: OffsetDateTime,
}

/// A status list of a pool that has been deleted.
pub struct DeletedStatus {
    /// The Status List Token.
    pub token: String,
    /// The key that signed it.
    pub signed_by: Kid,
    /// When nobody needs it any more.
    pub until: OffsetDateTime,
}

/// Keeps what verifiers need of a pool that is being deleted. `status` are its status lists, from the first, signed.
pub async fn insert(
    tx: &mut PgConnection,
    pool: PoolId,
    deleted: &DeletedPool,
    signed_by: Option<&Kid>,
    status: &[String],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into deleted_pool (pool_id, document, deleted_at, until) values ($1, $2, $3, $4)",
        pool.0,
        Json(&deleted.document) as _,
        now,
        deleted.until,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into deleted_pool_status (pool_id, list, token, signed_by)
         select $1, (one.place - 1)::integer, one.token, $3
           from unnest($2::text[]) with ordinality as one (token, place)",
        pool.0,
        status,
        signed_by.map(Kid::as_str).unwrap_or_default(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Those of these pools that have been deleted and are still needed, each at the time that it comes with.
pub async fn pools(
    tx: &mut PgConnection,
    pools: &[(PoolId, OffsetDateTime)],
) -> Result<BTreeMap<PoolId, DeletedPool>, StoreError> {
    let (ids, times): (Vec<Uuid>, Vec<OffsetDateTime>) = pools.iter().map(|(pool, at)| (pool.0, *at)).unzip();
    let rows = sqlx::query!(
        r#"select p.pool_id, p.document as "document: Json<PoolDocument>", p.until
             from unnest($1::uuid[], $2::timestamptz[]) as wanted (pool_id, as_of)
             join deleted_pool p on p.pool_id = wanted.pool_id and p.until > wanted.as_of"#,
        &ids,
        &times,
    )
    .fetch_all(tx)
    .await?;
    let pools = rows
        .into_iter()
        .map(|row| (PoolId(row.pool_id), DeletedPool { document: row.document.0, until: row.until }));
    Ok(pools.collect())
}

/// Those of these status lists whose pools have been deleted and are still needed, each at the time that it comes with.
pub async fn status_lists(
    tx: &mut PgConnection,
    lists: &[(PoolId, u32, OffsetDateTime)],
) -> Result<BTreeMap<(PoolId, u32), DeletedStatus>, StoreError> {
    let pools: Vec<Uuid> = lists.iter().map(|(pool, ..)| pool.0).collect();
    let numbers: Vec<i32> =
        lists.iter().map(|(_, list, _)| i32::try_from(*list).unwrap_or(i32::MAX)).collect();
    let times: Vec<OffsetDateTime> = lists.iter().map(|(.., at)| *at).collect();
    let rows = sqlx::query!(
        "select s.pool_id, s.list, s.token, s.signed_by, p.until
           from unnest($1::uuid[], $2::int[], $3::timestamptz[]) as wanted (pool_id, list, as_of)
           join deleted_pool_status s on s.pool_id = wanted.pool_id and s.list = wanted.list
           join deleted_pool p on p.pool_id = s.pool_id and p.until > wanted.as_of",
        &pools,
        &numbers,
        &times,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let key = (PoolId(row.pool_id), row.list.unsigned_abs());
            let signed_by = id("deleted_pool_status.signed_by", &row.signed_by)?;
            Ok((key, DeletedStatus { token: row.token, signed_by, until: row.until }))
        })
        .collect()
}

/// Forgets pools that ended before a time, at most `limit`. Says how many. Their documents have gone by then.
pub async fn purge(tx: &mut PgConnection, before: OffsetDateTime, limit: u16) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select pool_id from deleted_pool where until < $1 order by until limit $2 for update skip locked
         )
         delete from deleted_pool p using due where p.pool_id = due.pool_id",
        before,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}
