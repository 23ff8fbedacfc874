//! A pool's roots: which certificates its devices may come with.

use keypost_shared::certificate::root_upload::{self, RootUploadError};
use keypost_shared::certificate::{CertificateDer, Fingerprint, Problem};
use keypost_shared::host::HostCrypto;
use keypost_shared::kv_key::KvKey;
use serde_json::{Value, json};

use super::audit::Event;
use super::change::Change;
use super::precondition::Precondition;
use super::{ChangeError, Context, CreateError};
use crate::clock::{from_unix, unix};
use crate::store::environment::EnvScope;
use crate::store::publication::Priority;
use crate::store::trust_anchor::TrustAnchor;
use crate::store::{self, StoreError};

/// The most roots that a pool may have: each stands in the pool's document.
pub const MAX_ROOTS: i64 = 32;

/// What somebody uploads.
#[derive(Clone, Debug)]
pub struct RootUpload {
    /// The file.
    pub pem: Vec<u8>,
    /// What it is called.
    pub filename: Option<String>,
    /// The root that it is to take the place of.
    pub replaces: Option<Fingerprint>,
}

/// Why a root was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It is none.
    #[error(transparent)]
    Root(#[from] RootUploadError),
    /// The pool has as many as it may have.
    #[error("the pool has {MAX_ROOTS} roots, which is the most")]
    TooMany,
    /// The pool does not have the root that it is to take the place of.
    #[error("the pool has no other root with the fingerprint that replaces names")]
    UnknownReplaced,
    /// It was not added.
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl From<StoreError> for UploadError {
    fn from(error: StoreError) -> Self {
        Self::Create(error.into())
    }
}

/// Takes a root in.
pub async fn upload(
    change: &mut Change,
    scope: &EnvScope,
    upload: RootUpload,
) -> Result<TrustAnchor, UploadError> {
    let now = change.now();
    let anchor = root_upload::check(&HostCrypto, &upload.pem, unix(now)).await?;
    let certificate = anchor.certificate().map_err(|problem: Problem| RootUploadError::Unusable(problem))?;
    let root = TrustAnchor {
        fingerprint: anchor.fingerprint(),
        certificate: CertificateDer::new(anchor.der().to_vec()),
        subject: certificate.subject().to_string(),
        not_before: from_unix(certificate.not_before()),
        not_after: from_unix(certificate.not_after()),
        filename: upload.filename,
        replaces: upload.replaces,
        created_at: now,
    };
    // Whoever counts holds the pool, so that no two uploads at once are each the last that fits.
    store::client_pool::lock(change.tx(), scope).await?;
    if let Some(replaced) = &root.replaces
        && (*replaced == root.fingerprint
            || store::trust_anchor::find(change.tx(), scope, replaced).await?.is_none())
    {
        return Err(UploadError::UnknownReplaced);
    }
    if store::trust_anchor::find(change.tx(), scope, &root.fingerprint).await?.is_some() {
        return Err(CreateError::IdTaken.into());
    }
    if store::trust_anchor::count(change.tx(), scope).await? >= MAX_ROOTS {
        return Err(UploadError::TooMany);
    }
    store::trust_anchor::insert(change.tx(), scope, &root).await?;
    change.mark(KvKey::Pool(scope.pool()), Priority::Change);
    change.record(Event::created(scope.target("certificate", root.fingerprint), &told(&root)));
    Ok(root)
}

/// The pool's roots by fingerprint, after `after`.
pub async fn list(
    context: &Context,
    scope: &EnvScope,
    after: Option<&Fingerprint>,
    rows: i64,
) -> Result<Vec<TrustAnchor>, StoreError> {
    let mut connection = context.connection().await?;
    store::trust_anchor::list(&mut connection, scope, after, rows).await
}

/// One of the pool's roots.
pub async fn find(
    context: &Context,
    scope: &EnvScope,
    fingerprint: &Fingerprint,
) -> Result<Option<TrustAnchor>, StoreError> {
    let mut connection = context.connection().await?;
    store::trust_anchor::find(&mut connection, scope, fingerprint).await
}

/// Removes a root: chains to it are refused from now on.
pub async fn delete(
    context: &Context,
    scope: &EnvScope,
    fingerprint: &Fingerprint,
    precondition: &Precondition,
) -> Result<(), ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    store::client_pool::lock(change.tx(), scope).await?;
    let root = store::trust_anchor::find(change.tx(), scope, fingerprint).await?.ok_or(ChangeError::Gone)?;
    precondition.check(root.created_at)?;
    store::trust_anchor::delete(change.tx(), scope, fingerprint).await?;
    change.mark(KvKey::Pool(scope.pool()), Priority::Revocation);
    change.record(Event::deleted(scope.target("certificate", root.fingerprint), &told(&root)));
    change.commit().await?;
    Ok(())
}

/// What audit events tell of a root.
fn told(root: &TrustAnchor) -> Value {
    json!({"subject": root.subject, "filename": root.filename, "replaces": root.replaces})
}
