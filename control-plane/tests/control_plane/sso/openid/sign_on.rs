//! Who is signed in at one app of an organization is signed in at the next.

use std::time::Duration;

use super::world::{AUTHORIZE, Browser, PASSWORD, World, claims, code, error, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_app_asks_for_no_password_and_shares_the_session() {
    let world = World::start().await;
    let (mut browser, first) = world.signed_up("ann").await;
    let at_a = world.redeem(&world.a, &first).await.json();
    let answer = browser.begin(&world, &request(&world.b, &[])).await;
    let at_b = world.redeem(&world.b, &code(&answer)).await.json();
    let (a, b) = (claims(&at_a["id_token"]), claims(&at_b["id_token"]));
    for name in ["sid", "sub", "auth_time", "iss"] {
        assert_eq!(a[name], b[name], "{name}");
    }
    assert_eq!(b["aud"], world.b.id.as_str());
    assert_eq!(claims(&at_b["access_token"])["clientAppId"], world.b.id.as_str());
    // Silently, where the app wants no page.
    let silent = browser.begin(&world, &request(&world.b, &[("prompt", "none")])).await;
    assert_eq!(world.redeem(&world.b, &code(&silent)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_got_without_a_password_makes_the_session_no_longer() {
    let world = World::start().await;
    let (mut browser, first) = world.signed_up("ann").await;
    let ends = async || {
        world.app.database.number("select extract(epoch from expires_at)::bigint from sso_session").await
    };
    let at_a = world.redeem(&world.a, &first).await.json();
    let before = ends().await;
    world.app.clock.advance(Duration::from_secs(3600));
    let at_b =
        world.redeem(&world.b, &code(&browser.begin(&world, &request(&world.b, &[])).await)).await.json();
    let again = world.refresh(&world.b, at_b["refresh_token"].as_str().unwrap()).await;
    assert_eq!((again.status.as_u16(), ends().await), (200, before));
    let refreshed = world.refresh(&world.a, at_a["refresh_token"].as_str().unwrap()).await;
    assert_eq!(refreshed.status, 200);
    assert!(ends().await >= before + 3600, "the sign-in itself does");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_may_insist_on_a_password() {
    let world = World::start().await;
    let (mut browser, _) = world.signed_up("ann").await;
    for prompt in ["login", "select_account", "login consent"] {
        let query = request(&world.a, &[("prompt", prompt)]);
        let page = browser.begin(&world, &query).await;
        assert_eq!(page.status, 200, "{prompt}");
        let answer = browser.sign_in(&world, &query, "ann", PASSWORD).await;
        assert_eq!(world.redeem(&world.a, &code(&answer)).await.status, 200);
    }
    world.app.clock.advance(Duration::from_secs(100));
    let with = |value| request(&world.a, &[("max_age", value)]);
    code(&browser.begin(&world, &with("1000")).await);
    assert_eq!(browser.begin(&world, &with("60")).await.status, 200, "the page");
    let silent = request(&world.a, &[("max_age", "60"), ("prompt", "none")]);
    assert_eq!(error(&browser.begin(&world, &silent).await), "login_required");
    let answer = browser.sign_in(&world, &with("60"), "ann", PASSWORD).await;
    let id = claims(&world.redeem(&world.a, &code(&answer)).await.json()["id_token"]);
    assert!(id["iat"].as_i64().unwrap() - id["auth_time"].as_i64().unwrap() <= 60, "{id}");
    let create = browser.begin(&world, &request(&world.a, &[("prompt", "create")])).await;
    assert!(create.text.contains("Create an account for"), "{}", create.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_may_say_whom_it_means_and_nobody_else_is_signed_in_silently() {
    let world = World::start().await;
    let (mut anns, first) = world.signed_up("ann").await;
    let (mut bobs, second) = world.signed_up("bob").await;
    let at_a = world.redeem(&world.a, &first).await.json();
    let ann = at_a["id_token"].as_str().unwrap();
    let bob = world.redeem(&world.a, &second).await.json()["id_token"].as_str().unwrap().to_owned();
    // A hint is about somebody, not about now.
    world.app.clock.advance(Duration::from_secs(2 * 3600));
    let silent = |hint: &str| request(&world.b, &[("prompt", "none"), ("id_token_hint", hint)]);
    code(&anns.begin(&world, &silent(ann)).await);
    assert_eq!(error(&anns.begin(&world, &silent(&bob)).await), "login_required");
    assert_eq!(error(&bobs.begin(&world, &silent(ann)).await), "login_required");
    // Of a hint that tells of nobody, nobody is who is meant: no ID token, another's, or one that somebody has changed.
    let (head, rest) = ann.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let (_, forged) = bob.split_once('.').unwrap();
    let forged = format!("{head}.{}.{signature}", forged.split('.').next().unwrap());
    for hint in
        ["x", &forged, at_a["access_token"].as_str().unwrap(), at_a["refresh_token"].as_str().unwrap()]
    {
        assert_eq!(error(&anns.begin(&world, &silent(hint)).await), "login_required", "{hint}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_page_too_nobody_is_signed_in_but_whom_the_app_means() {
    let world = World::start().await;
    let (mut anns, first) = world.signed_up("ann").await;
    let (mut bobs, _) = world.signed_up("bob").await;
    let tokens = world.redeem(&world.a, &first).await.json();
    let ann = tokens["id_token"].as_str().unwrap();
    let asking = request(&world.a, &[("id_token_hint", ann)]);
    code(&anns.begin(&world, &asking).await);
    let page = bobs.begin(&world, &asking).await;
    assert_eq!(page.status, 200);
    assert!(!page.text.contains("Create an account"), "{}", page.text);
    let sessions = world.app.database.number("select count(*) from sso_session").await;
    assert_eq!(error(&bobs.sign_in(&world, &asking, "bob", PASSWORD).await), "login_required");
    assert_eq!(world.app.database.number("select count(*) from sso_session").await, sessions);
    code(&bobs.sign_in(&world, &asking, "ann", PASSWORD).await);
    // A hint of which nothing is known any more keeps nobody from signing in with a password.
    let lost = request(&world.a, &[("id_token_hint", "lost")]);
    assert_eq!(anns.begin(&world, &lost).await.status, 200);
    code(&anns.sign_in(&world, &lost, "ann", PASSWORD).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_ends_with_its_session_its_person_and_its_organization() {
    let world = World::start().await;
    let (mut browser, _) = world.signed_up("ann").await;
    let query = request(&world.b, &[("prompt", "none")]);
    code(&browser.begin(&world, &query).await);
    // Another organization's app does not know this browser.
    let elsewhere = browser.begin(&world, &request(&world.c, &[("prompt", "none")])).await;
    assert_eq!(error(&elsewhere), "login_required");
    // Even with the cookie under its own name.
    let (name, value) = browser.cookies.iter().find(|(name, _)| name.contains("sign-in-acme")).unwrap();
    let mut forged = Browser::default();
    forged.cookies.insert(name.replace("acme", "other"), value.clone());
    let elsewhere = forged.begin(&world, &request(&world.c, &[("prompt", "none")])).await;
    assert_eq!(error(&elsewhere), "login_required");

    world.app.database.execute("update sso_user set status = 'disabled'").await.unwrap();
    assert_eq!(error(&browser.begin(&world, &query).await), "login_required");
    world.app.database.execute("update sso_user set status = 'enabled'").await.unwrap();
    code(&browser.begin(&world, &query).await);
    world.app.database.execute("update sso_session set ended_at = now()").await.unwrap();
    assert_eq!(error(&browser.begin(&world, &query).await), "login_required");
    let (mut browser, _) = world.signed_up("bob").await;
    world.app.clock.advance(Duration::from_secs(8 * 86_400));
    assert_eq!(error(&browser.begin(&world, &query).await), "login_required");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sign_in_gives_the_browser_another_cookie() {
    let world = World::start().await;
    let (mut browser, _) = world.signed_up("ann").await;
    let cookie = |browser: &Browser| {
        let (_, value) = browser.cookies.iter().find(|(name, _)| name.contains("sign-in-acme")).unwrap();
        value.clone()
    };
    let before = cookie(&browser);
    let query = request(&world.a, &[]);
    assert_eq!(browser.sign_in(&world, &query, "ann", PASSWORD).await.status, 303);
    assert_ne!(cookie(&browser), before);
    assert_eq!(
        world.app.database.number("select count(*) from browser_sign_in").await,
        1,
        "the old one is forgotten"
    );
    let path = format!("{AUTHORIZE}?{}", request(&world.a, &[("prompt", "none")]));
    let mut old = Browser::default();
    old.cookies.insert("__Host-keypost-sign-in-acme".to_owned(), before);
    assert_eq!(error(&old.go(&world, &path).await), "login_required");
}
