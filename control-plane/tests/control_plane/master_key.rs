//! The master key is replaced while everything goes on: two count, and `keypost keys rewrap` moves what rests under the old
//! one to the new one.

use axum::body::Body;
use axum::http::Request;
use keypost::config::RateLimitConfig;
use keypost::crypto_at_rest::{KeyPurpose, MasterKey};
use keypost::http::{self, App};
use keypost_shared::document::PoolDocument;
use keypost_shared::host::PrivateKey;
use keypost_shared::id::PoolId;
use keypost_shared::kv_key::KvKey;
use rand_core::OsRng;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp, TestPublisher, eventually, keypost, secret};

const OLD: u8 = 1;
const NEW: u8 = 9;

fn master_key(byte: u8) -> MasterKey {
    MasterKey::parse(&secret(byte)).unwrap()
}

/// The services of another control plane, with other master keys, on the same database.
fn router_under(app: &TestApp, master_key: MasterKey) -> axum::Router {
    let mut context = app.context.clone();
    context.key_maker.master_key = master_key.clone();
    context.master_key = master_key;
    http::router(App::new(context, Vec::new(), RateLimitConfig::default()))
}

/// Creates a service client with an `Idempotency-Key`.
async fn create_once(app: &mut TestApp, router: &axum::Router) -> Answer {
    app.router = router.clone();
    let body = json!({"name": "reports", "scopes": ["read"]});
    let request = Request::builder()
        .method("POST")
        .uri("/api/internal/org/acme/env/prod/client")
        .header("x-api-key", &app.admin)
        .header("content-type", "application/json")
        .header("idempotency-key", "once")
        .body(Body::from(body.to_string()));
    let answer = app.send(request.unwrap()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_the_same_for_control_planes_that_have_the_keys_either_way_round() {
    let mut app = TestApp::start().await;
    app.acme().await;
    // In the order in which they are started anew: the old one alone, both, exchanged, and the new one alone.
    let routers = [
        router_under(&app, master_key(OLD)),
        router_under(&app, master_key(OLD).accepting(&master_key(NEW))),
        router_under(&app, master_key(NEW).accepting(&master_key(OLD))),
        router_under(&app, master_key(NEW)),
    ];
    // Whoever is met first, its neighbours give the same answer.
    for (first, others) in [(0, vec![1, 2]), (1, vec![0, 2, 3]), (2, vec![1, 3]), (3, vec![2])] {
        app.database.execute("delete from idempotency").await.unwrap();
        let made = create_once(&mut app, &routers[first]).await.json();
        for other in others {
            let again = create_once(&mut app, &routers[other]).await;
            assert_eq!(again.json()["clientId"], made["clientId"], "{first} and {other}");
            assert_eq!(again.header("idempotent-replayed"), Some("true"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_at_once_that_have_the_keys_the_other_way_round_make_one_thing() {
    let app = TestApp::start().await;
    app.acme().await;
    let clients = "select count(*) from oauth_client where device_app_id is null";
    for turn in 1..=10 {
        let routers = [
            router_under(&app, master_key(OLD).accepting(&master_key(NEW))),
            router_under(&app, master_key(NEW).accepting(&master_key(OLD))),
        ];
        let requests: Vec<_> = routers
            .into_iter()
            .map(|router| {
                let body = json!({"name": "reports", "scopes": ["read"]}).to_string();
                let request = Request::builder()
                    .method("POST")
                    .uri("/api/internal/org/acme/env/prod/client")
                    .header("x-api-key", &app.admin)
                    .header("content-type", "application/json")
                    .header("idempotency-key", format!("turn-{turn}"))
                    .body(Body::from(body))
                    .unwrap();
                tokio::spawn(tower::ServiceExt::oneshot(router, request))
            })
            .collect();
        for request in requests {
            assert_eq!(request.await.unwrap().unwrap().status(), 201);
        }
        assert_eq!(app.database.number(clients).await, turn);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_one_time_password_made_under_the_old_key_activates_as_long_as_that_counts() {
    let mut app = TestApp::start().await;
    app.acme().await;
    let (first, second) = (app.device("pos-1").await, app.device("pos-2").await);
    let (first, second) = (app.otp(&first).await, app.otp(&second).await);
    app.router = router_under(&app, master_key(NEW));
    app.activate(json!({"otp": first})).await.assert_problem(400, "invalid_otp");
    app.router = router_under(&app, master_key(NEW).accepting(&master_key(OLD)));
    assert_eq!(app.activate(json!({"otp": first})).await.status, 200);
    app.activate(json!({"otp": first})).await.assert_problem(400, "invalid_otp");
    // A wrong device is counted there too.
    for _ in 0..5 {
        let guess = json!({"otp": second, "deviceId": "pos-9"});
        app.activate(guess).await.assert_problem(400, "invalid_otp");
    }
    app.activate(json!({"otp": second, "deviceId": "pos-2"})).await.assert_problem(400, "invalid_otp");
}

/// `keypost keys rewrap`, from the old key to the new: how it ended, and what it said on standard output and error.
async fn rewrap(app: &TestApp) -> (Option<i32>, String, String) {
    let mut command = keypost(&app.database, &app.kv, &["keys", "rewrap"]);
    command.env("KEYPOST_MASTER_KEY", secret(NEW)).env("KEYPOST_MASTER_KEY_PREVIOUS", secret(OLD));
    let done = command.output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for said in [text(&done.stdout), text(&done.stderr)] {
        assert!(!said.contains(&secret(NEW)) && !said.contains(&secret(OLD)), "{said}");
    }
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewrap_moves_every_private_key_to_the_new_master_key_and_says_what_it_could_not() {
    let mut app = TestApp::start().await;
    let environment = app.acme().await;
    let resting = "select (select count(*) from signing_key where private_sealed is not null)
                        + (select count(*) from publisher_key) + (select count(*) from root_key)";
    let keys = app.database.number(resting).await;
    assert!(keys >= 4, "{keys}");
    // One rests under a key that nobody has any more.
    let lost = PrivateKey::generate(&mut OsRng);
    let pool: PoolId = environment["clientPoolId"].as_str().unwrap().parse().unwrap();
    let sealed = master_key(7).seal(KeyPurpose::Pool(pool), &lost, &mut OsRng).unwrap();
    sqlx::query(
        "insert into signing_key (kid, org_id, pool_id, alg, backend, state, public_jwk, private_sealed, created_at)
         values ($1, 'acme', $2, 'ES256', 'local', 'retiring', $3, $4, now())",
    )
    .bind(lost.kid().as_str())
    .bind(pool.0)
    .bind(sqlx::types::Json(lost.public()))
    .bind(&sealed)
    .execute(&app.database.pool)
    .await
    .unwrap();

    let (code, said, told) = rewrap(&app).await;
    assert_eq!((code, said.as_str()), (Some(1), ""), "{told}");
    assert!(told.contains(lost.kid().as_str()) && told.contains("signing keys: 4"), "{told}");
    app.database
        .execute(&format!("delete from signing_key where kid = '{}'", lost.kid().as_str()))
        .await
        .unwrap();
    // All others have been moved, and whoever asks again has nothing to do.
    let (code, said, told) = rewrap(&app).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(said.starts_with("0 private keys"), "{said}");
    let masters = "select count(*) from (select substring(private_sealed from 2 for 8) from signing_key
                      union select substring(private_sealed from 2 for 8) from publisher_key
                      union select substring(private_sealed from 2 for 8) from root_key) as masters";
    assert_eq!(app.database.number(masters).await, 1);
    // Each transaction that moved something has told of it.
    let audit = app.call("GET", "/api/internal/audit?action=master_key.rewrap", None).await.json();
    let told = |event: &Value| {
        assert_eq!((&event["actorKind"], &event["actorName"]), (&json!("command"), &json!("keys rewrap")));
        event["changes"]["after"]["keys"].as_i64().unwrap()
    };
    let moved: i64 = audit["items"].as_array().unwrap().iter().map(told).sum();
    assert_eq!(moved, keys, "{audit}");

    // The new key alone is enough for everything.
    let publisher = TestPublisher::start_under(
        master_key(NEW),
        &app.database,
        &app.kv,
        &app.clock,
        TestPublisher::settings(),
    )
    .await;
    assert_eq!(publisher.root, app.publisher.root);
    std::mem::replace(&mut app.publisher, publisher).stop().await;
    app.router = router_under(&app, master_key(NEW));
    let rules = json!({"tokenTtlSeconds": 1234});
    assert_eq!(app.call("PATCH", "/api/internal/org/acme/env/prod/pool", Some(rules)).await.status, 200);
    eventually("the pool is published", async || {
        let read = app.kv.verified::<PoolDocument>(&app.publisher.root, &KvKey::Pool(pool)).await;
        read.is_ok_and(|read| read.document.token_ttl == 1234 && read.document.signing_key.is_some())
    })
    .await;
}
