//! Which origins client apps list (CORS).

use keypost_shared::id::SsoAppId;
use keypost_shared::secret::SecretHash;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::super::StoreError;

/// Whether any client app, of whatever organization, lists this origin.
pub async fn is_listed(tx: &mut PgConnection, origin: &str) -> Result<bool, StoreError> {
    let listed = sqlx::query_scalar!(
        r#"select exists (select from client_app where origins @> array[$1::text]) as "listed!""#,
        origin,
    )
    .fetch_one(tx)
    .await?;
    Ok(listed)
}

/// Whether the client app whose key this is lists an origin.
pub async fn is_listed_by_holder(
    tx: &mut PgConnection,
    key: &SecretHash,
    origin: &str,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let listed = sqlx::query_scalar!(
        r#"select exists (
               select from sso_key k
                 join client_app a on a.org_id = k.org_id and a.id = k.client_app_id
                where k.hash = $1 and (k.expires_at is null or k.expires_at > $3)
                  and $2 = any(a.origins)) as "listed!""#,
        key.as_bytes(),
        origin,
        now,
    )
    .fetch_one(tx)
    .await?;
    Ok(listed)
}

/// Whether this client app lists an origin.
pub async fn is_listed_by(tx: &mut PgConnection, app: SsoAppId, origin: &str) -> Result<bool, StoreError> {
    let listed = sqlx::query_scalar!(
        r#"select exists (select from client_app where id = $1 and $2 = any(origins)) as "listed!""#,
        app.0,
        origin,
    )
    .fetch_one(tx)
    .await?;
    Ok(listed)
}
