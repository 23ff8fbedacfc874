//! Certificates that a pool's owner has denied: no chain with one of them gets anybody in.

use keypost_shared::device_certificate::DeniedCertificate as Denial;
use keypost_shared::kv_key::KvKey;
use serde_json::{Value, json};
use uuid::Uuid;

use super::audit::Event;
use super::change::Change;
use super::precondition::Precondition;
use super::{ChangeError, Context, CreateError};
use crate::entropy::random_uuid;
use crate::store::denied_certificate::DeniedCertificate;
use crate::store::environment::EnvScope;
use crate::store::publication::Priority;
use crate::store::{self, StoreError};

/// The most denials that a pool may have: each stands in the pool's document, and each chain is compared with each.
pub const MAX_DENIALS: i64 = 1000;

/// What is to be denied.
#[derive(Clone, Debug)]
pub struct NewDenial {
    /// Which certificate.
    pub denial: Denial,
    /// Why.
    pub reason: String,
}

/// Why something was not denied.
#[derive(Debug, thiserror::Error)]
pub enum DenyError {
    /// The pool has as many denials as it may have.
    #[error(
        "the pool has {MAX_DENIALS} denied certificates, which is the most: deny their CA, or remove its root"
    )]
    TooMany,
    /// It was not added.
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl From<StoreError> for DenyError {
    fn from(error: StoreError) -> Self {
        Self::Create(error.into())
    }
}

/// Denies a certificate.
pub async fn create(
    change: &mut Change,
    scope: &EnvScope,
    new: NewDenial,
) -> Result<DeniedCertificate, DenyError> {
    let denied = DeniedCertificate {
        id: random_uuid(&mut change.rng()),
        denial: new.denial,
        reason: new.reason,
        created_at: change.now(),
    };
    store::client_pool::lock(change.tx(), scope).await?;
    if store::denied_certificate::count(change.tx(), scope).await? >= MAX_DENIALS {
        return Err(DenyError::TooMany);
    }
    store::denied_certificate::insert(change.tx(), scope, &denied).await?;
    change.mark(KvKey::Pool(scope.pool()), Priority::Revocation);
    change.record(Event::created(scope.target("denied_certificate", denied.id), &told(&denied)));
    Ok(denied)
}

/// The pool's denials by id, after `after`.
pub async fn list(
    context: &Context,
    scope: &EnvScope,
    after: Option<Uuid>,
    rows: i64,
) -> Result<Vec<DeniedCertificate>, StoreError> {
    let mut connection = context.connection().await?;
    store::denied_certificate::list(&mut connection, scope, after, rows).await
}

/// One of the pool's denials.
pub async fn find(
    context: &Context,
    scope: &EnvScope,
    id: Uuid,
) -> Result<Option<DeniedCertificate>, StoreError> {
    let mut connection = context.connection().await?;
    store::denied_certificate::find(&mut connection, scope, id).await
}

/// Takes a denial back.
pub async fn delete(
    context: &Context,
    scope: &EnvScope,
    id: Uuid,
    precondition: &Precondition,
) -> Result<(), ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let denied = store::denied_certificate::find(change.tx(), scope, id).await?.ok_or(ChangeError::Gone)?;
    precondition.check(denied.created_at)?;
    if !store::denied_certificate::delete(change.tx(), scope, id).await? {
        return Err(ChangeError::Gone);
    }
    change.mark(KvKey::Pool(scope.pool()), Priority::Change);
    change.record(Event::deleted(scope.target("denied_certificate", id), &told(&denied)));
    change.commit().await?;
    Ok(())
}

/// What audit events tell of a denial.
fn told(denied: &DeniedCertificate) -> Value {
    let mut told = match &denied.denial {
        Denial::Fingerprint(fingerprint) => json!({"fingerprint": fingerprint}),
        Denial::IssuerAndSerial { issuer, serial } => json!({"issuer": issuer, "serialNumber": serial}),
    };
    if let Some(told) = told.as_object_mut() {
        told.insert("reason".to_owned(), Value::from(denied.reason.clone()));
    }
    told
}
