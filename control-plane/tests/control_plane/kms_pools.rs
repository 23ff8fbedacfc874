//! Pools whose keys are kept with AWS KMS.

use std::time::Duration;

use aws_sdk_kms::Client;
use axum::http::StatusCode;
use keypost::clock::Clock;
use keypost::entropy::{Entropy, SystemEntropy};
use keypost::envelope::Envelopes;
use keypost::root::{RootError, RootPlace, RootSigner};
use keypost::service::access::Permission;
use keypost::signing_keys::SigningKeys;
use keypost_shared::crypto::Crypto;
use keypost_shared::document::{PoolDocument, PrivateHalf};
use keypost_shared::host::{self, HostCrypto, PrivateKey};
use keypost_shared::jwe::{SealingKey, SplitJwe};
use keypost_shared::jws::{JwsHeader, UnverifiedJws};
use keypost_shared::kms::KmsKeyArn;
use keypost_shared::kv_key::KvKey;
use keypost_shared::status_list::{StatusBits, StatusListClaims};
use serde_json::{Value, json};

use crate::support::{
    Answer, Emulator, KmsFault, KmsProxy, TestApp, UNPUBLISHED_KEYS, encrypting_key, eventually,
    key_administrator, kms_at, secret, signing_key,
};

const POOL_PATH: &str = "/api/internal/org/acme/env/prod/pool";
/// A little more than a key stands before it signs.
const STAND: Duration = Duration::from_secs(3700);

/// A control plane with one environment, and KMS behind a proxy.
struct Setting {
    app: TestApp,
    proxy: KmsProxy,
    client: Client,
    pool: KvKey,
}

impl Setting {
    async fn new(emulator: Emulator) -> Self {
        let proxy = KmsProxy::before(emulator).await;
        let app = TestApp::start_with_kms(&proxy.url).await;
        let environment = app.acme().await;
        let pool = KvKey::Pool(environment["clientPoolId"].as_str().unwrap().parse().unwrap());
        Self { app, proxy, client: key_administrator(emulator.url().await), pool }
    }

    async fn patch(&self, body: Value) -> Answer {
        self.app.call("PATCH", POOL_PATH, Some(body)).await
    }

    async fn name(&self, mode: &str, key: &str) -> Answer {
        self.patch(json!({"keyBackend": "aws_kms", "keyMode": mode, "kmsKeyId": key})).await
    }

