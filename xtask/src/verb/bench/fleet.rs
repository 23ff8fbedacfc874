//! What the Worker finds in KV, made and signed by the code that the control plane signs with: a root, a publisher, pools
//! with their lists, and clients.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use keypost_shared::{
    document::{
        ClaimsProfile, ClientDocument, ClientStatus, ClientSubject, DeviceClaims, Document, PoolDocument,
        PoolKind, PoolSigningKey, PrivateHalf, RevokedDocument, Stamp, StoredSecret, TrustDocument,
    },
    host::PrivateKey,
    id::{ClientId, DeviceId, PoolId},
    jwe::SealingKey,
    jwk::{Jwk, JwkSet, SigningAlg},
    kv_key::KvKey,
    secret::SecretHash,
    status_list::{
        CompressedStatusList, STATUS_LIST_TTL, StatusBits, StatusBlock, StatusListClaims, list_url,
    },
    time::UnixTime,
};
use rand_core::OsRng;
use serde_json::json;
use serde_json::value::RawValue;

use super::kv::Kv;
use crate::{Error, secret::random_text};

/// Prefix of every issuer: what stands in documents, not where anything listens.
const EDGE_URL: &str = "https://edge.example";

/// How long documents last: longer than any bench.
const WINDOW: u64 = 86_400;

/// In how many shards a pool's revocation list stands.
const SHARDS: u32 = 4;

/// The secret of every client, as long as a generated one.
pub(super) const SECRET: &str = "nR3vJx0mWkQ2yT7uZbLcP5sD8fG1hA4eVoiXKEMtUYw";

/// Somebody who may write documents that the Worker believes.
#[derive(Debug)]
pub(super) struct Fleet {
    /// What it has written.
    pub(super) kv: Kv,
    root: PrivateKey,
    publisher: PrivateKey,
    sealing_key: String,
    shared_secret: String,
    version: AtomicU64,
    /// A status list in which nothing is revoked.
    empty_list: Mutex<Option<CompressedStatusList>>,
    now: UnixTime,
}

/// A pool, and the key that signs for it.
#[derive(Debug)]
pub(super) struct FleetPool {
    pub(super) id: PoolId,
    pub(super) document: PoolDocument,
    pub(super) signing: PrivateKey,
}

impl Fleet {
    /// A root and a publisher that it trusts.
    ///
    /// # Errors
    /// When `v1/trust` cannot be made.
    pub(super) fn new(now: UnixTime) -> Result<Self, Error> {
        let fleet = Self {
            kv: Kv::default(),
            root: PrivateKey::generate(&mut OsRng),
            publisher: PrivateKey::generate(&mut OsRng),
            sealing_key: random_text(),
            shared_secret: random_text(),
            version: AtomicU64::new(1_000),
            empty_list: Mutex::default(),
            now,
        };
        let trust = TrustDocument { publisher_keys: vec![fleet.publisher.public().clone()] };
        let text = fleet.root.sign_document(&KvKey::Trust, fleet.stamp(true), &trust);
        fleet.kv.put(KvKey::Trust.to_string(), text.map_err(Error::malformed("v1/trust"))?);
        Ok(fleet)
    }

