//! Makes a pool's signing keys, by the pool's backend (design §7), and opens them again.
//!
//! Making one may ask a service over the network and take its time: never within a transaction.

use std::sync::Arc;
use std::time::Duration;

use keypost_shared::host::PrivateKey;
use keypost_shared::id::{Kid, PoolId};
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::kms::{KmsKeyArn, NotAKeyArn};
use sqlx::PgPool;

use crate::clock::Clock;
use crate::crypto_at_rest::{KeyPurpose, MasterKey, SealError};
use crate::entropy::Entropy;
use crate::envelope;
use crate::kms::{EncryptionContext, Kms, KmsError};
use crate::store::kms_key::KmsSigningKey;
use crate::store::{self, StoreError};

/// How long making a key may take, all tries together.
pub const MAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How a pool's private keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyBackend {
    /// Encrypted under the master key.
    Local,
    /// With AWS KMS.
    AwsKms {
        /// How.
        mode: KmsMode,
        /// The KMS key, as the pool names it.
        key_id: String,
    },
}

impl KeyBackend {
    /// What KMS does, if it does anything.
    pub fn mode(&self) -> Option<KmsMode> {
        match self {
            Self::Local => None,
            Self::AwsKms { mode, .. } => Some(*mode),
        }
    }

    /// The KMS key, if there is one.
    pub fn kms_key_id(&self) -> Option<&str> {
        match self {
            Self::Local => None,
            Self::AwsKms { key_id, .. } => Some(key_id),
        }
    }
}

/// What AWS KMS does for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KmsMode {
    /// It encrypts the data key under which the private half rests.
    Envelope,
    /// It has the private half, and signs.
    KmsSign,
}

/// Where a key's private half is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredPrivate {
    /// Here, encrypted under the master key.
    Local {
        /// What [`MasterKey::seal`] has made.
        sealed: Vec<u8>,
    },
    /// Here, encrypted under a data key of AWS KMS.
    Envelope {
        /// The KMS key that encrypts the data key.
        kms_key_id: String,
        /// The data key, encrypted.
        data_key: Vec<u8>,
        /// The private half, encrypted under the data key.
        sealed: Vec<u8>,
    },
    /// In AWS KMS, which it never leaves.
    KmsSign {
        /// The KMS key that it is.
        kms_key_id: String,
    },
}

/// A key that has been made and is not stored yet.
#[derive(Clone, Debug)]
pub struct MadeKey {
    /// The public half's thumbprint.
    pub kid: Kid,
    /// The public half.
    pub public: EcPublicJwk,
    /// Where the private half is.
    pub private: StoredPrivate,
}

/// Why a key was not made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// It could not be encrypted.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The backend took too long.
    #[error("it took longer than {} s", MAKE_TIMEOUT.as_secs())]
    TimedOut,
    /// AWS KMS.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The pool's KMS key is not named as it should be.
    #[error("the pool's KMS key {0}")]
    Name(#[from] NotAKeyArn),
    /// The database, which remembers whose the keys in KMS are.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes signing keys.
#[derive(Clone)]
pub struct KeyMaker {
    /// Encrypts those that are kept here.
    pub master_key: MasterKey,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// AWS KMS.
    pub kms: Kms,
    /// Remembers whose the keys in KMS are.
    pub db: PgPool,
}

impl KeyMaker {
    /// Makes a key for a pool. The key belongs to nobody until it is stored.
    pub async fn make(&self, pool: PoolId, backend: &KeyBackend) -> Result<MadeKey, MakeError> {
        let making = async {
            match backend {
                KeyBackend::Local => Ok(self.make_local(pool)?),
                KeyBackend::AwsKms { mode: KmsMode::Envelope, key_id } => {
                    self.make_envelope(pool, &key_id.parse()?).await
                }
                KeyBackend::AwsKms { mode: KmsMode::KmsSign, key_id } => {
                    self.make_in_kms(pool, &key_id.parse()?).await
                }
            }
        };
        tokio::time::timeout(MAKE_TIMEOUT, making).await.map_err(|_| MakeError::TimedOut)?
    }

    /// Makes a key that rests here: at once, and without asking anybody.
    pub fn make_local(&self, pool: PoolId) -> Result<MadeKey, SealError> {
        let mut rng = self.entropy.rng();
        let key = PrivateKey::generate(&mut rng);
        let sealed = self.master_key.seal(KeyPurpose::Pool(pool), &key, &mut rng)?;
        Ok(MadeKey {
            kid: key.kid().clone(),
            public: key.public().clone(),
            private: StoredPrivate::Local { sealed },
        })
    }

    /// Makes a key that rests here, under a data key of its own.
    async fn make_envelope(&self, pool: PoolId, kms_key: &KmsKeyArn) -> Result<MadeKey, MakeError> {
        let key = PrivateKey::generate(&mut self.entropy.rng());
        let context = EncryptionContext::of_signing_key(pool, key.kid());
        let data_key = self.kms.generate_data_key(kms_key, &context).await?;
        let sealed = envelope::seal(&data_key.plaintext, pool, &key, &mut self.entropy.rng())?;
        Ok(MadeKey {
            kid: key.kid().clone(),
            public: key.public().clone(),
            private: StoredPrivate::Envelope {
                kms_key_id: kms_key.to_string(),
                data_key: data_key.encrypted,
                sealed,
            },
        })
    }

    /// The key in KMS that was named for the pool, as long as it has not signed; then one that is made for it. What has been
    /// made and then not stored, because something failed in between, is used the next time.
    async fn make_in_kms(&self, pool: PoolId, named: &KmsKeyArn) -> Result<MadeKey, MakeError> {
        let unused = {
            let mut connection = self.db.acquire().await.map_err(StoreError::from)?;
            store::kms_key::find_unused(&mut connection, pool, named).await?
        };
        let key = match unused {
            Some(key) => {
                // It must still be there and enabled: it is to be published as the next one.
                self.kms.describe(key.arn.as_str()).await?;
                key
            }
            None => {
                let arn = self.kms.create_signing_key(pool, named).await?;
                let public = self.kms.public_key(&arn).await?;
                let key = KmsSigningKey { arn, public };
                let mut connection = self.db.acquire().await.map_err(StoreError::from)?;
                store::kms_key::insert_made(&mut connection, pool, &key, self.clock.now()).await?;
                key
            }
        };
        let private = StoredPrivate::KmsSign { kms_key_id: key.arn.to_string() };
        Ok(MadeKey { kid: key.public.thumbprint(), public: key.public, private })
    }
}
