//! Codes: each for one app, one address, one verifier, one minute and one use.

use std::time::Duration;

use super::world::{REDIRECT_URI, VERIFIER, World, claims, redemption};
use crate::support::Answer;

fn assert_invalid_grant(answer: &Answer) {
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]),
        (400, &"invalid_grant".into()),
        "{}",
        answer.text
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_gives_tokens_that_say_who_signed_in_where_and_when() {
    let world = World::start().await;
    let (_, code) = world.signed_up("ann").await;
    let answer = world.redeem(&world.a, &code).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let tokens = answer.json();
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["expires_in"], 3600);
    assert_eq!(tokens["scope"], "openid profile email offline_access");
    assert_eq!(tokens["refresh_token"].as_str().unwrap().len(), 43);

    let (id, access) = (claims(&tokens["id_token"]), claims(&tokens["access_token"]));
    assert_eq!(id["aud"], world.a.id.as_str());
    assert_eq!(id["nonce"], "some nonce");
    assert_eq!(id["preferred_username"], "ann");
    assert_eq!((&id["email"], &id["email_verified"]), (&"ann@example.org".into(), &false.into()));
    for name in ["iss", "sub", "sid", "exp"] {
        assert_eq!(id[name], access[name], "{name}");
    }
    assert!(id["auth_time"].as_i64().unwrap() <= id["iat"].as_i64().unwrap());
    assert!(id.get("jti").is_none());
    assert_eq!(access["clientAppId"], world.a.id.as_str());
    assert_eq!(access["userType"], "CLIENT_USER");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_asked_for_is_given() {
    let world = World::start().await;
    let mut browser = super::world::Browser::default();
    let query = super::world::request(&world.a, &[("scope", "openid phone")]);
    let code = super::world::code(&browser.sign_up(&world, &query, "ann", super::world::PASSWORD).await);
    let tokens = world.redeem(&world.a, &code).await.json();
    assert_eq!(tokens["scope"], "openid");
    assert!(tokens.get("refresh_token").is_none(), "{tokens}");
    let id = claims(&tokens["id_token"]);
    assert!(id.get("email").is_none() && id.get("preferred_username").is_none(), "{id}");
    assert_eq!(world.app.database.number("select count(*) from refresh_token").await, 0);

    let query = super::world::request(&world.a, &[("scope", "")]);
    let code = super::world::code(&browser.begin(&world, &query).await);
    let tokens = world.redeem(&world.a, &code).await.json();
    assert!(tokens.get("id_token").is_none() && tokens.get("scope").is_none(), "{tokens}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_comes_again_ends_the_session_that_it_began() {
    let world = World::start().await;
    let (_, code) = world.signed_up("ann").await;
    let tokens = world.redeem(&world.a, &code).await.json();
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(world.user_info(access).await.status, 200);

    assert_invalid_grant(&world.redeem(&world.a, &code).await);
    assert_eq!(world.user_info(access).await.status, 401);
    assert_invalid_grant(&world.refresh(&world.a, tokens["refresh_token"].as_str().unwrap()).await);
    let ended = "select count(*) from audit_event where action = 'sso_session.end'
                  and changes::text like '%authorization_code_reused%'";
    assert_eq!(world.app.database.number(ended).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_redeem_a_code_at_once_one_gets_tokens() {
    let world = World::start().await;
    for round in 0..5 {
        let (_, code) = world.signed_up(&format!("ann{round}")).await;
        let all = futures_util::future::join_all((0..4).map(|_| world.redeem(&world.a, &code))).await;
        let good = all.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(good, 1);
        all.iter().filter(|answer| answer.status != 200).for_each(assert_invalid_grant);
    }
    // The others had the codes too: who got tokens keeps none.
    assert_eq!(world.app.database.number("select count(*) from sso_session where ended_at is null").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_the_app_that_began_gets_nothing_and_uses_nothing_up() {
    let world = World::start().await;
    let (_, code) = world.signed_up("ann").await;
    let good = redemption(&code);
    let with = |name: &str, value: &'static str| {
        good.map(|(own, before)| if own == name { (own, value) } else { (own, before) })
    };
    let other_verifier = VERIFIER.replace('d', "e").leak();
    for form in [
        with("code_verifier", other_verifier),
        with("code", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        with("redirect_uri", "https://app.example/cb"),
        with("redirect_uri", "https://app.example/cb?tenant=1&x"),
        with("redirect_uri", "https://evil.example/cb"),
    ] {
        assert_invalid_grant(&world.token(&world.a, &form).await);
        assert_invalid_grant(&world.token_in_public(&world.a, &form).await);
    }
    for other in [&world.b, &world.c] {
        assert_invalid_grant(&world.token(other, &good).await);
        assert_invalid_grant(&world.token_in_public(other, &good).await);
    }
    for missing in ["code", "redirect_uri", "code_verifier", "grant_type"] {
        let form: Vec<_> = good.into_iter().filter(|(name, _)| *name != missing).collect();
        assert_eq!(world.token(&world.a, &form).await.json()["error"], "invalid_request", "{missing}");
    }
    // The one that began, without a key, as an app must that cannot keep one.
    assert_eq!(world.token_in_public(&world.a, &good).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_lasts_a_minute() {
    let world = World::start().await;
    let (_, code) = world.signed_up("ann").await;
    world.app.clock.advance(Duration::from_secs(61));
    assert_invalid_grant(&world.redeem(&world.a, &code).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_does_not_prove_itself_is_told_so() {
    let world = World::start().await;
    let (_, code) = world.signed_up("ann").await;
    let wrong = super::world::Client { key: world.b.key.clone(), ..world.a.clone() };
    let answer = world.token(&wrong, &redemption(&code)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (401, &"invalid_client".into()));
    assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"keypost\""));
    let mut form = redemption(&code).to_vec();
    form.extend([("client_id", world.a.id.as_str()), ("client_secret", world.b.key.as_str())]);
    let answer = world.post("/api/auth/token", &[], &form).await;
    assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, None));
    assert_eq!(world.redeem(&world.a, &code).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_token_request_is_answered_in_the_shape_of_oauth() {
    let world = World::start().await;
    let send = async |content_type: &str, body: &str| {
        let request = axum::http::Request::post("/api/auth/token").header("content-type", content_type);
        world.app.send(request.body(axum::body::Body::from(body.to_owned())).unwrap()).await
    };
    let form = "application/x-www-form-urlencoded";
    let id = format!("client_id={}", world.a.id);
    for (content_type, body, status, error) in [
        ("application/json", "{}".to_owned(), 400, "invalid_request"),
        (form, String::new(), 401, "invalid_client"),
        (form, format!("{id}&{id}"), 400, "invalid_request"),
        (form, format!("{id}&grant_type=%zz"), 400, "invalid_request"),
        (form, format!("{id}&grant_type=password"), 400, "unsupported_grant_type"),
        (form, format!("{id}&grant_type={}", "a".repeat(70_000)), 413, "invalid_request"),
        (form, "client_id=00000000-0000-4000-8000-000000000fff".to_owned(), 401, "invalid_client"),
    ] {
        let answer = send(content_type, &body).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]),
            (status, &error.into()),
            "{}",
            answer.text
        );
        assert!(answer.json()["error_description"].is_string());
    }
    let answer = world.app.call("GET", "/api/auth/token", None).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST")));
    assert_eq!(answer.json()["error"], "invalid_request");
    assert!(REDIRECT_URI.contains('?'));
}
