//! `otp`: the one-time passwords of device activation.
//!
//! The one who activates holds no API key: the password itself, by its keyed hash, is what rows are found by.

use keypost_shared::id::{ClientAppId, ClientId, DeviceId, EnvId, OrgId, PoolId};
use keypost_shared::scope::Scopes;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::environment::EnvScope;
use super::{StoreError, corrupt, id};

/// A one-time password that has just been used up.
#[derive(Clone, Debug)]
pub struct UsedOtp {
    /// The app that it activates.
    pub device_app_id: Uuid,
    /// The app's client.
    pub client_id: ClientId,
    /// The client's pool.
    pub pool_id: PoolId,
    /// The organization.
    pub org_id: OrgId,
    /// The environment.
    pub env_id: EnvId,
    /// The device.
    pub device_id: DeviceId,
    /// Which application it is.
    pub client_app_id: ClientAppId,
    /// What its tokens may be for.
    pub scopes: Scopes,
}

/// By which of these hashes the password is stored: it has one under each master key that counts. None where it is not
/// stored, or where it has one hash alone.
pub async fn stored(tx: &mut PgConnection, hmacs: &[[u8; 32]]) -> Result<Option<[u8; 32]>, StoreError> {
    if hmacs.len() < 2 {
        return Ok(None);
    }
    let wanted: Vec<Vec<u8>> = hmacs.iter().map(|hmac| hmac.to_vec()).collect();
    let stored = sqlx::query_scalar!("select code_hmac from otp where code_hmac = any($1) limit 1", &wanted)
        .fetch_optional(tx)
        .await?;
    stored.map(|hmac| super::hash("otp.code_hmac", hmac)).transpose()
}

/// Gives an app of the environment a password; an earlier one of the app ends. False, and nothing is changed, where
/// another app has the same password, which the caller answers with a new one.
pub async fn replace(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device_app_id: Uuid,
    code_hmac: &[u8; 32],
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<bool, StoreError> {
    // Asked first, because an insert that fails would end the transaction. Of two that draw the same at the same instant
    // one fails after all, and is told to try again.
    let taken = sqlx::query_scalar!(
        r#"select exists (select from otp where code_hmac = $1) as "taken!""#,
        code_hmac.as_slice()
    )
    .fetch_one(&mut *tx)
    .await?;
    if taken {
        return Ok(false);
    }
    sqlx::query!(
        "insert into otp (device_app_id, org_id, code_hmac, created_at, expires_at, used_at, wrong_tries)
         values ($1, $2, $3, $4, $5, null, 0)
         on conflict (device_app_id) do update
            set code_hmac = excluded.code_hmac, created_at = excluded.created_at, expires_at = excluded.expires_at,
                used_at = null, wrong_tries = 0
          where otp.org_id = excluded.org_id",
        device_app_id,
        scope.org().as_str(),
        code_hmac.as_slice(),
        created_at,
        expires_at,
    )
    .execute(tx)
    .await?;
    Ok(true)
}

/// Locks the device that a password is for until the transaction ends: before the password itself, because whoever deletes
/// or disables the device has it locked first too.
pub async fn lock_device(tx: &mut PgConnection, code_hmac: &[u8; 32]) -> Result<(), StoreError> {
    sqlx::query!(
        "select d.id
           from otp o
           join device_app a on a.org_id = o.org_id and a.id = o.device_app_id
           join device d on d.org_id = a.org_id and d.env_id = a.env_id and d.id = a.device_id
          where o.code_hmac = $1
            for no key update of d",
        code_hmac.as_slice(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(())
}

/// Uses a password up, if it is good now, has been tried fewer than `most_tries` times with a wrong device, and is for
/// `device` where that is given. One statement: of two at the same instant exactly one gets the row.
pub async fn use_up(
    tx: &mut PgConnection,
    code_hmac: &[u8; 32],
    device: Option<&DeviceId>,
    most_tries: i16,
    now: OffsetDateTime,
) -> Result<Option<UsedOtp>, StoreError> {
    let row = sqlx::query!(
        "update otp o
            set used_at = $4
           from device_app a
           join oauth_client c on c.org_id = a.org_id and c.env_id = a.env_id and c.device_app_id = a.id
          where o.code_hmac = $1 and o.used_at is null and o.expires_at > $4 and o.wrong_tries < $3
            and a.org_id = o.org_id and a.id = o.device_app_id
            and ($2::text is null or a.device_id = $2)
        returning a.id as device_app_id, a.org_id, a.env_id, a.device_id, a.client_app_id, c.client_id, c.pool_id,
                  c.scopes",
        code_hmac.as_slice(),
        device.map(DeviceId::as_str),
        most_tries,
        now,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(UsedOtp {
            device_app_id: row.device_app_id,
            client_id: id("oauth_client.client_id", &row.client_id)?,
            pool_id: PoolId(row.pool_id),
            org_id: id("device_app.org_id", &row.org_id)?,
            env_id: id("device_app.env_id", &row.env_id)?,
            device_id: id("device_app.device_id", &row.device_id)?,
            client_app_id: id("device_app.client_app_id", &row.client_app_id)?,
            scopes: Scopes::new(row.scopes).map_err(|error| corrupt("oauth_client.scopes", error))?,
        })
    })
    .transpose()
}

/// A password that too many tries with a wrong device have ended.
#[derive(Clone, Debug)]
pub struct ExhaustedOtp {
    /// The organization that it was for.
    pub org_id: OrgId,
    /// The environment that it was for.
    pub env_id: EnvId,
    /// The device that it was for.
    pub device_id: DeviceId,
    /// The app that it was for.
    pub device_app_id: Uuid,
}

/// Counts a try against a password that came with another device than its own. Answers with what it was for where this
/// was try number `most_tries`, which ends it.
pub async fn count_wrong_device(
    tx: &mut PgConnection,
    code_hmac: &[u8; 32],
    device: &DeviceId,
    most_tries: i16,
    now: OffsetDateTime,
) -> Result<Option<ExhaustedOtp>, StoreError> {
    let row = sqlx::query!(
        r#"update otp o
            set wrong_tries = least(o.wrong_tries + 1, 1000)
           from device_app a
          where o.code_hmac = $1 and a.org_id = o.org_id and a.id = o.device_app_id and a.device_id <> $2
        returning (o.wrong_tries = $3 and o.used_at is null and o.expires_at > $4) as "ends!",
                  a.org_id, a.env_id, a.device_id, a.id as device_app_id"#,
        code_hmac.as_slice(),
        device.as_str(),
        most_tries,
        now,
    )
    .fetch_optional(tx)
    .await?;
    row.filter(|row| row.ends)
        .map(|row| {
            Ok(ExhaustedOtp {
                org_id: id("device_app.org_id", &row.org_id)?,
                env_id: id("device_app.env_id", &row.env_id)?,
                device_id: id("device_app.device_id", &row.device_id)?,
                device_app_id: row.device_app_id,
            })
        })
        .transpose()
}
