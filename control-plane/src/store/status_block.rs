//! `status_block`: which clients, and which sessions of people, own which blocks of their pools' Token Status Lists, and
//! which bits are set (design §9). A session stands there by its id, as a client does.

use std::collections::{BTreeMap, BTreeSet};

use keypost_shared::id::{ClientId, PoolId, SessionId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::status_list::{LIST_BLOCKS, StatusBits, StatusBlock, StatusIndex};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::revoked_record::SHARDS;
use super::signing_key::PoolOwner;
use super::{StoreError, corrupt, id};

/// A list is there before the one before it is full: so much of it is left then.
const NEXT_LIST_BEFORE: u32 = LIST_BLOCKS / 8;
/// The bits of a block of which all tokens are revoked.
const ALL_BITS: i16 = 255;
/// So much may clocks differ, in seconds.
const SKEW_SECONDS: i32 = 300;

/// How many lists a pool of so many blocks has.
pub fn lists(blocks: u32) -> u32 {
    (blocks + NEXT_LIST_BEFORE) / LIST_BLOCKS + 1
}

/// A block's place, from its number.
fn place(number: i32) -> (u32, u32) {
    let number = number.unsigned_abs();
    (number / LIST_BLOCKS, number % LIST_BLOCKS)
}

/// How many lists these pools have.
pub async fn list_counts(tx: &mut PgConnection, pools: &[Uuid]) -> Result<BTreeMap<PoolId, u32>, StoreError> {
    let rows = sqlx::query!("select pool_id, blocks from status_allocation where pool_id = any($1)", pools)
        .fetch_all(tx)
        .await?;
    Ok(rows.into_iter().map(|row| (PoolId(row.pool_id), lists(row.blocks.unsigned_abs()))).collect())
}

/// The keys of all lists of a pool: its revocation list's shards and its Token Status Lists.
pub async fn keys_of_lists(tx: &mut PgConnection, pool: PoolId) -> Result<Vec<KvKey>, StoreError> {
    let shards = (0..SHARDS).map(|shard| KvKey::Revoked(pool, shard));
    Ok(shards.chain(keys_of_status_lists(tx, pool).await?).collect())
}

/// The keys of a pool's Token Status Lists.
pub async fn keys_of_status_lists(tx: &mut PgConnection, pool: PoolId) -> Result<Vec<KvKey>, StoreError> {
    let count = list_counts(tx, &[pool.0]).await?.get(&pool).copied().unwrap_or_else(|| lists(0));
    Ok((0..count).map(|list| KvKey::Status(pool, list)).collect())
}

/// Gives each of these clients of a pool a block that has none and may have tokens. Answers with the documents that this
/// makes stale.
///
/// Blocks that nobody remembers are given out first.
pub async fn allocate(
    tx: &mut PgConnection,
    pool: PoolId,
    clients: &[ClientId],
    now: OffsetDateTime,
) -> Result<Vec<KvKey>, StoreError> {
    let ids: Vec<String> = clients.iter().map(ClientId::to_string).collect();
    // Nothing to do is the usual case, and takes no lock.
    if without_block(tx, pool, &ids).await?.is_empty() {
        return Ok(Vec::new());
    }
    // The pool is gone, and its clients with it.
    let Some(blocks) = lock_allocation(tx, pool).await? else { return Ok(Vec::new()) };
    let without = without_block(tx, pool, &ids).await?;
    Ok(give(tx, pool, blocks, without, now).await?.stale)
}

/// Gives a session of people's a block, unless it has one. Answers with the block, none where the pool is gone, and with the
/// documents that this makes stale.
pub async fn allocate_to_session(
    tx: &mut PgConnection,
    pool: PoolId,
    session: SessionId,
    now: OffsetDateTime,
) -> Result<(Option<StatusBlock>, Vec<KvKey>), StoreError> {
    if let Some(block) = of_session(tx, pool, session).await? {
        return Ok((Some(block), Vec::new()));
    }
    let Some(blocks) = lock_allocation(tx, pool).await? else { return Ok((None, Vec::new())) };
    let Given { numbers, stale } = give(tx, pool, blocks, vec![session.to_string()], now).await?;
    let block = numbers.first().map(|number| {
        let (list, block) = place(*number);
        StatusBlock { list, block, revoked: 0 }
    });
    Ok((block, stale))
}

/// A session's block, if it has one.
pub async fn of_session(
    tx: &mut PgConnection,
    pool: PoolId,
    session: SessionId,
) -> Result<Option<StatusBlock>, StoreError> {
    let row = sqlx::query!(
        "select number, bits from status_block where pool_id = $1 and client_id = $2",
        pool.0,
        session.to_string(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        let (list, block) = place(row.number);
        Ok(StatusBlock { list, block, revoked: bits(row.bits)? })
    })
    .transpose()
}

/// How many blocks the pool has; none where it is gone. Until the transaction ends, nobody else gives out blocks of it.
async fn lock_allocation(tx: &mut PgConnection, pool: PoolId) -> Result<Option<i32>, StoreError> {
    // Before the counter, as by whoever deletes the pool: they would wait for each other.
    super::client_pool::share(tx, pool).await?;
    // Mostly it is there, and locking it writes nothing.
    let blocks = sqlx::query_scalar!(
        "select blocks from status_allocation where pool_id = $1 for no key update",
        pool.0
    )
    .fetch_optional(&mut *tx)
    .await?;
    if blocks.is_some() {
        return Ok(blocks);
    }
    let blocks = sqlx::query_scalar!(
        "insert into status_allocation as a (pool_id, org_id, blocks)
         select id, org_id, 0 from client_pool where id = $1
         on conflict (pool_id) do update set blocks = a.blocks
         returning blocks",
        pool.0,
    )
    .fetch_optional(tx)
    .await?;
    Ok(blocks)
}

/// What has been given out.
struct Given {
    /// The blocks.
    numbers: Vec<i32>,
    /// The documents that this makes stale.
    stale: Vec<KvKey>,
}

/// Gives each of these that have none a block of the pool, which has so many and is locked.
async fn give(
    tx: &mut PgConnection,
    pool: PoolId,
    blocks: i32,
    without: Vec<String>,
    now: OffsetDateTime,
) -> Result<Given, StoreError> {
    let reused = sqlx::query!(
        r#"with free as (
               select number, row_number() over (order by number) as place from (
                   select number from status_block
                    where pool_id = $1 and client_id is null and free_at <= $3 and bits = 0
                    order by free_at
                    limit cardinality($2::text[])
                      for update
               ) as old
           )
           update status_block b
              set client_id = wanted.client_id, free_at = null
             from free
             join unnest($2::text[]) with ordinality as wanted (client_id, place) on wanted.place = free.place
            where b.pool_id = $1 and b.number = free.number
           returning wanted.client_id as "client_id!", b.number"#,
        pool.0,
        &without,
        now,
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut numbers: Vec<i32> = reused.iter().map(|row| row.number).collect();
    let reused: BTreeSet<String> = reused.into_iter().map(|row| row.client_id).collect();
    let new: Vec<String> = without.into_iter().filter(|client| !reused.contains(client)).collect();
    let more = i32::try_from(new.len()).unwrap_or(i32::MAX);
    if more == 0 {
        return Ok(Given { numbers, stale: Vec::new() });
    }
    let added = sqlx::query_scalar!(
        "with counted as (update status_allocation set blocks = blocks + $4 where pool_id = $1)
         insert into status_block (org_id, pool_id, number, client_id, bits)
         select p.org_id, p.id, $3 + (wanted.place - 1)::integer, wanted.client_id, 0
           from client_pool p, unnest($2::text[]) with ordinality as wanted (client_id, place)
          where p.id = $1
         returning number",
        pool.0,
        &new,
        blocks,
        more,
    )
    .fetch_all(tx)
    .await?;
    numbers.extend(added);
    let (before, after) = (lists(blocks.unsigned_abs()), lists(blocks.saturating_add(more).unsigned_abs()));
    let new_lists = (before..after).map(|list| KvKey::Status(pool, list));
    let stale = if before < after { new_lists.chain([KvKey::Pool(pool)]).collect() } else { Vec::new() };
    Ok(Given { numbers, stale })
}

/// Those of the clients that may have tokens and have no block, in the order of their ids.
async fn without_block(
    tx: &mut PgConnection,
    pool: PoolId,
    clients: &[String],
) -> Result<Vec<String>, StoreError> {
    let without = sqlx::query_scalar!(
        "select c.client_id
           from oauth_client c
           left join device_app a on a.org_id = c.org_id and a.env_id = c.env_id and a.id = c.device_app_id
           left join device d on d.org_id = a.org_id and d.env_id = a.env_id and d.id = a.device_id
          where c.pool_id = $1 and c.client_id = any($2)
            and c.status = 'enabled' and d.status is distinct from 'disabled'
            and not exists (select from status_block b where b.pool_id = c.pool_id and b.client_id = c.client_id)
          order by c.client_id",
        pool.0,
        clients,
    )
    .fetch_all(tx)
    .await?;
    Ok(without)
}

/// The blocks of these clients, of those that have one.
pub async fn of_clients(
    tx: &mut PgConnection,
    clients: &[(PoolId, ClientId)],
) -> Result<BTreeMap<(PoolId, ClientId), StatusBlock>, StoreError> {
    let pools: Vec<Uuid> = clients.iter().map(|(pool, _)| pool.0).collect();
    let ids: Vec<String> = clients.iter().map(|(_, client)| client.to_string()).collect();
    let rows = sqlx::query!(
        r#"select b.pool_id, b.client_id as "client_id!", b.number, b.bits
             from unnest($1::uuid[], $2::text[]) as wanted (pool_id, client_id)
             join status_block b on b.pool_id = wanted.pool_id and b.client_id = wanted.client_id"#,
        &pools,
        &ids,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let (list, block) = place(row.number);
            let client = id("status_block.client_id", &row.client_id)?;
            Ok(((PoolId(row.pool_id), client), StatusBlock { list, block, revoked: bits(row.bits)? }))
        })
        .collect()
}

