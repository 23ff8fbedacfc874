//! What an administrator changes reaches the tokens.

use std::time::Duration;

use keypost_tests::admin::{Credentials, Fleet};
use keypost_tests::{edge, stack, wait};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Writing to KV, and what an isolate may hold: 30 s, and as much again in KV's own cache.
const EVERYWHERE: Duration = Duration::from_secs(120);

/// Waits for a token of which `holds` is true.
async fn until_claims(what: &str, credentials: &Credentials, holds: impl Fn(&Value) -> bool) -> Value {
    let holds = &holds;
    wait::until(what, EVERYWHERE, || async move {
        let reply = edge::token(credentials).await;
        if reply.status != 200 {
            return Err(reply.outcome());
        }
        let claims = edge::claims(reply.access_token());
        if holds(&claims) { Ok(claims) } else { Err(claims.to_string()) }
    })
    .await
}

async fn until_outcome(what: &str, credentials: &Credentials, outcome: &str) {
    wait::until(what, EVERYWHERE, || async move {
        let now = edge::token(credentials).await.outcome();
        if now == outcome { Ok(()) } else { Err(now) }
    })
    .await;
}

async fn call(fleet: &Fleet, method: Method, path: &str, body: Value, expected: StatusCode) {
    let path = format!("{}{path}", fleet.path);
    let answer = fleet.admin.send(method, &path, body).await;
    assert_eq!(answer.status, expected, "{path}: {}", answer.body);
}

#[tokio::test]
async fn what_changes_of_a_device_and_its_environment_is_in_the_next_tokens() {
    let fleet = stack::shared().await.admin().fleet("changes").await;
    let credentials = fleet.activated("pos-1").await;
    let patch =
        json!({"metadata": {"location": "door"}, "tags": {"country": "NZ"}, "serverUrls": ["http://own:1"]});
    fleet.admin.patch(&format!("{}/device/pos-1", fleet.path), patch).await;
    let claims =
        until_claims("the device's changes", &credentials, |claims| claims["metadata"]["location"] == "door")
            .await;
    assert_eq!(
        (&claims["tags"]["country"], &claims["server_urls"]),
        (&json!("NZ"), &json!(["http://own:1"]))
    );

    let environment = json!({"name": "Production", "tagDefaults": {"country": "*", "region": "south"},
        "primaryServerUrl": "http://environment:1"});
    call(&fleet, Method::PUT, "", environment, StatusCode::OK).await;
    let claims =
        until_claims("the environment's changes", &credentials, |claims| claims["tags"]["region"] == "south")
            .await;
    assert_eq!(claims["tags"], json!({"country": "NZ", "region": "south"}));
    assert_eq!(claims["primary_server_url"], "http://environment:1");
    assert_eq!(claims["server_urls"], json!(["http://own:1"]), "the device's own");
}

#[tokio::test]
async fn a_disabled_device_gets_no_tokens_until_it_is_enabled() {
    let fleet = stack::shared().await.admin().fleet("disabling").await;
    let credentials = fleet.activated("pos-1").await;
    assert_eq!(edge::token(&credentials).await.outcome(), "200");
    call(&fleet, Method::POST, "/device/pos-1/disable", Value::Null, StatusCode::OK).await;
    until_outcome("it is disabled", &credentials, "401 invalid_client").await;
    call(&fleet, Method::POST, "/device/pos-1/enable", Value::Null, StatusCode::OK).await;
    until_outcome("it is enabled", &credentials, "200").await;
}

#[tokio::test]
async fn a_deleted_app_gets_no_tokens() {
    let fleet = stack::shared().await.admin().fleet("deleting").await;
    let credentials = fleet.activated("pos-1").await;
    assert_eq!(edge::token(&credentials).await.outcome(), "200");
    call(&fleet, Method::DELETE, "/device/pos-1", Value::Null, StatusCode::CONFLICT).await;
    call(&fleet, Method::DELETE, "/device/pos-1/app/client", Value::Null, StatusCode::NO_CONTENT).await;
    until_outcome("it is gone", &credentials, "401 invalid_client").await;
}
