//! `revoked_record`: clients and devices of which a record that once was in KV must not count any more.

use std::collections::BTreeMap;

use keypost_shared::document::{Revoked, RevokedDocument};
use keypost_shared::id::PoolId;
use keypost_shared::kv_key::KvKey;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::publication::Mark;
use super::signing_key::PoolOwner;
use super::{StoreError, id};

/// In how many shards a pool's revocation list stands. A million entries are 125,000 a shard, some 8 MB.
pub const SHARDS: u32 = 8;

/// The key of the shard in which a record of this key stands. None for documents that expire by themselves.
pub fn shard_key(key: &KvKey) -> Option<KvKey> {
    let (pool, id) = match key {
        KvKey::Client(pool, client) => (*pool, client.as_str()),
        KvKey::Device(pool, device) => (*pool, device.as_str()),
        KvKey::Trust | KvKey::Pool(_) | KvKey::Revoked(..) | KvKey::Status(..) => return None,
    };
    RevokedDocument::shard_of(id, SHARDS).map(|shard| KvKey::Revoked(pool, shard))
}

/// Keys that are compared by kind, pool and id.
struct Columns {
    pools: Vec<Uuid>,
    kinds: Vec<&'static str>,
    ids: Vec<String>,
}

impl Columns {
    fn of<'a>(keys: impl IntoIterator<Item = &'a KvKey>) -> Self {
        let mut columns = Self { pools: Vec::new(), kinds: Vec::new(), ids: Vec::new() };
        for key in keys {
            let (pool, kind, id) = match key {
                KvKey::Client(pool, client) => (pool, "client", client.to_string()),
                KvKey::Device(pool, device) => (pool, "device", device.to_string()),
                KvKey::Trust | KvKey::Pool(_) | KvKey::Revoked(..) | KvKey::Status(..) => continue,
            };
            columns.pools.push(pool.0);
            columns.kinds.push(kind);
            columns.ids.push(id);
        }
        columns
    }
}

/// The shards in which any of these records stands: what a shard says of a record follows from its rows, so it is made
/// anew with the record.
pub async fn shards_of(tx: &mut PgConnection, keys: &[KvKey]) -> Result<Vec<KvKey>, StoreError> {
    let Columns { pools, kinds, ids } = Columns::of(keys);
    if pools.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        "select distinct r.pool_id, r.shard
           from unnest($1::uuid[], $2::text[], $3::text[]) as wanted (pool_id, kind, id)
           join revoked_record r on r.pool_id = wanted.pool_id and r.kind = wanted.kind and r.id = wanted.id",
        &pools,
        &kinds as _,
        &ids,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| KvKey::Revoked(PoolId(row.pool_id), row.shard.unsigned_abs())).collect())
}

