//! Signatures of certificates and assertions, by WebCrypto.

use js_sys::{Boolean, Object, Uint8Array};
use keypost_shared::certificate::{Curve, Hash, SignatureAlgorithm, SignatureCheck, VerifySignature};
use keypost_shared::crypto::CryptoError;
use wasm_bindgen::JsCast;
use web_sys::{EcKeyImportParams, EcdsaParams, RsaHashedImportParams, RsaPssParams};

use crate::webcrypto::{WebCrypto, settle};

impl VerifySignature for WebCrypto {
    async fn verify_signature(&self, check: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
        let (import, verify) = parameters(check.algorithm);
        let key = self.import("spki", check.public_key, &import, "verify").await?;
        let verified = self.subtle.verify_with_object_and_u8_array_and_u8_array(
            &verify,
            &key,
            &check.signature,
            check.message,
        );
        match settle::<Boolean>(verified).await {
            Ok(verified) => Ok(verified.value_of()),
            // Parameters that no signature of this key could have, such as a salt longer than the key.
            Err(CryptoError::DoesNotOpen) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What the key is imported for, and how its signatures are verified.
fn parameters(algorithm: SignatureAlgorithm) -> (Object, Object) {
    match algorithm {
        SignatureAlgorithm::RsaPkcs1(hash) => {
            let name = "RSASSA-PKCS1-v1_5";
            (rsa(name, hash), RsaPssParams::new(name, 0).unchecked_into())
        }
        SignatureAlgorithm::RsaPss { hash, salt_length } => {
            let name = "RSA-PSS";
            (rsa(name, hash), RsaPssParams::new(name, salt_length).unchecked_into())
        }
        SignatureAlgorithm::Ecdsa { curve, hash } => {
            let import = EcKeyImportParams::new("ECDSA");
            import.set_named_curve(match curve {
                Curve::P256 => "P-256",
                Curve::P384 => "P-384",
            });
            (import.unchecked_into(), EcdsaParams::new_with_str("ECDSA", name_of(hash)).unchecked_into())
        }
    }
}

fn rsa(name: &str, hash: Hash) -> Object {
    let import = RsaHashedImportParams::new_with_str(name_of(hash));
    // The dictionary inherits from Algorithm, of which web-sys knows nothing.
    import.unchecked_ref::<EcdsaParams>().set_name(name);
    import.unchecked_into()
}

fn name_of(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha256 => "SHA-256",
        Hash::Sha384 => "SHA-384",
        Hash::Sha512 => "SHA-512",
    }
}

impl WebCrypto {
    /// Imports a key that cannot be exported again.
    pub(crate) async fn import(
        &self,
        format: &str,
        bytes: &[u8],
        algorithm: &Object,
        usage: &str,
    ) -> Result<web_sys::CryptoKey, CryptoError> {
        let bytes = Uint8Array::from(bytes);
        let usages = js_sys::Array::of1(&usage.into());
        settle(self.subtle.import_key_with_object(format, &bytes, algorithm, false, &usages)).await
    }
}
