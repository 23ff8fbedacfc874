//! `audit_event` and `audit_chain`.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{StoreError, hash};
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
    let nothing = [0_u8; 32];
    sqlx::query!(
        "insert into audit_chain (org_id, seq, hash, purged_hash) values ($1, 0, $2, $2) on conflict do nothing",
        chain,
        nothing.as_slice(),
    )
    .execute(&mut *tx)
    .await?;
    let row = sqlx::query!("select seq, hash from audit_chain where org_id = $1 for update", chain)
        .fetch_one(tx)
        .await?;
    Ok(ChainHead { seq: row.seq, hash: hash("audit_chain.hash", row.hash)? })
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
    sqlx::query!(
        "insert into audit_event
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
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update audit_chain set seq = $2, hash = $3 where org_id = $1",
        chain,
        last.seq,
        before.as_slice()
    )
    .execute(tx)
    .await?;
    Ok(())
}
