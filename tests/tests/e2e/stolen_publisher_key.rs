//! A publisher key is stolen: it is removed, and what the thief still has is worth nothing.

use std::time::Duration;

use keypost_tests::lone_control_plane::run_job;
use keypost_tests::{edge, stack, wait};
use reqwest::{Method, StatusCode};
use serde_json::Value;

const KEYS: &str = "/internal/sync/publisher-keys";

#[tokio::test]
async fn a_removed_publisher_key_and_the_trust_that_listed_it_count_no_more() {
    let mut stack = stack::own("stolen-publisher-key").await;
    let fleet = stack.admin().fleet("stolen-publisher-key").await;
    let credentials = fleet.activated("pos-1").await;
    let kv = stack.kv();
    let mut names = vec![
        "v1/trust".to_owned(),
        format!("v1/pool/{}", fleet.pool()),
        format!("v1/client/{}/{}", fleet.pool(), credentials.client_id),
    ];
    // Without the shards of the revocation list nothing is issued.
    names.extend((0..8).map(|shard| format!("v1/revoked/{}/{shard}", fleet.pool())));
    let mut stolen = Vec::new();
    for name in &names {
        stolen.push(kv.must_get(name).await);
    }
    let keys = fleet.admin.get(KEYS).await;
    let key = keys["items"].as_array().unwrap().iter().find(|key| key["state"] == "signing").unwrap();
    let path = format!("{KEYS}/{}", key["kid"].as_str().unwrap());
    let removed = fleet.admin.send(Method::DELETE, &path, Value::Null).await;
    assert_eq!(
        (removed.status, &removed.body["published"]),
        (StatusCode::OK, &Value::Bool(true)),
        "{}",
        removed.body
    );
    wait::until("everything to be signed anew", Duration::from_secs(60), || async {
        let sync = fleet.admin.get("/internal/sync").await;
        if sync["pending"] == 0 { Ok(()) } else { Err(sync.to_string()) }
    })
    .await;
    stack.restart_worker().await;
    assert_eq!(edge::token(&credentials).await.outcome(), "200");

    // Under the new v1/trust, what the key has signed counts no more.
    let now = kv.must_get(&names[1]).await;
    kv.put(&names[1], &stolen[1]).await;
    stack.restart_worker().await;
    assert_eq!(edge::token(&credentials).await.outcome(), "503 temporarily_unavailable");
    kv.put(&names[1], &now).await;

    // A thief who can write to KV puts the old v1/trust back too: an isolate that has seen no other believes it, until
    // its least version is raised.
    for (name, text) in names.iter().zip(&stolen) {
        kv.put(name, text).await;
    }
    stack.restart_worker().await;
    assert_eq!(edge::token(&credentials).await.outcome(), "200");
    let least = removed.body["minTrustVersion"].as_u64().unwrap();
    stack.worker_options.vars.push(("MIN_TRUST_VERSION".to_owned(), least.to_string()));
    stack.restart_worker().await;
    assert_eq!(edge::token(&credentials).await.outcome(), "503 temporarily_unavailable");

    run_job(&fleet.admin, "rebuild").await;
    stack.restart_worker().await;
    assert_eq!(edge::token(&credentials).await.outcome(), "200");
}
