//! Changing and resetting passwords.

use std::time::Duration;

use futures_util::future::join_all;
use keypost::service::audit::Actor;
use keypost::service::change::Change;
use keypost::service::sso::new_password::make_code;
use serde_json::{Value, json};

use crate::support::sso::{Owner, PASSWORD, SsoRequest, bob};
use crate::support::{Answer, TestApp};

const OTHER: &str = "farewell to Leicester Square";

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

async fn change(app: &TestApp, token: &str, current: &str, new: &str) -> Answer {
    let body = json!({"currentPassword": current, "newPassword": new});
    app.sso(SsoRequest::post("/api/auth/password", body).bearer(token)).await
}

async fn reset(app: &TestApp, code: &str, new: &str) -> Answer {
    app.sso(SsoRequest::post("/api/auth/password-reset", json!({"code": code, "newPassword": new}))).await
}

/// A code for a user of the owner's organization.
async fn code(app: &TestApp, owner: &Owner, user: &Value) -> String {
    let id = text(&user["userClaims"]["userId"]).parse().unwrap();
    let mut change = Change::begin(&app.context, &Actor::system()).await.unwrap();
    let (code, _) = make_code(&mut change, &owner.org.parse().unwrap(), id).await.unwrap();
    change.commit().await.unwrap();
    code.expose().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_ends_the_other_sessions() {
    let (app, _, till, here) = bob().await;
    let elsewhere = app.log_in(&till, "bob", PASSWORD).await.data(200);
    change(&app, text(&here["accessToken"]), PASSWORD, OTHER).await.data(200);
    assert!(app.counts(text(&here["accessToken"])).await);
    assert!(!app.counts(text(&elsewhere["accessToken"])).await);
    app.refresh(text(&elsewhere["refreshToken"])).await.assert_failed(401, "invalid_token");
    app.refresh(text(&here["refreshToken"])).await.data(200);
    app.log_in(&till, "bob", PASSWORD).await.assert_failed(401, "invalid_credentials");
    app.log_in(&till, "bob", OTHER).await.data(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_changed_only_by_who_knows_it_and_to_one_that_may_be_one() {
    let (app, _, till, bob) = bob().await;
    let token = text(&bob["accessToken"]);
    change(&app, token, OTHER, OTHER).await.assert_failed(401, "invalid_credentials");
    for new in ["short", "password1", "BOB@users.test"] {
        let answer = change(&app, token, PASSWORD, new).await;
        answer.assert_failed(400, "invalid_request");
        assert_eq!(answer.failed_fields(), ["newPassword"]);
    }
    change(&app, "nonsense", PASSWORD, OTHER).await.assert_failed(401, "invalid_token");
    let nobody = json!({"currentPassword": PASSWORD, "newPassword": OTHER});
    app.sso(SsoRequest::post("/api/auth/password", nobody)).await.assert_failed(401, "invalid_token");
    app.log_in(&till, "bob", PASSWORD).await.data(200);
    // Whoever has stolen an access token guesses no faster than at the door.
    app.clock.stop();
    for _ in 0..40 {
        change(&app, token, "a guess of a thief", OTHER).await;
    }
    change(&app, token, PASSWORD, OTHER).await.assert_failed(429, "too_many_attempts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_sets_another_password_once_and_ends_all_sessions() {
    let (app, owner, till, bob) = bob().await;
    let first = code(&app, &owner, &bob).await;
    let second = code(&app, &owner, &bob).await;
    reset(&app, &first, OTHER).await.assert_failed(401, "invalid_code");
    let answer = reset(&app, &second, "short").await;
    assert_eq!(answer.failed_fields(), ["newPassword"], "and the code is still good");
    let many = join_all((0..8).map(|_| reset(&app, &second, OTHER))).await;
    assert_eq!(many.iter().filter(|answer| answer.status == 200).count(), 1);
    let told = reset(&app, "nonsense", OTHER).await;
    for answer in many.iter().filter(|answer| answer.status != 200) {
        answer.assert_failed(401, "invalid_code");
        assert_eq!(answer.json(), told.json());
    }
    assert!(!app.counts(text(&bob["accessToken"])).await);
    app.refresh(text(&bob["refreshToken"])).await.assert_failed(401, "invalid_token");
    app.log_in(&till, "bob", PASSWORD).await.assert_failed(401, "invalid_credentials");
    app.log_in(&till, "bob", OTHER).await.data(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_good_for_a_day_and_ends_when_the_password_is_changed() {
    let (app, owner, _, bob) = bob().await;
    let late = code(&app, &owner, &bob).await;
    app.clock.advance(Duration::from_secs(86_400));
    reset(&app, &late, OTHER).await.assert_failed(401, "invalid_code");
    let needless = code(&app, &owner, &bob).await;
    let next = app.refresh(text(&bob["refreshToken"])).await.data(200);
    change(&app, text(&next["accessToken"]), PASSWORD, OTHER).await.data(200);
    reset(&app, &needless, PASSWORD).await.assert_failed(401, "invalid_code");
}
