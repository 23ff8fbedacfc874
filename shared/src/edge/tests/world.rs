//! A publisher, a KV and an isolate, all in one place.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};

use pollster::block_on;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::Value;

use super::kms::FakeKms;
use crate::certificate::{SignatureCheck, VerifySignature};
use crate::crypto::{Crypto, CryptoError, ES256_SIGNATURE_LENGTH};
use crate::document::*;
use crate::edge::*;
use crate::host::{HostCrypto, PrivateKey};
use crate::id::{ClientId, PoolId};
use crate::jwe::{SealingKey, SplitJwe};
use crate::jwk::{EcPublicJwk, Jwk, JwkSet};
use crate::jws::{self, JwsHeader};
use crate::kv_key::KvKey;
use crate::secret::SecretHash;
use crate::status_list::*;
use crate::time::UnixTime;

pub(super) const START: UnixTime = UnixTime(1_700_000_000);
pub(super) const SECRET: &str = "s3cr3t";
/// The default window of pools, in seconds.
pub(super) const WINDOW: u64 = 86_400;

/// workerd, as far as the core can tell.
pub(super) struct Simulation {
    pub(super) now: Cell<UnixTime>,
    pub(super) kv: RefCell<HashMap<String, String>>,
    pub(super) kv_fails: Cell<bool>,
    pub(super) kv_reads: Cell<u32>,
    /// The KV key of which the next read sees the value of now, and gives it back only when it is polled once more.
    pub(super) slow_read: RefCell<Option<String>>,
    /// What the name of the note begins with whose next question is answered only when it is polled once more.
    pub(super) slow_note: RefCell<Option<String>>,
    pub(super) verifications: Cell<u32>,
    /// Those of certificates and assertions.
    pub(super) signature_checks: Cell<u32>,
    /// The location's memory.
    pub(super) notes: RefCell<HashMap<String, UnixTime>>,
    pub(super) noted: RefCell<HashMap<String, (String, UnixTime)>>,
    pub(super) notes_asked: Cell<u32>,
    /// Whether the control plane takes what is handed over to it.
    pub(super) control_plane_accepts: Cell<bool>,
    pub(super) delivered: RefCell<Vec<Delivery>>,
    pub(super) log: RefCell<Vec<String>>,
    /// What KMS does, and what it was asked.
    pub(super) kms: FakeKms,
    rng: RefCell<ChaCha20Rng>,
}

impl Crypto for Simulation {
    type VerifyingKey = <HostCrypto as Crypto>::VerifyingKey;
    type SigningKey = <HostCrypto as Crypto>::SigningKey;

    async fn import_public(&self, key: &EcPublicJwk) -> Result<Self::VerifyingKey, CryptoError> {
        HostCrypto.import_public(key).await
    }

