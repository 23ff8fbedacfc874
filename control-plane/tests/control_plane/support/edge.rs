use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use keypost::clock::{Clock, unix};
use keypost_shared::certificate::{SignatureCheck, VerifySignature};
use keypost_shared::crypto::{Crypto, CryptoError, ES256_SIGNATURE_LENGTH};
use keypost_shared::edge::{
    AwsVariables, Body, Delivery, Edge, EdgeConfig, Headers, KvReadError, LogLine, Platform, Post, PostError,
    Posted, Request, Response, Variables,
};
use keypost_shared::host::{HostCrypto, PrivateKey};
use keypost_shared::jwe::{SealingKey, SplitJwe};
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::time::UnixTime;
use rand_core::{OsRng, RngCore};
use serde_json::{Value, json};

use super::{TestApp, TestClock, secret};

/// The Worker's own code, on what the control plane has written to KV.
pub(crate) struct TestEdge<'a> {
    edge: Edge<Location<'a>>,
    location: Location<'a>,
}

type Read<'a> = dyn Fn(&str, UnixTime) -> Option<String> + 'a;
type Write<'a> = dyn Fn(&str, &str) + 'a;

/// workerd, at a location that reads KV in its own way.
struct Location<'a> {
    clock: Arc<TestClock>,
    read: Box<Read<'a>>,
    write: Box<Write<'a>>,
    notes: RefCell<HashMap<String, (String, UnixTime)>>,
    log: RefCell<Vec<String>>,
}

impl<'a> TestEdge<'a> {
    /// An isolate that holds nothing yet, on KV as it is.
    pub(crate) fn new(app: &'a TestApp) -> Self {
        let read = |key: &str, _| app.kv.value(key);
        Self::with(&app.publisher.root, &app.clock, read, |key, value| app.kv.write(key, value))
    }

    /// An isolate that holds nothing yet, and reads and writes KV in this way. A read is told the time.
    pub(crate) fn with(
        root: &EcPublicJwk,
        clock: &Arc<TestClock>,
        read: impl Fn(&str, UnixTime) -> Option<String> + 'a,
        write: impl Fn(&str, &str) + 'a,
    ) -> Self {
        let config = EdgeConfig::parse(Variables {
            root_public_keys: &json!([root]).to_string(),
            min_trust_version: "",
            edge_sealing_key: &secret(2),
            edge_shared_secret: &secret(3),
            control_plane_url: "",
            aws: AwsVariables::default(),
        });
        let location = Location {
            clock: clock.clone(),
            read: Box::new(read),
            write: Box::new(write),
            notes: RefCell::default(),
            log: RefCell::default(),
        };
        Self { edge: Edge::new(config.unwrap()), location }
    }

    /// Posts a form to an endpoint of a pool.
    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let body = form
            .iter()
            .map(|(name, value)| format!("{name}={}", value.replace('+', "%2B")))
            .collect::<Vec<_>>()
            .join("&");
        let headers =
            Headers { content_type: Some("application/x-www-form-urlencoded"), ..Headers::default() };
        let request =
            Request { method: "POST", path, query: "", headers, body: Body::Complete(body.as_bytes()) };
        let response = self.edge.handle(&self.location, request).await;
        let value = serde_json::from_slice(&response.body).unwrap_or_default();
        (response.status, value)
    }

    /// Gets a page.
    pub(crate) async fn get(&self, path: &str) -> Response {
        let request = Request {
            method: "GET",
            path,
            query: "",
            headers: Headers::default(),
            body: Body::Complete(&[]),
        };
        self.edge.handle(&self.location, request).await
    }

    /// What it has told its operators.
    pub(crate) fn log(&self) -> String {
        self.location.log.borrow().join("\n")
    }
}

impl Crypto for Location<'_> {
    type VerifyingKey = <HostCrypto as Crypto>::VerifyingKey;
    type SigningKey = PrivateKey;

    async fn import_public(&self, key: &EcPublicJwk) -> Result<Self::VerifyingKey, CryptoError> {
        HostCrypto.import_public(key).await
    }

    async fn verify(
        &self,
        key: &Self::VerifyingKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, CryptoError> {
        HostCrypto.verify(key, message, signature).await
    }

    async fn open_signing_key(
        &self,
        key: &SealingKey,
        jwe: &SplitJwe<'_>,
    ) -> Result<PrivateKey, CryptoError> {
        HostCrypto.open_signing_key(key, jwe).await
    }

    async fn sign(
        &self,
        key: &PrivateKey,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], CryptoError> {
        HostCrypto.sign(key, message).await
    }
}

impl VerifySignature for Location<'_> {
    async fn verify_signature(&self, check: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
        HostCrypto.verify_signature(check).await
    }
}

impl Platform for Location<'_> {
    fn now(&self) -> UnixTime {
        unix(self.clock.now())
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        OsRng.fill_bytes(bytes);
    }

    async fn kv_get(&self, key: &str, _cache_seconds: u32) -> Result<Option<String>, KvReadError> {
        Ok((self.read)(key, self.now()))
    }

    async fn note_first(&self, name: &str, seconds: u32) -> bool {
        let is_first = self.noted(name).await.is_none();
        self.note(name, "", seconds).await;
        is_first
    }

    async fn noted(&self, name: &str) -> Option<String> {
        let notes = self.notes.borrow();
        notes.get(name).filter(|(_, end)| self.now() < *end).map(|(text, _)| text.clone())
    }

    async fn note(&self, name: &str, text: &str, seconds: u32) {
        let end = self.now() + u64::from(seconds);
        self.notes.borrow_mut().insert(name.to_owned(), (text.to_owned(), end));
    }

    async fn post(&self, _: Post<'_>) -> Result<Posted, PostError> {
        Err(PostError::Unreachable("nobody is there".to_owned()))
    }

    fn deliver(&self, delivery: Delivery) {
        (self.write)(&delivery.kv_key, &delivery.kv_value);
    }

    async fn hand_over(&self, delivery: Delivery) -> bool {
        self.deliver(delivery);
        true
    }

    fn log(&self, line: LogLine<'_>) {
        self.log.borrow_mut().push(format!("{} {}", line.event, line.detail));
    }
}
