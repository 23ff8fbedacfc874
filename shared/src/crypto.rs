//! What a platform's cryptography must be able to do. The Worker does it with WebCrypto, everybody else with RustCrypto
//! ([`crate::host`], feature `host`). Which checks are made, and in which order, is decided in this crate alone.

use crate::jwe::{SealingKey, SplitJwe};
use crate::jwk::EcPublicJwk;

/// The length of an ES256 signature, r‖s (RFC 7518 §3.4).
pub const ES256_SIGNATURE_LENGTH: usize = 64;

/// Why an operation could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The key is not a point on the curve, or not a key at all.
    #[error("the key is not usable")]
    BadKey,
    /// A ciphertext does not authenticate.
    #[error("the ciphertext does not open with this key")]
    DoesNotOpen,
    /// The platform failed.
    #[error("the platform's cryptography failed: {0}")]
    Platform(String),
}

/// The cryptography of a platform. Futures need not be `Send`: a Worker has one thread.
#[allow(async_fn_in_trait, reason = "only this workspace implements it, and a Worker's futures are not Send")]
pub trait Crypto {
    /// A public P-256 key, checked and ready to verify with.
    type VerifyingKey;
    /// A private P-256 key, ready to sign with.
    type SigningKey;

    /// Checks and imports a public key.
    async fn import_public(&self, key: &EcPublicJwk) -> Result<Self::VerifyingKey, CryptoError>;

    /// Whether `signature` (r‖s) is the key's ES256 signature of `message`. A signature of another length is none.
    async fn verify(
        &self,
        key: &Self::VerifyingKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, CryptoError>;

    /// Opens a sealed private key (A256GCM) and imports what is inside: a P-256 private key as a JWK. The plaintext
    /// leaves this call as a key only, never as bytes.
    async fn open_signing_key(
        &self,
        key: &SealingKey,
        jwe: &SplitJwe<'_>,
    ) -> Result<Self::SigningKey, CryptoError>;

    /// Signs with ES256.
    async fn sign(
        &self,
        key: &Self::SigningKey,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], CryptoError>;
}