    async fn verify(
        &self,
        key: &Self::VerifyingKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, CryptoError> {
        self.verifications.set(self.verifications.get() + 1);
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

impl VerifySignature for Simulation {
    async fn verify_signature(&self, check: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
        self.signature_checks.set(self.signature_checks.get() + 1);
        HostCrypto.verify_signature(check).await
    }
}

/// Ends when it is polled for the second time.
async fn another_poll() {
    let mut polled = false;
    poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl Platform for Simulation {
    fn now(&self) -> UnixTime {
        self.now.get()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.rng.borrow_mut().fill_bytes(bytes);
    }

    async fn kv_get(&self, key: &str, _cache_seconds: u32) -> Result<Option<String>, KvReadError> {
        self.kv_reads.set(self.kv_reads.get() + 1);
        if self.kv_fails.get() {
            return Err(KvReadError("simulated".to_owned()));
        }
        let value = self.kv.borrow().get(key).cloned();
        if self.slow_read.borrow_mut().take_if(|slow| slow == key).is_some() {
            another_poll().await;
        }
        Ok(value)
    }

    async fn note_first(&self, name: &str, seconds: u32) -> bool {
        let now = self.now.get();
        let end = now + u64::from(seconds);
        let mut notes = self.notes.borrow_mut();
        notes.insert(name.to_owned(), end).is_none_or(|end| now >= end)
    }

    async fn post(&self, post: Post<'_>) -> Result<Posted, PostError> {
        self.kms.post(post)
    }

    async fn noted(&self, name: &str) -> Option<String> {
        self.notes_asked.set(self.notes_asked.get() + 1);
        if self.slow_note.borrow_mut().take_if(|slow| name.starts_with(slow.as_str())).is_some() {
            another_poll().await;
        }
        let now = self.now.get();
        let noted = self.noted.borrow();
        noted.get(name).filter(|(_, end)| now < *end).map(|(text, _)| text.clone())
    }

    async fn note(&self, name: &str, text: &str, seconds: u32) {
        let end = self.now.get() + u64::from(seconds);
        self.noted.borrow_mut().insert(name.to_owned(), (text.to_owned(), end));
    }

    async fn hand_over(&self, delivery: Delivery) -> bool {
        let kept = !self.kv_fails.get();
        if kept {
            self.kv.borrow_mut().insert(delivery.kv_key.clone(), delivery.kv_value.clone());
        }
        self.delivered.borrow_mut().push(delivery);
        kept || self.control_plane_accepts.get()
    }

    fn deliver(&self, delivery: Delivery) {
        self.delivered.borrow_mut().push(delivery);
    }

    fn log(&self, line: LogLine<'_>) {
        self.log.borrow_mut().push(format!("{} {}", line.event, line.detail));
    }
}

/// A key that is the same in every test run.
pub(super) fn key(seed: u64) -> PrivateKey {
    PrivateKey::generate(&mut ChaCha20Rng::seed_from_u64(seed))
}

pub(super) fn sealing_key(letter: &str) -> String {
    format!("{}A", letter.repeat(42))
}

/// Everything that stands between a device and a token.
pub(super) struct World {
    pub(super) platform: Simulation,
    pub(super) edge: Edge<Simulation>,
    pub(super) root: PrivateKey,
    pub(super) publisher: PrivateKey,
    pub(super) signing: PrivateKey,
    pub(super) pool: PoolId,
    pub(super) client: ClientId,
    /// In how many shards the pool's revocation list stands.
    pub(super) shards: Cell<u32>,
    /// How many status lists the pool has.
    pub(super) lists: Cell<u32>,
    version: Cell<u64>,
}

impl World {
    /// A root, a publisher, a pool and a client with the secret [`SECRET`], all published at [`START`].
    pub(super) fn new() -> Self {
        let platform = Simulation {
            now: Cell::new(START),
            kv: RefCell::default(),
            kv_fails: Cell::new(false),
            kv_reads: Cell::new(0),
            slow_read: RefCell::default(),
            slow_note: RefCell::default(),
            verifications: Cell::new(0),
            signature_checks: Cell::new(0),
            notes: RefCell::default(),
            noted: RefCell::default(),
            notes_asked: Cell::new(0),
            control_plane_accepts: Cell::new(true),
            delivered: RefCell::default(),
            log: RefCell::default(),
            kms: FakeKms::default(),
            rng: RefCell::new(ChaCha20Rng::seed_from_u64(0)),
        };
        let pool = PoolId(uuid::Uuid::from_u128(0xfeed));
        let world = Self {
            edge: Edge::new(config(&key(1), 0)),
            platform,
            root: key(1),
            publisher: key(2),
            signing: key(3),
            pool,
            client: ClientId::of_device_app(pool, &"05243-001".parse().unwrap(), &"client".parse().unwrap()),
            shards: Cell::new(0),
            lists: Cell::new(0),
            version: Cell::new(100),
        };
        world.put_trust(&[&world.publisher], WINDOW * 8);
        world.put_pool(&world.pool_document(), WINDOW);
        world.put_client(&world.client_document());
        world
    }

    /// The same, with a revocation list in which nobody stands.
    pub(super) fn listed() -> Self {
        let world = Self::new();
        world.shards.set(4);
        world.put_list(&RevokedDocument::default());
        world.put_pool(&world.pool_document(), WINDOW);
        world
    }

    /// The same, with a status list in which the client owns a block.
    pub(super) fn with_status() -> Self {
        let world = Self::listed();
        world.lists.set(1);
        world.put_status(&StatusBits::new());
        world.put_pool(&world.pool_document(), WINDOW);
        world.put_client(&world.client_document());
        world
    }

    /// Another isolate: the same KV, nothing held.
    pub(super) fn restart(&mut self) {
        self.edge = self.another_isolate();
    }

    /// The same, to go on beside the first.
    pub(super) fn another_isolate(&self) -> Edge<Simulation> {
        Edge::new(config(&self.root, 0))
    }

    pub(super) fn stamp(&self, window: Option<u64>) -> Stamp {
        self.version.set(self.version.get() + 1);
        let iat = self.platform.now.get();
        Stamp { version: self.version.get(), iat, next_update: window.map(|window| iat + window) }
    }

    pub(super) fn put(&self, key: &KvKey, text: String) {
        self.platform.kv.borrow_mut().insert(key.to_string(), text);
    }

    pub(super) fn get(&self, key: &KvKey) -> String {
        self.platform.kv.borrow()[&key.to_string()].clone()
    }

    pub(super) fn put_trust(&self, publishers: &[&PrivateKey], window: u64) {
        let document =
            TrustDocument { publisher_keys: publishers.iter().map(|key| key.public().clone()).collect() };
        self.put(
            &KvKey::Trust,
            self.root.sign_document(&KvKey::Trust, self.stamp(Some(window)), &document).unwrap(),
        );
    }

    pub(super) fn put_pool(&self, document: &PoolDocument, window: u64) {
        let key = self.pool_key();
        self.put(&key, self.publisher.sign_document(&key, self.stamp(Some(window)), document).unwrap());
    }

    /// Publishes the revocation list, each entry in its shard.
    pub(super) fn put_list(&self, list: &RevokedDocument) {
        let shard = |id: &str| RevokedDocument::shard_of(id, self.shards.get());
        for number in 0..self.shards.get() {
            let mut document = list.clone();
            document.clients.retain(|id, _| shard(id.as_str()) == Some(number));
            document.devices.retain(|id, _| shard(id.as_str()) == Some(number));
            let key = KvKey::Revoked(self.pool, number);
            let text = self.publisher.sign_document(&key, self.stamp(Some(WINDOW)), &document).unwrap();
            self.put(&key, text);
        }
    }

    /// Publishes status list 0.
    pub(super) fn put_status(&self, bits: &StatusBits) {
        self.put_status_until(bits, self.platform.now.get() + WINDOW);
    }

    pub(super) fn put_status_until(&self, bits: &StatusBits, exp: UnixTime) {
        let claims = StatusListClaims {
            sub: self.status_url(),
            iat: self.platform.now.get(),
            exp,
            ttl: STATUS_LIST_TTL,
            status_list: bits.compress(),
        };
        self.put(&self.status_key(), sign_status(&self.signing, STATUS_LIST_TYP, &claims));
    }

    pub(super) fn status_key(&self) -> KvKey {
        KvKey::Status(self.pool, 0)
    }

    pub(super) fn status_url(&self) -> String {
        format!("https://edge.example/{}/status/0", self.pool)
    }

    /// Publishes a service client with this id, the secret [`SECRET`] and these scopes.
    pub(super) fn put_service(&self, id: &str, scopes: &str) {
        let document = ClientDocument {
            subject: ClientSubject::Service,
            scopes: scopes.parse().unwrap(),
            status_block: Some(StatusBlock { list: 0, block: 7, revoked: 0 }),
            ..self.client_document()
        };
        let key = KvKey::Client(self.pool, id.parse().unwrap());
        self.put(&key, self.publisher.sign_document(&key, self.stamp(None), &document).unwrap());
    }

    /// Publishes a list in which only the client stands.
    pub(super) fn revoke_client(&self, revoked: Revoked) {
        let clients = [(self.client.clone(), revoked)].into();
        self.put_list(&RevokedDocument { clients, ..RevokedDocument::default() });
    }

    /// The shard that the client's id belongs to.
    pub(super) fn client_shard(&self) -> KvKey {
        let number = RevokedDocument::shard_of(self.client.as_str(), self.shards.get()).unwrap();
        KvKey::Revoked(self.pool, number)
    }

    /// The version that was given out last.
    pub(super) fn last_version(&self) -> u64 {
        self.version.get()
    }

    pub(super) fn put_client(&self, document: &ClientDocument) {
        let key = self.client_key();
        self.put(&key, self.publisher.sign_document(&key, self.stamp(None), document).unwrap());
    }

    pub(super) fn pool_key(&self) -> KvKey {
        KvKey::Pool(self.pool)
    }

    pub(super) fn client_key(&self) -> KvKey {
        KvKey::Client(self.pool, self.client.clone())
    }

    pub(super) fn pool_document(&self) -> PoolDocument {
        let sealing_key = SealingKey::parse_list(&sealing_key("A")).unwrap().remove(0);
        PoolDocument {
            kind: PoolKind::Device,
            issuer: format!("https://edge.example/{}", self.pool),
            token_ttl: 3600,
            longest_token_ttl: 3600,
            claims_profile: ClaimsProfile::Device,
            audience: vec![],
            jwks: JwkSet { keys: vec![Jwk::es256(self.signing.public().clone())] },
            signing_key: Some(PoolSigningKey {
                kid: self.signing.kid().clone(),
                alg: crate::jwk::SigningAlg::ES256,
                private: PrivateHalf::Jwe(self.signing.seal(&sealing_key, self.pool).unwrap()),
            }),
            cors_origins: vec![],
            trust_anchors: vec![],
            denied_certificates: vec![],
            provisioning: Default::default(),
            device_defaults: Default::default(),
            bind_to_certificate: false,
            revocation_shards: self.shards.get(),
            status_lists: self.lists.get(),
            sign_in_url: None,
            deleted: false,
        }
    }

    pub(super) fn client_document(&self) -> ClientDocument {
        let raw = |json: &str| serde_json::value::RawValue::from_string(json.to_owned()).unwrap();
        ClientDocument {
            status: ClientStatus::Enabled,
            secrets: vec![StoredSecret { sha256: SecretHash::of(SECRET.as_bytes()), expires_at: None }],
            scopes: "device other".parse().unwrap(),
            subject: ClientSubject::Device(DeviceClaims {
                device_id: "05243-001".parse().unwrap(),
                client_app_id: "client".parse().unwrap(),
                metadata: raw(r#"{"terminal_type":"kiosk"}"#),
                tags: raw(r#"{"country":"US","state":"*"}"#),
                primary_server_url: Some("http://localhost:6140".to_owned()),
                server_urls: vec!["http://localhost:6140".to_owned()],
            }),
            jwks: None,
            audience: vec![],
            status_block: (self.lists.get() > 0).then_some(BLOCK),
        }
    }

    /// A token of the client's.
    pub(super) fn access_token(&self) -> String {
        let response = self.token();
        json(&response)["access_token"].as_str().unwrap_or_else(|| panic!("{response:?}")).to_owned()
    }

    /// Asks an endpoint under `oauth2/` as this client, with its secret.
    pub(super) fn ask_as(&self, client: &str, endpoint: &str, body: &str) -> Response {
        let path = format!("/{}/oauth2/{endpoint}", self.pool);
        let body = format!("client_id={client}&client_secret={SECRET}&{body}");
        self.handle(post(&path, body.as_bytes()))
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.platform.now.set(self.platform.now.get() + seconds);
    }

    pub(super) fn handle(&self, request: Request<'_>) -> Response {
        block_on(self.edge.handle(&self.platform, request))
    }

    /// A token request with this body, to this world's pool.
    pub(super) fn post(&self, body: &str) -> Response {
        let path = format!("/{}/oauth2/token", self.pool);
        self.handle(post(&path, body.as_bytes()))
    }

    /// A good token request with this secret.
    pub(super) fn token_with(&self, secret: &str) -> Response {
        self.post(&format!("grant_type=client_credentials&client_id={}&client_secret={secret}", self.client))
    }

    /// A good token request that is slow to read `key`: it sees what KV holds now, and comes to its end only after
    /// `meanwhile`.
    pub(super) fn slow_token(&self, secret: &str, key: &KvKey, meanwhile: impl FnOnce()) -> Response {
        *self.platform.slow_read.borrow_mut() = Some(key.to_string());
        self.begun_token(secret, |answer| {
            meanwhile();
            block_on(answer)
        })
    }

    /// A token request that waits for something, and what becomes of it.
    pub(super) fn begun_token<T>(
        &self,
        secret: &str,
        go_on: impl FnOnce(Pin<&mut dyn Future<Output = Response>>) -> T,
    ) -> T {
        let path = format!("/{}/oauth2/token", self.pool);
        let body = format!("grant_type=client_credentials&client_id={}&client_secret={secret}", self.client);
        let mut answer = pin!(self.edge.handle(&self.platform, post(&path, body.as_bytes())));
        let mut context = std::task::Context::from_waker(Waker::noop());
        assert!(answer.as_mut().poll(&mut context).is_pending(), "it waited for nothing");
        go_on(answer)
    }

    pub(super) fn token(&self) -> Response {
        self.token_with(SECRET)
    }

    pub(super) fn get_path(&self, path: &str) -> Response {
        self.handle(Request {
            method: "GET",
            path,
            query: "",
            headers: Headers::default(),
            body: Body::Complete(b""),
        })
    }

    pub(super) fn logged(&self, event: &str) -> bool {
        self.platform.log.borrow().iter().any(|line| line.starts_with(event))
    }
}

/// The client's block: its tokens have the indices 40 to 47.
pub(super) const BLOCK: StatusBlock = StatusBlock { list: 0, block: 5, revoked: 0 };

/// A signed text of this type.
pub(super) fn sign_status(key: &PrivateKey, typ: &str, claims: &impl serde::Serialize) -> String {
    let header =
        JwsHeader { alg: crate::jwk::SigningAlg::ES256, typ: typ.to_owned(), kid: key.kid().clone() };
    let input = jws::signing_input(&header, claims).unwrap();
    let signature = block_on(HostCrypto.sign(key, input.as_bytes())).unwrap();
    jws::append_signature(input, &signature)
}

pub(super) fn config(root: &PrivateKey, min_trust_version: u64) -> EdgeConfig {
    let roots = serde_json::to_string(&[root.public()]).unwrap();
    config_of(&roots, min_trust_version, &sealing_key("A"))
}

pub(super) fn config_of(roots: &str, min_trust_version: u64, sealing_keys: &str) -> EdgeConfig {
    EdgeConfig::parse(Variables {
        root_public_keys: roots,
        min_trust_version: &min_trust_version.to_string(),
        edge_sealing_key: sealing_keys,
        edge_shared_secret: &sealing_key("S"),
        control_plane_url: "https://control.example",
        aws: AwsVariables::default(),
    })
    .unwrap()
}

pub(super) fn post<'a>(path: &'a str, body: &'a [u8]) -> Request<'a> {
    let content_type = Some("application/x-www-form-urlencoded");
    let headers = Headers { content_type, ..Headers::default() };
    Request { method: "POST", path, query: "", headers, body: Body::Complete(body) }
}

pub(super) fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str())
}

pub(super) fn json(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

/// `status error`, such as `401 invalid_client`; `200` where there is no error.
pub(super) fn outcome(response: &Response) -> String {
    match json(response).get("error").and_then(Value::as_str) {
        Some(error) => format!("{} {error}", response.status),
        None => response.status.to_string(),
    }
}
