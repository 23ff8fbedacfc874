//! Activation: one-time passwords become client secrets, once.

use std::collections::BTreeSet;
use std::time::Duration;

use keypost_shared::document::ClientDocument;
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::SecretText;
use serde_json::{Value, json};

use crate::support::{Answer, Fault, TestApp, eventually};

fn client_key(activated: &Value) -> KvKey {
    let pool = activated["issuer"].as_str().unwrap().rsplit('/').next().unwrap();
    KvKey::Client(pool.parse().unwrap(), activated["clientId"].as_str().unwrap().parse().unwrap())
}

async fn client(app: &TestApp, activated: &Value) -> ClientDocument {
    let verified = app.kv.verified::<ClientDocument>(&app.publisher.root, &client_key(activated)).await;
    verified.unwrap().document
}

fn assert_invalid_otp(answer: &Answer) {
    answer.assert_problem(400, "invalid_otp");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_gets_its_client_once_the_client_is_in_kv() {
    let app = TestApp::start().await;
    let environment = app.acme().await;
    let path = app.device("pos-1").await;
    let made = app.call("POST", &format!("{path}/otp"), Some(json!({"ttlSeconds": 120}))).await.json();
    assert_eq!(made["activationUrl"], "https://keypost.test/api/otp/activate");
    let otp = made["otp"].as_str().unwrap();
    assert_eq!(otp.len(), 10);

    let answer = app.activate(json!({"otp": otp, "deviceId": "pos-1"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let activated = answer.json();
    let names: BTreeSet<&str> = activated.as_object().unwrap().keys().map(String::as_str).collect();
    let documented = [
        "clientId",
        "clientSecret",
        "tokenEndpoint",
        "issuer",
        "jwksUri",
        "revocationEndpoint",
        "deviceId",
        "organizationId",
        "environmentId",
        "clientAppId",
        "scopes",
        "published",
    ];
    assert_eq!(names, BTreeSet::from(documented));
    for (name, expected) in [
        ("issuer", &environment["issuer"]),
        ("tokenEndpoint", &environment["tokenEndpoint"]),
        ("jwksUri", &environment["jwksUri"]),
        ("deviceId", &json!("pos-1")),
        ("organizationId", &json!("acme")),
        ("environmentId", &json!("prod")),
        ("clientAppId", &json!("client")),
        ("scopes", &json!(["device"])),
        ("published", &json!(true)),
    ] {
        assert_eq!(&activated[name], expected, "{name}");
    }
    assert_eq!(
        activated["revocationEndpoint"],
        format!("{}/oauth2/revoke", environment["issuer"].as_str().unwrap())
    );

    let secret = SecretText::new(activated["clientSecret"].as_str().unwrap().to_owned());
    assert_eq!(secret.expose().len(), 43);
    let document = client(&app, &activated).await;
    assert_eq!(document.secrets.len(), 1);
    assert!(document.secrets[0].sha256.matches(&secret.hash()));

    let device = app.call("GET", "/api/internal/org/acme/env/prod/device/pos-1", None).await.json();
    assert_eq!(device["status"], "active");
    assert!(device["lastActivatedAt"].is_string());
    assert_eq!(app.call("GET", &path, None).await.json()["activated"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_read_as_people_type_it() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    let otp = app.otp(&path).await.to_lowercase();
    let typed = format!(" {}-{} ", &otp[..5], &otp[5..]);
    assert_eq!(app.activate(json!({"otp": typed})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_activations_at_once_exactly_one_wins() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    for _ in 0..5 {
        let otp = app.otp(&path).await;
        let body = || json!({"otp": otp, "deviceId": "pos-1"});
        let (a, b, c, d) = tokio::join!(
            app.activate_from("192.0.2.1", body()),
            app.activate_from("192.0.2.2", body()),
            app.activate_from("192.0.2.3", body()),
            app.activate_from("192.0.2.4", body()),
        );
        let (won, lost): (Vec<_>, Vec<_>) = [a, b, c, d].into_iter().partition(|answer| answer.status == 200);
        assert_eq!(won.len(), 1);
        lost.iter().for_each(assert_invalid_otp);
        let secret = SecretText::new(won[0].json()["clientSecret"].as_str().unwrap().to_owned());
        let document = client(&app, &won[0].json()).await;
        assert!(
            document.secrets[0].sha256.matches(&secret.hash()),
            "the winner's secret is the one that counts"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_used_expired_and_replaced_passwords_look_the_same() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;

    let used = app.otp(&path).await;
    assert_eq!(app.activate(json!({"otp": used})).await.status, 200);
    let replaced = app.otp(&path).await;
    let expired = app.otp(&path).await;
    app.clock.advance(Duration::from_secs(901));
    let mut answers = Vec::new();
    for otp in
        [used.as_str(), &replaced, &expired, "0000000000", "short", "", "not base32!", &"x".repeat(5000)]
    {
        let answer = app.activate(json!({"otp": otp})).await;
        assert_invalid_otp(&answer);
        answers.push(answer.text);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fifth_try_with_a_wrong_device_ends_a_password() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    app.device("pos-2").await;

    let otp = app.otp(&path).await;
    for _ in 0..4 {
        assert_invalid_otp(&app.activate(json!({"otp": otp, "deviceId": "pos-2"})).await);
    }
    assert_eq!(
        app.activate(json!({"otp": otp, "deviceId": "pos-1"})).await.status,
        200,
        "four were not too many"
    );

    let otp = app.otp(&path).await;
    for _ in 0..5 {
        assert_invalid_otp(&app.activate(json!({"otp": otp, "deviceId": "nobody"})).await);
    }
    assert_invalid_otp(&app.activate(json!({"otp": otp, "deviceId": "pos-1"})).await);
    let fresh = app.otp(&path).await;
    assert_eq!(app.activate(json!({"otp": fresh})).await.status, 200, "a new one starts afresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_activation_replaces_the_secret_and_the_old_one_lasts_ten_minutes() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    let first = app.activate(json!({"otp": app.otp(&path).await})).await.json();
    app.clock.advance(Duration::from_secs(5));
    let second = app.activate(json!({"otp": app.otp(&path).await})).await.json();
    assert_eq!(first["clientId"], second["clientId"]);
    assert_ne!(first["clientSecret"], second["clientSecret"]);

    let hash =
        |activated: &Value| SecretText::new(activated["clientSecret"].as_str().unwrap().to_owned()).hash();
    let verified =
        app.kv.verified::<ClientDocument>(&app.publisher.root, &client_key(&second)).await.unwrap();
    let [current, previous] = &verified.document.secrets[..] else { panic!("two secrets") };
    assert!(current.sha256.matches(&hash(&second)) && current.expires_at.is_none());
    assert!(previous.sha256.matches(&hash(&first)));
    let left = previous.expires_at.unwrap().since(verified.stamp.iat);
    assert!((590..=600).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_device_cannot_activate_and_its_password_is_not_used_up() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    let otp = app.otp(&path).await;
    app.database.execute("update device set status = 'disabled'").await.unwrap();
    assert_invalid_otp(&app.activate(json!({"otp": otp})).await);
    app.database.execute("update device set status = 'registered'").await.unwrap();
    app.database.execute("update oauth_client set status = 'disabled'").await.unwrap();
    assert_invalid_otp(&app.activate(json!({"otp": otp})).await);
    app.database.execute("update oauth_client set status = 'enabled'").await.unwrap();
    assert_eq!(app.activate(json!({"otp": otp})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_failures_count_against_an_address() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    for _ in 0..40 {
        assert_eq!(app.activate(json!({"otp": app.otp(&path).await})).await.status, 200);
    }
    app.clock.stop();
    for _ in 0..30 {
        assert_invalid_otp(&app.activate(json!({"otp": "0000000000"})).await);
    }
    let otp = app.otp(&path).await;
    let refused = app.activate(json!({"otp": otp})).await;
    refused.assert_problem(429, "too_many_attempts");
    assert_eq!(refused.header("retry-after"), Some("2"));
    // A key is written once a second, so no later than this is what others activate published.
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(
        app.activate_from("192.0.2.2", json!({"otp": otp})).await.status,
        200,
        "others are not affected"
    );
    app.clock.advance(Duration::from_secs(1));
    assert_invalid_otp(&app.activate(json!({"otp": "0000000000"})).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_is_the_one_that_a_trusted_proxy_names() {
    let app = TestApp::start_behind(&["10.0.0.0/8"]).await;
    app.clock.stop();
    let attempt = async |peer: &str, forwarded: &str| {
        let request = axum::http::Request::builder()
            .method("POST")
            .uri("/api/otp/activate")
            .header("content-type", "application/json")
            .header("x-forwarded-for", forwarded)
            .extension(keypost::http::PeerAddress(peer.parse().unwrap()))
            .body(axum::body::Body::from(json!({"otp": "0000000000"}).to_string()));
        app.send(request.unwrap()).await.status.as_u16()
    };
    for _ in 0..30 {
        assert_eq!(attempt("10.0.0.1", "198.51.100.1").await, 400);
    }
    assert_eq!(attempt("10.0.0.1", "198.51.100.1").await, 429);
    assert_eq!(attempt("10.0.0.1", "198.51.100.2").await, 400);
    // Without a trusted proxy between, what the header says changes nothing.
    for other in 0..30 {
        assert_eq!(attempt("203.0.113.9", &format!("198.51.100.{other}")).await, 400);
    }
    assert_eq!(attempt("203.0.113.9", "198.51.100.99").await, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kv_a_device_gets_its_secret_and_is_told_to_wait() {
    let app = TestApp::start_impatient().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    eventually("all is published", async || {
        app.call("GET", "/api/internal/sync", None).await.json()["pending"] == 0
    })
    .await;
    app.kv.fail_next([Fault::RefuseEach("v1/client".to_owned())]);
    let answer = app.activate(json!({"otp": app.otp(&path).await})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["published"], false);
    assert_eq!(answer.header("retry-after"), Some("5"));
    app.kv.recover();
    eventually("the secret is in KV", async || client(&app, &answer.json()).await.secrets.len() == 1).await;
}
