//! `oauth_client`: what activation changes of it, and of the device; and how service clients go with their environment.

use keypost_shared::id::ClientId;
use keypost_shared::secret::SecretHash;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::environment::EnvScope;
use super::otp::UsedOtp;
use super::{StoreError, id};

/// Deletes some service clients of the environment, the first by id; at most `limit`. Answers with them.
pub async fn delete_some_services(
    tx: &mut PgConnection,
    scope: &EnvScope,
    limit: i64,
) -> Result<Vec<ClientId>, StoreError> {
    let deleted = sqlx::query_scalar!(
        "delete from oauth_client
          where client_id in (
                    select client_id from oauth_client
                     where org_id = $1 and env_id = $2 and device_app_id is null
                     order by client_id
                     limit $3
                       for update
                )
         returning client_id",
        scope.org().as_str(),
        scope.env().as_str(),
        limit,
    )
    .fetch_all(tx)
    .await?;
    deleted.iter().map(|client| id("oauth_client.client_id", client)).collect()
}

/// The secrets that a client had when it was given another.
#[derive(Clone, Copy, Debug)]
pub struct EarlierSecrets {
    /// Whether it had one, which now ends.
    pub had_one: bool,
    /// Until when the one before that would have counted; it counts no longer.
    pub previous_expires_at: Option<OffsetDateTime>,
}

/// Gives the client of a used password a new secret; the old one stays good until `previous_expires_at`.
///
/// None, and nothing is changed, where the client or its device is disabled.
pub async fn activate(
    tx: &mut PgConnection,
    used: &UsedOtp,
    secret: &SecretHash,
    now: OffsetDateTime,
    previous_expires_at: OffsetDateTime,
) -> Result<Option<EarlierSecrets>, StoreError> {
    let device = sqlx::query!(
        "update device
            set status = 'active', last_activated_at = $4,
                updated_at = greatest($4, updated_at + interval '1 microsecond')
          where org_id = $1 and env_id = $2 and id = $3 and status <> 'disabled'",
        used.org_id.as_str(),
        used.env_id.as_str(),
        used.device_id.as_str(),
        now,
    )
    .execute(&mut *tx)
    .await?;
    if device.rows_affected() == 0 {
        return Ok(None);
    }
    let earlier = sqlx::query!(
        r#"select secret_hash is not null as "had_one!", previous_secret_expires_at
             from oauth_client
            where org_id = $1 and env_id = $2 and client_id = $3 and status = 'enabled'
              for update"#,
        used.org_id.as_str(),
        used.env_id.as_str(),
        used.client_id.as_str(),
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(earlier) = earlier else { return Ok(None) };
    sqlx::query!(
        "update oauth_client
            set previous_secret_hash = secret_hash,
                previous_secret_expires_at = case when secret_hash is null then null else $5::timestamptz end,
                secret_hash = $4, secret_created_at = $6, updated_at = $6
          where org_id = $1 and env_id = $2 and client_id = $3",
        used.org_id.as_str(),
        used.env_id.as_str(),
        used.client_id.as_str(),
        secret.as_bytes().as_slice(),
        previous_expires_at,
        now,
    )
    .execute(tx)
    .await?;
    let previous_expires_at = earlier.previous_secret_expires_at.filter(|until| *until > now);
    Ok(Some(EarlierSecrets { had_one: earlier.had_one, previous_expires_at }))
}
