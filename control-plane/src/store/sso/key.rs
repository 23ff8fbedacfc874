//! `sso_key`: what the header `apikey` may hold. Hashes only.

use keypost_shared::id::{OrgId, SsoAppId};
use keypost_shared::secret::SecretHash;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::{StoreError, id};

/// Whose a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHolder {
    /// The key's own id.
    pub key_id: Uuid,
    /// The organization.
    pub org: OrgId,
    /// The client app; none for the organization's own key.
    pub app: Option<SsoAppId>,
}

/// Whose the key with this hash is, if it is good now.
pub async fn find_holder(
    tx: &mut PgConnection,
    hash: &SecretHash,
    now: OffsetDateTime,
) -> Result<Option<KeyHolder>, StoreError> {
    let row = sqlx::query!(
        "select id, org_id, client_app_id from sso_key
          where hash = $1 and (expires_at is null or expires_at > $2)",
        hash.as_bytes(),
        now,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(KeyHolder {
            key_id: row.id,
            org: id("sso_key.org_id", &row.org_id)?,
            app: row.client_app_id.map(SsoAppId),
        })
    })
    .transpose()
}

/// Adds a key.
pub async fn insert(
    tx: &mut PgConnection,
    holder: &KeyHolder,
    hash: &SecretHash,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into sso_key (id, org_id, client_app_id, hash, created_at) values ($1, $2, $3, $4, $5)",
        holder.key_id,
        holder.org.as_str(),
        holder.app.map(|app| app.0),
        hash.as_bytes(),
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends at once the keys that only count for an overlap any more, of the organization or of its client app. Says whether there
/// were any.
pub async fn end_older(
    tx: &mut PgConnection,
    org: &OrgId,
    app: Option<SsoAppId>,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "delete from sso_key
          where org_id = $1 and client_app_id is not distinct from $2 and expires_at is not null",
        org.as_str(),
        app.map(|app| app.0),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Lets all keys of the organization, or of its client app, end at a time, unless they end before.
pub async fn expire(
    tx: &mut PgConnection,
    org: &OrgId,
    app: Option<SsoAppId>,
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update sso_key set expires_at = $3
          where org_id = $1 and client_app_id is not distinct from $2 and (expires_at is null or expires_at > $3)",
        org.as_str(),
        app.map(|app| app.0),
        at,
    )
    .execute(tx)
    .await?;
    Ok(())
}
