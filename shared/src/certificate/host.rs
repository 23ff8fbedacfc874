//! [`VerifySignature`] by RustCrypto. Nothing in it ever waits.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::pkcs8::DecodePublicKey;
use rsa::{Pkcs1v15Sign, Pss, RsaPublicKey};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::public_key::Curve;
use super::signature::{Hash, SignatureAlgorithm, SignatureCheck, VerifySignature};
use crate::crypto::CryptoError;
use crate::host::HostCrypto;

impl VerifySignature for HostCrypto {
    async fn verify_signature(&self, check: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
        match check.algorithm {
            SignatureAlgorithm::RsaPkcs1(hash) => rsa(check, hash, &pkcs1(hash)),
            SignatureAlgorithm::RsaPss { hash, salt_length } => pss(check, hash, salt_length),
            SignatureAlgorithm::Ecdsa { curve: Curve::P256, hash } => p256(check, hash),
            SignatureAlgorithm::Ecdsa { curve: Curve::P384, hash } => p384(check, hash),
        }
    }
}

fn digest(hash: Hash, message: &[u8]) -> Vec<u8> {
    match hash {
        Hash::Sha256 => Sha256::digest(message).to_vec(),
        Hash::Sha384 => Sha384::digest(message).to_vec(),
        Hash::Sha512 => Sha512::digest(message).to_vec(),
    }
}

fn rsa_key(check: &SignatureCheck<'_>) -> Result<RsaPublicKey, CryptoError> {
    RsaPublicKey::from_public_key_der(check.public_key).map_err(|_| CryptoError::BadKey)
}

fn rsa(check: &SignatureCheck<'_>, hash: Hash, scheme: &Pkcs1v15Sign) -> Result<bool, CryptoError> {
    let digest = digest(hash, check.message);
    Ok(rsa_key(check)?.verify(scheme.clone(), &digest, &check.signature).is_ok())
}

fn pkcs1(hash: Hash) -> Pkcs1v15Sign {
    match hash {
        Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    }
}

fn pss(check: &SignatureCheck<'_>, hash: Hash, salt_length: u32) -> Result<bool, CryptoError> {
    let key = rsa_key(check)?;
    // A salt longer than the key is no salt that a signature could have.
    let Some(salt_length) =
        usize::try_from(salt_length).ok().filter(|length| *length <= rsa::traits::PublicKeyParts::size(&key))
    else {
        return Ok(false);
    };
    let scheme = match hash {
        Hash::Sha256 => Pss::new_with_salt::<Sha256>(salt_length),
        Hash::Sha384 => Pss::new_with_salt::<Sha384>(salt_length),
        Hash::Sha512 => Pss::new_with_salt::<Sha512>(salt_length),
    };
    Ok(key.verify(scheme, &digest(hash, check.message), &check.signature).is_ok())
}

fn p256(check: &SignatureCheck<'_>, hash: Hash) -> Result<bool, CryptoError> {
    let key =
        p256::ecdsa::VerifyingKey::from_public_key_der(check.public_key).map_err(|_| CryptoError::BadKey)?;
    let signature = p256::ecdsa::Signature::from_slice(&check.signature);
    Ok(signature.is_ok_and(|signature| key.verify_prehash(&digest(hash, check.message), &signature).is_ok()))
}

fn p384(check: &SignatureCheck<'_>, hash: Hash) -> Result<bool, CryptoError> {
    let key =
        p384::ecdsa::VerifyingKey::from_public_key_der(check.public_key).map_err(|_| CryptoError::BadKey)?;
    let signature = p384::ecdsa::Signature::from_slice(&check.signature);
    Ok(signature.is_ok_and(|signature| key.verify_prehash(&digest(hash, check.message), &signature).is_ok()))
}
