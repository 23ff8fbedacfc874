//! Sessions: refreshing, signing out, and what ends them.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::TestApp;
use crate::support::sso::{PASSWORD, SsoRequest, bob, claims};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_is_good_once_and_the_session_stays_the_same() {
    let (app, .., bob) = bob().await;
    let first = claims(text(&bob["accessToken"]));
    let next = app.refresh(text(&bob["refreshToken"])).await.data(200);
    let second = claims(text(&next["accessToken"]));
    assert_eq!(first["sid"], second["sid"]);
    assert_ne!(first["jti"], second["jti"]);
    assert_ne!(bob["refreshToken"], next["refreshToken"]);
    assert_eq!(next["userClaims"], bob["userClaims"]);
    for junk in ["", "x", text(&bob["accessToken"])] {
        app.refresh(junk).await.assert_failed(401, "invalid_token");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_refreshes_at_one_instant_both_go_on_and_a_third_ends_the_session() {
    let (app, .., bob) = bob().await;
    let token = text(&bob["refreshToken"]);
    let two = join_all((0..2).map(|_| app.refresh(token))).await;
    let tokens: Vec<Value> = two.iter().map(|answer| answer.data(200)).collect();
    assert_ne!(tokens[0]["refreshToken"], tokens[1]["refreshToken"]);
    let sid = |data: &Value| claims(text(&data["accessToken"]))["sid"].clone();
    assert_eq!(sid(&tokens[0]), sid(&tokens[1]));
    assert!(app.counts(text(&tokens[0]["accessToken"])).await);

    app.refresh(token).await.assert_failed(401, "invalid_token");
    for data in &tokens {
        app.refresh(text(&data["refreshToken"])).await.assert_failed(401, "invalid_token");
        assert!(!app.counts(text(&data["accessToken"])).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_refreshes_at_one_instant_two_are_answered_and_the_session_ends() {
    let (app, .., bob) = bob().await;
    let many = join_all((0..12).map(|_| app.refresh(text(&bob["refreshToken"])))).await;
    assert_eq!(many.iter().filter(|answer| answer.status == 200).count(), 2);
    assert_eq!(many.iter().filter(|answer| answer.status == 401).count(), 10);
    assert!(!app.counts(text(&bob["accessToken"])).await);
    let audit = app.call("GET", "/api/internal/audit?action=sso_session.end", None).await.json();
    assert_eq!(audit["items"].as_array().unwrap().len(), 1, "{audit}");
    assert_eq!(audit["items"][0]["changes"]["reason"], "refresh_token_reused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_token_that_comes_back_later_than_a_retry_ends_the_session() {
    let (app, .., bob) = bob().await;
    let next = app.refresh(text(&bob["refreshToken"])).await.data(200);
    app.clock.advance(Duration::from_secs(11));
    app.refresh(text(&bob["refreshToken"])).await.assert_failed(401, "invalid_token");
    app.refresh(text(&next["refreshToken"])).await.assert_failed(401, "invalid_token");
    assert!(!app.counts(text(&next["accessToken"])).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lasts_as_long_as_it_is_refreshed_and_a_week_more() {
    let (app, .., bob) = bob().await;
    const DAY: Duration = Duration::from_secs(86_400);
    app.clock.advance(6 * DAY);
    assert!(!app.counts(text(&bob["accessToken"])).await, "an access token lives for an hour");
    let next = app.refresh(text(&bob["refreshToken"])).await.data(200);
    app.clock.advance(6 * DAY);
    let last = app.refresh(text(&next["refreshToken"])).await.data(200);
    app.clock.advance(7 * DAY);
    app.refresh(text(&last["refreshToken"])).await.assert_failed(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_out_ends_the_session_and_no_other() {
    let (app, _, till, first) = bob().await;
    let second = app.log_in(&till, "bob", PASSWORD).await.data(200);
    let out = |token: &str| SsoRequest::post("/api/auth/logout", json!({"refreshToken": token}));
    app.sso(out(text(&first["refreshToken"]))).await.data(200);
    assert!(!app.counts(text(&first["accessToken"])).await);
    assert!(app.counts(text(&second["accessToken"])).await);
    app.refresh(text(&first["refreshToken"])).await.assert_failed(401, "invalid_token");
    app.sso(out(text(&first["refreshToken"]))).await.assert_failed(401, "invalid_token");
    app.sso(out("nonsense")).await.assert_failed(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_see_and_end_their_own_sessions_alone() {
    let (app, _, till, first) = bob().await;
    let second = app.log_in(&till, "bob", PASSWORD).await.data(200);
    let carol = app.app_user(&till, "carol").await;
    let token = text(&second["accessToken"]);
    let list = app.sso(SsoRequest::get("/api/auth/sessions").bearer(token)).await.data(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!((items.len(), &list["nextCursor"]), (2, &Value::Null));
    assert_eq!(items.iter().filter(|item| item["current"] == true).count(), 1);
    assert_eq!(items[0]["clientAppId"], till.id);
    assert_eq!(items[0]["address"], "192.0.2.1");

    let path =
        |data: &Value| format!("/api/auth/sessions/{}", text(&claims(text(&data["accessToken"]))["sid"]));
    let end = |path: &str| SsoRequest::delete(path);
    app.sso(end(&path(&carol)).bearer(token)).await.assert_failed(404, "not_found");
    app.sso(end("/api/auth/sessions/nonsense").bearer(token)).await.assert_failed(400, "invalid_request");
    app.sso(end(&path(&first))).await.assert_failed(401, "invalid_token");
    app.sso(end(&path(&first)).bearer(token)).await.data(200);
    assert!(!app.counts(text(&first["accessToken"])).await);
    app.sso(end(&path(&first)).bearer(token)).await.assert_failed(404, "not_found");
    assert!(app.counts(token).await && app.counts(text(&carol["accessToken"])).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_listed_in_pages() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let a = app.client_app(&owner, "A").await;
    let bob = app.app_user(&a, "bob").await;
    let token = bob["accessToken"].as_str().unwrap();
    for _ in 0..4 {
        app.clock.advance(std::time::Duration::from_secs(1));
        app.log_in(&a, "bob", PASSWORD).await.data(200);
    }
    let read = async |query: &str| {
        app.sso(SsoRequest::get(&format!("/api/auth/sessions?{query}")).bearer(token)).await
    };
    let all = read("limit=500").await.data(200);
    assert_eq!((all["items"].as_array().unwrap().len(), &all["nextCursor"]), (5, &Value::Null));
    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = read(&query).await.data(200);
        seen.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        query = format!("limit=2&cursor={cursor}");
    }
    assert_eq!(json!(seen), all["items"]);
    for query in ["limit=0", "limit=501", "cursor=x", "cursor=", "surely-unknown=1"] {
        read(query).await.assert_failed(400, "invalid_request");
    }
}
