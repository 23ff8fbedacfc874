//! Rows of single sign-on that nobody needs any more, of whatever organization: as in [`purge`](crate::store::purge).

use std::collections::BTreeSet;

use keypost_shared::id::{PoolId, SessionId, SsoAppId};
use keypost_shared::kv_key::KvKey;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::StoreError;

/// Removes sessions that ran out before a time, with their refresh tokens. Answers with each and its pool.
pub async fn sessions(
    tx: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<Vec<(PoolId, SessionId)>, StoreError> {
    let due = sqlx::query!(
        "select id, pool_id from sso_session where expires_at < $1 order by expires_at limit $2 for update skip locked",
        before,
        i64::from(limit),
    )
    .fetch_all(&mut *tx)
    .await?;
    let ids: Vec<Uuid> = due.iter().map(|row| row.id).collect();
    sqlx::query!("delete from refresh_token where session_id = any($1)", &ids).execute(&mut *tx).await?;
    sqlx::query!("delete from sso_session where id = any($1)", &ids).execute(tx).await?;
    Ok(due.into_iter().map(|row| (PoolId(row.pool_id), SessionId(row.id))).collect())
}

/// Removes refresh tokens that ended before a time, used or not. Who uses one later is told the same, and is no thief for it.
pub async fn refresh_tokens(
    tx: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select hash from refresh_token where expires_at < $1 order by expires_at limit $2 for update skip locked
         )
         delete from refresh_token r using due where r.hash = due.hash",
        before,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Removes authorization codes that ended before a time, used or not.
pub async fn authorization_codes(
    tx: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select hash from authorization_code where expires_at < $1
              order by expires_at limit $2 for update skip locked
         )
         delete from authorization_code c using due where c.hash = due.hash",
        before,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Removes keys of organizations and client apps that ended before a time. Says how many, and answers with the documents
/// that still name them. Those say themselves when a key ends; but what they say must be what the rows say.
pub async fn keys(
    tx: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<(u64, Vec<KvKey>), StoreError> {
    let rows = sqlx::query!(
        r#"with due as (
               select id from sso_key where expires_at < $1 order by expires_at limit $2 for update skip locked
           ), gone as (
               delete from sso_key k using due where k.id = due.id returning k.org_id, k.client_app_id
           )
           select p.id as "pool_id?", gone.client_app_id
             from gone
             left join client_pool p on p.org_id = gone.org_id and p.kind = 'sso'"#,
        before,
        i64::from(limit),
    )
    .fetch_all(tx)
    .await?;
    let documents = rows.iter().filter_map(|row| {
        let (pool, app) = row.pool_id.zip(row.client_app_id)?;
        Some(KvKey::Client(PoolId(pool), SsoAppId(app).into()))
    });
    let documents: BTreeSet<KvKey> = documents.collect();
    Ok((u64::try_from(rows.len()).unwrap_or(u64::MAX), documents.into_iter().collect()))
}
