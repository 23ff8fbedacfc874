//! Processes die, and nothing that was accepted is lost (design §2, promises 1 and 4).

use std::time::Duration;

use keypost_tests::admin::Credentials;
use keypost_tests::{edge, stack, wait};
use reqwest::StatusCode;
use serde_json::json;

#[tokio::test]
async fn killed_between_commit_and_publish_the_control_plane_publishes_after_its_restart() {
    let mut stack = stack::own("kill-nine").await;
    let fleet = stack.admin().fleet("kill-nine").await;
    let before = fleet.activated("before").await;
    for device in ["new", "again"] {
        fleet.device(device).await;
    }
    let again = fleet.activate("again").await;

    // KV cannot be reached, so that what is committed from here on cannot be published.
    stack.stop_worker();
    fleet.device("made-in-the-dark").await;
    let mut activated = Vec::new();
    for device in ["new", "again", "made-in-the-dark"] {
        let otp = fleet.otp(device).await;
        let answer = fleet.admin.activate(json!({"otp": otp})).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_eq!(answer.body["published"], false, "{}", answer.body);
        assert!(answer.headers.contains_key("retry-after"));
        activated.push(Credentials::of(&answer.body));
    }
    let backlog = fleet.admin.get("/internal/sync").await;
    assert!(backlog["pending"].as_u64().unwrap() >= 3, "{backlog}");
    stack.kill_control_plane();
    stack.start_worker().await;
    assert_eq!(edge::token(&before).await.outcome(), "200");
    assert_eq!(edge::token(&activated[0]).await.outcome(), "401 invalid_client");

    stack.start_control_plane().await;
    for credentials in &activated {
        wait::until("the device's first token", Duration::from_secs(90), || async {
            let outcome = edge::token(credentials).await.outcome();
            if outcome == "200" { Ok(()) } else { Err(outcome) }
        })
        .await;
    }
    assert_eq!(edge::token(&again).await.outcome(), "200", "the secret before is still in its 10 minutes");
    wait::until("an empty backlog", Duration::from_secs(90), || async {
        let backlog = fleet.admin.get("/internal/sync").await;
        if backlog["pending"] == 0 { Ok(()) } else { Err(backlog.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn with_control_plane_and_postgres_down_a_known_device_gets_tokens() {
    let mut stack = stack::with_own_postgres("outage").await;
    let fleet = stack.admin().fleet("outage").await;
    let credentials = fleet.activated("pos-1").await;
    stack.kill_control_plane();
    stack.stop_postgres();
    for _ in 0..3 {
        assert_eq!(edge::token(&credentials).await.outcome(), "200");
    }
    // A Worker that holds nothing needs KV alone.
    stack.restart_worker().await;
    assert_eq!(edge::token(&credentials).await.outcome(), "200");
    assert_eq!(edge::get(&credentials.jwks_uri).await.outcome(), "200");
}

#[tokio::test]
async fn an_unreachable_database_is_503_and_passes() {
    let mut stack = stack::with_own_postgres("database-outage").await;
    let fleet = stack.admin().fleet("database-outage").await;
    stack.stop_postgres();
    let answer = fleet.admin.send(reqwest::Method::GET, &fleet.path, serde_json::Value::Null).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
    assert!(answer.headers.contains_key("retry-after"));
    let ready = edge::get(&format!("{}/readyz", stack.control_plane_url())).await;
    assert_eq!(ready.status, 503, "{}", ready.body);
    stack.start_postgres().await;
    wait::until("the control plane to recover", Duration::from_secs(90), || async {
        let answer = fleet.admin.send(reqwest::Method::GET, &fleet.path, serde_json::Value::Null).await;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;
}
