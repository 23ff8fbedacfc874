//! Refreshing, exchanging, and asking whom a token is for.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::world::{ACCESS_TOKEN, Browser, EXCHANGE, PASSWORD, World, claims, code, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshing_gives_a_whole_new_set_without_the_nonce() {
    let world = World::start().await;
    let first = world.tokens("ann").await;
    let old = first["refresh_token"].as_str().unwrap();
    // The token of one app is nothing to another, and not used up by it.
    for other in [&world.b, &world.c] {
        assert_eq!(world.refresh(other, old).await.json()["error"], "invalid_grant");
    }
    let second = world.refresh(&world.a, old).await.json();
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(second["scope"], first["scope"]);
    let (before, after) = (claims(&first["id_token"]), claims(&second["id_token"]));
    for name in ["iss", "sub", "aud", "sid", "auth_time"] {
        assert_eq!(before[name], after[name], "{name}");
    }
    assert!(after.get("nonce").is_none() && before["at_hash"] != after["at_hash"]);
    // An app that has no key goes on with what only it has.
    let form =
        [("grant_type", "refresh_token"), ("refresh_token", second["refresh_token"].as_str().unwrap())];
    assert_eq!(world.token_in_public(&world.a, &form).await.status, 200);
    // The first token again, past the time for a retry: somebody else has it.
    world.app.clock.advance(Duration::from_secs(11));
    assert_eq!(world.refresh(&world.a, old).await.json()["error"], "invalid_grant");
    assert_eq!(world.user_info(second["access_token"].as_str().unwrap()).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_may_ask_for_fewer_scopes_when_it_refreshes_and_never_for_more() {
    let world = World::start().await;
    let mut browser = Browser::default();
    let query = request(&world.a, &[("scope", "openid email offline_access")]);
    let code = code(&browser.sign_up(&world, &query, "ann", PASSWORD).await);
    let first = world.redeem(&world.a, &code).await.json();
    let refresh = async |token: &serde_json::Value, scope: &str| {
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", token.as_str().unwrap()), ("scope", scope)];
        world.token(&world.a, &form).await
    };
    // More than was granted, which uses nothing up.
    for wider in ["openid profile", "profile"] {
        let refused = refresh(&first["refresh_token"], wider).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]),
            (400, &json!("invalid_scope")),
            "{wider}"
        );
    }
    let narrow = refresh(&first["refresh_token"], "openid phone").await.json();
    assert_eq!(narrow["scope"], "openid");
    assert_eq!(claims(&narrow["access_token"])["scope"], "openid");
    assert!(claims(&narrow["id_token"]).get("email").is_none(), "{narrow}");
    let told = world.user_info(narrow["access_token"].as_str().unwrap()).await.json();
    assert_eq!(told.as_object().unwrap().keys().collect::<Vec<_>>(), ["sub"]);
    let none = refresh(&narrow["refresh_token"], "email").await.json();
    assert_eq!((&none["scope"], none.get("id_token")), (&json!("email"), None));
    // The refresh token is for all of it all the same (RFC 6749 §6).
    let whole = refresh(&none["refresh_token"], "").await.json();
    assert_eq!(whole["scope"], "openid email offline_access");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_for_an_app_end_with_it_even_without_a_refresh_token() {
    let world = World::start().await;
    let (mut browser, first) = world.signed_up("ann").await;
    let at_a = world.redeem(&world.a, &first).await.json();
    let query = request(&world.b, &[("scope", "openid")]);
    let at_b = world.redeem(&world.b, &code(&browser.begin(&world, &query).await)).await.json();
    assert!(at_b.get("refresh_token").is_none(), "{at_b}");
    let access = at_b["access_token"].as_str().unwrap();
    assert_eq!(world.user_info(access).await.status, 200);
    let path = format!("/api/organization/client-apps/{}", world.b.id);
    assert_eq!(world.app.call("DELETE", &path, None).await.status, 200);
    assert_eq!(world.user_info(access).await.status, 401);
    // The session goes on at the app where it began.
    assert_eq!(world.refresh(&world.a, at_a["refresh_token"].as_str().unwrap()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_exchanges_the_token_of_another_for_its_own_in_the_same_session() {
    let world = World::start().await;
    let at_a = world.tokens("ann").await;
    let answer = world.exchange(&world.b, at_a["access_token"].as_str().unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let at_b = answer.json();
    assert_eq!(at_b["issued_token_type"], ACCESS_TOKEN);
    let (a, b) = (claims(&at_a["access_token"]), claims(&at_b["access_token"]));
    assert_eq!((&a["sid"], &a["sub"]), (&b["sid"], &b["sub"]));
    assert_eq!(b["clientAppId"], world.b.id.as_str());
    let again = world.refresh(&world.b, at_b["refresh_token"].as_str().unwrap()).await;
    assert_eq!(again.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_live_access_token_of_the_organization_is_exchanged() {
    let world = World::start().await;
    let at_a = world.tokens("ann").await;
    let token = |name: &str| at_a[name].as_str().unwrap().to_owned();
    let refused = async |client, subject: &str| {
        let answer = world.exchange(client, subject).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (400, &json!("invalid_request")));
    };
    refused(&world.c, &token("access_token")).await;
    for other in [token("refresh_token"), token("id_token"), "x".to_owned(), world.b.key.clone()] {
        refused(&world.b, &other).await;
    }
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", &*token("access_token")),
        ("subject_token_type", ACCESS_TOKEN),
    ];
    let answer = world.token_in_public(&world.b, &form).await;
    assert_eq!(answer.json()["error"], "unauthorized_client", "without its key");
    let mut aimed = form.to_vec();
    aimed.push(("audience", world.a.id.as_str()));
    assert_eq!(world.token(&world.b, &aimed).await.json()["error"], "invalid_target");
    aimed.pop();
    aimed.push(("audience", world.b.id.as_str()));
    let narrow = world.token(&world.b, &aimed).await.json();
    assert!(narrow.get("refresh_token").is_none(), "only with offline_access: {narrow}");

    world.app.clock.advance(Duration::from_secs(3601));
    refused(&world.b, &token("access_token")).await;
    let fresh = world.tokens("bob").await["access_token"].as_str().unwrap().to_owned();
    world.app.database.execute("update sso_session set ended_at = now()").await.unwrap();
    refused(&world.b, &fresh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn userinfo_tells_what_the_scopes_allow() {
    let world = World::start().await;
    let mut browser = world.signed_up("ann").await.0;
    let mut told = async |scope: &str| {
        let code = code(&browser.begin(&world, &request(&world.a, &[("scope", scope)])).await);
        let tokens = world.redeem(&world.a, &code).await.json();
        world.user_info(tokens["access_token"].as_str().unwrap()).await
    };
    let all = told("openid profile email").await;
    assert_eq!(all.header("cache-control"), Some("no-store"));
    let all = all.json();
    assert_eq!((&all["preferred_username"], &all["email"]), (&json!("ann"), &json!("ann@example.org")));
    assert_eq!(all["user_metadata"], json!({}));
    let little = told("openid").await.json();
    assert_eq!(little.as_object().unwrap().keys().collect::<Vec<_>>(), ["sub"]);
    assert_eq!(little["sub"], all["sub"]);
    let none = told("email").await;
    assert_eq!((none.status.as_u16(), &none.json()["error"]), (403, &json!("insufficient_scope")));
    assert!(none.header("www-authenticate").unwrap().contains("insufficient_scope"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_token_is_no_access_token() {
    let world = World::start().await;
    let tokens = world.tokens("ann").await;
    for name in ["id_token", "refresh_token"] {
        let answer = world.user_info(tokens[name].as_str().unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]),
            (401, &json!("invalid_token")),
            "{name}"
        );
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer "));
    }
    let bare = world.app.send(Request::get("/api/auth/userinfo").body(Body::empty()).unwrap()).await;
    assert_eq!(bare.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_opens_anything_is_stored_or_told_in_clear() {
    let world = World::start().await;
    let (mut browser, first) = world.signed_up("ann").await;
    let second = code(&browser.begin(&world, &request(&world.b, &[])).await);
    let tokens = world.redeem(&world.a, &first).await.json();
    let (_, cookie) = browser.cookies.iter().find(|(name, _)| name.contains("sign-in")).unwrap();
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let all = "select coalesce(string_agg(t::text, ' '), '') from (
                 select a::text from authorization_code a union all select b::text from browser_sign_in b
                 union all select r::text from refresh_token r union all select e::text from audit_event e
                 union all select u::text from sso_user u) t (t)";
    let stored: String =
        sqlx::query_scalar(sqlx::AssertSqlSafe(all)).fetch_one(&world.app.database.pool).await.unwrap();
    for secret in [&*first, &second, cookie, refresh, PASSWORD] {
        assert!(!stored.contains(secret), "{stored}");
    }
    let _ = Browser::default();
}
