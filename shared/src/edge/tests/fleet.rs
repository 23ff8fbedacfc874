//! A pool with a root, and a device with a certificate under it.

use std::cell::Cell;
use std::ops::Deref;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json as value};

use super::world::*;
use crate::certificate::tests::builder::{self, Draft};
use crate::certificate::{CertificateDer, Fingerprint, oid};
use crate::device_certificate::{
    CertificateMatch, CertificatePins, DeviceDefaults, PoolTrustAnchor, ProvisioningMode,
};
use crate::document::*;
use crate::edge::*;
use crate::host;
use crate::id::{ClientId, DeviceId};
use crate::kv_key::KvKey;

/// What the device is called in its certificate and everywhere else.
pub(super) const DEVICE: &str = "05243-001";

/// A token's header and claims, once its signature has been checked with the key that its `kid` names.
pub(super) fn verified(world: &World, response: &Response) -> (Value, Value) {
    let body = json(response);
    let token = body["access_token"].as_str().unwrap_or_else(|| panic!("no token: {body}"));
    let parts: Vec<&str> = token.split('.').collect();
    let decode = |part: &str| Base64UrlUnpadded::decode_vec(part).unwrap();
    let (input, _) = token.rsplit_once('.').unwrap();
    let signature = decode(parts[2]);
    assert_eq!(host::verify(world.signing.public(), input.as_bytes(), &signature), Ok(true));
    let parse = |part: &str| serde_json::from_slice(&decode(part)).unwrap();
    (parse(parts[0]), parse(parts[1]))
}

/// `error: error_description` of an answer; `200` where there is no error.
pub(super) fn refusal(response: &Response) -> String {
    let body = json(response);
    match (&body["error"], &body["error_description"]) {
        (Value::String(error), Value::String(description)) => format!("{error}: {description}"),
        _ => response.status.to_string(),
    }
}

/// A world whose pool has a root, with the certificates of one device.
pub(super) struct Fleet {
    pub(super) world: World,
    pub(super) root: Draft,
    pub(super) intermediate: Draft,
    pub(super) leaf: Draft,
    next_jti: Cell<u32>,
}

impl Deref for Fleet {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

pub(super) fn subject(o: &str, cn: &str) -> Vec<u8> {
    builder::name(&[(oid::ORGANIZATION, builder::utf8(o)), (oid::COMMON_NAME, builder::utf8(cn))])
}

impl Fleet {
    fn new(mode: ProvisioningMode) -> Self {
        let mut leaf = Draft::device("the device's key", "intermediate");
        leaf.subject = subject("05243", DEVICE);
        let fleet = Self {
            world: World::new(),
            root: Draft::ca("root", "root"),
            intermediate: Draft::ca("intermediate", "root"),
            leaf,
            next_jti: Cell::new(0),
        };
        let mut pool = fleet.pool_document();
        pool.provisioning.mode = mode;
        pool.provisioning.matching = Some(CertificateMatch::Any);
        pool.provisioning.tags.insert("business_unit_id".to_owned(), "{o}".parse().unwrap());
        fleet.world.put_pool(&pool, WINDOW);
        fleet
    }

    /// A pool that takes in unknown devices, and knows none.
    pub(super) fn auto() -> Self {
        let fleet = Self::new(ProvisioningMode::Auto);
        fleet.platform.kv.borrow_mut().remove(&fleet.client_key().to_string());
        fleet
    }

    /// A pool in the default mode, in which the device has been registered with its client and never been seen.
    pub(super) fn registered() -> Self {
        let fleet = Self::new(ProvisioningMode::Registered);
        fleet.put_device(&fleet.device_document());
        fleet
    }

    /// Gives the pool a revocation list in which nobody stands.
    pub(super) fn listed(self) -> Self {
        self.shards.set(4);
        self.put_list(&RevokedDocument::default());
        self.change_pool(|pool| pool.revocation_shards = 4);
        self
    }

    /// Publishes a list in which only the device stands.
    pub(super) fn revoke_device(&self, revoked: Revoked) {
        let devices = [(device_id(), revoked)].into();
        self.put_list(&RevokedDocument { devices, ..RevokedDocument::default() });
    }

