//! Makes a pool's signing keys, by the pool's backend (design §7), and opens them again.
//!
//! Making one may ask a service over the network and take its time: never within a transaction.

use std::sync::Arc;
use std::time::Duration;

use keypost_shared::host::PrivateKey;
use keypost_shared::id::{Kid, PoolId};
use keypost_shared::jwk::EcPublicJwk;

use crate::crypto_at_rest::{KeyPurpose, MasterKey, SealError};
use crate::entropy::Entropy;

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
    /// This deployment has no such backend.
    #[error("the pool's keys are to be kept with AWS KMS, which this control plane is not set up for")]
    NoBackend,
}

/// Makes signing keys.
#[derive(Clone)]
pub struct KeyMaker {
    /// Encrypts those that are kept here.
    pub master_key: MasterKey,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl KeyMaker {
    /// Makes a key for a pool. The key belongs to nobody until it is stored.
    pub async fn make(&self, pool: PoolId, backend: &KeyBackend) -> Result<MadeKey, MakeError> {
        let making = async {
            match backend {
                KeyBackend::Local => Ok(self.make_local(pool)?),
                KeyBackend::AwsKms { .. } => Err(MakeError::NoBackend),
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
}
