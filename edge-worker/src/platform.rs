//! The platform as workerd gives it to one request.

use keypost_shared::certificate::{SignatureCheck, VerifySignature};
use keypost_shared::crypto::{Crypto, CryptoError, ES256_SIGNATURE_LENGTH};
use keypost_shared::edge::{Delivery, KvReadError, LogLevel, LogLine, Platform, Post, PostError, Posted};
use keypost_shared::jwe::{SealingKey, SplitJwe};
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::time::UnixTime;
use serde::Serialize;

use crate::webcrypto::{self, WebCrypto};
use crate::{delivery, shell, task};

/// [`Platform`] by workerd.
pub(crate) struct Workerd;

impl Platform for Workerd {
    fn now(&self) -> UnixTime {
        // The place where the Worker's time comes from. workerd's clock stands still between two waits.
        UnixTime((shell::now() / 1000.0) as i64)
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        webcrypto::fill_random(bytes);
    }

    async fn kv_get(&self, key: &str, cache_seconds: u32) -> Result<Option<String>, KvReadError> {
        shell::kv_get(key, cache_seconds).await.map_err(|failure| KvReadError(failure.message))
    }

    async fn note_first(&self, name: &str, seconds: u32) -> bool {
        // A location that cannot remember lets everybody pass, as one does that has forgotten.
        if self.noted(name).await.is_some() {
            return false;
        }
        shell::remember_later(name, "1", seconds);
        true
    }

    async fn post(&self, post: Post<'_>) -> Result<Posted, PostError> {
        let lines = header_lines(post.headers.iter().map(|(name, value)| (*name, value.as_str())));
        match shell::post(post.url, &lines, post.body, post.timeout_ms).await {
            Ok((status, body)) => Ok(Posted { status, body }),
            // What AbortSignal.timeout rejects with (DOM §3.1).
            Err(failure) if failure.name == "TimeoutError" => Err(PostError::TimedOut),
            Err(failure) => Err(PostError::Unreachable(failure.message)),
        }
    }

    async fn noted(&self, name: &str) -> Option<String> {
        shell::recall(name).await.ok().flatten()
    }

    async fn note(&self, name: &str, text: &str, seconds: u32) {
        let _ = shell::remember(name, text, seconds).await;
    }

    async fn hand_over(&self, delivery: Delivery) -> bool {
        delivery::hand_over(delivery).await
    }

    fn deliver(&self, delivery: Delivery) {
        after_the_answer(delivery::deliver(delivery));
    }

    fn log(&self, line: LogLine<'_>) {
        log(line);
    }
}

/// Goes on with something although the request has been answered.
pub(crate) fn after_the_answer(work: impl Future<Output = ()> + 'static) {
    let number = shell::stay_for();
    task::start(number, async move {
        work.await;
        shell::finished(number);
    });
}

/// Headers as the shell takes them: a line for a name, one for its value.
pub(crate) fn header_lines<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    headers.flat_map(|(name, value)| [name, value]).collect::<Vec<_>>().join("\n")
}

impl VerifySignature for Workerd {
    async fn verify_signature(&self, check: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
        WebCrypto.verify_signature(check).await
    }
}

impl Crypto for Workerd {
    type VerifyingKey = <WebCrypto as Crypto>::VerifyingKey;
    type SigningKey = <WebCrypto as Crypto>::SigningKey;

    async fn import_public(&self, key: &EcPublicJwk) -> Result<Self::VerifyingKey, CryptoError> {
        WebCrypto.import_public(key).await
    }

    async fn verify(
        &self,
        key: &Self::VerifyingKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, CryptoError> {
        WebCrypto.verify(key, message, signature).await
    }

    async fn open_signing_key(
        &self,
        key: &SealingKey,
        jwe: &SplitJwe<'_>,
    ) -> Result<Self::SigningKey, CryptoError> {
        WebCrypto.open_signing_key(key, jwe).await
    }

    async fn sign(
        &self,
        key: &Self::SigningKey,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], CryptoError> {
        WebCrypto.sign(key, message).await
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
    let level = match level {
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    // Strings always serialise.
    let text = serde_json::to_string(&Json { level, event, detail, request_id }).unwrap_or_default();
    shell::log(level, &text);
}
