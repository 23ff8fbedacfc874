//! A Worker without a control plane: whoever runs the test is the root, the publisher, and whoever the Worker reports to.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keypost_shared::crypto::Crypto as _;
use keypost_shared::document::{
    ClaimsProfile, ClientDocument, ClientStatus, ClientSubject, Document, PoolDocument, PoolKind,
    PoolSigningKey, PrivateHalf, RevokedDocument, Stamp, StoredSecret, TrustDocument,
};
use keypost_shared::edge_report::{DeviceReport, EdgeReport, SharedSecret, SignedReport};
use keypost_shared::host::{HostCrypto, PrivateKey};
use keypost_shared::id::PoolId;
use keypost_shared::jwe::SealingKey;
use keypost_shared::jwk::{Jwk, JwkSet, SigningAlg};
use keypost_shared::jws::{self, JwsHeader};
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::SecretHash;
use keypost_shared::status_list::{
    STATUS_LIST_TTL, STATUS_LIST_TYP, StatusBits, StatusBlock, StatusListClaims, list_url,
};
use keypost_shared::time::UnixTime;
use rand_core::OsRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use xtask::secret::StackSecrets;
use xtask::stack::port::Port;
use xtask::stack::worker::{self, Worker, WorkerOptions};

use crate::kv::Kv;
use crate::{edge, stack, wait};

/// How long documents last.
const WINDOW: u64 = 3600;

/// In how many shards a pool's revocation list stands.
const SHARDS: u32 = 4;

/// A running Worker with its KV.
pub struct LoneEdge {
    /// Where it answers.
    pub url: String,
    /// What it reads from.
    pub kv: Kv,
    secrets: StackSecrets,
    publisher: PrivateKey,
    version: RefCell<u64>,
    received: Arc<Mutex<Vec<SignedReport>>>,
    options: WorkerOptions,
    port: Port,
    worker: Option<Worker>,
}

/// A pool, and the key that signs for it.
pub struct LonePool {
    /// Its id.
    pub id: PoolId,
    /// What its document says.
    pub document: PoolDocument,
    /// The key.
    pub signing: PrivateKey,
}

