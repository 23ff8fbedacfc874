//! What is known of devices' certificates: the columns of `device`, and `provisioning_hour`, `refused_device` and
//! `deleted_device`.

use keypost_shared::device_certificate::{CertificatePins, DeviceIdentity};
use keypost_shared::id::DeviceId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::StoreError;
use super::environment::EnvScope;
use super::signing_key::PoolOwner;

/// Lets one transaction at a time decide about a device, whether it exists or not.
pub async fn lock(tx: &mut PgConnection, scope: &EnvScope, device: &DeviceId) -> Result<(), StoreError> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended($1, 1802530819))",
        format!("{}/{device}", scope.pool()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Keeps what a device's first certificate has.
pub async fn pin(
    tx: &mut PgConnection,
    scope: &EnvScope,
    identity: &DeviceIdentity,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let pins = CertificatePins::of(identity);
    let roots: Vec<Vec<u8>> = pins.roots.iter().map(|root| root.as_bytes().to_vec()).collect();
    sqlx::query!(
        "update device
            set certificate_fingerprint = $4, pinned_organization = $5, pinned_common_name = $6, pinned_roots = $7,
                updated_at = greatest($8, updated_at + interval '1 microsecond')
          where org_id = $1 and env_id = $2 and id = $3",
        scope.org().as_str(),
        scope.env().as_str(),
        identity.device_id.as_str(),
        identity.thumbprint.as_bytes().as_slice(),
        pins.organization,
        pins.common_name,
        &roots,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that a device has come to exist by its certificate.
pub async fn provisioned(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update device set provisioned_by = 'certificate', provisioned_at = $4
          where org_id = $1 and env_id = $2 and id = $3",
        scope.org().as_str(),
        scope.env().as_str(),
        device.as_str(),
        at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Counts a device that came in this hour. False, and not counted, where as many have come as may.
pub async fn count(
    tx: &mut PgConnection,
    scope: &EnvScope,
    hour: OffsetDateTime,
    most: u32,
) -> Result<bool, StoreError> {
    let most = i32::try_from(most).unwrap_or(i32::MAX);
    let counted = sqlx::query!(
        "insert into provisioning_hour as p (org_id, pool_id, hour, devices)
         select $1, $2, $3, 1 where $4 > 0
         on conflict (pool_id, hour) do update set devices = p.devices + 1 where p.devices < $4",
        scope.org().as_str(),
        scope.pool().0,
        hour,
        most,
    )
    .execute(tx)
    .await?;
    Ok(counted.rows_affected() == 1)
}

/// Keeps a device out until a time. Says whether it was not kept out already.
pub async fn refuse(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
    code: &str,
    now: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<bool, StoreError> {
    let is_new = sqlx::query_scalar!(
        r#"insert into refused_device as r (org_id, pool_id, device_id, code, refused_at, until)
           values ($1, $2, $3, $4, $5, $6)
           on conflict (pool_id, device_id) do update
              set code = excluded.code, refused_at = excluded.refused_at, until = greatest(r.until, excluded.until)
           returning (xmax = 0) as "is_new!""#,
        scope.org().as_str(),
        scope.pool().0,
        device.as_str(),
        code,
        now,
        until,
    )
    .fetch_one(tx)
    .await?;
    Ok(is_new)
}

/// No longer keeps a device out.
pub async fn forgive(tx: &mut PgConnection, scope: &EnvScope, device: &DeviceId) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from refused_device where org_id = $1 and pool_id = $2 and device_id = $3",
        scope.org().as_str(),
        scope.pool().0,
        device.as_str(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// When a device of that id was last deleted, as far as it is remembered.
pub async fn deleted_at(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
) -> Result<Option<OffsetDateTime>, StoreError> {
    let at = sqlx::query_scalar!(
        "select deleted_at from deleted_device where org_id = $1 and pool_id = $2 and device_id = $3",
        scope.org().as_str(),
        scope.pool().0,
        device.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(at)
}

/// Remembers that a device has been deleted: a report from before that is void.
pub async fn remember_deleted(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into deleted_device as d (org_id, pool_id, device_id, deleted_at) values ($1, $2, $3, $4)
         on conflict (pool_id, device_id) do update set deleted_at = greatest(d.deleted_at, excluded.deleted_at)",
        scope.org().as_str(),
        scope.pool().0,
        device.as_str(),
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Removes all that is remembered of a pool's certificates, and its roots and denials, before the pool goes.
pub async fn delete_all(tx: &mut PgConnection, owner: &PoolOwner) -> Result<(), StoreError> {
    sqlx::query!(
        "with a as (delete from trust_anchor where org_id = $1 and pool_id = $2),
              b as (delete from denied_certificate where org_id = $1 and pool_id = $2),
              c as (delete from provisioning_hour where org_id = $1 and pool_id = $2),
              d as (delete from refused_device where org_id = $1 and pool_id = $2)
         delete from deleted_device where org_id = $1 and pool_id = $2",
        owner.org().as_str(),
        owner.pool().0,
    )
    .execute(tx)
    .await?;
    Ok(())
}
