//! What somebody can do who has got hold of the KV namespace: deny service, and nothing else.

use keypost_shared::document::{PoolDocument, Stamp};
use keypost_shared::host::PrivateKey;
use keypost_shared::jwk::JwkSet;
use keypost_shared::kv_key::KvKey;
use keypost_shared::time::UnixTime;
use keypost_tests::admin::{Credentials, Fleet};
use keypost_tests::{edge, stack, wait};
use std::time::Duration;

const UNAVAILABLE: &str = "503 temporarily_unavailable";

/// Changes one character in the middle of a JWS part.
fn spoil(document: &str, part: usize) -> String {
    let mut parts: Vec<String> = document.split('.').map(ToOwned::to_owned).collect();
    let middle = parts[part].len() / 2;
    let replacement = if parts[part].as_bytes()[middle] == b'A' { "B" } else { "A" };
    parts[part].replace_range(middle..=middle, replacement);
    parts.join(".")
}

fn pool_key(fleet: &Fleet) -> String {
    format!("v1/pool/{}", fleet.pool())
}

fn client_key(fleet: &Fleet, credentials: &Credentials) -> String {
    format!("v1/client/{}/{}", fleet.pool(), credentials.client_id)
}

#[tokio::test]
async fn a_pool_document_with_one_byte_changed_issues_nothing_and_the_client_is_not_told_why() {
    let stack = stack::shared().await;
    for part in 0..3 {
        // A pool that no isolate holds yet.
        let fleet = stack.admin().fleet(&format!("spoilt-pool-{part}")).await;
        let credentials = fleet.activated("pos-1").await;
        let document = stack.kv().must_get(&pool_key(&fleet)).await;
        stack.kv().put(&pool_key(&fleet), &spoil(&document, part)).await;
        let reply = edge::token(&credentials).await;
        assert_eq!(reply.outcome(), UNAVAILABLE, "part {part}");
        assert!(reply.header("retry-after").is_some());
        let told = reply.body.to_string();
        assert!(!told.contains("signature") && !told.contains("v1/pool"), "{told}");
        stack.worker_logs("document_refused", &pool_key(&fleet)).await;
        stack.kv().put(&pool_key(&fleet), &document).await;
        assert_eq!(edge::token(&credentials).await.outcome(), "200", "and comes back by itself");
    }
}

#[tokio::test]
async fn a_client_record_with_one_byte_changed_is_nobody() {
    let stack = stack::shared().await;
    let fleet = stack.admin().fleet("spoilt-client").await;
    for part in 0..3 {
        let credentials = fleet.activated(&format!("pos-{part}")).await;
        let key = client_key(&fleet, &credentials);
        let document = stack.kv().must_get(&key).await;
        stack.kv().put(&key, &spoil(&document, part)).await;
        assert_eq!(edge::token(&credentials).await.outcome(), "401 invalid_client", "part {part}");
        stack.worker_logs("document_refused", &key).await;
    }
}

#[tokio::test]
async fn a_document_moved_to_another_key_does_not_count_there() {
    let stack = stack::shared().await;
    let (ours, theirs) = (stack.admin().fleet("moved-a").await, stack.admin().fleet("moved-b").await);
    let (a, b) = (ours.activated("pos-1").await, theirs.activated("pos-1").await);
    let kv = stack.kv();

    // The attacker's own client record, under another pool and under another client.
    let record = kv.must_get(&client_key(&ours, &a)).await;
    kv.put(&format!("v1/client/{}/{}", theirs.pool(), a.client_id), &record).await;
    let smuggled = Credentials { token_endpoint: b.token_endpoint.clone(), ..a.clone() };
    assert_eq!(edge::token(&smuggled).await.outcome(), "401 invalid_client");
    kv.put(&client_key(&theirs, &b), &record).await;
    assert_eq!(edge::token(&b).await.outcome(), "401 invalid_client");

    // The attacker's own pool in the place of another, which no isolate holds yet.
    let fresh = stack.admin().fleet("moved-c").await;
    let c = fresh.activated("pos-1").await;
    kv.put(&pool_key(&fresh), &kv.must_get(&pool_key(&ours)).await).await;
    assert_eq!(edge::token(&c).await.outcome(), UNAVAILABLE);
}

