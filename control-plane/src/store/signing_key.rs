//! `signing_key`: the keys of client pools.

use keypost_shared::id::Kid;
use keypost_shared::jwk::EcPublicJwk;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::StoreError;
use super::environment::EnvScope;

/// A key to store, made here.
pub struct NewSigningKey<'a> {
    /// The public half's thumbprint.
    pub kid: &'a Kid,
    /// The public half.
    pub public: &'a EcPublicJwk,
    /// The private half, encrypted under the master key.
    pub private_sealed: &'a [u8],
    /// Whether it signs at once, or stands ready as the next one.
    pub active: bool,
    /// When it was created.
    pub created_at: OffsetDateTime,
}

/// Adds a key to the environment's pool.
pub async fn insert(
    tx: &mut PgConnection,
    scope: &EnvScope,
    key: &NewSigningKey<'_>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into signing_key
             (kid, org_id, pool_id, alg, backend, state, public_jwk, private_sealed, created_at, activated_at)
         values ($1, $2, $3, 'ES256', 'local', $4, $5, $6, $7, $8)",
        key.kid.as_str(),
        scope.org().as_str(),
        scope.pool().0,
        if key.active { "active" } else { "next" },
        Json(key.public) as _,
        key.private_sealed,
        key.created_at,
        key.active.then_some(key.created_at),
    )
    .execute(tx)
    .await?;
    Ok(())
}
