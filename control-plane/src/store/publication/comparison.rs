//! What KV should show, and marking all of it.

use std::collections::BTreeMap;

use keypost_shared::kv_key::KvKey;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::kv_key;
use crate::store::{StoreError, hash};

/// What is known of a key.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The key.
    pub key: KvKey,
    /// Whether it is to be written anyway, or just being written.
    pub is_pending: bool,
    /// The version that was written last; none where that is not known.
    pub version: Option<u64>,
    /// The highest version that was ever given to it.
    pub highest_version: u64,
    /// The digest of what was written last; none where the key was deleted.
    pub digest: Option<[u8; 32]>,
    /// When it was written.
    pub published_at: Option<OffsetDateTime>,
}

/// What should stand at the keys after `after` and up to `upto` (none: to the last), in the order of the keys, at most
/// `limit` of them. Also what should not stand there any more.
pub async fn expected(
    tx: &mut PgConnection,
    after: &str,
    upto: Option<&str>,
    limit: u16,
) -> Result<Vec<Expected>, StoreError> {
    let rows = sqlx::query!(
        r#"select key, (generation > published_generation or lease_id is not null) as "is_pending!", published_version,
                  version, digest, published_at
             from publication
            where key > $1 and ($2::text is null or key <= $2)
            order by key
            limit $3"#,
        after,
        upto,
        i64::from(limit),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Expected {
                key: kv_key(&row.key)?,
                is_pending: row.is_pending,
                version: row.published_version.map(i64::unsigned_abs),
                highest_version: row.version.unsigned_abs(),
                digest: row.digest.map(|digest| hash("publication.digest", digest)).transpose()?,
                published_at: row.published_at,
            })
        })
        .collect()
}

/// The digests of what was written last at these keys, but for those that have been written since, or are to be.
pub async fn digests(
    connection: &mut PgConnection,
    written: &[(KvKey, OffsetDateTime)],
) -> Result<BTreeMap<KvKey, [u8; 32]>, StoreError> {
    let names: Vec<String> = written.iter().map(|(key, _)| key.to_string()).collect();
    let times: Vec<OffsetDateTime> = written.iter().map(|(_, at)| *at).collect();
    let rows = sqlx::query!(
        r#"select p.key, p.digest as "digest!"
             from unnest($1::text[], $2::timestamptz[]) as wanted (key, published_at)
             join publication p on p.key = wanted.key
            where p.published_at = wanted.published_at and p.generation = p.published_generation
              and p.digest is not null"#,
        &names,
        &times,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok((kv_key(&row.key)?, hash("publication.digest", row.digest)?))).collect()
}

/// A page of keys that were marked.
#[derive(Clone, Debug)]
pub struct MarkedPage {
    /// How many keys were looked at.
    pub looked_at: i64,
    /// How many of them were marked; the others wait already, or have been written since.
    pub marked: i64,
    /// The last of them; none where that was the end.
    pub last: Option<String>,
}

/// Marks the keys after `after`, at most `limit`, that have not been written since `since` and do not wait already: as
/// urgent as what is signed again. One that only waits to be repeated does not wait any longer.
pub async fn mark_page(
    tx: &mut PgConnection,
    after: &str,
    limit: u16,
    since: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<MarkedPage, StoreError> {
    let row = sqlx::query!(
        r#"with page as materialized (
               select key from publication where key > $1 order by key limit $2 for update
           ), marked as (
               update publication p
                  set generation = p.generation + 1, priority = 2, marked_at = $4, not_before = null
                 from page
                where p.key = page.key
                  and (p.generation = p.published_generation or p.attempts = 0 and p.not_before is not null)
                  and (p.published_at is null or p.published_at <= $3)
               returning p.key
           )
           select (select count(*) from page) as "looked_at!", (select count(*) from marked) as "marked!",
                  (select max(key) from page) as last"#,
        after,
        i64::from(limit),
        since,
        now,
    )
    .fetch_one(tx)
    .await?;
    let last = row.last.filter(|_| row.looked_at >= i64::from(limit));
    Ok(MarkedPage { looked_at: row.looked_at, marked: row.marked, last })
}