    /// The pool with the root. The policy is that of a new pool.
    pub(super) fn pool_document(&self) -> PoolDocument {
        PoolDocument {
            trust_anchors: vec![anchor(&self.root)],
            device_defaults: DeviceDefaults {
                tags: [("business_unit_id", "*"), ("state", "*")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
                primary_server_url: Some("http://localhost:6140".to_owned()),
                server_urls: vec!["http://localhost:6140".to_owned()],
            },
            ..self.world.pool_document()
        }
    }

    /// Changes the pool, as it stands in KV, and waits until the isolate reads it.
    pub(super) fn change_pool(&self, change: impl FnOnce(&mut PoolDocument)) {
        let text = self.get(&self.pool_key());
        let payload = text.split('.').nth(1).unwrap();
        let mut envelope: Value =
            serde_json::from_slice(&Base64UrlUnpadded::decode_vec(payload).unwrap()).unwrap();
        let mut pool: PoolDocument = serde_json::from_value(envelope["document"].take()).unwrap();
        change(&mut pool);
        self.put_pool(&pool, WINDOW);
        self.advance(31);
    }

    pub(super) fn device_document(&self) -> DeviceDocument {
        DeviceDocument { status: ClientStatus::Enabled, clients: vec![self.client.clone()], pins: None }
    }

    pub(super) fn device_key(&self) -> KvKey {
        KvKey::Device(self.pool, device_id())
    }

    pub(super) fn put_device(&self, document: &DeviceDocument) {
        let key = self.device_key();
        self.put(&key, self.publisher.sign_document(&key, self.stamp(None), document).unwrap());
    }

    /// Publishes the device's document with pins to what its certificate has now.
    pub(super) fn pin(&self) {
        self.put_device(&DeviceDocument {
            pins: Some(CertificatePins {
                organization: Some("05243".to_owned()),
                common_name: Some(DEVICE.to_owned()),
                roots: vec![self.root.anchor().fingerprint()],
            }),
            ..self.device_document()
        });
    }

    /// The client that a new device has by the policy.
    pub(super) fn new_client(&self) -> ClientId {
        ClientId::of_device_app(self.pool, &device_id(), &"client".parse().unwrap())
    }

    pub(super) fn issuer(&self) -> String {
        format!("https://edge.example/{}", self.pool)
    }

    /// A good assertion of the device, not yet signed.
    pub(super) fn assertion(&self) -> Assertion {
        let jti = self.next_jti.replace(self.next_jti.get() + 1);
        Assertion {
            header: value!({"alg": "ES256", "typ": "JWT", "x5c": self.x5c()}),
            claims: value!({
                "iss": DEVICE, "sub": DEVICE, "aud": self.issuer(), "jti": format!("jti-{jti}"),
                "iat": self.platform.now.get().0, "exp": self.platform.now.get().0 + 300,
            }),
            key: builder::key("the device's key"),
        }
    }

    pub(super) fn x5c(&self) -> Vec<String> {
        [&self.leaf, &self.intermediate].map(|draft| Base64::encode_string(&draft.sign())).to_vec()
    }

    pub(super) fn thumbprint(&self) -> Fingerprint {
        Fingerprint::of(&self.leaf.sign())
    }

    /// Asks for a token with this assertion as the grant.
    pub(super) fn grant(&self, assertion: &str) -> Response {
        self.grant_with(assertion, "")
    }

    pub(super) fn grant_with(&self, assertion: &str, more: &str) -> Response {
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
        self.post(&format!("grant_type={grant}&assertion={assertion}{more}"))
    }

    /// Asks for a token with a good assertion, changed.
    pub(super) fn grant_changed(&self, change: impl FnOnce(&mut Assertion)) -> Response {
        let mut assertion = self.assertion();
        change(&mut assertion);
        self.grant(&assertion.sign())
    }

    pub(super) fn grant_good(&self) -> Response {
        self.grant_changed(|_| {})
    }
}

pub(super) fn device_id() -> DeviceId {
    DEVICE.parse().unwrap()
}

pub(super) fn anchor(root: &Draft) -> PoolTrustAnchor {
    PoolTrustAnchor { certificate: CertificateDer::new(root.sign()), replaces: None }
}

/// An assertion to be signed.
pub(super) struct Assertion {
    pub(super) header: Value,
    pub(super) claims: Value,
    pub(super) key: SigningKey,
}

impl Assertion {
    /// Header and claims, encoded.
    pub(super) fn input(&self) -> String {
        let part = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
        format!("{}.{}", part(&self.header), part(&self.claims))
    }

    /// Signs with ES256, whatever the header says.
    pub(super) fn sign(&self) -> String {
        let input = self.input();
        let signature: Signature = self.key.sign(input.as_bytes());
        self.with_signature(&signature.to_bytes())
    }

    pub(super) fn with_signature(&self, signature: &[u8]) -> String {
        format!("{}.{}", self.input(), Base64UrlUnpadded::encode_string(signature))
    }
}
