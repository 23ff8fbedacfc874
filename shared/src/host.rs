//! Cryptography by RustCrypto: for the control plane, tools and tests. The Worker has WebCrypto instead.

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::sec1::FromEncodedPoint;
use p256::pkcs8::DecodePublicKey;
use p256::{EncodedPoint, PublicKey, SecretKey};
use rand_core::CryptoRngCore;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::crypto::{Crypto, CryptoError, ES256_SIGNATURE_LENGTH};
use crate::document::{self, Document, Stamp};
use crate::id::{Kid, PoolId};
use crate::jwe::{SealHeader, SealingKey, SplitJwe};
use crate::jwk::EcPublicJwk;
use crate::jws;
use crate::kv_key::KvKey;
use crate::status_list::StatusListClaims;

/// A private P-256 key. It cannot be printed, and its bytes are wiped when it goes.
#[derive(Clone)]
pub struct PrivateKey {
    signing: SigningKey,
    public: EcPublicJwk,
    kid: Kid,
}

impl PrivateKey {
    /// Makes a new key.
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        Self::new(SigningKey::random(rng))
    }

    /// Reads the scalar that [`to_bytes`](Self::to_bytes) wrote: 32 bytes, big-endian.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        SigningKey::from_slice(bytes).map(Self::new).map_err(|_| CryptoError::BadKey)
    }

    fn new(signing: SigningKey) -> Self {
        let public = public_jwk(signing.verifying_key());
        Self { signing, kid: public.thumbprint(), public }
    }

    /// The scalar, to be encrypted before it goes anywhere.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing.to_bytes().into())
    }

    /// The public half.
    pub fn public(&self) -> &EcPublicJwk {
        &self.public
    }

    /// The public half's thumbprint.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The ES256 signature of `message`, r‖s (deterministic, RFC 6979).
    pub fn sign(&self, message: &[u8]) -> [u8; ES256_SIGNATURE_LENGTH] {
        let signature: Signature = self.signing.sign(message);
        signature.to_bytes().into()
    }

    /// Makes `document` the signed value of `key`.
    pub fn sign_document<T: Document>(
        &self,
        key: &KvKey,
        stamp: Stamp,
        document: &T,
    ) -> Result<String, serde_json::Error> {
        let input = document::signing_input(&self.kid, key, stamp, document)?;
        let signature = self.sign(input.as_bytes());
        Ok(jws::append_signature(input, &signature))
    }

    /// Makes a Status List Token.
    pub fn sign_status_list(&self, claims: &StatusListClaims) -> Result<String, serde_json::Error> {
        let input = claims.signing_input(&self.kid)?;
        let signature = self.sign(input.as_bytes());
        Ok(jws::append_signature(input, &signature))
    }

    /// Seals the key for the edge, as a compact JWE bound to its pool.
    ///
    /// The initialisation vector is derived from the sealing key and everything that is sealed, so that sealing the same
    /// key again gives the same text (a document's digest changes only when its content does), and two different
    /// plaintexts never meet one vector but by a collision of a 96-bit pseudorandom function.
    pub fn seal(&self, sealing_key: &SealingKey, pool: PoolId) -> Result<String, CryptoError> {
        let failed = |text: &str| CryptoError::Platform(text.to_owned());
        let header = SealHeader::new(sealing_key.id(), pool, self.kid.clone());
        let header = serde_json::to_vec(&header).map_err(|_| failed("a header does not serialise"))?;
        let header = Base64UrlUnpadded::encode_string(&header);
        let private = Zeroizing::new(Base64UrlUnpadded::encode_string(&*self.to_bytes()));
        let EcPublicJwk { x, y, .. } = &self.public;
        let plaintext = Zeroizing::new(format!(
            r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","d":"{}"}}"#,
            private.as_str()
        ));
        let iv = derive_iv(sealing_key, header.as_bytes(), plaintext.as_bytes())?;
        let cipher = <Aes256Gcm as KeyInit>::new(sealing_key.as_bytes().into());
        let payload = Payload { msg: plaintext.as_bytes(), aad: header.as_bytes() };
        let sealed = cipher.encrypt(&iv.into(), payload).map_err(|_| failed("encryption failed"))?;
        let (ciphertext, tag) =
            sealed.split_last_chunk::<16>().ok_or_else(|| failed("a ciphertext without a tag"))?;
        let text = Base64UrlUnpadded::encode_string;
        Ok(format!("{header}..{}.{}.{}", text(&iv), text(ciphertext), text(tag)))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.kid)
    }
}

