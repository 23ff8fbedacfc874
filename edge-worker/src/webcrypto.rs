//! Cryptography by WebCrypto, the platform's own: an ES256 signature takes a twentieth of the time that WebAssembly
//! would need. Keys are `CryptoKey`s that cannot be exported again.

use js_sys::{Array, ArrayBuffer, Boolean, Error, Promise, Uint8Array};
use keypost_shared::crypto::{Crypto, CryptoError, ES256_SIGNATURE_LENGTH};
use keypost_shared::jwe::{SealingKey, SplitJwe};
use keypost_shared::jwk::EcPublicJwk;
use wasm_bindgen::convert::FromWasmAbi;
use wasm_bindgen::prelude::*;
use wasm_bindgen::{JsCast, JsGeneric};
use web_sys::{AesGcmParams, CryptoKey, EcKeyImportParams, EcdsaParams, SubtleCrypto};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(thread_local_v2, js_namespace = crypto, js_name = subtle)]
    static SUBTLE: SubtleCrypto;

    // Without `catch`: if the platform had no randomness, its exception would end the request, which is better than to
    // go on without.
    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues)]
    fn get_random_values(bytes: &mut [u8]);
}

/// The most that `getRandomValues` fills at once (Web Cryptography API §10.1.1).
const RANDOM_QUOTA: usize = 65_536;

/// Fills `bytes` from the platform's secure source.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    bytes.chunks_mut(RANDOM_QUOTA).for_each(get_random_values);
}

/// 128 random bits as text.
pub(crate) fn random_id() -> String {
    let mut bytes = [0; 16];
    fill_random(&mut bytes);
    format!("{:032x}", u128::from_ne_bytes(bytes))
}

/// [`Crypto`] by `crypto.subtle`. Holds what every call passes, made once per isolate.
pub(crate) struct WebCrypto {
    pub(crate) subtle: SubtleCrypto,
    ecdsa_p256: EcKeyImportParams,
    ecdsa_sha256: EcdsaParams,
}

/// A private key, ready to sign.
pub(crate) struct SigningKey(CryptoKey);

/// A public key, ready to verify with.
pub(crate) struct VerifyingKey(CryptoKey);

impl WebCrypto {
    pub(crate) fn new() -> Self {
        let ecdsa_p256 = EcKeyImportParams::new("ECDSA");
        ecdsa_p256.set_named_curve("P-256");
        Self {
            subtle: SUBTLE.with(Clone::clone),
            ecdsa_p256,
            ecdsa_sha256: EcdsaParams::new_with_str("ECDSA", "SHA-256"),
        }
    }
}

impl Crypto for WebCrypto {
    type VerifyingKey = VerifyingKey;
    type SigningKey = SigningKey;

    async fn import_public(&self, key: &EcPublicJwk) -> Result<VerifyingKey, CryptoError> {
        let (x, y) = key.coordinates().ok_or(CryptoError::BadKey)?;
        // The uncompressed point of SEC 1 §2.3.3. WebCrypto refuses one that is not on the curve.
        let point = [&[4], x.as_slice(), y.as_slice()].concat();
        self.import("raw", &point, &self.ecdsa_p256, "verify").await.map(VerifyingKey)
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
        let verified = self.subtle.verify_with_object_and_u8_array_and_u8_array(
            &self.ecdsa_sha256,
            &key.0,
            signature,
            message,
        );
        let verified: Boolean = settle(verified).await?;
        Ok(verified.value_of())
    }

    async fn open_signing_key(
        &self,
        key: &SealingKey,
        jwe: &SplitJwe<'_>,
    ) -> Result<SigningKey, CryptoError> {
        let algorithm = AesGcmParams::new_with_u8_array("AES-GCM", &Uint8Array::from(jwe.iv.as_slice()));
        algorithm.set_additional_data_u8_array(&Uint8Array::from(jwe.additional_data));
        algorithm.set_tag_length(128);
        let unwrapping_key = self.import("raw", key.as_bytes(), &algorithm, "unwrapKey").await?;
        // One call decrypts and imports: the private key is never a string or bytes in reach of this program.
        let signing_key = self.subtle.unwrap_key_with_u8_array_and_object_and_object(
            "jwk",
            &jwe.ciphertext_and_tag,
            &unwrapping_key,
            &algorithm,
            &self.ecdsa_p256,
            false,
            &Array::of1(&"sign".into()),
        );
        settle(signing_key).await.map(SigningKey)
    }

    async fn sign(
        &self,
        key: &SigningKey,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], CryptoError> {
        let signature = self.subtle.sign_with_object_and_u8_array(&self.ecdsa_sha256, &key.0, message);
        let signature: ArrayBuffer = settle(signature).await?;
        let signature = Uint8Array::new(&signature).to_vec();
        signature.try_into().map_err(|_| CryptoError::Platform("a signature of the wrong length".to_owned()))
    }
}

/// Waits for WebCrypto's answer.
pub(crate) async fn settle<T: JsGeneric + FromWasmAbi + 'static>(
    promise: Result<Promise, JsValue>,
) -> Result<T, CryptoError> {
    let outcome = match promise {
        Ok(promise) => promise.unchecked_into::<Promise<T>>().await,
        Err(error) => Err(error),
    };
    outcome.map_err(|error| failure(&error))
}

/// What a rejection means, by its name: `DataError` and `SyntaxError` for a key that does not import, `OperationError`
/// for a ciphertext that does not authenticate (Web Cryptography API §18.4 and §27.7). The message is left out, because
/// it may quote what was being read.
fn failure(error: &JsValue) -> CryptoError {
    let name = error.dyn_ref::<Error>().map(|error| String::from(error.name()));
    match name.as_deref() {
        Some("DataError" | "SyntaxError") => CryptoError::BadKey,
        Some("OperationError") => CryptoError::DoesNotOpen,
        _ => CryptoError::Platform(name.unwrap_or_else(|| "an unnamed error".to_owned())),
    }
}
