//! The root: the key that signs `v1/trust`, and whose public half the Worker pins.

use std::sync::Arc;

use keypost_shared::document::{Stamp, TrustDocument};
use keypost_shared::host::PrivateKey;
use keypost_shared::id::Kid;
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::kv_key::KvKey;
use sqlx::PgPool;
use time::OffsetDateTime;

use crate::crypto_at_rest::{KeyPurpose, MasterKey, OpenError, SealError};
use crate::entropy::Rng;
use crate::store::root_key::StoredRoot;
use crate::store::{self, AdvisoryLock, StoreError};

/// Signs `v1/trust`.
#[derive(Clone, Debug)]
pub enum RootSigner {
    /// With a key that rests in the database, encrypted under the master key.
    Local(Arc<PrivateKey>),
}

/// Why there is no root to sign with.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not open.
    #[error("the root in the database cannot be used: {0}")]
    Open(#[from] OpenError),
    /// A new one could not be encrypted.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<sqlx::Error> for RootError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl RootSigner {
    /// Opens the local root, after making it where there is none. Several processes may do so at once.
    pub async fn load_or_create(
        db: &PgPool,
        master_key: &MasterKey,
        now: OffsetDateTime,
        mut rng: Rng,
    ) -> Result<Self, RootError> {
        let mut tx = db.begin().await?;
        store::lock(&mut tx, AdvisoryLock::Root).await?;
        let key = match store::root_key::find(&mut tx).await? {
            Some(stored) => master_key.open(KeyPurpose::Root, &stored.kid, &stored.private_sealed)?,
            None => {
                let key = PrivateKey::generate(&mut rng);
                let private_sealed = master_key.seal(KeyPurpose::Root, &key, &mut rng)?;
                let stored = StoredRoot { kid: key.kid().clone(), private_sealed };
                store::root_key::insert(&mut tx, &stored, key.public(), now).await?;
                tracing::info!(kid = %key.kid(), "a root has been made");
                key
            }
        };
        tx.commit().await?;
        Ok(Self::Local(Arc::new(key)))
    }

    /// The public half, to be pinned in the Worker.
    pub fn public(&self) -> &EcPublicJwk {
        match self {
            RootSigner::Local(key) => key.public(),
        }
    }

    /// The public half's thumbprint.
    pub fn kid(&self) -> &Kid {
        match self {
            RootSigner::Local(key) => key.kid(),
        }
    }

    /// Signs the trust document.
    pub fn sign(&self, stamp: Stamp, document: &TrustDocument) -> Result<String, serde_json::Error> {
        match self {
            RootSigner::Local(key) => key.sign_document(&KvKey::Trust, stamp, document),
        }
    }
}
