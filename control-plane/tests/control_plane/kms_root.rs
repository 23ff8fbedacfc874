//! The root in AWS KMS.

use std::sync::Arc;
use std::time::Duration;

use keypost::clock::Clock;
use keypost::crypto_at_rest::MasterKey;
use keypost::entropy::{Entropy, SystemEntropy};
use keypost::kms::Kms;
use keypost::metrics::Metrics;
use keypost::root::{RootError, RootPlace, RootSigner};
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::kv_key::KvKey;
use serde_json::Value;

use crate::support::{
    Around, Emulator, KmsFault, KmsProxy, KvServer, TestApp, TestClock, TestDatabase, TestPublisher,
    encrypting_key, eventually, key_administrator, keypost, kms_at, no_kms, secret, signing_key,
};

/// Longer than `v1/trust` goes without being signed again.
const RESIGN: Duration = Duration::from_secs(6 * 3600 + 60);

async fn load(place: &RootPlace, database: &TestDatabase, kms: &Kms) -> Result<RootSigner, RootError> {
    let (now, rng) = (TestClock::default().now(), SystemEntropy.rng());
    RootSigner::load(place, &database.pool, &MasterKey::parse(&secret(1)).unwrap(), kms, now, rng).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trust_document_is_signed_in_kms_and_outlasts_its_failures() {
    let proxy = KmsProxy::before(Emulator::Moto).await;
    let arn = signing_key(&key_administrator(Emulator::Moto.url().await)).await;
    let app = TestApp::start_with_root(&proxy.url, RootPlace::Kms(arn.to_string())).await;
    let public = kms_at(&proxy.url, &Metrics::new()).public_key(&arn).await.unwrap();
    assert_eq!(app.publisher.root, public);
    app.acme().await;
    let version = async || app.kv.trust(&public).await.unwrap().stamp.version;
    let first = version().await;

    for fault in
        [KmsFault::Refuse("ThrottlingException", vec![]), KmsFault::Refuse("DisabledException", vec![])]
    {
        let (before, asked) = (version().await, proxy.calls("Sign"));
        proxy.set(Some(fault.clone()));
        app.clock.advance(RESIGN);
        eventually("it is tried again", async || proxy.calls("Sign") >= asked + 6).await;
        assert_eq!(version().await, before, "what is published stays: {fault:?}");
        assert_eq!(app.publisher.kms.failing(), 1);
        // Everything else is published as ever.
        app.create("/api/internal/org/acme/env", serde_json::json!({"id": format!("e{asked}"), "name": "E"}))
            .await;
        proxy.set(None);
        // Its pause is counted by the same clock.
        eventually("it is signed again", async || {
            app.clock.advance(Duration::from_secs(1));
            version().await > before
        })
        .await;
        assert_eq!(app.publisher.kms.failing(), 0);
    }
    assert!(version().await > first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_starts_while_kms_is_away_where_it_has_seen_the_root_before() {
    let database = TestDatabase::create().await;
    let metrics = Metrics::new();
    let url = Emulator::Moto.url().await;
    let arn = signing_key(&key_administrator(url)).await;
    for name in [arn.to_string(), arn.as_str().rsplit('/').next().unwrap().to_owned()] {
        let place = RootPlace::Kms(name);
        let fresh = TestDatabase::create().await;
        let error = load(&place, &fresh, &no_kms(&metrics)).await.unwrap_err().to_string();
        assert!(error.contains("KMS cannot be reached"), "{error}");

        let public = load(&place, &database, &kms_at(url, &metrics)).await.unwrap().public().clone();
        let again = load(&place, &database, &no_kms(&metrics)).await.unwrap();
        assert_eq!(*again.public(), public);
        again.try_out().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_cannot_be_the_root_stops_the_start_with_the_reason() {
    let database = TestDatabase::create().await;
    let client = key_administrator(Emulator::Ministack.url().await);
    let kms = kms_at(Emulator::Ministack.url().await, &Metrics::new());
    let refused =
        async |name: String| load(&RootPlace::Kms(name), &database, &kms).await.unwrap_err().to_string();
    let unknown = refused("1234abcd-12ab-34cd-56ef-1234567890ab".to_owned()).await;
    assert!(unknown.starts_with("KEYPOST_ROOT_SIGNER names a key that cannot be the root"), "{unknown}");
    assert!(unknown.ends_with("there is no such key"), "{unknown}");
    let encrypts = refused(encrypting_key(&client).await.to_string()).await;
    assert!(encrypts.contains("ECC_NIST_P256"), "{encrypts}");
    let disabled = signing_key(&client).await;
    client.disable_key().key_id(disabled.as_str()).send().await.unwrap();
    let disabled = refused(disabled.to_string()).await;
    assert!(disabled.ends_with("the key is disabled"), "{disabled}");

    // It is there, and may not be used: found out when it is tried.
    let proxy = KmsProxy::before(Emulator::Ministack).await;
    let arn = signing_key(&client).await;
    let root = load(&RootPlace::Kms(arn.to_string()), &database, &kms_at(&proxy.url, &Metrics::new())).await;
    let root = root.unwrap();
    root.try_out().await.unwrap();
    proxy.set(Some(KmsFault::Refuse("AccessDeniedException", vec!["Sign"])));
    let denied = root.try_out().await.unwrap_err().to_string();
    assert!(denied.contains("the AWS credentials do not allow it"), "{denied}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_root_takes_over_when_the_control_plane_starts_with_it() {
    let database = TestDatabase::create().await;
    let (kv, clock) = (KvServer::start().await, Arc::new(TestClock::default()));
    let local = TestPublisher::start(&database, &kv, &clock).await;
    let signed_by = async |root: &EcPublicJwk| kv.trust(root).await.is_ok();
    eventually("the local root signs", async || signed_by(&local.root).await).await;
    let old = local.root.clone();
    local.stop().await;

    let url = Emulator::Moto.url().await;
    let arn = signing_key(&key_administrator(url)).await;
    clock.advance(Duration::from_secs(60));
    let around = Around { kms_url: Some(url), root: RootPlace::Kms(arn.to_string()), ..Around::default() };
    let kms = TestPublisher::start_amid(&database, &kv, &clock, around).await;
    assert_ne!(kms.root, old);
    eventually("the root in KMS signs", async || signed_by(&kms.root).await).await;
    kms.stop().await;

    // And back, as long as the Worker pins both.
    clock.advance(Duration::from_secs(60));
    let local = TestPublisher::start(&database, &kv, &clock).await;
    assert_eq!(local.root, old);
    eventually("the local root signs again", async || signed_by(&old).await).await;
    let version = kv.get(&KvKey::Trust).unwrap().metadata.version;
    local.stop().await;
    let local = TestPublisher::start(&database, &kv, &clock).await;
    local.stop().await;
    assert_eq!(kv.get(&KvKey::Trust).unwrap().metadata.version, version, "a start alone signs nothing again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_show_prints_the_public_half_of_the_key_in_kms() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let url = Emulator::Moto.url().await;
    let arn = signing_key(&key_administrator(url)).await;
    let command = |arguments: &[&str], root: &str| {
        let mut command = keypost(&database, &kv, arguments);
        command
            .env("KEYPOST_ROOT_SIGNER", root)
            .env("AWS_ENDPOINT_URL_KMS", url)
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test");
        command
    };
    let shown = command(&["root", "show"], arn.as_str()).output().await.unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let jwk: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let public = kms_at(url, &Metrics::new()).public_key(&arn).await.unwrap();
    assert_eq!(jwk["x"], public.x);
    assert_eq!(jwk["kid"], public.thumbprint().as_str());
    assert!(jwk.get("d").is_none());

    let refused = command(&["serve"], "1234abcd-12ab-34cd-56ef-1234567890ab").output().await.unwrap();
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("KEYPOST_ROOT_SIGNER names a key that cannot be the root"), "{told}");
}