    /// The Worker's variables and secrets.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("ROOT_PUBLIC_KEYS", json!([self.root.public()]).to_string()),
            ("MIN_TRUST_VERSION", "0".to_owned()),
            ("CONTROL_PLANE_URL", String::new()),
            ("KEYPOST_ENV", "prod".to_owned()),
            ("EDGE_SEALING_KEY", self.sealing_key.clone()),
            ("EDGE_SHARED_SECRET", self.shared_secret.clone()),
        ]
    }

    /// A pool of the default policy; publish it with [`Fleet::publish_pool`].
    ///
    /// # Errors
    /// When its key cannot be sealed.
    pub(super) fn pool(&self, number: u128) -> Result<FleetPool, Error> {
        let id = pool_id(number)?;
        let signing = PrivateKey::generate(&mut OsRng);
        let sealing_keys =
            SealingKey::parse_list(&self.sealing_key).map_err(Error::malformed("a sealing key"))?;
        let sealing_key = sealing_keys.first().ok_or_else(|| Error::Refused("no sealing key".to_owned()))?;
        let sealed = signing.seal(sealing_key, id).map_err(Error::malformed("a signing key"))?;
        let document = PoolDocument {
            kind: PoolKind::Device,
            issuer: format!("{EDGE_URL}/{id}"),
            token_ttl: 3_600,
            longest_token_ttl: 3_600,
            claims_profile: ClaimsProfile::Device,
            audience: vec![],
            jwks: JwkSet {
                // As a pool has it most of the time: one that signs and one that will.
                keys: vec![
                    Jwk::es256(signing.public().clone()),
                    Jwk::es256(PrivateKey::generate(&mut OsRng).public().clone()),
                ],
            },
            signing_key: Some(PoolSigningKey {
                kid: signing.kid().clone(),
                alg: SigningAlg::ES256,
                private: PrivateHalf::Jwe(sealed),
            }),
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
        Ok(FleetPool { id, document, signing })
    }

    /// Publishes a pool with its lists, in which nothing is revoked.
    ///
    /// # Errors
    /// When a document cannot be made.
    pub(super) fn publish_pool(&self, pool: &FleetPool) -> Result<(), Error> {
        for shard in 0..SHARDS {
            self.publish(&KvKey::Revoked(pool.id, shard), &RevokedDocument::default())?;
        }
        let text = match &mut *self.empty_list.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bits) => self.status_list(pool, 0, bits)?,
            none => self.status_list(pool, 0, none.insert(StatusBits::new().compress()))?,
        };
        self.kv.put(KvKey::Status(pool.id, 0).to_string(), text);
        self.publish(&KvKey::Pool(pool.id), &pool.document)
    }

    /// One of the pool's status lists, signed.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn status_list(
        &self,
        pool: &FleetPool,
        number: u32,
        bits: &CompressedStatusList,
    ) -> Result<String, Error> {
        let claims = StatusListClaims {
            sub: list_url(&pool.document.issuer, number),
            iat: self.now,
            exp: self.now + WINDOW,
            ttl: STATUS_LIST_TTL,
            status_list: bits.clone(),
        };
        pool.signing.sign_status_list(&claims).map_err(Error::malformed("a status list"))
    }

    /// Publishes a document.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn publish<T: Document>(&self, key: &KvKey, document: &T) -> Result<(), Error> {
        let text = self.publisher.sign_document(key, self.stamp(T::EXPIRES), document);
        self.kv.put(key.to_string(), text.map_err(Error::malformed(key.to_string()))?);
        Ok(())
    }

    /// Publishes clients of a pool, one for each of these devices, with [`SECRET`]. Signing takes the time, so all
    /// processors help.
    ///
    /// # Errors
    /// When a document cannot be made.
    pub(super) fn publish_clients(
        &self,
        pool: &FleetPool,
        devices: impl IntoIterator<Item = u32>,
    ) -> Result<Vec<ClientId>, Error> {
        let devices: Vec<u32> = devices.into_iter().collect();
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let share = devices.len().div_ceil(workers).max(1);
        thread::scope(|scope| {
            let shares: Vec<_> = devices
                .chunks(share)
                .map(|share| {
                    let publish = || share.iter().map(|device| self.publish_client(pool, *device)).collect();
                    scope.spawn(publish)
                })
                .collect();
            let mut ids = Vec::with_capacity(devices.len());
            for share in shares {
                let share: Result<Vec<ClientId>, Error> =
                    share.join().map_err(|_| Error::Refused("signing clients was broken off".to_owned()))?;
                ids.append(&mut share?);
            }
            Ok(ids)
        })
    }

    fn publish_client(&self, pool: &FleetPool, device: u32) -> Result<ClientId, Error> {
        let device_id = device_id(device)?;
        let id = client_id(pool.id, &device_id)?;
        let subject = ClientSubject::Device(device_claims(device_id)?);
        self.publish(&KvKey::Client(pool.id, id.clone()), &client(subject, "device", device)?)?;
        Ok(id)
    }

    /// Publishes a service client with [`SECRET`].
    ///
    /// # Errors
    /// When its document cannot be made.
    pub(super) fn publish_service(
        &self,
        pool: &FleetPool,
        scopes: &str,
        block: u32,
    ) -> Result<ClientId, Error> {
        let id: ClientId = "bench-resource-server".parse().map_err(Error::malformed("a client id"))?;
        self.publish(&KvKey::Client(pool.id, id.clone()), &client(ClientSubject::Service, scopes, block)?)?;
        Ok(id)
    }

    fn stamp(&self, expires: bool) -> Stamp {
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        let next_update = expires.then(|| self.now + WINDOW);
        Stamp { version, iat: self.now, next_update }
    }
}

/// The id of the pool of this number.
///
/// # Errors
/// Where the number has more than twelve digits.
pub(super) fn pool_id(number: u128) -> Result<PoolId, Error> {
    format!("00000000-0000-4000-8000-{number:012}").parse().map_err(Error::malformed("a pool id"))
}

/// The id of a device.
///
/// # Errors
/// Never: it is well-formed.
pub(super) fn device_id(number: u32) -> Result<DeviceId, Error> {
    format!("pos-{number:07}").parse().map_err(Error::malformed("a device id"))
}

/// The id of its client.
///
/// # Errors
/// Never: it is well-formed.
pub(super) fn client_id(pool: PoolId, device: &DeviceId) -> Result<ClientId, Error> {
    let app = "client".parse().map_err(Error::malformed("a client app id"))?;
    Ok(ClientId::of_device_app(pool, device, &app))
}

/// A client with [`SECRET`], and the block of this number in the pool's first status list.
///
/// # Errors
/// When the scopes are none.
pub(super) fn client(subject: ClientSubject, scopes: &str, block: u32) -> Result<ClientDocument, Error> {
    Ok(ClientDocument {
        status: ClientStatus::Enabled,
        secrets: vec![StoredSecret { sha256: SecretHash::of(SECRET.as_bytes()), expires_at: None }],
        scopes: scopes.parse().map_err(Error::malformed("scopes"))?,
        subject,
        jwks: None,
        audience: vec![],
        status_block: Some(StatusBlock {
            list: 0,
            block: block % keypost_shared::status_list::LIST_BLOCKS,
            revoked: 0,
        }),
    })
}

/// The claims of a point-of-sale terminal as the documentation shows them.
///
/// # Errors
/// Never: they are JSON.
pub(super) fn device_claims(device_id: DeviceId) -> Result<DeviceClaims, Error> {
    let raw = |json: serde_json::Value| {
        RawValue::from_string(json.to_string()).map_err(Error::malformed("a claim"))
    };
    Ok(DeviceClaims {
        client_app_id: "client".parse().map_err(Error::malformed("a client app id"))?,
        metadata: raw(json!({"terminal_type": "kiosk", "location": "checkout-3"}))?,
        tags: raw(json!({
            "country": "US", "business_unit_id": "05243", "device_id": "*", "device_type": "*", "state": "NY",
            "store_type": "*", "brand": "*", "app_id": "pos",
        }))?,
        primary_server_url: Some("http://localhost:6140".to_owned()),
        server_urls: vec!["http://localhost:6140".to_owned(), "http://localhost:6141".to_owned()],
        device_id,
    })
}
