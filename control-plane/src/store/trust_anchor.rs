//! `trust_anchor`: the roots that a pool's devices come under.

use keypost_shared::certificate::{CertificateDer, Fingerprint};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::environment::EnvScope;
use super::{StoreError, fingerprint};

/// A root that somebody has uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchor {
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// The certificate.
    pub certificate: CertificateDer,
    /// Its subject, as RFC 4514 writes it.
    pub subject: String,
    /// From when on it is valid.
    pub not_before: OffsetDateTime,
    /// Until when.
    pub not_after: OffsetDateTime,
    /// What the file was called.
    pub filename: Option<String>,
    /// The root that it takes the place of.
    pub replaces: Option<Fingerprint>,
    /// When it was uploaded.
    pub created_at: OffsetDateTime,
}

/// Adds a root to the pool.
///
/// [`StoreError::is_duplicate`] where the pool has it, [`StoreError::is_dangling`] where the pool has gone.
pub async fn insert(tx: &mut PgConnection, scope: &EnvScope, anchor: &TrustAnchor) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into trust_anchor
             (org_id, pool_id, fingerprint, certificate, subject, not_before, not_after, filename, replaces, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        scope.org().as_str(),
        scope.pool().0,
        anchor.fingerprint.as_bytes().as_slice(),
        anchor.certificate.as_bytes(),
        anchor.subject,
        anchor.not_before,
        anchor.not_after,
        anchor.filename.as_deref(),
        anchor.replaces.as_ref().map(|replaced| replaced.as_bytes().as_slice()),
        anchor.created_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// How many roots the pool has.
pub async fn count(tx: &mut PgConnection, scope: &EnvScope) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from trust_anchor where org_id = $1 and pool_id = $2"#,
        scope.org().as_str(),
        scope.pool().0,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

/// The pool's roots by fingerprint, after `after`: at most `rows` of them.
pub async fn list(
    tx: &mut PgConnection,
    scope: &EnvScope,
    after: Option<&Fingerprint>,
    rows: i64,
) -> Result<Vec<TrustAnchor>, StoreError> {
    select(tx, scope, None, after, rows).await
}

/// One of the pool's roots.
pub async fn find(
    tx: &mut PgConnection,
    scope: &EnvScope,
    fingerprint: &Fingerprint,
) -> Result<Option<TrustAnchor>, StoreError> {
    Ok(select(tx, scope, Some(fingerprint), None, 1).await?.pop())
}

/// Removes a root from the pool. Says whether it was there.
pub async fn delete(
    tx: &mut PgConnection,
    scope: &EnvScope,
    fingerprint: &Fingerprint,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "delete from trust_anchor where org_id = $1 and pool_id = $2 and fingerprint = $3",
        scope.org().as_str(),
        scope.pool().0,
        fingerprint.as_bytes().as_slice(),
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn select(
    tx: &mut PgConnection,
    scope: &EnvScope,
    one: Option<&Fingerprint>,
    after: Option<&Fingerprint>,
    rows: i64,
) -> Result<Vec<TrustAnchor>, StoreError> {
    let rows = sqlx::query!(
        "select fingerprint, certificate, subject, not_before, not_after, filename, replaces, created_at
           from trust_anchor
          where org_id = $1 and pool_id = $2
            and ($3::bytea is null or fingerprint = $3)
            and ($4::bytea is null or fingerprint > $4)
          order by fingerprint
          limit $5",
        scope.org().as_str(),
        scope.pool().0,
        one.map(|one| one.as_bytes().as_slice()),
        after.map(|after| after.as_bytes().as_slice()),
        rows,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(TrustAnchor {
                fingerprint: fingerprint("trust_anchor.fingerprint", row.fingerprint)?,
                certificate: CertificateDer::new(row.certificate),
                subject: row.subject,
                not_before: row.not_before,
                not_after: row.not_after,
                filename: row.filename,
                replaces: row
                    .replaces
                    .map(|bytes| fingerprint("trust_anchor.replaces", bytes))
                    .transpose()?,
                created_at: row.created_at,
            })
        })
        .collect()
}
