//! Service clients at the edge: whom their tokens speak for, and which of their secrets count.

use std::time::Duration;

use keypost_tests::admin::{Credentials, Fleet};
use keypost_tests::wait::until;
use keypost_tests::{edge, stack};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// How long a change may take to be seen by every part of the stack.
const SOON: Duration = Duration::from_secs(90);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn credentials(fleet: &Fleet, client_id: &Value, client_secret: &Value) -> Credentials {
    Credentials {
        issuer: fleet.issuer().to_owned(),
        token_endpoint: text(&fleet.environment["tokenEndpoint"]),
        jwks_uri: text(&fleet.environment["jwksUri"]),
        client_id: text(client_id),
        client_secret: text(client_secret),
    }
}

async fn until_outcome(what: &str, credentials: &Credentials, outcome: &str) {
    until(what, SOON, || async {
        let reply = edge::token(credentials).await.outcome();
        if reply == outcome { Ok(()) } else { Err(reply) }
    })
    .await;
}

#[tokio::test]
async fn a_service_client_speaks_for_itself_and_its_secrets_overlap() {
    let fleet = stack::shared().await.admin().fleet("service-clients").await;
    let admin = &fleet.admin;
    let clients = format!("{}/client", fleet.path);
    let body =
        json!({"name": "Reports", "scopes": ["reports", "audit"], "audience": ["https://reports.example"]});
    let client = admin.create(&clients, body).await;
    admin.published(&client).await;
    let path = format!("{clients}/{}", text(&client["clientId"]));
    let first = credentials(&fleet, &client["clientId"], &client["clientSecret"]);

    let reply = edge::token(&first).await;
    assert_eq!(reply.outcome(), "200", "{reply:?}");
    let claims = edge::claims(reply.access_token());
    assert_eq!(claims["sub"], client["clientId"]);
    assert_eq!(claims["client_id"], client["clientId"]);
    assert_eq!(claims["iss"], fleet.issuer());
    assert_eq!(claims["scope"], json!(["reports", "audit"]));
    assert_eq!(claims["aud"], "https://reports.example");

    let rotated = admin.send(Method::POST, &format!("{path}/secret"), json!({"overlapSeconds": 600})).await;
    assert_eq!(rotated.status, StatusCode::OK, "{}", rotated.body);
    admin.published(&rotated.body).await;
    let second = credentials(&fleet, &client["clientId"], &rotated.body["clientSecret"]);
    until_outcome("the new secret counts", &second, "200").await;
    assert_eq!(edge::token(&first).await.outcome(), "200", "the old one counts during the overlap");

    let rotated = admin.send(Method::POST, &format!("{path}/secret"), json!({"overlapSeconds": 0})).await;
    assert_eq!(rotated.status, StatusCode::OK, "{}", rotated.body);
    let third = credentials(&fleet, &client["clientId"], &rotated.body["clientSecret"]);
    until_outcome("the newest secret counts", &third, "200").await;
    until_outcome("the first secret ends", &first, "401 invalid_client").await;
    until_outcome("the second secret ends", &second, "401 invalid_client").await;

    let deleted = admin.send(Method::DELETE, &path, Value::Null).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{}", deleted.body);
    until_outcome("a deleted client gets nothing", &third, "401 invalid_client").await;
}

#[tokio::test]
async fn an_old_secret_ends_with_its_overlap() {
    let fleet = stack::shared().await.admin().fleet("service-overlap").await;
    let clients = format!("{}/client", fleet.path);
    let client = fleet.admin.create(&clients, json!({"name": "Reports", "scopes": ["reports"]})).await;
    fleet.admin.published(&client).await;
    let old = credentials(&fleet, &client["clientId"], &client["clientSecret"]);
    assert_eq!(edge::token(&old).await.outcome(), "200");
    let secret = format!("{clients}/{}/secret", text(&client["clientId"]));
    let rotated = fleet.admin.send(Method::POST, &secret, json!({"overlapSeconds": 2})).await;
    let new = credentials(&fleet, &client["clientId"], &rotated.body["clientSecret"]);
    until_outcome("the old secret ends by itself", &old, "401 invalid_client").await;
    until_outcome("the new one stays", &new, "200").await;
}