impl LoneEdge {
    /// Starts a Worker that trusts a root of the test's own.
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, Vec::new()).await
    }

    /// The same, with more variables.
    pub async fn start_with(name: &str, vars: Vec<(String, String)>) -> Self {
        let received = Arc::default();
        let control_plane_url = listen(Arc::clone(&received)).await;
        Self::start_as(name, control_plane_url, received, vars).await
    }

    /// The same, of a control plane that is down.
    pub async fn without_control_plane(name: &str) -> Self {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        Self::start_as(name, format!("http://{closed}"), Arc::default(), Vec::new()).await
    }

    async fn start_as(
        name: &str,
        control_plane_url: String,
        received: Arc<Mutex<Vec<SignedReport>>>,
        vars: Vec<(String, String)>,
    ) -> Self {
        let env = stack::test_env();
        let parts = env.parts();
        let state = env.scratch.join(name);
        if state.exists() {
            std::fs::remove_dir_all(&state).unwrap();
        }
        let (root, publisher) = (PrivateKey::generate(&mut OsRng), PrivateKey::generate(&mut OsRng));
        let secrets = StackSecrets::random(String::new());
        let options = WorkerOptions {
            node: parts.node.clone(),
            wrangler: parts.wrangler.clone(),
            build: parts.worker_build.clone(),
            state: state.join("worker"),
            root_keys: vec![serde_json::to_value(root.public()).unwrap()],
            control_plane_url,
            secrets: secrets.clone(),
            log: state.join("worker.log"),
            lock: None,
            vars,
        };
        let port = Port::free(None).unwrap();
        let url = worker::url_of(&port);
        let namespace = worker::kv_namespace_id(&parts.repo).unwrap();
        let kv = Kv::new(&worker::kv_api_url(&url), &namespace);
        let mut made = Self {
            url,
            kv,
            secrets,
            publisher,
            version: RefCell::new(0),
            received,
            options,
            port,
            worker: None,
        };
        made.restart().await;
        let trust = TrustDocument { publisher_keys: vec![made.publisher.public().clone()] };
        let text = root.sign_document(&KvKey::Trust, made.stamp(true), &trust).unwrap();
        made.kv.put(&KvKey::Trust.to_string(), &text).await;
        made
    }

    /// Starts the Worker anew, with what KV and the location's cache held: an isolate that knows nothing.
    pub async fn restart(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop();
        }
        let parts = stack::test_env().parts();
        let worker = Worker::start(&parts.xtask, &edge::http(), &parts.repo, &self.port, &self.options).await;
        self.worker = Some(worker.unwrap_or_else(|error| panic!("{error}")));
    }

    /// A pool of the default policy, not published yet.
    pub fn pool(&self, number: u128) -> LonePool {
        let id: PoolId = format!("00000000-0000-4000-8000-{number:012}").parse().unwrap();
        let signing = PrivateKey::generate(&mut OsRng);
        let sealing_key = SealingKey::parse_list(&self.secrets.edge_sealing_key).unwrap().remove(0);
        let sealed = PoolSigningKey {
            kid: signing.kid().clone(),
            alg: SigningAlg::ES256,
            private: PrivateHalf::Jwe(signing.seal(&sealing_key, id).unwrap()),
        };
        let document = PoolDocument {
            kind: PoolKind::Device,
            issuer: format!("{}/{id}", self.url),
            token_ttl: 3600,
            longest_token_ttl: 3600,
            claims_profile: ClaimsProfile::Device,
            audience: vec![],
            jwks: JwkSet { keys: vec![Jwk::es256(signing.public().clone())] },
            signing_key: Some(sealed),
            cors_origins: vec![],
            trust_anchors: vec![],
            denied_certificates: vec![],
            provisioning: Default::default(),
            device_defaults: Default::default(),
            bind_to_certificate: false,
            revocation_shards: SHARDS,
            status_lists: 1,
            sign_in_url: None,
            deleted: false,
        };
        LonePool { id, document, signing }
    }

    /// Publishes a document.
    pub async fn publish<T: Document>(&self, key: &KvKey, document: &T) {
        let text = self.publisher.sign_document(key, self.stamp(T::EXPIRES), document).unwrap();
        self.kv.put(&key.to_string(), &text).await;
    }

    /// Publishes a pool with its lists, in which nothing is revoked.
    pub async fn publish_pool(&self, pool: &LonePool) {
        self.publish_revoked(pool, &RevokedDocument::default()).await;
        self.publish_status(pool, &StatusBits::new()).await;
        self.publish(&KvKey::Pool(pool.id), &pool.document).await;
    }

    /// Publishes the pool's revocation list, each entry in its shard.
    pub async fn publish_revoked(&self, pool: &LonePool, list: &RevokedDocument) {
        for number in 0..SHARDS {
            let mut shard = list.clone();
            let of = |id: &str| RevokedDocument::shard_of(id, SHARDS) == Some(number);
            shard.clients.retain(|id, _| of(id.as_str()));
            shard.devices.retain(|id, _| of(id.as_str()));
            self.publish(&KvKey::Revoked(pool.id, number), &shard).await;
        }
    }

    /// Publishes the pool's only status list.
    pub async fn publish_status(&self, pool: &LonePool, bits: &StatusBits) {
        let iat = UnixTime(i64::try_from(stack::unix_now()).unwrap());
        let claims = StatusListClaims {
            sub: list_url(&pool.document.issuer, 0),
            iat,
            exp: iat + WINDOW,
            ttl: STATUS_LIST_TTL,
            status_list: bits.compress(),
        };
        let kid = pool.signing.kid().clone();
        let header = JwsHeader { alg: SigningAlg::ES256, typ: STATUS_LIST_TYP.to_owned(), kid };
        let input = jws::signing_input(&header, &claims).unwrap();
        let signature = HostCrypto.sign(&pool.signing, input.as_bytes()).await.unwrap();
        let text = jws::append_signature(input, &signature);
        self.kv.put(&KvKey::Status(pool.id, 0).to_string(), &text).await;
    }

    /// Publishes a client with this secret, and this block of the pool's status list.
    pub async fn publish_client(
        &self,
        pool: &LonePool,
        id: &str,
        subject: ClientSubject,
        scopes: &str,
        secret: &str,
        block: u32,
    ) {
        let document = ClientDocument {
            status: ClientStatus::Enabled,
            secrets: vec![StoredSecret { sha256: SecretHash::of(secret.as_bytes()), expires_at: None }],
            scopes: scopes.parse().unwrap(),
            subject,
            jwks: None,
            audience: vec![],
            status_block: Some(StatusBlock { list: 0, block, revoked: 0 }),
        };
        self.publish(&KvKey::Client(pool.id, id.parse().unwrap()), &document).await;
    }

    /// Waits for the report of a device.
    pub async fn device_report(&self, device: &str) -> DeviceReport {
        self.report(|report| match report {
            EdgeReport::Device(report) if report.device_id.as_str() == device => Some(report),
            _ => None,
        })
        .await
    }

    /// Waits for a report of which `wanted` takes something, once its HMAC has been checked.
    pub async fn report<T>(&self, wanted: impl Fn(EdgeReport) -> Option<T>) -> T {
        let secrets = SharedSecret::parse_list(&self.secrets.edge_shared_secret).unwrap();
        wait::until("the report", Duration::from_secs(90), || async {
            let received = self.received.lock().unwrap().clone();
            let reports = received.iter().map(|signed| signed.verify(&secrets).unwrap());
            reports.into_iter().find_map(&wanted).ok_or_else(|| format!("{} others", received.len()))
        })
        .await
    }

    /// The shared secret.
    pub fn shared_secrets(&self) -> Vec<SharedSecret> {
        SharedSecret::parse_list(&self.secrets.edge_shared_secret).unwrap()
    }

    fn stamp(&self, expires: bool) -> Stamp {
        *self.version.borrow_mut() += 1;
        let iat = UnixTime(i64::try_from(stack::unix_now()).unwrap());
        Stamp { version: *self.version.borrow(), iat, next_update: expires.then(|| iat + WINDOW) }
    }
}

/// Takes what is posted, and keeps it.
async fn listen(received: Arc<Mutex<Vec<SignedReport>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let received = Arc::clone(&received);
            tokio::spawn(async move {
                if let Some(report) = receive(stream).await {
                    received.lock().unwrap().push(report);
                }
            });
        }
    });
    url
}

async fn receive(mut stream: TcpStream) -> Option<SignedReport> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    assert!(text.starts_with("POST /api/edge/report "), "{text}");
    let header = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let own = lines.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        own.map(|(_, value)| value.trim().to_owned())
    };
    let length: usize = header("content-length")?.parse().ok()?;
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    stream
        .write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .await
        .ok()?;
    Some(SignedReport {
        timestamp: UnixTime(header("keypost-timestamp")?.parse().ok()?),
        signature: header("keypost-signature")?,
        body: String::from_utf8(bytes[head..head + length].to_vec()).ok()?,
    })
}
