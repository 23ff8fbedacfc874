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
    let rows = sqlx::query!(
        r#"select k.kid, k.listed_at, k.signs_since,
                  (exists (select from publication p where p.publisher_kid = k.kid)
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
