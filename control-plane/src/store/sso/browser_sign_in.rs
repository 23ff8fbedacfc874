//! `browser_sign_in`: browsers in which somebody is signed in, by the hashes of their cookies.

use keypost_shared::id::{OrgId, SessionId};
use keypost_shared::secret::SecretHash;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::super::StoreError;

/// Notes that in the browser with this cookie somebody is signed in.
pub async fn insert(
    tx: &mut PgConnection,
    org: &OrgId,
    cookie: &SecretHash,
    session: SessionId,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into browser_sign_in (hash, org_id, session_id, created_at) values ($1, $2, $3, $4)",
        cookie.as_bytes(),
        org.as_str(),
        session.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The session at this organization in the browser with this cookie.
pub async fn session(
    tx: &mut PgConnection,
    org: &OrgId,
    cookie: &SecretHash,
) -> Result<Option<SessionId>, StoreError> {
    let session = sqlx::query_scalar!(
        "select session_id from browser_sign_in where org_id = $1 and hash = $2",
        org.as_str(),
        cookie.as_bytes(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(session.map(SessionId))
}

/// Forgets a browser's cookie.
pub async fn delete(tx: &mut PgConnection, org: &OrgId, cookie: &SecretHash) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from browser_sign_in where org_id = $1 and hash = $2",
        org.as_str(),
        cookie.as_bytes(),
    )
    .execute(tx)
    .await?;
    Ok(())
}
