//! The platform as workerd gives it to one request.

use std::rc::Rc;

use js_sys::{Date, Error, JsString, Object, Promise};
use keypost_shared::certificate::{SignatureCheck, VerifySignature};
use keypost_shared::crypto::{Crypto, CryptoError, ES256_SIGNATURE_LENGTH};
use keypost_shared::edge::{Delivery, KvReadError, LogLevel, LogLine, Platform, Post, PostError, Posted};
use keypost_shared::jwe::{SealingKey, SplitJwe};
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::time::UnixTime;
use serde::Serialize;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::*;
use web_sys::console;
use worker::Context;

use crate::webcrypto::{self, WebCrypto};
use crate::{delivery, location, outbound};

#[wasm_bindgen]
extern "C" {
    /// A binding to a KV namespace.
    #[derive(Clone)]
    pub(crate) type KvNamespace;

    #[wasm_bindgen(method, catch)]
    fn get(
        this: &KvNamespace,
        key: &str,
        options: &KvGetOptions,
    ) -> Result<Promise<Option<JsString>>, JsValue>;

    #[wasm_bindgen(extends = Object)]
    type KvGetOptions;

    #[wasm_bindgen(method, setter, js_name = cacheTtl)]
    fn set_cache_ttl(this: &KvGetOptions, seconds: u32);
}

/// [`Platform`] by workerd.
pub(crate) struct Workerd {
    pub(crate) kv: KvNamespace,
    pub(crate) crypto: Rc<WebCrypto>,
    /// What outlives the answer is handed to it.
    pub(crate) context: Rc<Context>,
}

impl Platform for Workerd {
    fn now(&self) -> UnixTime {
        // The place where the Worker's time comes from. workerd's clock stands still between two waits.
        UnixTime((Date::now() / 1000.0) as i64)
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        webcrypto::fill_random(bytes);
    }

    async fn kv_get(&self, key: &str, cache_seconds: u32) -> Result<Option<String>, KvReadError> {
        let options = Object::new().unchecked_into::<KvGetOptions>();
        options.set_cache_ttl(cache_seconds);
        let value = async { self.kv.get(key, &options)?.await }.await;
        match value {
            Ok(value) => Ok(value.map(String::from)),
            Err(error) => Err(KvReadError(describe(&error))),
        }
    }

    async fn note_first(&self, name: &str, seconds: u32) -> bool {
        // A location that cannot remember lets everybody pass, as one does that has forgotten.
        if self.noted(name).await.is_some() {
            return false;
        }
        let name = name.to_owned();
        self.context.wait_until(async move {
            let _ = location::remember(&name, "1", seconds).await;
        });
        true
    }

    async fn post(&self, post: Post<'_>) -> Result<Posted, PostError> {
        outbound::post(post).await
    }

    async fn noted(&self, name: &str) -> Option<String> {
        location::recall(name).await.ok().flatten()
    }

    async fn note(&self, name: &str, text: &str, seconds: u32) {
        let _ = location::remember(name, text, seconds).await;
    }

    async fn hand_over(&self, delivery: Delivery) -> bool {
        delivery::hand_over(self.kv.clone(), &self.context, delivery).await
    }

    fn deliver(&self, delivery: Delivery) {
        self.context.wait_until(delivery::deliver(self.kv.clone(), delivery));
    }

    fn log(&self, line: LogLine<'_>) {
        log(line);
    }
}

impl VerifySignature for Workerd {
    async fn verify_signature(&self, check: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
        self.crypto.verify_signature(check).await
    }
}

impl Crypto for Workerd {
    type VerifyingKey = <WebCrypto as Crypto>::VerifyingKey;
    type SigningKey = <WebCrypto as Crypto>::SigningKey;

    async fn import_public(&self, key: &EcPublicJwk) -> Result<Self::VerifyingKey, CryptoError> {
        self.crypto.import_public(key).await
    }

    async fn verify(
        &self,
        key: &Self::VerifyingKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, CryptoError> {
        self.crypto.verify(key, message, signature).await
    }

    async fn open_signing_key(
        &self,
        key: &SealingKey,
        jwe: &SplitJwe<'_>,
    ) -> Result<Self::SigningKey, CryptoError> {
        self.crypto.open_signing_key(key, jwe).await
    }

    async fn sign(
        &self,
        key: &Self::SigningKey,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], CryptoError> {
        self.crypto.sign(key, message).await
    }
}

/// Writes a line of JSON to the console, at the level that Cloudflare's logs sort by.
pub(crate) fn log(line: LogLine<'_>) {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Json<'a> {
        level: &'static str,
        event: &'a str,
        detail: &'a str,
        request_id: &'a str,
    }
    let LogLine { level, request_id, event, detail } = line;
    let (level, write): (_, fn(&JsValue)) = match level {
        LogLevel::Info => ("info", console::info_1),
        LogLevel::Warn => ("warn", console::warn_1),
        LogLevel::Error => ("error", console::error_1),
    };
    // Strings always serialise.
    let text = serde_json::to_string(&Json { level, event, detail, request_id }).unwrap_or_default();
    write(&text.into());
}

/// What a JavaScript error says, for the log.
pub(crate) fn describe(error: &JsValue) -> String {
    match error.dyn_ref::<Error>() {
        Some(error) => error.message().into(),
        None => error.as_string().unwrap_or_else(|| "an error without a message".to_owned()),
    }
}
