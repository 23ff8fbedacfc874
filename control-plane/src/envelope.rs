//! Signing keys under data keys of AWS KMS (key mode `envelope`).
//!
//! A sealed key is `nonce (12) | ciphertext and tag`, AES-256-GCM under a data key of its own. Its associated data says whose
//! it is, as the data key's encryption context does. Opened keys are kept in memory, so that KMS is asked once for each in
//! each process, however often a pool's document is signed again.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use futures_util::StreamExt;
use futures_util::stream;
use keypost_shared::host::PrivateKey;
use keypost_shared::id::{Kid, PoolId};
use keypost_shared::kms::{KmsKeyArn, NotAKeyArn};
use lru::LruCache;
use rand_core::CryptoRngCore;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::crypto_at_rest::SealError;
use crate::kms::{EncryptionContext, Kms, KmsError};

const NONCE_LENGTH: usize = 12;
/// The most opened keys that a process keeps.
const MOST_KEPT: NonZeroUsize = NonZeroUsize::new(20_000).unwrap();
/// How many data keys KMS is asked to open at a time.
const AT_ONCE: usize = 16;
/// How long opening may hold up a batch of documents. What is not open by then has its turn later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Encrypts a signing key under its data key.
pub fn seal(
    data_key: &[u8; 32],
    pool: PoolId,
    key: &PrivateKey,
    rng: &mut impl CryptoRngCore,
) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_LENGTH];
    rng.fill_bytes(&mut nonce);
    let plaintext = key.to_bytes();
    let payload = Payload { msg: plaintext.as_slice(), aad: &associated_data(pool, key.kid()) };
    let sealed = cipher(data_key).encrypt(&Nonce::from(nonce), payload).map_err(|_| SealError)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Decrypts what [`seal`] encrypted for the same pool and key.
fn open(data_key: &[u8; 32], pool: PoolId, kid: &Kid, sealed: &[u8]) -> Option<PrivateKey> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LENGTH>()?;
    let payload = Payload { msg: ciphertext, aad: &associated_data(pool, kid) };
    let plaintext = cipher(data_key).decrypt(&Nonce::from(*nonce), payload).ok().map(Zeroizing::new)?;
    PrivateKey::from_bytes(&plaintext).ok().filter(|key| key.kid() == kid)
}

fn cipher(data_key: &[u8; 32]) -> Aes256Gcm {
    <Aes256Gcm as KeyInit>::new(data_key.into())
}

fn associated_data(pool: PoolId, kid: &Kid) -> Vec<u8> {
    format!("keypost private key\0envelope\0{pool}\0{kid}").into_bytes()
}

/// A signing key at rest, and what it takes to open it.
#[derive(Clone, Debug)]
pub struct SealedKey {
    /// Whose it is.
    pub pool: PoolId,
    /// Which it is.
    pub kid: Kid,
    /// The KMS key.
    pub kms_key_id: String,
    /// The data key, encrypted under it.
    pub data_key: Vec<u8>,
    /// The private half, encrypted under the data key.
    pub sealed: Vec<u8>,
}

/// Why a key does not open.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// KMS does not open the data key.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// There was no time left to ask.
    #[error("KMS takes too long; it is tried again")]
    NoTime,
    /// The row names no KMS key.
    #[error("the KMS key in the database {0}")]
    Name(#[from] NotAKeyArn),
    /// The data key opens, and what it should open does not.
    #[error("the sealed key is damaged, or belongs to another row")]
    Damaged,
}

/// The opened keys of a batch of documents. Several documents may need one.
pub type Opened = HashMap<Kid, Result<Arc<PrivateKey>, Arc<EnvelopeError>>>;

/// Opens keys, and keeps them.
#[derive(Clone)]
pub struct Envelopes(Arc<Inner>);

struct Inner {
    kms: Kms,
    kept: Mutex<LruCache<Kid, Arc<PrivateKey>>>,
}

impl fmt::Debug for Envelopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Envelopes(..)")
    }
}

impl Envelopes {
    /// What opens them.
    pub fn kms(&self) -> &Kms {
        &self.0.kms
    }

    /// With nothing open yet.
    pub fn new(kms: Kms) -> Self {
        Self(Arc::new(Inner { kms, kept: Mutex::new(LruCache::new(MOST_KEPT)) }))
    }

    /// Opens keys, with as many calls to KMS as there are of them that are not open yet.
    pub async fn open(&self, keys: Vec<SealedKey>) -> Opened {
        let deadline = Instant::now() + PATIENCE;
        stream::iter(keys)
            .map(async |key| {
                let kid = key.kid.clone();
                let opened = timeout_at(deadline, self.open_one(key)).await;
                (kid, opened.unwrap_or(Err(EnvelopeError::NoTime)).map_err(Arc::new))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn open_one(&self, key: SealedKey) -> Result<Arc<PrivateKey>, EnvelopeError> {
        if let Some(kept) = self.kept().get(&key.kid) {
            return Ok(kept.clone());
        }
        let arn: KmsKeyArn = key.kms_key_id.parse()?;
        let context = EncryptionContext::of_signing_key(key.pool, &key.kid);
        let data_key = self.0.kms.decrypt(&arn, &key.data_key, &context).await?;
        let opened = open(&data_key, key.pool, &key.kid, &key.sealed).ok_or(EnvelopeError::Damaged)?;
        let opened = Arc::new(opened);
        self.kept().put(key.kid, opened.clone());
        Ok(opened)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, LruCache<Kid, Arc<PrivateKey>>> {
        self.0.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_sealed_key_opens_with_its_data_key_for_its_row_alone() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (key, other) = (PrivateKey::generate(&mut rng), PrivateKey::generate(&mut rng));
        let (pool, stranger) = (PoolId(Uuid::from_u128(1)), PoolId(Uuid::from_u128(2)));
        let sealed = seal(&[7; 32], pool, &key, &mut rng).unwrap();
        assert_eq!(open(&[7; 32], pool, key.kid(), &sealed).unwrap().public(), key.public());
        assert!(open(&[8; 32], pool, key.kid(), &sealed).is_none());
        assert!(open(&[7; 32], stranger, key.kid(), &sealed).is_none());
        assert!(open(&[7; 32], pool, other.kid(), &sealed).is_none());
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(open(&[7; 32], pool, key.kid(), &changed).is_none(), "byte {position}");
            assert!(open(&[7; 32], pool, key.kid(), &sealed[..position]).is_none(), "cut to {position}");
        }
    }
}
