//! The pool of an organization's people (kind `sso`): what signs for them, and what verifies that.

use std::collections::BTreeMap;

use keypost_shared::id::{Kid, OrgId, PoolId};
use keypost_shared::jwk::EcPublicJwk;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::super::signing_key::read_private;
use super::super::{StoreError, id};
use crate::key_maker::StoredPrivate;

/// What a token of an organization's people is made with.
pub struct SsoPool {
    /// The pool.
    pub id: PoolId,
    /// The organization's name.
    pub org_name: String,
    /// How long its tokens live at most, in seconds.
    pub token_ttl_seconds: u32,
    /// The key that signs; none where there is none at the moment.
    pub signer: Option<Signer>,
}

/// The key that signs.
pub struct Signer {
    /// Its id in the key set.
    pub kid: Kid,
    /// Its private half.
    pub private: StoredPrivate,
    /// When it signs no more.
    pub ends_at: Option<OffsetDateTime>,
}

/// A key that may have signed a token.
pub struct VerifyingKey {
    /// The organization.
    pub org: OrgId,
    /// The organization's name.
    pub org_name: String,
    /// Its sso pool.
    pub pool: PoolId,
    /// The public half.
    pub public: EcPublicJwk,
}

/// The id of the organization's pool of people, if it has one.
pub async fn find_id(tx: &mut PgConnection, org: &OrgId) -> Result<Option<PoolId>, StoreError> {
    let pool =
        sqlx::query_scalar!("select id from client_pool where org_id = $1 and kind = 'sso'", org.as_str(),)
            .fetch_optional(tx)
            .await?;
    Ok(pool.map(PoolId))
}

/// The pools of people of these organizations, of those that have one.
pub async fn of_organizations(
    tx: &mut PgConnection,
    orgs: &[OrgId],
) -> Result<BTreeMap<OrgId, PoolId>, StoreError> {
    let names: Vec<String> = orgs.iter().map(OrgId::to_string).collect();
    let rows =
        sqlx::query!("select org_id, id from client_pool where org_id = any($1) and kind = 'sso'", &names)
            .fetch_all(tx)
            .await?;
    rows.into_iter().map(|row| Ok((id("client_pool.org_id", &row.org_id)?, PoolId(row.id)))).collect()
}

/// The organization's pool of people, if it has one.
pub async fn find(tx: &mut PgConnection, org: &OrgId) -> Result<Option<SsoPool>, StoreError> {
    let row = sqlx::query!(
        r#"select p.id, o.name, p.token_ttl_seconds, k.kid as "kid?", k.backend as "backend?", k.key_mode,
                  k.kms_key_id, k.kms_data_key, k.private_sealed, k.ends_at
             from client_pool p
             join organization o on o.id = p.org_id
             left join signing_key k on k.pool_id = p.id and k.state = 'active'
            where p.org_id = $1 and p.kind = 'sso'"#,
        org.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let signer = match row.kid.zip(row.backend) {
        Some((kid, backend)) => {
            let (mode, kms) = (row.key_mode.as_deref(), row.kms_key_id);
            let private = read_private(&backend, mode, kms, row.kms_data_key, row.private_sealed)?;
            let kid = id("signing_key.kid", &kid)?;
            private.map(|private| Signer { kid, private, ends_at: row.ends_at })
        }
        None => None,
    };
    Ok(Some(SsoPool {
        id: PoolId(row.id),
        org_name: row.name,
        token_ttl_seconds: row.token_ttl_seconds.unsigned_abs(),
        signer,
    }))
}

/// The key with this id, if it is in the key set of a pool of people.
pub async fn verifying_key(tx: &mut PgConnection, kid: &Kid) -> Result<Option<VerifyingKey>, StoreError> {
    let row = sqlx::query!(
        r#"select p.org_id, o.name, p.id, k.public_jwk as "public_jwk: Json<EcPublicJwk>"
             from signing_key k
             join client_pool p on p.org_id = k.org_id and p.id = k.pool_id
             join organization o on o.id = p.org_id
            where k.kid = $1 and k.state in ('next', 'active', 'retiring') and p.kind = 'sso'"#,
        kid.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(VerifyingKey {
            org: id("client_pool.org_id", &row.org_id)?,
            org_name: row.name,
            pool: PoolId(row.id),
            public: row.public_jwk.0,
        })
    })
    .transpose()
}
