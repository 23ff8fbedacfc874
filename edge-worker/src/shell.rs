//! The JavaScript half of the shell (`js/shell.js`): what can be asked of workerd, and how it says what came of it.
#![expect(unreachable_pub, reason = "JavaScript reaches what wasm-bindgen exports, and that must be public")]

use wasm_bindgen::prelude::*;

use crate::task::{Failure, Outcome, Wait, settle};

#[wasm_bindgen(raw_module = "./shell.js")]
extern "C" {
    pub(crate) fn variable(name: &str) -> JsValue;

    #[wasm_bindgen(js_name = hasKv)]
    pub(crate) fn has_kv() -> bool;

    pub(crate) fn respond(number: u32, status: u16, headers: &str, body: &[u8]);

    #[wasm_bindgen(js_name = respondPublic)]
    pub(crate) fn respond_public(number: u32, second: f64, url: &str, headers: &str, body: &[u8]);

    #[wasm_bindgen(js_name = respondSecret)]
    pub(crate) fn respond_secret(number: u32, status: u16, request_id: &str, body: &[u8]);

    #[wasm_bindgen(js_name = rememberLater)]
    pub(crate) fn remember_later(name: &str, text: &str, seconds: u32);

    #[wasm_bindgen(js_name = stayFor)]
    pub(crate) fn stay_for() -> u32;

    pub(crate) fn finished(number: u32);

    pub(crate) fn forget(number: u32);

    #[wasm_bindgen(js_name = fillRandom)]
    pub(crate) fn fill_random(bytes: &mut [u8]);

    /// In milliseconds since 1970.
    pub(crate) fn now() -> f64;

    pub(crate) fn log(level: &str, line: &str);

    #[wasm_bindgen(js_name = kvGet)]
    fn ask_kv_get(wait: u32, key: &str, cache_ttl: u32);

    #[wasm_bindgen(js_name = kvPut)]
    fn ask_kv_put(wait: u32, key: &str, value: &str, expiration_ttl: u32);

    #[wasm_bindgen(js_name = recall)]
    fn ask_recall(wait: u32, name: &str);

    #[wasm_bindgen(js_name = remember)]
    fn ask_remember(wait: u32, name: &str, text: &str, seconds: u32);

    #[wasm_bindgen(js_name = post)]
    fn ask_post(wait: u32, url: &str, headers: &str, body: &str, milliseconds: u32);

    #[wasm_bindgen(js_name = sign)]
    fn ask_sign(wait: u32, key: &JsValue, message: &[u8]);

    #[wasm_bindgen(js_name = verify)]
    fn ask_verify(wait: u32, key: &JsValue, signature: &[u8], message: &[u8]);

    #[wasm_bindgen(js_name = importPoint)]
    fn ask_import_point(wait: u32, point: &[u8]);

    #[wasm_bindgen(js_name = unwrap)]
    fn ask_unwrap(wait: u32, sealing_key: &[u8], iv: &[u8], additional_data: &[u8], sealed: &[u8]);

    #[wasm_bindgen(js_name = importSpki)]
    fn ask_import_spki(wait: u32, name: &str, curve: &str, hash: &str, spki: &[u8]);

    #[wasm_bindgen(js_name = check)]
    fn ask_check(
        wait: u32,
        name: &str,
        hash: &str,
        salt_length: u32,
        key: &JsValue,
        signature: &[u8],
        message: &[u8],
    );
}

#[wasm_bindgen(js_name = settleNothing)]
pub fn settle_nothing(wait: u32) {
    settle(wait, Outcome::Nothing);
}

#[wasm_bindgen(js_name = settleFlag)]
pub fn settle_flag(wait: u32, flag: bool) {
    settle(wait, Outcome::Flag(flag));
}

#[wasm_bindgen(js_name = settleBytes)]
pub fn settle_bytes(wait: u32, bytes: Vec<u8>) {
    settle(wait, Outcome::Bytes(bytes));
}

#[wasm_bindgen(js_name = settleText)]
pub fn settle_text(wait: u32, text: String) {
    settle(wait, Outcome::Text(text));
}

#[wasm_bindgen(js_name = settleKey)]
pub fn settle_key(wait: u32, key: JsValue) {
    settle(wait, Outcome::Key(key));
}

#[wasm_bindgen(js_name = settleFailure)]
pub fn settle_failure(wait: u32, name: String, message: String) {
    settle(wait, Outcome::Failed(Failure { name, message }));
}

/// What an outcome of another kind than was asked for is: a fault of the shell.
fn unexpected() -> Failure {
    Failure { name: "Error".to_owned(), message: "an outcome of another kind".to_owned() }
}

async fn nothing(ask: impl FnOnce(u32)) -> Result<(), Failure> {
    match Wait::on(ask).await {
        Outcome::Nothing => Ok(()),
        Outcome::Failed(failure) => Err(failure),
        _ => Err(unexpected()),
    }
}

