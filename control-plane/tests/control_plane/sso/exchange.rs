//! From one client app to another of the same organization.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::sso::{ClientApp, SsoRequest, claims};
use crate::support::{Answer, TestApp};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

async fn exchange(app: &TestApp, token: &str, key: &str) -> Answer {
    let body = json!({"currentAccessToken": token, "targetClientAppApiKey": key});
    app.sso(SsoRequest::post("/api/auth/sso-exchange", body)).await
}

async fn validate(app: &TestApp, key: Option<&ClientApp>, token: Option<&str>) -> Answer {
    let mut request = SsoRequest::get("/api/auth/validate");
    if let Some(key) = key {
        request = request.key(&key.key);
    }
    if let Some(token) = token {
        request = request.bearer(token);
    }
    app.sso(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_one_app_is_one_of_every_app_of_the_organization() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let (a, b) = (app.client_app(&owner, "A").await, app.client_app(&owner, "B").await);
    let bob = app.app_user(&a, "bob").await;
    let data = exchange(&app, text(&bob["accessToken"]), &b.key).await.data(200);
    assert_eq!(data["clientAppApiKey"], b.key);
    assert_eq!(data["userClaims"]["clientAppId"], b.id);
    let (before, after) = (claims(text(&bob["accessToken"])), claims(text(&data["accessToken"])));
    assert_eq!((&before["sid"], &before["sub"]), (&after["sid"], &after["sub"]));
    assert_eq!(after["aud"], json!([b.id, owner.org]));
    assert_eq!(after["user_metadata"], bob["userClaims"]["user_metadata"]);

    // B accepts both; each is told whose key it has sent.
    for token in [&bob["accessToken"], &data["accessToken"]] {
        let told = validate(&app, Some(&b), Some(text(token))).await.data(200);
        assert_eq!((&told["keyType"], &told["clientAppId"]), (&json!("CLIENT_APP"), &json!(b.id)));
        assert_eq!((&told["clientAppName"], &told["organizationId"]), (&json!("B"), &json!(owner.org)));
        assert_eq!(told["userClaims"]["username"], "bob");
        assert_eq!(told["sid"], before["sid"]);
    }
    // And so on, from B to A again.
    exchange(&app, text(&data["accessToken"]), &a.key).await.data(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_count_is_not_exchanged() {
    let app = TestApp::start().await;
    let (owner, stranger) = (app.owner("ada").await, app.owner("eve").await);
    let (a, b) = (app.client_app(&owner, "A").await, app.client_app(&owner, "B").await);
    let theirs = app.client_app(&stranger, "Theirs").await;
    let bob = app.app_user(&a, "bob").await;
    let token = text(&bob["accessToken"]);

    exchange(&app, token, &theirs.key).await.assert_failed(404, "not_found");
    for key in ["nonsense", "", &owner.key, &app.admin] {
        exchange(&app, token, key).await.assert_failed(401, "invalid_api_key");
    }
    let (head, _) = token.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", token.rsplit_once('.').unwrap().1.chars().rev().collect::<String>());
    for token in [text(&bob["refreshToken"]), &owner.access_token, "nonsense", &forged] {
        exchange(&app, token, &b.key).await.assert_failed(401, "invalid_token");
    }
    app.clock.advance(Duration::from_secs(3600));
    exchange(&app, token, &b.key).await.assert_failed(401, "invalid_token");
    let fresh = app.refresh(text(&bob["refreshToken"])).await.data(200);
    let fresh_token = text(&fresh["accessToken"]);
    let out = json!({"refreshToken": fresh["refreshToken"]});
    app.sso(SsoRequest::post("/api/auth/logout", out)).await.data(200);
    exchange(&app, fresh_token, &b.key).await.assert_failed(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_wins_no_time() {
    const DAY: Duration = Duration::from_secs(86_400);
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let (a, b) = (app.client_app(&owner, "A").await, app.client_app(&owner, "B").await);
    let bob = app.app_user(&a, "bob").await;
    let stolen = exchange(&app, text(&bob["accessToken"]), &b.key).await.data(200);
    // Refreshed day by day, it ends with the session of the sign-in, a week after that.
    let mut refresh_token = text(&stolen["refreshToken"]).to_owned();
    for _ in 0..6 {
        app.clock.advance(DAY);
        refresh_token = text(&app.refresh(&refresh_token).await.data(200)["refreshToken"]).to_owned();
    }
    app.clock.advance(DAY - Duration::from_secs(600));
    let last = app.refresh(&refresh_token).await.data(200);
    assert!(last["expiresIn"].as_u64().unwrap() <= 600, "{last}");
    app.clock.advance(Duration::from_secs(600));
    app.refresh(text(&last["refreshToken"])).await.assert_failed(401, "invalid_token");
    assert!(!app.counts(text(&last["accessToken"])).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validating_tells_whose_key_and_token_it_is_and_refuses_others() {
    let app = TestApp::start().await;
    let (owner, stranger) = (app.owner("ada").await, app.owner("eve").await);
    let (a, theirs) = (app.client_app(&owner, "A").await, app.client_app(&stranger, "Theirs").await);
    let bob = app.app_user(&a, "bob").await;
    let token = text(&bob["accessToken"]);

    validate(&app, None, None).await.assert_failed(401, "invalid_api_key");
    let told = validate(&app, Some(&a), None).await.data(200);
    assert_eq!((&told["userClaims"], &told["organizationName"]), (&Value::Null, &json!("ada's")));
    let told = validate(&app, None, Some(token)).await.data(200);
    assert_eq!((&told["keyType"], &told["userClaims"]["clientAppId"]), (&Value::Null, &json!(a.id)));
    validate(&app, Some(&theirs), Some(token)).await.assert_failed(401, "invalid_token");
    validate(&app, Some(&a), Some("nonsense")).await.assert_failed(401, "invalid_token");
    let told = app.sso(SsoRequest::get("/api/auth/validate").key(&owner.key)).await.data(200);
    assert_eq!((&told["keyType"], &told["clientAppId"]), (&json!("ORGANIZATION"), &Value::Null));
    let dead = ClientApp { key: a.key.replace("app_", "app_x"), ..a };
    validate(&app, Some(&dead), Some(token)).await.assert_failed(401, "invalid_api_key");
}