    async fn named(&self, mode: &str, key: &KmsKeyArn) {
        let answer = self.name(mode, key.as_str()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_eq!(answer.json()["kmsKeyId"], key.as_str());
    }

    /// Looks after the keys, and says how many pools could not be seen to.
    async fn round(&self) -> usize {
        let keys = SigningKeys { context: self.app.context.clone(), interval: Duration::from_secs(1) };
        keys.round().await.unwrap().failed
    }

    async fn document(&self) -> PoolDocument {
        self.app.kv.verified::<PoolDocument>(&self.app.publisher.root, &self.pool).await.unwrap().document
    }

    /// The pool's document, once `wanted` says yes to it. The schedule runs, and the time with it.
    async fn until(&self, what: &str, wanted: impl Fn(&PoolDocument) -> bool) -> PoolDocument {
        eventually(what, async || {
            self.app.clock.advance(Duration::from_secs(1));
            self.round().await;
            wanted(&self.document().await)
        })
        .await;
        self.document().await
    }

    /// Rotates until `wanted` says yes to the document.
    async fn rotated(&self, what: &str, wanted: impl Fn(&PoolDocument) -> bool) -> PoolDocument {
        self.next_key_has_stood().await;
        self.until(what, wanted).await
    }

    /// Has a next key published, and lets it stand for its time.
    async fn next_key_has_stood(&self) {
        let known = self.document().await.jwks.keys.len();
        self.until("a next key is published", |document| document.jwks.keys.len() > known).await;
        self.known_to_be_published().await;
        self.app.clock.advance(STAND);
    }

    /// Waits until the control plane knows of every key that KV has it: only from then on does it count as standing there.
    async fn known_to_be_published(&self) {
        let none_waits = async || self.app.database.number(UNPUBLISHED_KEYS).await == 0;
        eventually("no key waits to be published", none_waits).await;
    }

    fn open(&self, document: &PoolDocument) -> PrivateKey {
        let key = document.signing_key.as_ref().unwrap();
        let PrivateHalf::Jwe(jwe) = &key.private else { panic!("not sealed") };
        let sealing_key = SealingKey::parse_list(&secret(2)).unwrap().remove(0);
        let jwe = SplitJwe::parse(jwe).unwrap();
        let opened = futures_util::FutureExt::now_or_never(HostCrypto.open_signing_key(&sealing_key, &jwe));
        opened.unwrap().unwrap()
    }
}

fn in_kms(document: &PoolDocument) -> Option<&KmsKeyArn> {
    match &document.signing_key.as_ref()?.private {
        PrivateHalf::Kms(arn) => Some(arn),
        PrivateHalf::Jwe(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mode_envelope_a_key_is_made_here_and_opened_by_kms_once() {
    let setting = Setting::new(Emulator::Moto).await;
    let arn = encrypting_key(&setting.client).await;
    let local = setting.document().await.signing_key.unwrap().kid;
    setting.named("envelope", &arn).await;
    assert_eq!(setting.document().await.signing_key.unwrap().kid, local, "naming a key rotates nothing yet");
    let document = setting.rotated("the new key signs", |document| {
        document.signing_key.as_ref().is_some_and(|key| key.kid != local)
    });
    let document = document.await;
    let kid = &document.signing_key.as_ref().unwrap().kid;
    assert_eq!(setting.open(&document).kid(), kid);
    assert!(document.jwks.keys.iter().any(|key| key.kid == local), "the one before retires");
    let sql = "select count(*) from signing_key where backend = 'aws_kms' and key_mode = 'envelope'
                  and octet_length(kms_data_key) > 32 and octet_length(private_sealed) = 60";
    eventually("there is a next one", async || {
        setting.round().await;
        setting.app.database.number(sql).await >= 2
    })
    .await;

    // From here on KMS is needed no more, whatever is published, until the next rotation.
    let calls = setting.proxy.all_calls();
    for device in 0..10 {
        setting.app.device(&format!("till-{device}")).await;
        setting.app.clock.advance(Duration::from_secs(6 * 3600 + 60));
        setting.round().await;
    }
    let version = setting.app.kv.get(&setting.pool).unwrap().metadata.version;
    setting.patch(json!({"audience": ["x"]})).await;
    eventually("the pool is published again", async || {
        setting.app.kv.get(&setting.pool).unwrap().metadata.version > version
    })
    .await;
    assert_eq!(setting.proxy.all_calls(), calls);
    // One to try the key when it was named, one for the key that signs.
    assert_eq!(setting.proxy.calls("Decrypt"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mode_kms_sign_the_named_key_comes_next_and_kms_makes_those_that_follow() {
    let setting = Setting::new(Emulator::Moto).await;
    let arn = signing_key(&setting.client).await;
    setting.named("kms_sign", &arn).await;
    let document = setting.rotated("the named key signs", |document| in_kms(document) == Some(&arn)).await;
    let kid = document.signing_key.unwrap().kid;
    let public = setting.app.publisher.kms.public_key(&arn).await.unwrap();
    assert_eq!(public.thumbprint(), kid);
    // Beside the one that signs, the local one that retires, and the local one that was to be next.
    setting.until("a next one is made and published", |document| document.jwks.keys.len() == 4).await;
    assert_eq!(setting.proxy.calls("CreateKey"), 1);
    setting.known_to_be_published().await;

    setting.app.clock.advance(Duration::from_secs(31 * 86_400));
    let document =
        setting.until("the next one signs", |document| in_kms(document).is_some_and(|key| *key != arn)).await;
    let next = in_kms(&document).unwrap();
    let tags = setting.client.list_resource_tags().key_id(next.as_str()).send().await.unwrap();
    assert!(tags.tags().iter().any(|tag| tag.tag_key() == "keypost:pool"));
    eventually("another one is made", async || {
        setting.round().await;
        setting.proxy.calls("CreateKey") == 2
    })
    .await;
    // The control plane has the status list signed, and nothing else: devices cost no call.
    let pool = setting.pool.pool().unwrap();
    let list = KvKey::Status(pool, 0);
    eventually("KMS has signed the status list", async || {
        let list = setting.app.kv.get(&list).unwrap();
        let header = UnverifiedJws::<JwsHeader>::parse(&list.value).unwrap().header;
        header.kid == document.signing_key.as_ref().unwrap().kid
    })
    .await;
    let signed = setting.proxy.calls("Sign");
    for number in 0..5 {
        setting.app.device(&format!("pos-{number}")).await;
    }
    eventually("the devices are published", async || {
        let waiting = "select count(*) from publication where generation > published_generation";
        setting.app.database.number(waiting).await == 0
    })
    .await;
    assert_eq!(setting.proxy.calls("Sign"), signed);

    // What has signed serves no second time.
    let again = setting.patch(json!({"keyBackend": "local", "keyMode": null, "kmsKeyId": null})).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.text);
    setting.name("kms_sign", arn.as_str()).await.assert_field(400, "kmsKeyId", "a key serves once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_kms_makes_no_key_the_one_that_signs_goes_on() {
    let setting = Setting::new(Emulator::Moto).await;
    let arn = signing_key(&setting.client).await;
    setting.named("kms_sign", &arn).await;
    setting.proxy.set(Some(KmsFault::Refuse("AccessDeniedException", vec!["CreateKey"])));
    setting.rotated("the named key signs", |document| in_kms(document) == Some(&arn)).await;
    eventually("a next one is refused", async || {
        setting.app.clock.advance(Duration::from_secs(30));
        setting.round().await > 0
    })
    .await;
    assert_eq!(setting.app.publisher.kms.failing(), 1);
    setting.app.clock.advance(Duration::from_secs(31 * 86_400));
    setting.round().await;
    eventually("it is published yet", async || {
        setting.app.clock.advance(Duration::from_secs(1));
        let stamp = setting.app.kv.verified::<PoolDocument>(&setting.app.publisher.root, &setting.pool).await;
        stamp.is_ok_and(|verified| {
            verified.stamp.next_update.unwrap().0 > setting.app.clock.now().unix_timestamp()
        })
    })
    .await;
    assert_eq!(in_kms(&setting.document().await), Some(&arn));
    setting.proxy.set(None);
    let kms = setting.app.publisher.kms.clone();
    setting.until("a next one is made", |document| document.jwks.keys.len() > 1 && kms.failing() == 0).await;
    assert_eq!(in_kms(&setting.document().await), Some(&arn), "it stands for its hour first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_stays_while_kms_does_not_open_a_key() {
    let setting = Setting::new(Emulator::Moto).await;
    let arn = encrypting_key(&setting.client).await;
    setting.named("envelope", &arn).await;
    let local = setting.document().await.signing_key.unwrap().kid;
    // Never opened in this process: what a control plane meets that has just started.
    setting.proxy.set(Some(KmsFault::Refuse("DisabledException", vec!["Decrypt"])));
    setting.next_key_has_stood().await;
    let asked = setting.proxy.calls("Decrypt");
    eventually("KMS is asked again and again", async || {
        setting.app.clock.advance(Duration::from_secs(1));
        setting.round().await;
        setting.proxy.calls("Decrypt") > asked + 3
    })
    .await;
    assert_eq!(setting.document().await.signing_key.unwrap().kid, local, "what is published stays");
    assert_eq!(setting.app.publisher.kms.failing(), 1);
    let sync = setting.app.call("GET", "/api/internal/sync", None).await.json();
    let told = sync["lastError"].as_str().unwrap();
    assert!(told.contains("the key is disabled"), "{told}");
    // Others are published meanwhile.
    setting.app.create("/api/internal/org/acme/env", json!({"id": "other", "name": "Other"})).await;
    setting.proxy.set(None);
    setting
        .until("the new key signs", |document| {
            document.signing_key.as_ref().is_some_and(|key| key.kid != local)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kms_key_is_checked_when_it_is_named() {
    let setting = Setting::new(Emulator::Ministack).await;
    let (signs, encrypts) = (signing_key(&setting.client).await, encrypting_key(&setting.client).await);
    let disabled = encrypting_key(&setting.client).await;
    setting.client.disable_key().key_id(disabled.as_str()).send().await.unwrap();
    for (mode, key, told) in [
        ("kms_sign", encrypts.as_str(), "ECC_NIST_P256"),
        ("envelope", signs.as_str(), "SYMMETRIC_DEFAULT"),
        ("envelope", disabled.as_str(), "disabled"),
        ("envelope", "1234abcd-12ab-34cd-56ef-1234567890ab", "no such key"),
    ] {
        setting.name(mode, key).await.assert_field(400, "kmsKeyId", told);
    }
    for (body, field) in [
        (json!({"keyBackend": "aws_kms"}), "keyMode"),
        (json!({"keyBackend": "aws_kms", "keyMode": "envelope"}), "kmsKeyId"),
        (json!({"keyMode": "envelope"}), "keyMode"),
        (json!({"kmsKeyId": "alias/a"}), "kmsKeyId"),
        (json!({"keyBackend": "vault"}), "keyBackend"),
        (json!({"keyBackend": "aws_kms", "keyMode": "sign", "kmsKeyId": "a"}), "keyMode"),
        (json!({"keyBackend": "aws_kms", "keyMode": "envelope", "kmsKeyId": "a b"}), "kmsKeyId"),
        (json!({"keyBackend": "aws_kms", "keyMode": "envelope", "kmsKeyId": ""}), "kmsKeyId"),
    ] {
        setting.patch(body).await.assert_field(400, field, "");
    }
    setting.proxy.set(Some(KmsFault::Refuse("AccessDeniedException", vec!["GenerateDataKey"])));
    setting.name("envelope", encrypts.as_str()).await.assert_field(400, "kmsKeyId", "credentials");
    setting.proxy.set(Some(KmsFault::Refuse("ThrottlingException", vec![])));
    let busy = setting.name("envelope", encrypts.as_str()).await;
    busy.assert_problem(503, "kms_unavailable");
    assert!(busy.headers.contains_key("retry-after"));
    setting.proxy.set(None);
    assert_eq!(setting.app.publisher.kms.failing(), 0, "nothing that is needed fails");
    let pool = setting.app.call("GET", POOL_PATH, None).await.json();
    assert_eq!(pool["keyBackend"], "local");

    // By its alias too; what is kept is its ARN.
    setting
        .client
        .create_alias()
        .alias_name("alias/pool")
        .target_key_id(encrypts.as_str())
        .send()
        .await
        .unwrap();
    let named = setting.name("envelope", "alias/pool").await;
    assert_eq!(named.json()["kmsKeyId"], encrypts.as_str(), "{}", named.text);
    // Saying it again changes nothing.
    let version = named.headers["etag"].clone();
    let again = setting.name("envelope", encrypts.as_str()).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_ne!(again.headers["etag"], version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_global_admin_key_names_a_kms_key() {
    let setting = Setting::new(Emulator::Moto).await;
    let arn = encrypting_key(&setting.client).await;
    let body = json!({"keyBackend": "aws_kms", "keyMode": "envelope", "kmsKeyId": arn.as_str()});
    let organizations = setting.app.key(Some("acme"), None).await;
    let narrow = setting.app.key(None, Some(&[Permission::OrgRead])).await;
    let asked = setting.proxy.all_calls();
    for key in [&organizations, &narrow] {
        let refused = setting.app.call_with(key, "PATCH", POOL_PATH, Some(body.clone())).await;
        refused.assert_problem(403, "forbidden");
    }
    assert_eq!(setting.proxy.all_calls(), asked, "KMS is not asked for them");
    // What they may change, they may, also where the body repeats what is so already.
    let rules = json!({"keyBackend": "local", "keyMode": null, "kmsKeyId": null, "audience": ["x"]});
    let answer = setting.app.call_with(&organizations, "PATCH", POOL_PATH, Some(rules)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    setting.named("envelope", &arn).await;
    let back = json!({"keyBackend": "local", "keyMode": null, "kmsKeyId": null});
    let refused = setting.app.call_with(&organizations, "PATCH", POOL_PATH, Some(back)).await;
    refused.assert_problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_kms_key_serves_one_pool_and_never_the_root() {
    let proxy = KmsProxy::before(Emulator::Moto).await;
    let client = key_administrator(Emulator::Moto.url().await);
    let root = signing_key(&client).await;
    let app = TestApp::start_with_root(&proxy.url, RootPlace::Kms(root.to_string())).await;
    app.acme().await;
    for env in ["a", "b", "c", "d"] {
        app.create("/api/internal/org/acme/env", json!({"id": env, "name": env})).await;
    }
    let name = async |env: &str, mode: &str, key: &KmsKeyArn| {
        let path = format!("/api/internal/org/acme/env/{env}/pool");
        let body = json!({"keyBackend": "aws_kms", "keyMode": mode, "kmsKeyId": key.as_str()});
        app.call("PATCH", &path, Some(body)).await
    };
    name("a", "kms_sign", &root).await.assert_field(409, "kmsKeyId", "taken");
    for (mode, key) in [("kms_sign", signing_key(&client).await), ("envelope", encrypting_key(&client).await)]
    {
        let answers = tokio::join!(
            name("a", mode, &key),
            name("b", mode, &key),
            name("c", mode, &key),
            name("d", mode, &key)
        );
        let mut statuses = [answers.0.status, answers.1.status, answers.2.status, answers.3.status];
        statuses.sort();
        let [done, refused @ ..] = statuses;
        assert_eq!(done, StatusCode::OK, "{mode}");
        assert_eq!(refused, [StatusCode::CONFLICT; 3], "{mode}");
    }
    // A pool's key cannot become the root either.
    let mine = signing_key(&client).await;
    assert_eq!(name("a", "kms_sign", &mine).await.status, StatusCode::OK);
    let kms = kms_at(&proxy.url, &app.publisher.metrics);
    let place = RootPlace::Kms(mine.to_string());
    let (now, rng) = (app.clock.now(), SystemEntropy.rng());
    let context = &app.context;
    let taken = RootSigner::load(&place, &context.db, &context.master_key, &kms, now, rng).await;
    assert!(matches!(taken, Err(RootError::IsOfAPool)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_open_stay_open() {
    let setting = Setting::new(Emulator::Moto).await;
    let envelopes = Envelopes::new(setting.app.publisher.kms.clone());
    assert!(envelopes.open(Vec::new()).await.is_empty());
    assert_eq!(setting.proxy.all_calls(), 0, "nothing is asked where no pool has its key in KMS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lists_of_a_deleted_pool_are_signed_by_kms_once_more_or_it_goes_without_them() {
    for (mode, kms_answers) in [("kms_sign", true), ("envelope", true), ("kms_sign", false)] {
        let setting = Setting::new(Emulator::Moto).await;
        let local = setting.document().await.signing_key.unwrap().kid;
        let arn = match mode {
            "kms_sign" => signing_key(&setting.client).await,
            _ => encrypting_key(&setting.client).await,
        };
        setting.named(mode, &arn).await;
        let document = setting
            .rotated("the key in KMS signs", |document| {
                document.signing_key.as_ref().is_some_and(|key| key.kid != local)
            })
            .await;
        let kid = document.signing_key.as_ref().unwrap().kid.clone();
        setting.app.device("till-1").await;
        if !kms_answers {
            setting.proxy.set(Some(KmsFault::Refuse("AccessDeniedException", vec![])));
        }
        let path = "/api/internal/org/acme/env/prod?cascade=true";
        let gone = setting.app.call("DELETE", path, None).await;
        assert_eq!(gone.status, StatusCode::NO_CONTENT, "{mode}: {}", gone.text);
        eventually("the pool's last document", async || setting.document().await.deleted).await;
        let document = setting.document().await;
        let list = KvKey::Status(setting.pool.pool().unwrap(), 0);
        if !kms_answers {
            assert_eq!(document.status_lists, 0);
            eventually("no list", async || setting.app.kv.get(&list).is_none()).await;
            continue;
        }
        assert_eq!(document.status_lists, 1);
        let all_revoked = StatusBits::all_revoked().compress();
        eventually("every bit is set", async || {
            let stored = setting.app.kv.get(&list).unwrap();
            let jws = UnverifiedJws::<JwsHeader>::parse(&stored.value).unwrap();
            let claims: StatusListClaims = jws.payload().unwrap();
            let key = document.jwks.keys.iter().find(|key| key.kid == kid).unwrap();
            assert!(host::verify(&key.key, jws.signing_input(), jws.signature()).unwrap(), "{mode}");
            claims.status_list == all_revoked
        })
        .await;
    }
}
