//! The documents in KV (design §4): how they are signed, and how they are checked.
//!
//! Each value is a compact JWS with its family's own `typ`. The payload is an envelope that names the KV key that the
//! document belongs to, so that a document moved to another key does not count there.

mod client;
mod device;
mod pool;
mod revoked;
mod trust;

#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use client::{ClientDocument, ClientStatus, ClientSubject, DeviceClaims, StoredSecret};
pub use device::DeviceDocument;
pub use pool::{ClaimsProfile, MAX_TOKEN_TTL, PoolDocument, PoolKind, PoolSigningKey, PrivateHalf};
pub use revoked::{Revoked, RevokedDocument};
pub use trust::TrustDocument;

use crate::crypto::{Crypto, CryptoError};
use crate::id::Kid;
use crate::jwk::SigningAlg;
use crate::jws::{self, JwsError, JwsHeader, UnverifiedJws};
use crate::kv_key::KvKey;
use crate::time::UnixTime;

/// A family of documents.
pub trait Document: Serialize + DeserializeOwned {
    /// The `typ` of its JWS header.
    const TYP: &'static str;
    /// Whether it says what is no longer allowed, and so must carry `next_update`.
    const EXPIRES: bool;
}

/// When a document was made, and until when it may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// max(previous + 1, now in Unix milliseconds): grows even after a database has been restored.
    pub version: u64,
    /// When it was signed.
    pub iat: UnixTime,
    /// From when on it counts no longer; for the families that expire.
    pub next_update: Option<UnixTime>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    key: String,
    version: u64,
    iat: UnixTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_update: Option<UnixTime>,
    document: T,
}

/// Why a text in KV is not the document that belongs there. Meant for the log, never for a client.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not one of our signed texts at all.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// A signed text of another family.
    #[error("it is of type {found:?}, not {expected:?}")]
    WrongType {
        /// The family's `typ`.
        expected: &'static str,
        /// What the header said.
        found: String,
    },
    /// Signed by a key that is not trusted.
    #[error("its key {0} is not trusted")]
    UntrustedKey(Kid),
    /// The signature is not the key's.
    #[error("its signature is not of key {0}")]
    BadSignature(Kid),
    /// Rightly signed, for another KV key.
    #[error("it belongs to {found:?}")]
    WrongKey {
        /// The KV key that the document names.
        found: String,
    },
    /// A family that expires, without `next_update`; or the other way round.
    #[error("next_update is missing or out of place")]
    Expiry,
    /// The platform could not verify.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// A document whose signature, type and key have been checked.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    /// When it was made and until when it counts.
    pub stamp: Stamp,
    /// The key that signed it: once that is no longer trusted, neither is the document.
    pub signed_by: Kid,
    /// What it says.
    pub document: T,
}

/// The bytes that the key `kid` signs to make `document` the value of `key`.
pub fn signing_input<T: Document>(
    kid: &Kid,
    key: &KvKey,
    stamp: Stamp,
    document: &T,
) -> Result<String, serde_json::Error> {
    let header = JwsHeader { alg: SigningAlg::ES256, typ: T::TYP.to_owned(), kid: kid.clone() };
    let envelope = Envelope {
        key: key.to_string(),
        version: stamp.version,
        iat: stamp.iat,
        next_update: stamp.next_update,
        document,
    };
    jws::signing_input(&header, &envelope)
}

/// The digest of what a document says, without when and by whom it was said: it goes into KV's metadata, so that a
/// comparison of KV with Postgres can list instead of reading.
pub fn content_digest<T: Document>(document: &T) -> Result<[u8; 32], serde_json::Error> {
    Ok(Sha256::digest(serde_json::to_vec(document)?).into())
}

/// A text from KV, taken apart and not verified.
pub struct UnverifiedDocument<'a>(UnverifiedJws<'a>);

/// A text from KV whose signature is right, and not read yet.
pub struct SignedDocument<'a>(UnverifiedJws<'a>);

impl<'a> UnverifiedDocument<'a> {
    /// Takes the text apart.
    pub fn parse(text: &'a str) -> Result<Self, DocumentError> {
        Ok(Self(UnverifiedJws::parse(text)?))
    }

    /// The key that it says to be signed by.
    pub fn kid(&self) -> &Kid {
        &self.0.header.kid
    }

    /// Checks the signature with `verifying_key`, which the caller trusts as [`kid`](Self::kid).
    pub async fn verify<C: Crypto>(
        self,
        crypto: &C,
        verifying_key: &C::VerifyingKey,
    ) -> Result<SignedDocument<'a>, DocumentError> {
        let Self(jws) = self;
        if crypto.verify(verifying_key, jws.signing_input(), jws.signature()).await? {
            Ok(SignedDocument(jws))
        } else {
            Err(DocumentError::BadSignature(jws.header.kid))
        }
    }
}

impl SignedDocument<'_> {
    /// Reads it, and checks that it is of this family and belongs to `key`.
    ///
    /// Whether it has expired is not checked: the holder of a verified copy asks that each time.
    pub fn read<T: Document>(self, key: &KvKey) -> Result<Verified<T>, DocumentError> {
        let Self(jws) = self;
        if jws.header.typ != T::TYP {
            return Err(DocumentError::WrongType { expected: T::TYP, found: jws.header.typ });
        }
        let envelope: Envelope<T> = jws.payload()?;
        if envelope.key != key.to_string() {
            return Err(DocumentError::WrongKey { found: envelope.key });
        }
        if envelope.next_update.is_some() != T::EXPIRES {
            return Err(DocumentError::Expiry);
        }
        let stamp = Stamp { version: envelope.version, iat: envelope.iat, next_update: envelope.next_update };
        Ok(Verified { stamp, signed_by: jws.header.kid, document: envelope.document })
    }
}