async fn flag(ask: impl FnOnce(u32)) -> Result<bool, Failure> {
    match Wait::on(ask).await {
        Outcome::Flag(flag) => Ok(flag),
        Outcome::Failed(failure) => Err(failure),
        _ => Err(unexpected()),
    }
}

async fn bytes(ask: impl FnOnce(u32)) -> Result<Vec<u8>, Failure> {
    match Wait::on(ask).await {
        Outcome::Bytes(bytes) => Ok(bytes),
        Outcome::Failed(failure) => Err(failure),
        _ => Err(unexpected()),
    }
}

async fn text(ask: impl FnOnce(u32)) -> Result<Option<String>, Failure> {
    match Wait::on(ask).await {
        Outcome::Nothing => Ok(None),
        Outcome::Text(text) => Ok(Some(text)),
        Outcome::Failed(failure) => Err(failure),
        _ => Err(unexpected()),
    }
}

async fn key(ask: impl FnOnce(u32)) -> Result<JsValue, Failure> {
    match Wait::on(ask).await {
        Outcome::Key(key) => Ok(key),
        Outcome::Failed(failure) => Err(failure),
        _ => Err(unexpected()),
    }
}

/// The value of a key in KV; `cache_ttl` is how old an answer of the location may be, in seconds.
pub(crate) async fn kv_get(name: &str, cache_ttl: u32) -> Result<Option<String>, Failure> {
    text(|wait| ask_kv_get(wait, name, cache_ttl)).await
}

/// Writes a value to KV, for so many seconds.
pub(crate) async fn kv_put(name: &str, value: &str, expiration_ttl: u32) -> Result<(), Failure> {
    nothing(|wait| ask_kv_put(wait, name, value, expiration_ttl)).await
}

/// What the location remembers under this name.
pub(crate) async fn recall(name: &str) -> Result<Option<String>, Failure> {
    text(|wait| ask_recall(wait, name)).await
}

/// Makes the location remember a text under a name for some seconds.
pub(crate) async fn remember(name: &str, value: &str, seconds: u32) -> Result<(), Failure> {
    nothing(|wait| ask_remember(wait, name, value, seconds)).await
}

/// Posts, and waits for the whole answer: its status, and its body.
pub(crate) async fn post(
    url: &str,
    headers: &str,
    body: &str,
    milliseconds: u32,
) -> Result<(u16, Vec<u8>), Failure> {
    let mut answer = bytes(|wait| ask_post(wait, url, headers, body, milliseconds)).await?;
    let Some((status, _)) = answer.split_first_chunk() else { return Err(unexpected()) };
    let status = u16::from_be_bytes(*status);
    answer.drain(..size_of::<u16>());
    Ok((status, answer))
}

/// Signs with ES256.
pub(crate) async fn sign(by: &JsValue, message: &[u8]) -> Result<Vec<u8>, Failure> {
    bytes(|wait| ask_sign(wait, by, message)).await
}

/// Verifies with ES256.
pub(crate) async fn verify(by: &JsValue, signature: &[u8], message: &[u8]) -> Result<bool, Failure> {
    flag(|wait| ask_verify(wait, by, signature, message)).await
}

/// Imports a public P-256 key.
pub(crate) async fn import_point(point: &[u8]) -> Result<JsValue, Failure> {
    key(|wait| ask_import_point(wait, point)).await
}

/// Decrypts a private P-256 key with A256GCM, and imports it.
pub(crate) async fn unwrap(
    sealing_key: &[u8],
    iv: &[u8],
    additional_data: &[u8],
    sealed: &[u8],
) -> Result<JsValue, Failure> {
    key(|wait| ask_unwrap(wait, sealing_key, iv, additional_data, sealed)).await
}

/// How a signature is to be verified, in WebCrypto's names.
pub(crate) struct Verification {
    pub(crate) name: &'static str,
    /// Empty for RSA.
    pub(crate) curve: &'static str,
    pub(crate) hash: &'static str,
    pub(crate) salt_length: u32,
}

/// Imports the key in a SubjectPublicKeyInfo, to verify so with it.
pub(crate) async fn import_spki(how: &Verification, spki: &[u8]) -> Result<JsValue, Failure> {
    let Verification { name, curve, hash, .. } = how;
    key(|wait| ask_import_spki(wait, name, curve, hash, spki)).await
}

/// Verifies by such a key.
pub(crate) async fn check(
    how: &Verification,
    by: &JsValue,
    signature: &[u8],
    message: &[u8],
) -> Result<bool, Failure> {
    let Verification { name, hash, salt_length, .. } = how;
    flag(|wait| ask_check(wait, name, hash, *salt_length, by, signature, message)).await
}
