//! `denied_certificate`: what must not be in any chain of a pool's devices.

use keypost_shared::device_certificate::DeniedCertificate as Denial;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::environment::EnvScope;
use super::{StoreError, corrupt, fingerprint};

/// A certificate that somebody has denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedCertificate {
    /// Its id.
    pub id: Uuid,
    /// Which one.
    pub denial: Denial,
    /// Why.
    pub reason: String,
    /// Since when.
    pub created_at: OffsetDateTime,
}

/// Adds a denial to the pool.
///
/// [`StoreError::is_duplicate`] where the pool has it, [`StoreError::is_dangling`] where the pool has gone.
pub async fn insert(
    tx: &mut PgConnection,
    scope: &EnvScope,
    denied: &DeniedCertificate,
) -> Result<(), StoreError> {
    let (fingerprint, issuer, serial) = match &denied.denial {
        Denial::Fingerprint(fingerprint) => (Some(fingerprint), None, None),
        Denial::IssuerAndSerial { issuer, serial } => {
            (None, Some(String::from(issuer.clone())), Some(serial.to_string()))
        }
    };
    sqlx::query!(
        "insert into denied_certificate (id, org_id, pool_id, fingerprint, issuer, serial, reason, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        denied.id,
        scope.org().as_str(),
        scope.pool().0,
        fingerprint.map(|fingerprint| fingerprint.as_bytes().as_slice()),
        issuer,
        serial,
        denied.reason,
        denied.created_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// How many denials the pool has.
pub async fn count(tx: &mut PgConnection, scope: &EnvScope) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from denied_certificate where org_id = $1 and pool_id = $2"#,
        scope.org().as_str(),
        scope.pool().0,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

/// The pool's denials by id, after `after`: at most `rows` of them.
pub async fn list(
    tx: &mut PgConnection,
    scope: &EnvScope,
    after: Option<Uuid>,
    rows: i64,
) -> Result<Vec<DeniedCertificate>, StoreError> {
    select(tx, scope, None, after, rows).await
}

/// One of the pool's denials.
pub async fn find(
    tx: &mut PgConnection,
    scope: &EnvScope,
    id: Uuid,
) -> Result<Option<DeniedCertificate>, StoreError> {
    Ok(select(tx, scope, Some(id), None, 1).await?.pop())
}

/// Takes a denial back. Says whether it was there.
pub async fn delete(tx: &mut PgConnection, scope: &EnvScope, id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "delete from denied_certificate where org_id = $1 and pool_id = $2 and id = $3",
        scope.org().as_str(),
        scope.pool().0,
        id,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn select(
    tx: &mut PgConnection,
    scope: &EnvScope,
    one: Option<Uuid>,
    after: Option<Uuid>,
    rows: i64,
) -> Result<Vec<DeniedCertificate>, StoreError> {
    let rows = sqlx::query!(
        "select id, fingerprint, issuer, serial, reason, created_at
           from denied_certificate
          where org_id = $1 and pool_id = $2
            and ($3::uuid is null or id = $3)
            and ($4::uuid is null or id > $4)
          order by id
          limit $5",
        scope.org().as_str(),
        scope.pool().0,
        one,
        after,
        rows,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(DeniedCertificate {
                id: row.id,
                denial: read(row.fingerprint, row.issuer, row.serial)?,
                reason: row.reason,
                created_at: row.created_at,
            })
        })
        .collect()
}

/// A denial from its columns.
pub(super) fn read(
    bytes: Option<Vec<u8>>,
    issuer: Option<String>,
    serial: Option<String>,
) -> Result<Denial, StoreError> {
    match (bytes, issuer, serial) {
        (Some(bytes), None, None) => {
            Ok(Denial::Fingerprint(fingerprint("denied_certificate.fingerprint", bytes)?))
        }
        (None, Some(issuer), Some(serial)) => Ok(Denial::IssuerAndSerial {
            issuer: issuer.parse().map_err(|error| corrupt("denied_certificate.issuer", error))?,
            serial: serial.parse().map_err(|error| corrupt("denied_certificate.serial", error))?,
        }),
        _ => Err(corrupt("denied_certificate", "neither a fingerprint nor issuer and serial number")),
    }
}
