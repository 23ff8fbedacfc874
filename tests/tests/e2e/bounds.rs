//! How long changes that take something away take to the edge: the bound that SECURITY.md states holds, and what is usual is
//! printed (`cargo xtask test bounds:: --nocapture`).

use std::time::{Duration, Instant};

use keypost_tests::admin::{Admin, Credentials, Fleet};
use keypost_tests::{edge, stack};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Flush interval, KV's propagation, KV's cache and an isolate's memory.
const STATED: Duration = Duration::from_secs(120);
/// How often a change is looked for: that is how exact the figures are.
const POLL: Duration = Duration::from_millis(200);
/// How many changes of each kind are made, one after the other while the others wait.
const CHANGES: usize = 6;
/// Between two of them, so that they meet the caches at different ages.
const APART: Duration = Duration::from_millis(2_700);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Changes something, and waits until the edge answers as `changed` wants. How long that took.
async fn measured(
    admin: Admin,
    path: String,
    body: Value,
    credentials: Credentials,
    changed: impl Fn(&edge::Reply) -> bool,
) -> Duration {
    let answer = admin.send(Method::POST, &path, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    let started = Instant::now();
    loop {
        let reply = edge::token(&credentials).await;
        if changed(&reply) {
            return started.elapsed();
        }
        assert!(started.elapsed() < STATED, "{path}: not within {STATED:?}; {}", reply.outcome());
        tokio::time::sleep(POLL).await;
    }
}

#[expect(clippy::print_stderr, reason = "whoever asks for the figures wants them")]
fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |percent: usize| took[(took.len() * percent).div_ceil(100).max(1) - 1].as_secs_f64();
    eprintln!("{what}: p50 {:.1} s, p99 {:.1} s of {} changes", at(50), at(99), took.len());
}

/// Makes changes a little apart and waits for all of them.
async fn all(changes: Vec<impl Future<Output = Duration> + Send + 'static>) -> Vec<Duration> {
    let mut running = JoinSet::new();
    for change in changes {
        running.spawn(change);
        tokio::time::sleep(APART).await;
    }
    running.join_all().await
}

async fn service(fleet: &Fleet, number: usize) -> (String, Credentials) {
    let clients = format!("{}/client", fleet.path);
    let body = json!({"name": format!("service {number}"), "scopes": ["a"]});
    let client = fleet.admin.create(&clients, body).await;
    fleet.admin.published(&client).await;
    let credentials = Credentials {
        issuer: fleet.issuer().to_owned(),
        token_endpoint: text(&fleet.environment["tokenEndpoint"]),
        jwks_uri: text(&fleet.environment["jwksUri"]),
        client_id: text(&client["clientId"]),
        client_secret: text(&client["clientSecret"]),
    };
    (format!("{clients}/{}/secret", text(&client["clientId"])), credentials)
}

#[tokio::test]
async fn what_is_taken_away_is_gone_everywhere_within_the_stated_bound() {
    let stack = stack::shared().await;
    let fleet = stack.admin().fleet("bounds").await;
    let refused = |reply: &edge::Reply| reply.outcome() == "401 invalid_client";

    let mut disables = Vec::new();
    let mut rotations = Vec::new();
    let mut revocations = Vec::new();
    for number in 0..CHANGES {
        let device = format!("pos-{number}");
        let credentials = fleet.activated(&device).await;
        assert_eq!(edge::token(&credentials).await.outcome(), "200");
        let path = format!("{}/device/{device}/disable", fleet.path);
        disables.push(measured(stack.admin(), path, Value::Null, credentials, refused));

        let (path, credentials) = service(&fleet, number).await;
        assert_eq!(edge::token(&credentials).await.outcome(), "200");
        let body = json!({"overlapSeconds": 0});
        rotations.push(measured(stack.admin(), path, body, credentials, refused));

        let own = stack.admin().fleet(&format!("bounds-{number}")).await;
        let credentials = own.activated("pos").await;
        let token = edge::token(&credentials).await;
        let kid = kid_of(token.access_token());
        let path = format!("/internal/{}/keys/{kid}/revoke", own.pool());
        let another = move |reply: &edge::Reply| reply.status == 200 && kid_of(reply.access_token()) != kid;
        revocations.push(measured(stack.admin(), path, Value::Null, credentials, another));
    }
    let (disables, rotations, revocations) = tokio::join!(all(disables), all(rotations), all(revocations));
    tell("a device is disabled", disables);
    tell("a secret is replaced without overlap", rotations);
    tell("a signing key is revoked", revocations);
}

fn kid_of(token: &str) -> String {
    let header = token.split('.').next().unwrap_or_default();
    let header: Value = serde_json::from_slice(&edge::decode(header)).unwrap();
    text(&header["kid"])
}
