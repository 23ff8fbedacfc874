//! `root_key`: the local root.

use keypost_shared::id::Kid;
use keypost_shared::jwk::EcPublicJwk;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::{StoreError, id};

/// The root as it rests in the database.
#[derive(Clone)]
pub struct StoredRoot {
    /// The public half's thumbprint.
    pub kid: Kid,
    /// The private half, encrypted under the master key.
    pub private_sealed: Vec<u8>,
}

/// The root, if one has been made.
pub async fn find(tx: &mut PgConnection) -> Result<Option<StoredRoot>, StoreError> {
    let row = sqlx::query!("select kid, private_sealed from root_key").fetch_optional(tx).await?;
    row.map(|row| Ok(StoredRoot { kid: id("root_key.kid", &row.kid)?, private_sealed: row.private_sealed }))
        .transpose()
}

/// Keeps a new root.
pub async fn insert(
    tx: &mut PgConnection,
    root: &StoredRoot,
    public: &EcPublicJwk,
    created_at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into root_key (singleton, kid, public_jwk, private_sealed, created_at) values (true, $1, $2, $3, $4)",
        root.kid.as_str(),
        Json(public) as _,
        root.private_sealed,
        created_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes which root signs from now on. Says whether that is another one than before.
pub async fn set_signer(tx: &mut PgConnection, kid: &Kid, now: OffsetDateTime) -> Result<bool, StoreError> {
    let changed = sqlx::query_scalar!(
        "insert into root_signer as s (singleton, kid, since) values (true, $1, $2)
         on conflict (singleton) do update set kid = excluded.kid, since = excluded.since where s.kid <> excluded.kid
         returning kid",
        kid.as_str(),
        now,
    )
    .fetch_optional(tx)
    .await?;
    Ok(changed.is_some())
}
