//! `refresh_token`: hashes of what sessions go on with. All of a session are one family.

use keypost_shared::id::{OrgId, SessionId, SsoAppId};
use keypost_shared::secret::SecretHash;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::super::{StoreError, id};

/// A refresh token.
#[derive(Clone, Debug)]
pub struct RefreshToken {
    /// Its hash.
    pub hash: SecretHash,
    /// The organization.
    pub org: OrgId,
    /// The session that it is of.
    pub session: SessionId,
    /// The client app that its pairs are for; none for an owner's.
    pub app: Option<SsoAppId>,
    /// Whether using it makes the session last longer.
    pub extends_session: bool,
    /// The scopes of OpenID Connect, space-separated; none outside of its flow.
    pub scope: Option<String>,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// When it was used.
    pub rotated_at: Option<OffsetDateTime>,
    /// When it was used once more, within the time in which that counts as a retry.
    pub retried_at: Option<OffsetDateTime>,
}

/// Adds a token that has not been used.
pub async fn insert(
    tx: &mut PgConnection,
    token: &RefreshToken,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into refresh_token (hash, org_id, session_id, client_app_id, extends_session, scope, created_at,
                                    expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        token.hash.as_bytes(),
        token.org.as_str(),
        token.session.0,
        token.app.map(|app| app.0),
        token.extends_session,
        token.scope,
        now,
        token.expires_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The token with this hash. Whoever goes by it locks its session and reads it again.
pub async fn find(tx: &mut PgConnection, hash: &SecretHash) -> Result<Option<RefreshToken>, StoreError> {
    let row = sqlx::query!(
        "select org_id, session_id, client_app_id, extends_session, scope, expires_at, rotated_at, retried_at
           from refresh_token where hash = $1",
        hash.as_bytes(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(RefreshToken {
            hash: hash.clone(),
            org: id("refresh_token.org_id", &row.org_id)?,
            session: SessionId(row.session_id),
            app: row.client_app_id.map(SsoAppId),
            extends_session: row.extends_session,
            scope: row.scope,
            expires_at: row.expires_at,
            rotated_at: row.rotated_at,
            retried_at: row.retried_at,
        })
    })
    .transpose()
}

/// Notes that a token has been used, or used once more.
pub async fn update(tx: &mut PgConnection, token: &RefreshToken) -> Result<(), StoreError> {
    sqlx::query!(
        "update refresh_token set rotated_at = $3, retried_at = $4 where org_id = $1 and hash = $2",
        token.org.as_str(),
        token.hash.as_bytes(),
        token.rotated_at,
        token.retried_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}
