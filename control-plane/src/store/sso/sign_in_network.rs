//! Where people have signed in from: `sign_in_network`. What is kept of a network is its hash.

use std::net::IpAddr;

use keypost_shared::id::{OrgId, UserId};
use keypost_shared::secret::SecretHash;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::super::StoreError;

/// How many networks of a person are remembered.
const MOST: i64 = 20;

/// When a person was last noted to have signed in from this network; none where they never have.
pub async fn last_used(
    connection: &mut PgConnection,
    user: UserId,
    network: IpAddr,
) -> Result<Option<OffsetDateTime>, StoreError> {
    let network = network_hash(user, network);
    let last_used = sqlx::query_scalar!(
        "select last_used_at from sign_in_network where user_id = $1 and network = $2",
        user.0,
        network.as_bytes().as_slice(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(last_used)
}

/// Remembers that a person of this organization has signed in from a network, and forgets the one noted longest ago
/// where there are many.
pub async fn note(
    tx: &mut PgConnection,
    org: &OrgId,
    user: UserId,
    network: IpAddr,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let network = network_hash(user, network);
    sqlx::query!(
        "insert into sign_in_network (org_id, user_id, network, last_used_at) values ($1, $2, $3, $4)
         on conflict (user_id, network) do update set last_used_at = greatest(sign_in_network.last_used_at, $4)",
        org.as_str(),
        user.0,
        network.as_bytes().as_slice(),
        now,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from sign_in_network n
          where n.org_id = $1 and n.user_id = $2 and n.network in (
                select o.network from sign_in_network o where o.org_id = $1 and o.user_id = $2
                 order by o.last_used_at desc, o.network offset $3)",
        org.as_str(),
        user.0,
        MOST,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets networks that have not been used since a time.
pub async fn purge(
    connection: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select user_id, network from sign_in_network where last_used_at < $1
              order by last_used_at limit $2 for update skip locked
         )
         delete from sign_in_network n using due where n.user_id = due.user_id and n.network = due.network",
        before,
        i64::from(limit),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// With the person's id, so that nobody sees that two people are at one place.
fn network_hash(user: UserId, network: IpAddr) -> SecretHash {
    SecretHash::of(format!("{user} {network}").as_bytes())
}