#[tokio::test]
async fn a_document_signed_by_another_key_does_not_count() {
    let stack = stack::shared().await;
    let fleet = stack.admin().fleet("forged").await;
    let credentials = fleet.activated("pos-1").await;
    let forger = PrivateKey::generate(&mut rand_core::OsRng);
    let key: KvKey = pool_key(&fleet).parse().unwrap();
    let now = UnixTime(i64::try_from(stack::unix_now()).unwrap());
    let document = PoolDocument {
        kind: keypost_shared::document::PoolKind::Device,
        issuer: credentials.issuer.clone(),
        token_ttl: 3600,
        longest_token_ttl: 3600,
        claims_profile: keypost_shared::document::ClaimsProfile::Device,
        audience: vec![],
        jwks: JwkSet { keys: vec![keypost_shared::jwk::Jwk::es256(forger.public().clone())] },
        signing_key: None,
        cors_origins: vec![],
        trust_anchors: vec![],
        denied_certificates: vec![],
        provisioning: Default::default(),
        device_defaults: Default::default(),
        bind_to_certificate: false,
        revocation_shards: 0,
        status_lists: 0,
        sign_in_url: None,
        deleted: false,
    };
    let stamp = Stamp { version: u64::MAX / 2, iat: now, next_update: Some(now + 3600) };
    stack.kv().put(&pool_key(&fleet), &forger.sign_document(&key, stamp, &document).unwrap()).await;
    assert_eq!(edge::token(&credentials).await.outcome(), UNAVAILABLE);
    assert_eq!(
        edge::get(&credentials.jwks_uri).await.outcome(),
        UNAVAILABLE,
        "the forger's key set is not served"
    );
    stack.worker_logs("document_refused", "is not trusted").await;
}

#[tokio::test]
async fn missing_documents_issue_nothing() {
    let stack = stack::shared().await;
    let fleet = stack.admin().fleet("missing").await;
    let credentials = fleet.activated("pos-1").await;
    stack.kv().delete(&client_key(&fleet, &credentials)).await;
    assert_eq!(edge::token(&credentials).await.outcome(), "401 invalid_client");
    let fleet = stack.admin().fleet("missing-pool").await;
    let credentials = fleet.activated("pos-1").await;
    stack.kv().delete(&pool_key(&fleet)).await;
    assert_eq!(edge::token(&credentials).await.status, 404);
}

#[tokio::test]
async fn a_spoilt_forged_or_missing_trust_stops_a_worker_that_holds_no_other() {
    let mut stack = stack::own("trust").await;
    let fleet = stack.admin().fleet("trust").await;
    let credentials = fleet.activated("pos-1").await;
    assert_eq!(edge::token(&credentials).await.outcome(), "200");
    let kv = stack.kv();
    let trust = kv.must_get("v1/trust").await;
    // Nothing may put it right again behind the test's back.
    stack.stop_control_plane();

    kv.put("v1/trust", &spoil(&trust, 1)).await;
    assert_eq!(edge::token(&credentials).await.outcome(), "200", "a verified copy is not displaced");

    let forger = PrivateKey::generate(&mut rand_core::OsRng);
    let now = UnixTime(i64::try_from(stack::unix_now()).unwrap());
    let stamp = Stamp { version: u64::MAX / 2, iat: now, next_update: Some(now + 3600) };
    let document = keypost_shared::document::TrustDocument { publisher_keys: vec![forger.public().clone()] };
    let forged = forger.sign_document(&KvKey::Trust, stamp, &document).unwrap();
    for (what, text) in [("spoilt", Some(spoil(&trust, 1))), ("forged", Some(forged)), ("missing", None)] {
        match text {
            Some(text) => kv.put("v1/trust", &text).await,
            None => kv.delete("v1/trust").await,
        }
        stack.restart_worker().await;
        assert_eq!(edge::token(&credentials).await.outcome(), UNAVAILABLE, "{what}");
    }
    kv.put("v1/trust", &trust).await;
    assert_eq!(edge::token(&credentials).await.outcome(), "200");
}

#[tokio::test]
async fn past_next_update_the_edge_refuses_the_pool_and_comes_back_by_itself() {
    let mut stack = stack::own("staleness").await;
    let fleet = stack.admin().fleet("staleness").await;
    let credentials = fleet.activated("pos-1").await;
    fleet.admin.patch(&format!("{}/pool", fleet.path), serde_json::json!({"maxStalenessSeconds": 10})).await;
    // Signed again at a quarter of the window, the pool stays usable well past it.
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(15) {
        assert_eq!(edge::token(&credentials).await.outcome(), "200");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stack.stop_control_plane();
    wait::until("the pool to expire", Duration::from_secs(60), || async {
        let outcome = edge::token(&credentials).await.outcome();
        if outcome == UNAVAILABLE { Ok(()) } else { Err(outcome) }
    })
    .await;
    assert_eq!(
        edge::get(&credentials.jwks_uri).await.outcome(),
        "200",
        "verifiers go on for a token's lifetime"
    );
    stack.start_control_plane().await;
    wait::until("the pool to come back", Duration::from_secs(90), || async {
        let outcome = edge::token(&credentials).await.outcome();
        if outcome == "200" { Ok(()) } else { Err(outcome) }
    })
    .await;
}
