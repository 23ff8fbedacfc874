//! `audit_event` and `audit_chain`.

use keypost_shared::id::{EnvId, OrgId};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;

use super::{StoreError, hash};
use crate::service::access::Reach;
use crate::service::audit::{ChainedEvent, event_hash};

/// The chain of what belongs to no organization.
pub const GLOBAL_CHAIN: &str = "";

/// Where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// The last event's place; 0 before the first.
    pub seq: i64,
    /// The last event's hash; zeros before the first.
    pub hash: [u8; 32],
}

/// The end of a chain, locked until the transaction ends. To be taken last, so that whoever waits for it holds all else
/// that it needs, and in the order of the chains.
pub async fn lock_head(tx: &mut PgConnection, chain: &str) -> Result<ChainHead, StoreError> {
    if let Some(head) = lock_existing(tx, chain).await? {
        return Ok(head);
    }
    let nothing = [0_u8; 32];
    sqlx::query!(
        "insert into audit_chain (org_id, seq, hash, purged_hash) values ($1, 0, $2, $2) on conflict do nothing",
        chain,
        nothing.as_slice(),
    )
    .execute(&mut *tx)
    .await?;
    // Somebody else's, where there was a conflict.
    lock_existing(tx, chain).await?.ok_or_else(|| sqlx::Error::RowNotFound.into())
}

async fn lock_existing(tx: &mut PgConnection, chain: &str) -> Result<Option<ChainHead>, StoreError> {
    let row = sqlx::query!("select seq, hash from audit_chain where org_id = $1 for update", chain)
        .fetch_optional(tx)
        .await?;
    row.map(|row| Ok(ChainHead { seq: row.seq, hash: hash("audit_chain.hash", row.hash)? })).transpose()
}

/// Adds events to the end of a chain that [`lock_head`] has locked. Their places must follow on.
pub async fn append(
    tx: &mut PgConnection,
    chain: &str,
    head: ChainHead,
    events: &[ChainedEvent],
) -> Result<(), StoreError> {
    let Some(last) = events.last() else { return Ok(()) };
    let mut before = head.hash;
    let hashes: Vec<Vec<u8>> = events
        .iter()
        .map(|event| {
            before = event_hash(&before, event);
            before.to_vec()
        })
        .collect();
    let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
    let times: Vec<OffsetDateTime> = events.iter().map(|event| event.occurred_at).collect();
    let texts = |of: fn(&ChainedEvent) -> String| events.iter().map(of).collect::<Vec<String>>();
    let options =
        |of: fn(&ChainedEvent) -> Option<String>| events.iter().map(of).collect::<Vec<Option<String>>>();
    // One statement, because whoever comes next waits for its end.
    sqlx::query!(
        "with chain as (update audit_chain set seq = $15, hash = $16 where org_id = $1)
         insert into audit_event
             (org_id, seq, occurred_at, actor_kind, actor_id, actor_name, action, target_kind, target_id, env_id,
              changes, address, request_id, hash)
         select $1, e.seq, e.occurred_at, e.actor_kind, e.actor_id, e.actor_name, e.action, e.target_kind, e.target_id,
                e.env_id, e.changes::json, e.address, e.request_id, e.hash
           from unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                       $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[])
                as e (seq, occurred_at, actor_kind, actor_id, actor_name, action, target_kind, target_id, env_id,
                      changes, address, request_id, hash)",
        chain,
        &seqs,
        &times,
        &texts(|event| event.actor_kind.clone()),
        &options(|event| event.actor_id.clone()) as _,
        &options(|event| event.actor_name.clone()) as _,
        &texts(|event| event.action.clone()),
        &texts(|event| event.target_kind.clone()),
        &texts(|event| event.target_id.clone()),
        &options(|event| event.env_id.clone()) as _,
        &texts(|event| event.changes.clone()),
        &options(|event| event.address.clone()) as _,
        &options(|event| event.request_id.clone()) as _,
        &hashes,
        last.seq,
        before.as_slice(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// An event with the hash that is stored of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The event.
    pub event: ChainedEvent,
    /// Its hash, as it is stored.
    pub hash: [u8; 32],
}

/// Which events are asked for; none for any.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Of one organization.
    pub org: Option<OrgId>,
    /// By one actor.
    pub actor_id: Option<String>,
    /// Of one kind of action.
    pub action: Option<String>,
    /// Done to one kind of thing.
    pub target_kind: Option<String>,
    /// Done to things of one id.
    pub target_id: Option<String>,
    /// In one environment.
    pub env: Option<EnvId>,
    /// From this time on.
    pub since: Option<OffsetDateTime>,
    /// Before this time.
    pub until: Option<OffsetDateTime>,
}

/// Where an event stands among all of them: newest first, they are in the descending order of this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPosition {
    /// When it happened.
    pub occurred_at: OffsetDateTime,
    /// Its chain.
    pub chain: String,
    /// Its place there.
    pub seq: i64,
}

/// The place from which on an organization's events are those of the organization that has this id now: an id may have
/// been another's before.
pub async fn beginning(tx: &mut PgConnection, org: &OrgId) -> Result<i64, StoreError> {
    let seq = sqlx::query_scalar!(
        "select max(seq) from audit_event
          where org_id = $1 and target_kind = 'organization' and target_id = $1 and action = 'organization.create'",
        org.as_str(),
    )
    .fetch_one(tx)
    .await?;
    // Where that event has been purged, so have all before it.
    Ok(seq.unwrap_or(1))
}