/// The bits of these lists.
pub async fn bits_of(
    tx: &mut PgConnection,
    lists: &[(PoolId, u32)],
) -> Result<BTreeMap<(PoolId, u32), StatusBits>, StoreError> {
    let mut found = BTreeMap::new();
    for (pool, list) in lists {
        let first = i64::from(*list) * i64::from(LIST_BLOCKS);
        let rows = sqlx::query!(
            "select number, bits from status_block
              where pool_id = $1 and bits <> 0 and number >= $2::bigint and number < $3::bigint",
            pool.0,
            first,
            first + i64::from(LIST_BLOCKS),
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut list_bits = StatusBits::new();
        for row in rows {
            let (_, block) = place(row.number);
            list_bits.revoke(block, bits(row.bits)?);
        }
        found.insert((*pool, *list), list_bits);
    }
    Ok(found)
}

/// Which token of a client is meant.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// The one with this index, and all others that have it.
    Index(StatusIndex),
    /// The one that the client has now, whatever its index: every other one that is not revoked has the same.
    Current,
}

/// What has come of revoking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedBit {
    /// The list in which a bit has been set.
    pub list: u32,
    /// Whether the client's block is full now.
    pub is_full: bool,
}

/// Sets the bit of a client's token. None where that changes nothing: the block is another's by now, the client has none,
/// or the bit was set.
pub async fn revoke(
    tx: &mut PgConnection,
    pool: PoolId,
    client: &ClientId,
    which: Which,
) -> Result<Option<RevokedBit>, StoreError> {
    let row = sqlx::query!(
        "select number, bits from status_block where pool_id = $1 and client_id = $2 for update",
        pool.0,
        client.as_str(),
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (list, block) = place(row.number);
    let before = bits(row.bits)?;
    let index = match which {
        Which::Index(index) => Some(index).filter(|index| index.list == list && index.block() == block),
        Which::Current => StatusBlock { list, block, revoked: before }.next_index(0),
    };
    let Some(index) = index else { return Ok(None) };
    let after = before | index.mask();
    if after == before {
        return Ok(None);
    }
    sqlx::query!(
        "update status_block set bits = $3 where pool_id = $1 and number = $2",
        pool.0,
        row.number,
        i16::from(after),
    )
    .execute(tx)
    .await?;
    Ok(Some(RevokedBit { list, is_full: after == u8::MAX }))
}

/// Revokes all tokens that these clients of a pool have had, by giving their blocks up with all bits set. Answers with the
/// lists that change.
///
/// The bits mean something for as long as a record may count by which the block's indices are handed out, which is the
/// pool's window once the record has been noted as revoked, and then until the last such token has expired.
pub async fn release(
    tx: &mut PgConnection,
    pool: PoolId,
    clients: &[ClientId],
    now: OffsetDateTime,
) -> Result<BTreeSet<u32>, StoreError> {
    let ids: Vec<String> = clients.iter().map(ClientId::to_string).collect();
    let numbers = sqlx::query_scalar!(
        "with mine as (
             select number from status_block where pool_id = $1 and client_id = any($2) order by number for update
         )
         update status_block b
            set client_id = null, bits = $4,
                free_at = $3::timestamptz + make_interval(secs => p.max_staleness_seconds + $5 + greatest(
                    p.token_ttl_seconds,
                    case when p.earlier_token_ttl_until > $3 then p.earlier_token_ttl_seconds end))
           from mine
           join client_pool p on p.id = $1
          where b.pool_id = $1 and b.number = mine.number
         returning b.number",
        pool.0,
        &ids,
        now,
        ALL_BITS,
        SKEW_SECONDS,
    )
    .fetch_all(tx)
    .await?;
    Ok(numbers.into_iter().map(|number| place(number).0).collect())
}

