//! The root: the key that signs `v1/trust`, and whose public half the Worker pins.
//!
//! Where it is in AWS KMS, its public half is remembered in the database once it has been seen there, so that a control plane
//! starts while KMS is away. `v1/trust` lasts for days and is signed again every few hours: that is tried until it works.

use std::fmt;
use std::sync::Arc;

use keypost_shared::crypto::ES256_SIGNATURE_LENGTH;
use keypost_shared::document::{self, Stamp, TrustDocument};
use keypost_shared::host::{self, PrivateKey};
use keypost_shared::id::Kid;
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::jws;
use keypost_shared::kms::KmsKeyArn;
use keypost_shared::kv_key::KvKey;
use sqlx::PgPool;
use time::OffsetDateTime;

use crate::crypto_at_rest::{KeyPurpose, MasterKey, OpenError, SealError};
use crate::entropy::Rng;
use crate::kms::{KeyKind, Kms, KmsError};
use crate::store::publication::Priority;
use crate::store::root_key::StoredRoot;
use crate::store::{self, AdvisoryLock, StoreError};

/// Signs `v1/trust`.
#[derive(Clone, Debug)]
pub enum RootSigner {
    /// With a key that rests in the database, encrypted under the master key.
    Local(Arc<PrivateKey>),
    /// With a key that AWS KMS has.
    Kms(Arc<KmsRoot>),
}

/// A root in AWS KMS.
pub struct KmsRoot {
    kms: Kms,
    arn: KmsKeyArn,
    public: EcPublicJwk,
    kid: Kid,
}

impl fmt::Debug for KmsRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmsRoot({}, {})", self.arn, self.kid)
    }
}

/// Where the root is to be: `KEYPOST_ROOT_SIGNER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootPlace {
    /// In the database.
    Local,
    /// In AWS KMS, under this ARN or id.
    Kms(String),
}

/// Why the trust document is not signed.
#[derive(Debug, thiserror::Error)]
pub enum RootSignError {
    /// It does not serialise.
    #[error("it does not serialise: {0}")]
    Json(#[from] serde_json::Error),
    /// KMS did not sign.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The signature is not the root's.
    #[error("KMS signed with another key than the root that was found there")]
    OtherKey,
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
    /// KMS does not let it be used.
    #[error("KEYPOST_ROOT_SIGNER names a key that cannot be the root: {0}")]
    Kms(#[from] KmsError),
    /// It encrypts, and does not sign.
    #[error(
        "KEYPOST_ROOT_SIGNER names a key that cannot be the root: it must be of kind ECC_NIST_P256, SIGN_VERIFY"
    )]
    DoesNotSign,
    /// It is a pool's.
    #[error("KEYPOST_ROOT_SIGNER names a key that cannot be the root: it is, or was, a client pool's")]
    IsOfAPool,
    /// It has signed with something else.
    #[error("KEYPOST_ROOT_SIGNER names a key that cannot be the root: {0}")]
    Sign(#[from] RootSignError),
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

    /// The root, where it is to be.
    pub async fn load(
        place: &RootPlace,
        db: &PgPool,
        master_key: &MasterKey,
        kms: &Kms,
        now: OffsetDateTime,
        rng: Rng,
    ) -> Result<Self, RootError> {
        match place {
            RootPlace::Local => Self::load_or_create(db, master_key, now, rng).await,
            RootPlace::Kms(name) => Self::find_in_kms(name, db, kms, now).await,
        }
    }

    /// Looks at the key in KMS, and claims it. Where KMS is away and the key has been seen before, that will do.
    async fn find_in_kms(name: &str, db: &PgPool, kms: &Kms, now: OffsetDateTime) -> Result<Self, RootError> {
        let (arn, public) = match look(kms, name).await {
            Err(RootError::Kms(error)) if !error.problem.is_of_the_key() => {
                let known = store::kms_key::find_root(&mut *db.acquire().await?, name).await?;
                let known = known.ok_or(error)?;
                tracing::warn!(key = %known.arn, "KMS is away; the root is taken to be the key that it was");
                (known.arn, known.public)
            }
            looked => looked?,
        };
        let kid = public.thumbprint();
        let mut tx = db.begin().await?;
        let claimed = store::kms_key::claim_root(&mut tx, &arn, &public, now).await?;
        if !claimed {
            return Err(RootError::IsOfAPool);
        }
        tx.commit().await?;
        Ok(Self::Kms(Arc::new(KmsRoot { kms: kms.clone(), arn, public, kid })))
    }

    /// Whether it signs, tried out: for the start, where somebody is there to read what is wrong. That KMS is away is not.
    pub async fn try_out(&self) -> Result<(), RootError> {
        let Self::Kms(root) = self else { return Ok(()) };
        match root.sign(b"keypost: does the root sign?").await {
            Err(RootSignError::Kms(error)) if !error.problem.is_of_the_key() => {
                tracing::warn!(%error, "the root cannot be tried out");
                Ok(())
            }
            Err(RootSignError::Kms(error)) => Err(error.into()),
            tried => Ok(tried.map(|_| ())?),
        }
    }

    /// Sees to it that `v1/trust` is signed by this root soon, where another one signed before.
    pub async fn take_over(&self, db: &PgPool, now: OffsetDateTime) -> Result<(), RootError> {
        let mut tx = db.begin().await?;
        if store::root_key::set_signer(&mut tx, self.kid(), now).await? {
            store::publication::mark(&mut tx, &[KvKey::Trust], Priority::Revocation, now).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// The public half, to be pinned in the Worker.
    pub fn public(&self) -> &EcPublicJwk {
        match self {
            RootSigner::Local(key) => key.public(),
            RootSigner::Kms(root) => &root.public,
        }
    }

    /// The public half's thumbprint.
    pub fn kid(&self) -> &Kid {
        match self {
            RootSigner::Local(key) => key.kid(),
            RootSigner::Kms(root) => &root.kid,
        }
    }

    /// Signs the trust document.
    pub async fn sign(&self, stamp: Stamp, document: &TrustDocument) -> Result<String, RootSignError> {
        match self {
            RootSigner::Local(key) => Ok(key.sign_document(&KvKey::Trust, stamp, document)?),
            RootSigner::Kms(root) => {
                let input = document::signing_input(&root.kid, &KvKey::Trust, stamp, document)?;
                let signature = root.sign(input.as_bytes()).await?;
                Ok(jws::append_signature(input, &signature))
            }
        }
    }
}

impl KmsRoot {
    async fn sign(&self, message: &[u8]) -> Result<[u8; ES256_SIGNATURE_LENGTH], RootSignError> {
        let signature = self.kms.sign(&self.arn, message).await?;
        // What an edge would refuse must not take the place of what it believes.
        match host::verify(&self.public, message, &signature) {
            Ok(true) => Ok(signature),
            _ => Err(RootSignError::OtherKey),
        }
    }
}

/// What KMS says of a key that is to be the root.
async fn look(kms: &Kms, name: &str) -> Result<(KmsKeyArn, EcPublicJwk), RootError> {
    let description = kms.describe(name).await?;
    if description.kind != KeyKind::Signing {
        return Err(RootError::DoesNotSign);
    }
    let public = kms.public_key(&description.arn).await?;
    Ok((description.arn, public))
}