/// A synthetic vector: HMAC-SHA256 under the sealing key over all that the encryption takes in, cut to 96 bits.
fn derive_iv(sealing_key: &SealingKey, header: &[u8], plaintext: &[u8]) -> Result<[u8; 12], CryptoError> {
    let mut mac =
        <Hmac<Sha256> as Mac>::new_from_slice(sealing_key.as_bytes()).map_err(|_| CryptoError::BadKey)?;
    mac.update(b"keypost sealing iv\0");
    // The header is base64url and so holds no NUL: the two parts cannot be shifted into each other.
    mac.update(header);
    mac.update(b"\0");
    mac.update(plaintext);
    let tag: [u8; 32] = mac.finalize().into_bytes().into();
    let mut iv = [0; 12];
    iv.iter_mut().zip(tag).for_each(|(to, from)| *to = from);
    Ok(iv)
}

/// Checks an ES256 signature, r‖s.
pub fn verify(key: &EcPublicJwk, message: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
    Ok(verify_with(&import(key)?, message, signature))
}

/// The P-256 key in a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), DER.
pub fn public_from_spki(der: &[u8]) -> Result<EcPublicJwk, CryptoError> {
    let key = VerifyingKey::from_public_key_der(der).map_err(|_| CryptoError::BadKey)?;
    Ok(public_jwk(&key))
}

fn public_jwk(key: &VerifyingKey) -> EcPublicJwk {
    let point = key.to_encoded_point(false);
    // An uncompressed point always has both coordinates.
    let coordinate = |bytes: Option<&p256::FieldBytes>| bytes.copied().unwrap_or_default().into();
    EcPublicJwk::from_coordinates(&coordinate(point.x()), &coordinate(point.y()))
}

fn verify_with(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    Signature::from_slice(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
}

fn import(key: &EcPublicJwk) -> Result<VerifyingKey, CryptoError> {
    let (x, y) = key.coordinates().ok_or(CryptoError::BadKey)?;
    let point = EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
    let public =
        Option::<PublicKey>::from(PublicKey::from_encoded_point(&point)).ok_or(CryptoError::BadKey)?;
    Ok(public.into())
}

/// [`Crypto`] by RustCrypto. Nothing in it ever waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostCrypto;

impl Crypto for HostCrypto {
    type VerifyingKey = VerifyingKey;
    type SigningKey = PrivateKey;

    async fn import_public(&self, key: &EcPublicJwk) -> Result<VerifyingKey, CryptoError> {
        import(key)
    }

    async fn verify(
        &self,
        key: &VerifyingKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, CryptoError> {
        Ok(verify_with(key, message, signature))
    }

    async fn open_signing_key(
        &self,
        key: &SealingKey,
        jwe: &SplitJwe<'_>,
    ) -> Result<PrivateKey, CryptoError> {
        let cipher = <Aes256Gcm as KeyInit>::new(key.as_bytes().into());
        let payload = Payload { msg: &jwe.ciphertext_and_tag, aad: jwe.additional_data };
        let plaintext = cipher.decrypt(&jwe.iv.into(), payload).map_err(|_| CryptoError::DoesNotOpen)?;
        let plaintext = Zeroizing::new(plaintext);
        let text = std::str::from_utf8(&plaintext).map_err(|_| CryptoError::BadKey)?;
        let secret = SecretKey::from_jwk_str(text).map_err(|_| CryptoError::BadKey)?;
        Ok(PrivateKey::new(secret.into()))
    }

    async fn sign(
        &self,
        key: &PrivateKey,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], CryptoError> {
        Ok(key.sign(message))
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn key(seed: u64) -> PrivateKey {
        PrivateKey::generate(&mut ChaCha20Rng::seed_from_u64(seed))
    }

    #[test]
    fn a_signature_verifies_with_its_key_only() {
        let signature = key(1).sign(b"message");
        assert_eq!(verify(key(1).public(), b"message", &signature), Ok(true));
        assert_eq!(verify(key(2).public(), b"message", &signature), Ok(false));
        assert_eq!(verify(key(1).public(), b"messagf", &signature), Ok(false));
        assert_eq!(verify(key(1).public(), b"message", &signature[..63]), Ok(false));
    }

    #[test]
    fn a_point_off_the_curve_is_no_key() {
        let off = EcPublicJwk::from_coordinates(&[1; 32], &[1; 32]);
        assert_eq!(verify(&off, b"", &[0; 64]), Err(CryptoError::BadKey));
    }

    #[test]
    fn a_key_survives_its_bytes_and_does_not_print() {
        let again = PrivateKey::from_bytes(&*key(1).to_bytes()).unwrap();
        assert_eq!(again.public(), key(1).public());
        let secret = Base64UrlUnpadded::encode_string(&*again.to_bytes());
        assert!(!format!("{again:?}").contains(&secret));
        assert!(PrivateKey::from_bytes(&[0; 32]).is_err());
    }
}