/// Clears the bits of blocks that were given up so long ago that none of their tokens is left, at most `limit`. Answers with
/// how many, and the lists that change. Before such a block is another's, verifiers must have forgotten its bits: that takes the pool's
/// window once more.
pub async fn clear(
    tx: &mut PgConnection,
    now: OffsetDateTime,
    limit: u16,
) -> Result<(u64, Vec<KvKey>), StoreError> {
    let rows = sqlx::query!(
        "with due as (
             select pool_id, number from status_block
              where client_id is null and bits <> 0 and free_at <= $1
              order by free_at limit $2 for update skip locked
         )
         update status_block b
            set bits = 0, free_at = $1 + make_interval(secs => p.max_staleness_seconds)
           from due
           join client_pool p on p.id = due.pool_id
          where b.pool_id = due.pool_id and b.number = due.number
         returning b.pool_id, b.number",
        now,
        i64::from(limit),
    )
    .fetch_all(tx)
    .await?;
    let lists: BTreeSet<KvKey> =
        rows.iter().map(|row| KvKey::Status(PoolId(row.pool_id), place(row.number).0)).collect();
    Ok((u64::try_from(rows.len()).unwrap_or(u64::MAX), lists.into_iter().collect()))
}

/// Forgets all of a pool, before the pool goes.
pub async fn delete_all(tx: &mut PgConnection, owner: &PoolOwner) -> Result<(), StoreError> {
    sqlx::query!(
        "with a as (delete from status_block where org_id = $1 and pool_id = $2)
         delete from status_allocation where org_id = $1 and pool_id = $2",
        owner.org().as_str(),
        owner.pool().0,
    )
    .execute(tx)
    .await?;
    Ok(())
}

fn bits(bits: i16) -> Result<u8, StoreError> {
    u8::try_from(bits).map_err(|error| corrupt("status_block.bits", error))
}
