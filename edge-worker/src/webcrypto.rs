//! Cryptography by WebCrypto, the platform's own: an ES256 signature takes a twentieth of the time that WebAssembly
//! would need. Keys are `CryptoKey`s that cannot be exported again.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use keypost_shared::certificate::{Curve, Hash, SignatureAlgorithm, SignatureCheck, VerifySignature};
use keypost_shared::crypto::{Crypto, CryptoError, ES256_SIGNATURE_LENGTH};
use keypost_shared::jwe::{SealingKey, SplitJwe};
use keypost_shared::jwk::EcPublicJwk;
use lru::LruCache;
use wasm_bindgen::JsValue;

use crate::shell::{self, Verification};
use crate::task::Failure;

/// How many random bytes are fetched at once: a request needs some dozens, and each call of the platform costs more than
/// the bytes do.
const RANDOM_STOCK: usize = 1_024;

/// How many keys of certificates and clients are kept ready to verify with: importing one takes half as long as the
/// verification.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// What a key was imported for, and its SubjectPublicKeyInfo.
type KeyName = (&'static str, &'static str, &'static str, Box<[u8]>);

thread_local! {
    /// Random bytes that nobody has used, from the end.
    static RANDOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The keys that were used last.
    static KEYS: RefCell<LruCache<KeyName, Rc<JsValue>>> = RefCell::new(LruCache::new(MAX_KEYS));
}

/// The key in a SubjectPublicKeyInfo, ready to verify with.
async fn key_of(how: &Verification, spki: &[u8]) -> Result<Rc<JsValue>, Failure> {
    let name: KeyName = (how.name, how.curve, how.hash, spki.into());
    if let Some(key) = KEYS.with_borrow_mut(|keys| keys.get(&name).cloned()) {
        return Ok(key);
    }
    let key = Rc::new(shell::import_spki(how, spki).await?);
    KEYS.with_borrow_mut(|keys| keys.put(name, key.clone()));
    Ok(key)
}

/// Fills `bytes` from the platform's secure source, each byte of it used once and wiped. If the platform had none, its
/// exception would end the instance, which is better than to go on without.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    RANDOM.with_borrow_mut(|stock| {
        for byte in bytes {
            if stock.is_empty() {
                stock.resize(RANDOM_STOCK, 0);
                shell::fill_random(stock);
            }
            if let Some(last) = stock.last_mut() {
                *byte = std::mem::take(last);
            }
            stock.pop();
        }
    });
}

/// 128 random bits as text.
pub(crate) fn random_id() -> String {
    let mut bytes = [0; 16];
    fill_random(&mut bytes);
    format!("{:032x}", u128::from_ne_bytes(bytes))
}

/// [`Crypto`] by `crypto.subtle`.
pub(crate) struct WebCrypto;

/// A private key, ready to sign.
pub(crate) struct SigningKey(JsValue);

/// A public key, ready to verify with.
pub(crate) struct VerifyingKey(JsValue);

impl Crypto for WebCrypto {
    type VerifyingKey = VerifyingKey;
    type SigningKey = SigningKey;

    async fn import_public(&self, key: &EcPublicJwk) -> Result<VerifyingKey, CryptoError> {
        let (x, y) = key.coordinates().ok_or(CryptoError::BadKey)?;
        // The uncompressed point of SEC 1 §2.3.3. WebCrypto refuses one that is not on the curve.
        let point = [&[4], x.as_slice(), y.as_slice()].concat();
        shell::import_point(&point).await.map(VerifyingKey).map_err(error)
    }

    async fn verify(
        &self,
        key: &VerifyingKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, CryptoError> {
        if signature.len() != ES256_SIGNATURE_LENGTH {
            return Ok(false);
        }
        shell::verify(&key.0, signature, message).await.map_err(error)
    }

    async fn open_signing_key(
        &self,
        key: &SealingKey,
        jwe: &SplitJwe<'_>,
    ) -> Result<SigningKey, CryptoError> {
        let opened = shell::unwrap(key.as_bytes(), &jwe.iv, jwe.additional_data, &jwe.ciphertext_and_tag);
        opened.await.map(SigningKey).map_err(error)
    }

    async fn sign(
        &self,
        key: &SigningKey,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], CryptoError> {
        let signature = shell::sign(&key.0, message).await.map_err(error)?;
        signature.try_into().map_err(|_| CryptoError::Platform("a signature of the wrong length".to_owned()))
    }
}

impl VerifySignature for WebCrypto {
    async fn verify_signature(&self, check: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
        let how = verification(check.algorithm);
        let key = key_of(&how, check.public_key).await.map_err(error)?;
        match shell::check(&how, &key, &check.signature, check.message).await.map_err(error) {
            // Parameters that no signature of this key could have, such as a salt longer than the key.
            Err(CryptoError::DoesNotOpen) => Ok(false),
            outcome => outcome,
        }
    }
}

/// How a signature is verified, in WebCrypto's names.
fn verification(algorithm: SignatureAlgorithm) -> Verification {
    let rsa = |name, hash, salt_length| Verification { name, curve: "", hash: name_of(hash), salt_length };
    match algorithm {
        SignatureAlgorithm::RsaPkcs1(hash) => rsa("RSASSA-PKCS1-v1_5", hash, 0),
        SignatureAlgorithm::RsaPss { hash, salt_length } => rsa("RSA-PSS", hash, salt_length),
        SignatureAlgorithm::Ecdsa { curve, hash } => Verification {
            name: "ECDSA",
            curve: match curve {
                Curve::P256 => "P-256",
                Curve::P384 => "P-384",
            },
            hash: name_of(hash),
            salt_length: 0,
        },
    }
}

fn name_of(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha256 => "SHA-256",
        Hash::Sha384 => "SHA-384",
        Hash::Sha512 => "SHA-512",
    }
}

/// What a rejection means, by its name: `DataError` and `SyntaxError` for a key that does not import, `OperationError`
/// for a ciphertext that does not authenticate (Web Cryptography API §18.4 and §27.7). The message is left out, because
/// it may quote what was being read.
fn error(failure: Failure) -> CryptoError {
    match failure.name.as_str() {
        "DataError" | "SyntaxError" => CryptoError::BadKey,
        "OperationError" => CryptoError::DoesNotOpen,
        _ => CryptoError::Platform(failure.name),
    }
}
