//! What the record of who did what tells of people.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::TestApp;
use crate::support::sso::{PASSWORD, SsoRequest, claims};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_people_do_is_told_of_without_a_secret() {
    const OTHER: &str = "farewell to Leicester Square";
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let (a, b) = (app.client_app(&owner, "A").await, app.client_app(&owner, "B").await);
    let bob = app.app_user(&a, "bob").await;
    let (token, refresh_token) = (text(&bob["accessToken"]), text(&bob["refreshToken"]));
    let exchange = json!({"currentAccessToken": token, "targetClientAppApiKey": b.key});
    app.sso(SsoRequest::post("/api/auth/sso-exchange", exchange)).await.data(200);
    let change = json!({"currentPassword": PASSWORD, "newPassword": OTHER});
    app.sso(SsoRequest::post("/api/auth/password", change).bearer(token)).await.data(200);
    let out = json!({"refreshToken": refresh_token});
    app.sso(SsoRequest::post("/api/auth/logout", out)).await.data(200);

    let path = format!("/api/internal/audit?orgId={}&limit=500", owner.org);
    let events = app.call("GET", &path, None).await.json()["items"].as_array().unwrap().clone();
    let told: BTreeSet<(&str, &str)> =
        events.iter().map(|event| (text(&event["action"]), text(&event["actorKind"]))).collect();
    for expected in [
        ("organization.create", "user"),
        ("organization.add_owner", "user"),
        ("sso_user.create", "user"),
        ("sso_user.create", "sso_key"),
        ("sso_session.begin", "user"),
        ("sso_session.exchange", "user"),
        ("sso_user.change_password", "user"),
        ("sso_session.end", "user"),
    ] {
        assert!(told.contains(&expected), "{expected:?} is not among {told:?}");
    }
    let end = events.iter().find(|event| event["action"] == "sso_session.end").unwrap();
    assert_eq!(end["targetId"], claims(token)["sid"]);
    assert_eq!(end["actorId"], bob["userClaims"]["userId"]);
    let all = Value::from(events.clone()).to_string();
    for secret in [
        PASSWORD,
        OTHER,
        token,
        refresh_token,
        &a.key,
        &b.key,
        &owner.key,
        &owner.access_token,
        "$argon2id",
        "E26241",
    ] {
        assert!(!all.contains(secret), "{secret}");
    }
}
