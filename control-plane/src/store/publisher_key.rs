//! `publisher_key`: the keys that sign what stands in KV.

use keypost_shared::id::Kid;
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::publisher_key::PublisherKey;
use keypost_shared::time::UnixTime;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::{StoreError, id};
use crate::clock::unix;

/// The key that signs now.
#[derive(Clone)]
pub struct Signer {
    /// The public half's thumbprint.
    pub kid: Kid,
    /// The private half, encrypted under the master key.
    pub private_sealed: Vec<u8>,
}

/// Adds a key, which neither is listed nor signs yet.
pub async fn insert(
    tx: &mut PgConnection,
    kid: &Kid,
    public: &EcPublicJwk,
    private_sealed: &[u8],
    created_at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into publisher_key (kid, public_jwk, private_sealed, created_at) values ($1, $2, $3, $4)",
        kid.as_str(),
        Json(public) as _,
        private_sealed,
        created_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// All keys, as their schedule sees them. A key that took its last turn after `retired_before` may still have signed
/// something that is on its way.
pub async fn all(
    tx: &mut PgConnection,
    retired_before: OffsetDateTime,
) -> Result<Vec<PublisherKey>, StoreError> {
    // The first document from the key on, by the index: to find that it has none, a mere `exists` reads the whole table.
    let rows = sqlx::query!(
        r#"select k.kid, k.listed_at, k.signs_since,
                  (k.kid = (select p.publisher_kid from publication p
                             where p.publisher_kid >= k.kid order by p.publisher_kid limit 1)
                   is true
                   or not exists (select from publisher_key successor
                                   where successor.signs_since > k.signs_since
                                     and successor.signs_since <= $1)) as "has_documents!"
             from publisher_key k"#,
        retired_before,
    )
    .fetch_all(tx)
    .await?;
    let seconds = |time: Option<OffsetDateTime>| -> Option<UnixTime> { time.map(unix) };
    rows.into_iter()
        .map(|row| {
            Ok(PublisherKey {
                kid: id("publisher_key.kid", &row.kid)?,
                listed_at: seconds(row.listed_at),
                signs_since: seconds(row.signs_since),
                has_documents: row.has_documents,
            })
        })
        .collect()
}

/// The key that signs now; none before the first one has been listed.
pub async fn signer(tx: &mut PgConnection) -> Result<Option<Signer>, StoreError> {
    // The order of `keypost_shared::publisher_key::signer`.
    let row = sqlx::query!(
        "select kid, private_sealed from publisher_key
          where signs_since is not null
          order by signs_since desc, kid desc
          limit 1",
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| Ok(Signer { kid: id("publisher_key.kid", &row.kid)?, private_sealed: row.private_sealed }))
        .transpose()
}

/// Notes that a `v1/trust` with these keys has been published.
pub async fn set_listed(tx: &mut PgConnection, kids: &[Kid], now: OffsetDateTime) -> Result<(), StoreError> {
    let kids: Vec<String> = kids.iter().cloned().map(String::from).collect();
    sqlx::query!(
        "update publisher_key set listed_at = $2 where kid = any($1) and listed_at is null",
        &kids,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Lets a listed key sign from now on.
pub async fn take_over(tx: &mut PgConnection, kid: &Kid, now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query!("update publisher_key set signs_since = $2 where kid = $1", kid.as_str(), now)
        .execute(tx)
        .await?;
    Ok(())
}

/// Forgets a key.
pub async fn delete(tx: &mut PgConnection, kid: &Kid) -> Result<(), StoreError> {
    sqlx::query!("delete from publisher_key where kid = $1", kid.as_str()).execute(tx).await?;
    Ok(())
}

/// What has become of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublisherKeyState {
    /// It waits for its turn.
    Waiting,
    /// It signs.
    Signing,
    /// It has had its turn, and leaves once nothing that it signed is left.
    Leaving,
    /// It was removed before its time.
    Removed,
}

/// A key, for people.
#[derive(Clone, Debug)]
pub struct StoredPublisherKey {
    /// The thumbprint.
    pub kid: Kid,
    /// What has become of it.
    pub state: PublisherKeyState,
    /// How many documents it has signed that have not been signed anew.
    pub documents: i64,
    /// When `v1/trust` first listed it.
    pub listed_at: Option<OffsetDateTime>,
    /// When it began to sign.
    pub signs_since: Option<OffsetDateTime>,
    /// When it was removed.
    pub removed_at: Option<OffsetDateTime>,
}

/// All keys of which anything is left, in the order of their turns.
pub async fn stored(connection: &mut PgConnection) -> Result<Vec<StoredPublisherKey>, StoreError> {
    let signer = signer(&mut *connection).await?.map(|signer| signer.kid);
    let rows = sqlx::query!(
        r#"select kid as "kid!", listed_at, signs_since, removed_at,
                  (select count(*) from publication p where p.publisher_kid = keys.kid) as "documents!"
             from (select kid, created_at, listed_at, signs_since, null::timestamptz as removed_at from publisher_key
                   union all
                   select kid, null, null, null, removed_at from removed_publisher_key) as keys
            order by removed_at, signs_since, created_at, kid"#,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let kid: Kid = id("publisher_key.kid", &row.kid)?;
            let state = match (row.removed_at, row.signs_since) {
                (Some(_), _) => PublisherKeyState::Removed,
                (None, None) => PublisherKeyState::Waiting,
                (None, Some(_)) if signer.as_ref() == Some(&kid) => PublisherKeyState::Signing,
                (None, Some(_)) => PublisherKeyState::Leaving,
            };
            Ok(StoredPublisherKey {
                kid,
                state,
                documents: row.documents,
                listed_at: row.listed_at,
                signs_since: row.signs_since,
                removed_at: row.removed_at,
            })
        })
        .collect()
}

/// Removes a key before its time. What it has signed is remembered until it has been signed anew. Says whether there was
/// such a key.
pub async fn remove(tx: &mut PgConnection, kid: &Kid, now: OffsetDateTime) -> Result<bool, StoreError> {
    let removed =
        sqlx::query!("delete from publisher_key where kid = $1", kid.as_str()).execute(&mut *tx).await?;
    if removed.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!(
        "insert into removed_publisher_key (kid, removed_at) values ($1, $2) on conflict (kid) do nothing",
        kid.as_str(),
        now,
    )
    .execute(tx)
    .await?;
    Ok(true)
}

/// Forgets removed keys that have nothing signed any more. What such a key signed last may be on its way until it has been
/// gone since `removed_before`.
pub async fn forget_removed(tx: &mut PgConnection, removed_before: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from removed_publisher_key k
          where k.removed_at <= $1
            and k.kid is distinct from (select p.publisher_kid from publication p
                                         where p.publisher_kid >= k.kid order by p.publisher_kid limit 1)",
        removed_before,
    )
    .execute(tx)
    .await?;
    Ok(())
}
