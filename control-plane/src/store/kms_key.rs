//! `kms_key`: which key of AWS KMS is whose. One serves one pool, and never is the root (design §7): here it is claimed
//! before it is used, and the table's keys decide between two who claim it at the same instant.

use keypost_shared::id::{Kid, PoolId};
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::kms::KmsKeyArn;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::{StoreError, corrupt};

/// A key that signs.
#[derive(Clone, Debug)]
pub struct KmsSigningKey {
    /// Its name.
    pub arn: KmsKeyArn,
    /// The public half.
    pub public: EcPublicJwk,
}

/// Claims a key as the root. False where it is, or was, a pool's.
pub async fn claim_root(
    tx: &mut PgConnection,
    arn: &KmsKeyArn,
    public: &EcPublicJwk,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let kid = public.thumbprint();
    sqlx::query!(
        "insert into kms_key (material, arn, purpose, kid, public_jwk, created_at) values ($1, $2, 'root', $3, $4, $5)
         on conflict do nothing",
        arn.material(),
        arn.as_str(),
        kid.as_str(),
        Json(public) as _,
        now,
    )
    .execute(&mut *tx)
    .await?;
    // Another copy of a multi-region key may be named than the last time.
    let owned = sqlx::query_scalar!(
        "update kms_key set arn = $2 where material = $1 and kid = $3 and purpose = 'root' returning material",
        arn.material(),
        arn.as_str(),
        kid.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(owned.is_some())
}

/// The root that was last claimed under this ARN or id.
pub async fn find_root(tx: &mut PgConnection, name: &str) -> Result<Option<KmsSigningKey>, StoreError> {
    let row = sqlx::query!(
        r#"select arn, public_jwk as "public_jwk!: Json<EcPublicJwk>"
             from kms_key
            where purpose = 'root' and (arn = $1 or split_part(arn, ':key/', 2) = $1)"#,
        name,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| Ok(KmsSigningKey { arn: read_arn(&row.arn)?, public: row.public_jwk.0 })).transpose()
}

/// Claims a key that signs for a pool. False where it is another's: another pool's, the root, or one that encrypts.
pub async fn claim_signing(
    tx: &mut PgConnection,
    pool: PoolId,
    key: &KmsSigningKey,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let kid = key.public.thumbprint();
    sqlx::query!(
        "insert into kms_key (material, arn, purpose, pool_id, kid, public_jwk, created_at)
         values ($1, $2, 'signing', $3, $4, $5, $6)
         on conflict do nothing",
        key.arn.material(),
        key.arn.as_str(),
        pool.0,
        kid.as_str(),
        Json(&key.public) as _,
        now,
    )
    .execute(&mut *tx)
    .await?;
    let owned = sqlx::query_scalar!(
        "select material from kms_key where material = $1 and kid = $2 and purpose = 'signing' and pool_id = $3",
        key.arn.material(),
        kid.as_str(),
        pool.0,
    )
    .fetch_optional(tx)
    .await?;
    Ok(owned.is_some())
}

/// Claims a key that encrypts a pool's data keys. False where it is another's. One whose pool is gone is free again: nothing
/// is left that it encrypted.
pub async fn claim_encrypting(
    tx: &mut PgConnection,
    pool: PoolId,
    arn: &KmsKeyArn,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let owned = sqlx::query_scalar!(
        "insert into kms_key as k (material, arn, purpose, pool_id, created_at) values ($1, $2, 'envelope', $3, $4)
         on conflict (material) do update
            set pool_id = excluded.pool_id, arn = excluded.arn
          where k.purpose = 'envelope'
            and (k.pool_id = excluded.pool_id
                 or not exists (select 1 from client_pool p where p.id = k.pool_id))
         returning material",
        arn.material(),
        arn.as_str(),
        pool.0,
        now,
    )
    .fetch_optional(tx)
    .await?;
    Ok(owned.is_some())
}

/// A key that is the pool's and has not signed yet: the one that is named, or one that was made for it.
pub async fn find_unused(
    tx: &mut PgConnection,
    pool: PoolId,
    named: &KmsKeyArn,
) -> Result<Option<KmsSigningKey>, StoreError> {
    let row = sqlx::query!(
        r#"select arn, public_jwk as "public_jwk!: Json<EcPublicJwk>"
             from kms_key k
            where k.pool_id = $1 and k.purpose = 'signing' and (k.material = $2 or k.made_here)
              and not exists (select 1 from signing_key s where s.kid = k.kid)
            order by k.material = $2 desc, k.created_at
            limit 1"#,
        pool.0,
        named.material(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| Ok(KmsSigningKey { arn: read_arn(&row.arn)?, public: row.public_jwk.0 })).transpose()
}

/// Notes a key that has been made for a pool.
pub async fn insert_made(
    tx: &mut PgConnection,
    pool: PoolId,
    key: &KmsSigningKey,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let kid = key.public.thumbprint();
    sqlx::query!(
        "insert into kms_key (material, arn, purpose, pool_id, made_here, kid, public_jwk, created_at)
         values ($1, $2, 'signing', $3, true, $4, $5, $6)",
        key.arn.material(),
        key.arn.as_str(),
        pool.0,
        kid.as_str(),
        Json(&key.public) as _,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whether the key was a pool's signing key, and is so no more.
pub async fn has_ended(tx: &mut PgConnection, kid: &Kid) -> Result<bool, StoreError> {
    let ended = sqlx::query_scalar!(
        "select kid from signing_key where kid = $1 and state in ('retiring', 'gone', 'revoked')",
        kid.as_str(),
    );
    Ok(ended.fetch_optional(tx).await?.is_some())
}

fn read_arn(text: &str) -> Result<KmsKeyArn, StoreError> {
    text.parse().map_err(|error| corrupt("kms_key.arn", error))
}
