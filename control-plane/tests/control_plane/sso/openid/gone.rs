//! An app or a session that is deleted while somebody is about to get something of it: nothing is there for them, and nothing
//! of ours is broken.

use serde_json::json;

use super::world::{AUTHORIZE, Browser, PASSWORD, World, error, form_token, request};
use crate::support::sso::SsoRequest;
use crate::support::{Answer, eventually};

/// Deletes app B while `asking` waits for what it has locked.
async fn while_b_goes(world: &World, asking: impl Future<Output = Answer>) -> Answer {
    let mut deletion = world.app.database.pool.begin().await.unwrap();
    for statement in [
        format!("select from client_app where id = '{}' for update", world.b.id),
        format!("delete from sso_key where client_app_id = '{}'", world.b.id),
        format!("delete from client_app where id = '{}'", world.b.id),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *deletion).await.unwrap();
    }
    let waiting = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock' and query like 'insert into%'";
    let (answer, ()) = tokio::join!(asking, async {
        eventually("it waits", async || world.app.database.number(waiting).await == 1).await;
        deletion.commit().await.unwrap();
    });
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_exchange_for_an_app_that_is_just_being_deleted() {
    let world = World::start().await;
    let token = world.tokens("ann").await["access_token"].as_str().unwrap().to_owned();
    let body = json!({"currentAccessToken": token, "targetClientAppApiKey": world.b.key});
    let answer = while_b_goes(&world, world.app.sso(SsoRequest::post("/api/auth/sso-exchange", body))).await;
    answer.assert_failed(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_token_exchange_for_an_app_that_is_just_being_deleted() {
    let world = World::start().await;
    let token = world.tokens("ann").await["access_token"].as_str().unwrap().to_owned();
    let answer = while_b_goes(&world, world.exchange(&world.b, &token)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (400, &json!("invalid_request")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_signed_on_to_an_app_that_is_just_being_deleted() {
    let world = World::start().await;
    let mut browser = world.signed_up("ann").await.0;
    let query = request(&world.b, &[("prompt", "none")]);
    let answer = while_b_goes(&world, browser.begin(&world, &query)).await;
    assert_eq!(error(&answer), "login_required");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_makes_an_account_at_an_app_that_is_just_being_deleted() {
    let world = World::start().await;
    let body =
        json!({"username": "ann", "email": "ann@example.org", "password": PASSWORD, "user_metadata": {}});
    let signing_up = SsoRequest::post("/api/auth/signup", body).key(&world.b.key);
    while_b_goes(&world, world.app.sso(signing_up)).await.assert_failed(401, "invalid_api_key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_of_an_app_that_is_just_being_deleted_tells_the_person_so() {
    let world = World::start().await;
    let mut browser = Browser::default();
    let path = format!("{AUTHORIZE}/sign-up?{}", request(&world.b, &[]));
    let token = form_token(&browser.go(&world, &path).await);
    let form =
        [("form_token", &*token), ("username", "ann"), ("email", "ann@example.org"), ("password", PASSWORD)];
    let answer = while_b_goes(&world, browser.submit(&world, &path, &form)).await;
    assert_eq!(answer.status, 404, "{}", answer.text);
    assert!(answer.text.contains("is not there any more"), "{}", answer.text);
}
