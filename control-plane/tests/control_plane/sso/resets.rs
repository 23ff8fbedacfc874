//! Codes for people who have forgotten their passwords: for users from whoever manages them, for owners from the command.

use serde_json::{Value, json};

use crate::support::sso::SsoRequest;
use crate::support::{Answer, TestApp, keypost};

const NEW: &str = "quite another password";

async fn reset(app: &TestApp, code: &str) -> Answer {
    app.sso(SsoRequest::post("/api/auth/password-reset", json!({"code": code, "newPassword": NEW}))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owners_code_lets_a_user_set_another_password_once() {
    let app = TestApp::start().await;
    let owner = app.owner("olga").await;
    let client_app = app.client_app(&owner, "A").await;
    let user = app.app_user(&client_app, "ulla").await;
    let id = user["userClaims"]["userId"].as_str().unwrap();
    let path = format!("/api/organization/{}/users/{id}/password-reset", owner.org);
    let refused = app.sso(SsoRequest::post(&path, json!({})).key(&client_app.key)).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    let made = app.sso(SsoRequest::post(&path, json!({})).key(&owner.key)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let code = made.json()["data"]["code"].as_str().unwrap().to_owned();
    assert!(made.json()["data"]["expiresAt"].is_string());

    let done = reset(&app, &code).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let again = reset(&app, &code).await;
    assert_eq!((again.status.as_u16(), &again.json()["data"]), (401, &Value::Null), "{}", again.text);
    let login = json!({"username": "ulla", "password": NEW});
    let login = app.sso(SsoRequest::post("/api/auth/login", login).key(&client_app.key)).await;
    assert_eq!(login.status, 200, "{}", login.text);
    let told = "select count(*) from audit_event where action = 'sso_user.make_reset_code'";
    assert_eq!(app.database.number(told).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_gives_an_owner_a_code_and_the_audit_tells_of_it() {
    let app = TestApp::start().await;
    app.owner("olga").await;
    let ask = async |owner: &str| {
        let done =
            keypost(&app.database, &app.kv, &["owner", "password-reset", owner]).output().await.unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (code, said) = ask("OLGA").await;
    assert_eq!(code, Some(0));
    let done = reset(&app, said.trim()).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let login = json!({"username": "olga", "password": NEW});
    assert_eq!(app.sso(SsoRequest::post("/api/auth/login", login)).await.status, 200);
    assert_eq!(ask("nobody").await, (Some(4), String::new()));
    let told = "select count(*) from audit_event
                 where action = 'sso_user.make_reset_code' and actor_kind = 'command'";
    assert_eq!(app.database.number(told).await, 1);
}
