//! `authorization_code`: hashes of what apps redeem for tokens.

use keypost_shared::id::{OrgId, SessionId, SsoAppId};
use keypost_shared::secret::SecretHash;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::super::{StoreError, hash, id};

/// An authorization code (RFC 6749 §4.1.2).
#[derive(Clone, Debug)]
pub struct AuthorizationCode {
    /// Its hash.
    pub hash: SecretHash,
    /// The organization.
    pub org: OrgId,
    /// The session of whoever signed in.
    pub session: SessionId,
    /// The app that it is for.
    pub app: SsoAppId,
    /// Where it was sent.
    pub redirect_uri: String,
    /// The SHA-256 of what redeems it (RFC 7636).
    pub code_challenge: [u8; 32],
    /// The scopes, space-separated.
    pub scope: String,
    /// For the ID token.
    pub nonce: Option<String>,
    /// Whether the session was begun with it.
    pub extends_session: bool,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// When it was redeemed.
    pub used_at: Option<OffsetDateTime>,
}

/// Adds a code that has not been used.
pub async fn insert(
    tx: &mut PgConnection,
    code: &AuthorizationCode,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into authorization_code (hash, org_id, session_id, client_app_id, redirect_uri, code_challenge, scope,
                                         nonce, extends_session, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        code.hash.as_bytes(),
        code.org.as_str(),
        code.session.0,
        code.app.0,
        code.redirect_uri,
        code.code_challenge.as_slice(),
        code.scope,
        code.nonce,
        code.extends_session,
        now,
        code.expires_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The code with this hash, for this app of the organization. Whoever goes by it locks its session and reads it again.
pub async fn find(
    tx: &mut PgConnection,
    org: &OrgId,
    app: SsoAppId,
    code: &SecretHash,
) -> Result<Option<AuthorizationCode>, StoreError> {
    let row = sqlx::query!(
        "select org_id, session_id, client_app_id, redirect_uri, code_challenge, scope, nonce, extends_session,
                expires_at, used_at
           from authorization_code where hash = $1 and org_id = $2 and client_app_id = $3",
        code.as_bytes(),
        org.as_str(),
        app.0,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(AuthorizationCode {
            hash: code.clone(),
            org: id("authorization_code.org_id", &row.org_id)?,
            session: SessionId(row.session_id),
            app: SsoAppId(row.client_app_id),
            redirect_uri: row.redirect_uri,
            code_challenge: hash("authorization_code.code_challenge", row.code_challenge)?,
            scope: row.scope,
            nonce: row.nonce,
            extends_session: row.extends_session,
            expires_at: row.expires_at,
            used_at: row.used_at,
        })
    })
    .transpose()
}

/// Notes that a code has been redeemed.
pub async fn note_use(
    tx: &mut PgConnection,
    code: &AuthorizationCode,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update authorization_code set used_at = $3 where org_id = $1 and hash = $2",
        code.org.as_str(),
        code.hash.as_bytes(),
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}