/// Notes that what has been published of these keys so far does not count any more, at once or from a time on. Their rows
/// in `publication` are locked by the marks, so that no later version of the old content can come to be.
pub async fn note(
    tx: &mut PgConnection,
    lost: &[(Mark, Option<OffsetDateTime>)],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let Columns { pools, kinds, ids } = Columns::of(lost.iter().map(|(mark, _)| &mark.key));
    let shards: Vec<i32> = lost
        .iter()
        .filter_map(|(mark, _)| match shard_key(&mark.key) {
            Some(KvKey::Revoked(_, shard)) => i32::try_from(shard).ok(),
            _ => None,
        })
        .collect();
    let versions: Vec<i64> = lost.iter().map(|(mark, _)| mark.version.saturating_add(1)).collect();
    let from: Vec<Option<OffsetDateTime>> = lost.iter().map(|(_, from)| *from).collect();
    sqlx::query!(
        "insert into revoked_record as r
             (org_id, pool_id, kind, id, shard, least_version, next_least_version, next_from, noted_at)
         select p.org_id, lost.pool_id, lost.kind, lost.id, lost.shard,
                case when lost.later is null then lost.version else 0 end,
                case when lost.later is not null then lost.version end, lost.later, $7
           from unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::timestamptz[])
                as lost (pool_id, kind, id, shard, version, later)
           join client_pool p on p.id = lost.pool_id
          order by lost.pool_id, lost.kind, lost.id
         on conflict (pool_id, kind, id) do update
            set least_version = greatest(
                    r.least_version, excluded.least_version,
                    case when r.next_from <= $7 then r.next_least_version else 0 end),
                next_least_version = case when excluded.next_from is not null then excluded.next_least_version
                                          when r.next_from > $7 then r.next_least_version end,
                next_from = case when excluded.next_from is not null then excluded.next_from
                                 when r.next_from > $7 then r.next_from end,
                noted_at = $7,
                unsigned_since = null",
        &pools,
        &kinds as _,
        &ids,
        &shards,
        &versions,
        &from as _,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What a shard of a revocation list is made from.
pub struct ShardRows {
    /// For how long the edge may believe it, in seconds: the pool's window.
    pub max_staleness_seconds: u32,
    /// What it says.
    pub document: RevokedDocument,
    /// When it will say something else by itself.
    pub changes_at: Option<OffsetDateTime>,
    /// The time that it was asked for.
    as_of: OffsetDateTime,
}

/// The rows of these shards, as far as their pools exist, each as of the time that it comes with.
pub async fn shards(
    tx: &mut PgConnection,
    shards: &[(PoolId, u32, OffsetDateTime)],
) -> Result<BTreeMap<(PoolId, u32), ShardRows>, StoreError> {
    let pools: Vec<Uuid> = shards.iter().map(|(pool, ..)| pool.0).collect();
    let numbers: Vec<i32> =
        shards.iter().map(|(_, shard, _)| i32::try_from(*shard).unwrap_or(i32::MAX)).collect();
    let times: Vec<OffsetDateTime> = shards.iter().map(|(.., at)| *at).collect();
    let windows =
        sqlx::query!("select id, max_staleness_seconds from client_pool where id = any($1)", &pools)
            .fetch_all(&mut *tx)
            .await?;
    let windows: BTreeMap<PoolId, u32> =
        windows.into_iter().map(|row| (PoolId(row.id), row.max_staleness_seconds.unsigned_abs())).collect();
    let mut found: BTreeMap<(PoolId, u32), ShardRows> = shards
        .iter()
        .filter(|(_, shard, _)| *shard < SHARDS)
        .filter_map(|(pool, shard, at)| {
            let rows = ShardRows {
                max_staleness_seconds: *windows.get(pool)?,
                document: RevokedDocument::default(),
                changes_at: None,
                as_of: *at,
            };
            Some(((*pool, *shard), rows))
        })
        .collect();
    // A million entries are read at once where everything of a pool has been taken away: some 100 MB.
    let rows = sqlx::query!(
        r#"select r.pool_id, r.shard, r.kind, r.id, r.least_version, r.next_least_version, r.next_from,
                  (c.client_id is not null or a.id is not null) as "is_client!", d.status as "device_status?", f.until as "refused_until?"
             from unnest($1::uuid[], $2::int[], $3::timestamptz[]) as wanted (pool_id, shard, as_of)
             join revoked_record r on r.pool_id = wanted.pool_id and r.shard = wanted.shard
             join client_pool p on p.id = r.pool_id
             left join oauth_client c on r.kind = 'client' and c.client_id = r.id and c.pool_id = r.pool_id
             left join client_app a
               on r.kind = 'client' and p.kind = 'sso' and a.org_id = p.org_id and a.id::text = r.id
             left join device d
               on r.kind = 'device' and d.org_id = p.org_id and d.env_id = p.env_id and d.id = r.id
             left join refused_device f
               on r.kind = 'device' and f.pool_id = r.pool_id and f.device_id = r.id
              and f.until > wanted.as_of"#,
        &pools,
        &numbers,
        &times,
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        let Some(shard) = found.get_mut(&(PoolId(row.pool_id), row.shard.unsigned_abs())) else { continue };
        let later = row.next_from.filter(|from| *from > shard.as_of);
        let next = row.next_least_version;
        let least = match (later, next) {
            (None, Some(next)) => row.least_version.max(next),
            _ => row.least_version,
        };
        let changes_at = [later, row.refused_until, shard.changes_at];
        shard.changes_at = changes_at.into_iter().flatten().min();
        let known = |exists: bool| match (exists, least) {
            (false, _) => Some(Revoked::Gone),
            (true, 0) => None,
            (true, least) => Some(Revoked::Least(least.unsigned_abs())),
        };
        if row.kind == "client" {
            if let Some(revoked) = known(row.is_client) {
                shard.document.clients.insert(id("revoked_record.id", &row.id)?, revoked);
            }
        } else {
            let kept_out = row.device_status.as_deref() == Some("disabled") || row.refused_until.is_some();
            let revoked = if kept_out { Some(Revoked::Refused) } else { known(row.device_status.is_some()) };
            if let Some(revoked) = revoked {
                shard.document.devices.insert(id("revoked_record.id", &row.id)?, revoked);
            }
        }
    }
    Ok(found)
}

/// Notes of which entries no publisher key is left that has signed a record from before, at most `limit`. Says how many.
pub async fn note_unsigned(
    tx: &mut PgConnection,
    now: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    // What had been leased when the entry was noted may have been signed a little later.
    let done = sqlx::query!(
        "with due as (
             select pool_id, kind, id from revoked_record
              where unsigned_since is null and (next_from is null or next_from < $1::timestamptz - interval '10 minutes')
                and noted_at < (select min(signs_since) - interval '10 minutes' from publisher_key
                                 where signs_since is not null)
              order by noted_at limit $2 for update skip locked
         )
         update revoked_record r set unsigned_since = $1
           from due
          where r.pool_id = due.pool_id and r.kind = due.kind and r.id = due.id",
        now,
        i64::from(limit),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Entries that no record from before can contradict any more, because no `v1/trust` counts that lists a key which has signed
/// one: what names them, at most `limit`. What is kept out stays.
pub async fn purgeable(
    tx: &mut PgConnection,
    unsigned_before: OffsetDateTime,
    now: OffsetDateTime,
    limit: u16,
) -> Result<Vec<KvKey>, StoreError> {
    let rows = sqlx::query!(
        "select r.pool_id, r.kind, r.id
           from revoked_record r
          where r.unsigned_since < $1
            and (r.kind = 'client' or not exists (
                    select from client_pool p
                      join device d on d.org_id = p.org_id and d.env_id = p.env_id and d.id = r.id
                     where p.id = r.pool_id and d.status = 'disabled'))
            and (r.kind = 'client' or not exists (
                    select from refused_device f
                     where f.pool_id = r.pool_id and f.device_id = r.id and f.until > $2))
          order by r.noted_at limit $3",
        unsigned_before,
        now,
        i64::from(limit),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let pool = PoolId(row.pool_id);
            Ok(match row.kind.as_str() {
                "client" => KvKey::Client(pool, id("revoked_record.id", &row.id)?),
                _ => KvKey::Device(pool, id("revoked_record.id", &row.id)?),
            })
        })
        .collect()
}

/// Removes those of these entries that have not been noted anew. Their shards must have been marked, because whoever notes
/// an entry has them first. Says how many.
pub async fn purge(
    tx: &mut PgConnection,
    entries: &[KvKey],
    unsigned_before: OffsetDateTime,
) -> Result<u64, StoreError> {
    let Columns { pools, kinds, ids } = Columns::of(entries);
    let done = sqlx::query!(
        "delete from revoked_record r
          using unnest($1::uuid[], $2::text[], $3::text[]) as old (pool_id, kind, id)
          where r.pool_id = old.pool_id and r.kind = old.kind and r.id = old.id and r.unsigned_since < $4",
        &pools,
        &kinds as _,
        &ids,
        unsigned_before,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets all of a pool, before the pool goes.
pub async fn delete_all(tx: &mut PgConnection, owner: &PoolOwner) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from revoked_record where org_id = $1 and pool_id = $2",
        owner.org().as_str(),
        owner.pool().0,
    )
    .execute(tx)
    .await?;
    Ok(())
}