/// Events within reach, newest first, after `after`; at most `rows`. To an organization they are shown from `from_seq` on.
///
/// Put together from what is asked for, so that each question has a plan, and an index, of its own.
pub async fn list(
    tx: &mut PgConnection,
    reach: &Reach,
    from_seq: i64,
    filter: &EventFilter,
    after: Option<&EventPosition>,
    rows: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select org_id, seq, occurred_at, actor_kind, actor_id, actor_name, action, target_kind, target_id, env_id,
                changes::text as changes, address, request_id, hash
           from audit_event
          where true",
    );
    if let Some(org) = reach.org() {
        query.push(" and org_id = ").push_bind(org.as_str());
        query.push(" and seq >= ").push_bind(from_seq);
    }
    for (column, value) in [
        ("org_id", filter.org.as_ref().map(OrgId::as_str)),
        ("actor_id", filter.actor_id.as_deref()),
        ("action", filter.action.as_deref()),
        ("target_kind", filter.target_kind.as_deref()),
        ("target_id", filter.target_id.as_deref()),
        ("env_id", filter.env.as_ref().map(EnvId::as_str)),
    ] {
        if let Some(value) = value {
            query.push(" and ").push(column).push(" = ").push_bind(value);
        }
    }
    if let Some(since) = filter.since {
        query.push(" and occurred_at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" and occurred_at < ").push_bind(until);
    }
    if let Some(EventPosition { occurred_at, chain, seq }) = after {
        query.push(" and (occurred_at, org_id, seq) < (").push_bind(occurred_at);
        query.push(", ").push_bind(chain).push(", ").push_bind(seq).push(")");
    }
    query.push(" order by occurred_at desc, org_id desc, seq desc limit ").push_bind(rows);
    // Not kept prepared: a plan for any organization would be a bad one for those that do little.
    let rows: Vec<EventRow> = query.build_query_as().persistent(false).fetch_all(tx).await?;
    rows.into_iter().map(StoredEvent::try_from).collect()
}

/// A chain as its row tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainRow {
    /// Its name: an organization's id, or empty.
    pub chain: String,
    /// Its end.
    pub head: ChainHead,
    /// The last event that was purged, from which on it is checked.
    pub purged: ChainHead,
}

/// The next chain after another, in the order of their names: one that has a row, or that has events without one.
pub async fn next_chain(tx: &mut PgConnection, after: Option<&str>) -> Result<Option<String>, StoreError> {
    let chain = sqlx::query_scalar!(
        "select least(
             (select org_id from audit_chain where $1::text is null or org_id > $1 order by org_id limit 1),
             (select org_id from audit_event where $1::text is null or org_id > $1 order by org_id limit 1))",
        after,
    )
    .fetch_one(tx)
    .await?;
    Ok(chain)
}

/// What a chain's row tells of it.
pub async fn chain(tx: &mut PgConnection, chain: &str) -> Result<Option<ChainRow>, StoreError> {
    let row = sqlx::query!(
        "select org_id, seq, hash, purged_seq, purged_hash from audit_chain where org_id = $1",
        chain
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(ChainRow {
            chain: row.org_id,
            head: ChainHead { seq: row.seq, hash: hash("audit_chain.hash", row.hash)? },
            purged: ChainHead {
                seq: row.purged_seq,
                hash: hash("audit_chain.purged_hash", row.purged_hash)?,
            },
        })
    })
    .transpose()
}

/// The events of a chain, oldest first, after a place; at most `rows`.
pub async fn events(
    tx: &mut PgConnection,
    chain: &str,
    after: i64,
    rows: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"select org_id, seq, occurred_at, actor_kind, actor_id, actor_name, action, target_kind, target_id, env_id,
                  changes::text as "changes!", address, request_id, hash
             from audit_event
            where org_id = $1 and seq > $2
            order by seq
            limit $3"#,
        chain,
        after,
        rows,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(StoredEvent::try_from).collect()
}

#[derive(sqlx::FromRow)]
struct EventRow {
    org_id: String,
    seq: i64,
    occurred_at: OffsetDateTime,
    actor_kind: String,
    actor_id: Option<String>,
    actor_name: Option<String>,
    action: String,
    target_kind: String,
    target_id: String,
    env_id: Option<String>,
    changes: String,
    address: Option<String>,
    request_id: Option<String>,
    hash: Vec<u8>,
}

impl TryFrom<EventRow> for StoredEvent {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        Ok(Self {
            event: ChainedEvent {
                chain: row.org_id,
                seq: row.seq,
                occurred_at: row.occurred_at,
                actor_kind: row.actor_kind,
                actor_id: row.actor_id,
                actor_name: row.actor_name,
                action: row.action,
                target_kind: row.target_kind,
                target_id: row.target_id,
                env_id: row.env_id,
                changes: row.changes,
                address: row.address,
                request_id: row.request_id,
            },
            hash: hash("audit_event.hash", row.hash)?,
        })
    }
}
