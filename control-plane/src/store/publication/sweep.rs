//! Marking what must be signed again.

use keypost_shared::id::Kid;
use keypost_shared::kv_key::KvKey;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::kv_key;
use crate::store::StoreError;

/// Marks what is due to be signed again, at most `limit` keys. Says how many.
pub async fn sweep_due(tx: &mut PgConnection, limit: u16, now: OffsetDateTime) -> Result<u64, StoreError> {
    // By their places in the table, as in `lease`.
    let done = sqlx::query!(
        "with due as (
             select ctid from publication
              where resign_at <= $1 and generation = published_generation
              order by resign_at
              limit $2
                for update skip locked
         )
         update publication p
            set generation = p.generation + 1, priority = 2, marked_at = $1, not_before = null
          where p.ctid = any (array(select ctid from due))",
        now,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Marks documents that another publisher key than `signer` has signed, at most `limit` keys. Says how many.
///
/// `v1/trust` is not among them: the root signs it.
pub async fn sweep_signed_by_others(
    tx: &mut PgConnection,
    signer: &Kid,
    limit: u16,
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    // Key by key, by the index: where nothing is left, a join reads all that the present key has signed.
    let done = sqlx::query!(
        "with due as (
             select p.ctid
               from (select kid from publisher_key union select kid from removed_publisher_key) as k
              cross join lateral (
                        select ctid from publication
                         where publisher_kid between k.kid and k.kid and generation = published_generation
                         order by publisher_kid
                         limit $2
                           for update skip locked) as p
              where k.kid <> $1
              limit $2
         )
         update publication p
            set generation = p.generation + 1, priority = 2, marked_at = $3, not_before = null
          where p.ctid = any (array(select ctid from due))",
        signer.as_str(),
        i64::from(limit),
        now,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// The documents of pools that this publisher key has signed.
pub async fn pools_signed_by(tx: &mut PgConnection, kid: &Kid) -> Result<Vec<KvKey>, StoreError> {
    let keys = sqlx::query_scalar!(
        "select key from publication where publisher_kid = $1 and key like 'v1/pool/%' order by key",
        kid.as_str(),
    )
    .fetch_all(tx)
    .await?;
    keys.iter().map(|key| kv_key(key)).collect()
}
