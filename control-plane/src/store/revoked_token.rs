//! `revoked_token`: what has been revoked, by whom, until it has expired.

use keypost_shared::id::{ClientId, PoolId, TokenId};
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::signing_key::PoolOwner;
use super::{StoreError, corrupt, id};

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokedToken {
    /// The revocation's id.
    pub id: Uuid,
    /// Whose tokens: a client's, or for people a session's.
    pub client_id: ClientId,
    /// The token; none for all that the client had.
    pub jti: Option<TokenId>,
    /// When the last of what was revoked expires.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// When it was revoked.
    #[serde(with = "time::serde::rfc3339")]
    pub revoked_at: OffsetDateTime,
    /// By whom.
    pub revoked_by: RevokedBy,
}

/// Who has revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RevokedBy {
    /// The client itself, at the edge; for people, the client app that the token was issued to.
    Client,
    /// An administrator.
    Administrator,
}

impl RevokedBy {
    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Administrator => "administrator",
        }
    }
}

/// Notes a revocation. False where the token has been revoked already: then nothing is noted.
pub async fn insert(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    revoked: &RevokedToken,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "insert into revoked_token (id, org_id, pool_id, client_id, jti, expires_at, revoked_at, revoked_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (pool_id, jti) do nothing",
        revoked.id,
        owner.org().as_str(),
        owner.pool().0,
        revoked.client_id.as_str(),
        revoked.jti.as_ref().map(TokenId::as_str),
        revoked.expires_at,
        revoked.revoked_at,
        revoked.revoked_by.as_str(),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether somebody of this id may have a place in the pool's status lists: a client of it, or for people a session.
pub async fn is_holder(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    holder: &ClientId,
) -> Result<bool, StoreError> {
    let session = Uuid::try_parse(holder.as_str()).ok();
    let is_holder = sqlx::query_scalar!(
        r#"select exists (
               select from oauth_client where org_id = $1 and pool_id = $2 and client_id = $3
           ) or exists (
               select from sso_session where org_id = $1 and pool_id = $2 and id = $4
           ) as "is_holder!""#,
        owner.org().as_str(),
        owner.pool().0,
        holder.as_str(),
        session,
    )
    .fetch_one(tx)
    .await?;
    Ok(is_holder)
}

/// The revocation of a token.
pub async fn find(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    jti: &TokenId,
) -> Result<Option<RevokedToken>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "select id, client_id, jti, expires_at, revoked_at, revoked_by
           from revoked_token where org_id = $1 and pool_id = $2 and jti = $3",
        owner.org().as_str(),
        owner.pool().0,
        jti.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(RevokedToken::try_from).transpose()
}

/// The revocations of a pool that have not expired, by id, after `after`.
pub async fn list(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    after: Option<Uuid>,
    now: OffsetDateTime,
    rows: i64,
) -> Result<Vec<RevokedToken>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "select id, client_id, jti, expires_at, revoked_at, revoked_by
           from revoked_token
          where org_id = $1 and pool_id = $2 and ($3::uuid is null or id > $3) and expires_at > $4
          order by id
          limit $5",
        owner.org().as_str(),
        owner.pool().0,
        after,
        now,
        rows,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(RevokedToken::try_from).collect()
}

/// Those of the tokens, of whatever pool, of which it is known that they were revoked.
pub async fn known(
    tx: &mut PgConnection,
    tokens: &[(PoolId, TokenId)],
) -> Result<Vec<(PoolId, TokenId)>, StoreError> {
    let pools: Vec<Uuid> = tokens.iter().map(|(pool, _)| pool.0).collect();
    let ids: Vec<String> = tokens.iter().map(|(_, jti)| jti.to_string()).collect();
    let rows = sqlx::query!(
        r#"select r.pool_id, r.jti as "jti!"
             from unnest($1::uuid[], $2::text[]) as wanted (pool_id, jti)
             join revoked_token r on r.pool_id = wanted.pool_id and r.jti = wanted.jti"#,
        &pools,
        &ids,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(|row| Ok((PoolId(row.pool_id), id("revoked_token.jti", &row.jti)?))).collect()
}

/// Forgets all of a pool, before the pool goes.
pub async fn delete_all(tx: &mut PgConnection, owner: &PoolOwner) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from revoked_token where org_id = $1 and pool_id = $2",
        owner.org().as_str(),
        owner.pool().0,
    )
    .execute(tx)
    .await?;
    Ok(())
}

struct Row {
    id: Uuid,
    client_id: String,
    jti: Option<String>,
    expires_at: OffsetDateTime,
    revoked_at: OffsetDateTime,
    revoked_by: String,
}

impl TryFrom<Row> for RevokedToken {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            client_id: id("revoked_token.client_id", &row.client_id)?,
            jti: row.jti.map(|jti| id("revoked_token.jti", &jti)).transpose()?,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            revoked_by: match row.revoked_by.as_str() {
                "client" => RevokedBy::Client,
                "administrator" => RevokedBy::Administrator,
                other => return Err(corrupt("revoked_token.revoked_by", other)),
            },
        })
    }
}
