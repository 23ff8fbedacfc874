//! The pages, and what somebody might make of them.

use axum::body::Body;
use axum::http::Request;

use super::world::{
    AUTHORIZE, Browser, PASSWORD, REDIRECT_URI, World, code, encode, error, form_token, request, sent_back,
};
use crate::support::Answer;

fn assert_page(answer: &Answer, status: u16, told: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("location"), None);
    assert!(answer.text.contains(told), "{told}: {}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_makes_an_account_and_is_signed_in_with_it_later() {
    let world = World::start().await;
    let query = request(&world.a, &[]);
    let mut browser = Browser::default();
    let page = browser.begin(&world, &query).await;
    assert_page(&page, 200, "Sign in to App &#60;a&#62;");
    let answer = browser.sign_up(&world, &query, "ann", PASSWORD).await;
    let back = sent_back(&answer);
    assert_eq!((back["state"].as_str(), back["tenant"].as_str()), ("some state", "1"));
    assert!(back["iss"].starts_with("https://"), "{back:?}");

    let mut another = Browser::default();
    let answer = another.sign_in(&world, &query, "ann", PASSWORD).await;
    let tokens = world.redeem(&world.a, &code(&answer)).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    let events = "select count(*) from audit_event where action = 'sso_session.begin' and actor_name = 'ann'";
    assert_eq!(world.app.database.number(events).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_an_unknown_name_show_the_same_page() {
    let world = World::start().await;
    let query = request(&world.a, &[]);
    let (mut browser, _) = world.signed_up("ann").await;
    let wrong = browser.sign_in(&world, &query, "ann", "not the password").await;
    assert_page(&wrong, 401, "role=\"alert\"");
    let mut browser = Browser::default();
    let unknown = browser.sign_in(&world, &query, "bob", "not the password").await;
    // But for the name that was typed, and the browser's token.
    let same =
        |answer: &Answer, name: &str| answer.text.replace(name, "NAME").replace(&form_token(answer), "TOKEN");
    assert_eq!(same(&wrong, "ann"), same(&unknown, "bob"));
    // Somebody of another app is nobody here.
    let other = browser.sign_in(&world, &request(&world.b, &[]), "ann", PASSWORD).await;
    assert_eq!(other.status, 401);
    for (username, password) in [("", PASSWORD), ("ann", ""), ("a\0b", "x"), (&*"a".repeat(5000), "x")] {
        let answer = browser.sign_in(&world, &query, username, password).await;
        assert!(matches!(answer.status.as_u16(), 400 | 401), "{username:?}: {}", answer.status);
    }
    assert_eq!(world.app.database.number("select count(*) from sso_session").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_new_account_is_said_at_its_field() {
    let world = World::start().await;
    let query = request(&world.a, &[]);
    world.signed_up("ann").await;
    let mut browser = Browser::default();
    for (username, password, field) in [
        ("bob", "short", "password"),
        ("bob", "password1", "password"),
        ("", PASSWORD, "username"),
        ("ANN", PASSWORD, "username"),
    ] {
        let answer = browser.sign_up(&world, &query, username, password).await;
        assert!(matches!(answer.status.as_u16(), 400 | 409), "{username}: {}", answer.status);
        let tied = format!("id=\"{field}-error\"");
        assert!(answer.text.contains(&tied), "{username} {field}: {}", answer.text);
        assert!(!answer.text.contains(password), "a password is never shown again");
    }
    assert_eq!(world.app.database.number("select count(*) from sso_user").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_an_app_is_closed_nobody_makes_an_account() {
    let world = World::start().await;
    world.app.database.execute("update client_app set public_signup = false").await.unwrap();
    let query = request(&world.a, &[]);
    let mut browser = Browser::default();
    let page = browser.begin(&world, &query).await;
    assert!(!page.text.contains("Create an account"), "{}", page.text);
    let path = format!("{AUTHORIZE}/sign-up?{query}");
    assert_page(&browser.go(&world, &path).await, 200, "Sign in to");
    let form = [
        ("form_token", &*form_token(&page)),
        ("username", "ann"),
        ("email", "ann@example.org"),
        ("password", PASSWORD),
    ];
    assert_eq!(browser.submit(&world, &path, &form).await.status, 403);
    assert_eq!(world.app.database.number("select count(*) from sso_user").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_sent_to_an_address_that_the_app_has_not_registered() {
    let world = World::start().await;
    let mut browser = world.signed_up("ann").await.0;
    for address in [
        "https://evil.example/",
        "https://app.example/cb",
        "https://app.example/cb?tenant=1&x=1",
        "https://app.example/cb?tenant=1#x",
        "https://app.example.evil.example/cb?tenant=1",
        "https://app.example@evil.example/cb?tenant=1",
        "//evil.example/cb",
        "javascript:alert(1)",
        "http://127.0.0.1@evil.example/cb",
        "http://127.0.0.1:80@evil.example/cb",
        "http://127.0.0.1.evil.example/cb",
        "http://127.0.0.1/cb\\@evil.example",
        "http://127.0.0.1/cb\r\nLocation: https://evil.example",
    ] {
        // Neither with a code nor with an error.
        for other in [("scope", "openid"), ("response_type", "token"), ("prompt", "none")] {
            let query = request(&world.a, &[("redirect_uri", address), other]);
            assert_page(&browser.begin(&world, &query).await, 400, "has not registered");
            for page in ["sign-in", "sign-up"] {
                let path = format!("{AUTHORIZE}/{page}?{query}");
                assert_page(&browser.submit(&world, &path, &[("a", "b")]).await, 400, "has not registered");
            }
        }
    }
    let unknown = request(&world.a, &[("client_id", "00000000-0000-4000-8000-000000000fff")]);
    assert_page(&browser.begin(&world, &unknown).await, 400, "client_id is wrong");
    for query in ["", "client_id=x", "client_id=&redirect_uri=", "%zz"] {
        assert_page(&browser.begin(&world, query).await, 400, "Sign-in cannot go on");
    }
    let twice = format!("{}&scope=openid", request(&world.a, &[]));
    assert_page(&browser.begin(&world, &twice).await, 400, "repeated");
    let long = request(&world.a, &[("x", &"a".repeat(9000))]);
    assert_page(&browser.begin(&world, &long).await, 400, "too long");
    // The loopback address of a native app, whatever the port.
    let native = request(&world.a, &[("redirect_uri", "http://127.0.0.1:49152/cb")]);
    let answer = browser.begin(&world, &native).await;
    assert!(answer.header("location").unwrap().starts_with("http://127.0.0.1:49152/cb?code="));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_is_told_what_is_wrong_with_its_request() {
    let world = World::start().await;
    let mut browser = Browser::default();
    for (name, value, expected) in [
        ("response_type", "token", "unsupported_response_type"),
        ("response_type", "", "invalid_request"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("code_challenge_method", "", "invalid_request"),
        ("scope", "open\"id", "invalid_scope"),
        ("prompt", "none login", "invalid_request"),
        ("prompt", "none", "login_required"),
        ("request", "x", "request_not_supported"),
        ("response_mode", "fragment", "invalid_request"),
    ] {
        let answer = browser.begin(&world, &request(&world.a, &[(name, value)])).await;
        assert_eq!(error(&answer), expected, "{name}={value}");
        let back = sent_back(&answer);
        assert_eq!(back["state"], "some state");
        assert!(back.contains_key("iss") && !back.contains_key("code"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_comes_back_whatever_it_holds_and_splits_no_answer() {
    let world = World::start().await;
    let mut browser = world.signed_up("ann").await.0;
    let (long, wide) = ("a".repeat(2048), "é\u{202e}€".repeat(100));
    for state in
        ["a\r\nSet-Cookie: x=y\r\n\r\n<script>", "&code=evil&iss=evil#", "%0d%0a", "+ +", &long, &wide]
    {
        for other in [("scope", "openid"), ("response_type", "token")] {
            let answer = browser.begin(&world, &request(&world.a, &[("state", state), other])).await;
            let location = answer.header("location").unwrap();
            assert!(location.is_ascii() && !location.contains(['\r', '\n', ' ', '#']), "{location}");
            assert_eq!(sent_back(&answer)["state"], state);
            assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 0);
        }
    }
    let without = browser.begin(&world, &request(&world.a, &[("state", "")])).await;
    assert!(!sent_back(&without).contains_key("state"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_counts_from_the_browser_that_got_its_page_alone() {
    let world = World::start().await;
    world.signed_up("ann").await;
    let query = request(&world.a, &[]);
    let (path, sign_up) = (format!("{AUTHORIZE}/sign-in?{query}"), format!("{AUTHORIZE}/sign-up?{query}"));
    let mut victim = Browser::default();
    victim.go(&world, &path).await;
    let mut attacker = Browser::default();
    let stolen = form_token(&attacker.go(&world, &path).await);
    let for_b = form_token(&victim.begin(&world, &request(&world.b, &[])).await);
    for token in ["", "x", &stolen, &for_b] {
        let form = [
            ("form_token", token),
            ("username", "ann"),
            ("password", PASSWORD),
            ("email", "ann@example.org"),
        ];
        for path in [&path, &sign_up] {
            let answer = victim.submit(&world, path, &form).await;
            assert_page(&answer, 403, "role=\"alert\"");
        }
        // Nor from one without any cookie.
        let answer = Browser::default().submit(&world, &path, &form).await;
        assert_page(&answer, 403, "role=\"alert\"");
    }
    assert_eq!(world.app.database.number("select count(*) from sso_session").await, 1);
    assert_eq!(world.app.database.number("select count(*) from sso_user").await, 1);
    // The page that comes with the refusal is good.
    assert_eq!(victim.sign_in(&world, &query, "ann", PASSWORD).await.status, 303);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_can_be_framed_kept_or_run_scripts() {
    let world = World::start().await;
    let mut browser = Browser::default();
    let query = request(&world.a, &[]);
    let pages = [
        browser.begin(&world, &query).await,
        browser.go(&world, &format!("{AUTHORIZE}/sign-up?{query}")).await,
        browser.begin(&world, "").await,
        browser.sign_in(&world, &query, "ann", "wrong").await,
        browser.sign_up(&world, &query, "ann", "short").await,
        browser.submit(&world, &format!("{AUTHORIZE}/sign-in?{query}"), &[("a", "b")]).await,
        world.app.send(Request::delete(AUTHORIZE).body(Body::empty()).unwrap()).await,
    ];
    for page in pages {
        let policy = page.header("content-security-policy").unwrap_or_else(|| panic!("{page:?}"));
        for directive in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action '"]
        {
            assert!(policy.contains(directive), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert!(!page.text.contains("<script"), "{}", page.text);
    }
    let cookies =
        world.app.send(Request::get(format!("{AUTHORIZE}?{query}")).body(Body::empty()).unwrap()).await;
    let cookie = cookies.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-keypost-form="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_by_post_is_made_again_by_get() {
    let world = World::start().await;
    let query = request(&world.a, &[("state", "a b&c")]);
    let form: Vec<(String, String)> =
        reqwest::Url::parse(&format!("http://a/?{query}")).unwrap().query_pairs().into_owned().collect();
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (&**name, &**value)).collect();
    let answer = world.post(AUTHORIZE, &[], &form).await;
    let location = answer.header("location").unwrap();
    assert_eq!(location, format!("https://keypost.test{AUTHORIZE}?{}", encode(&form)));
    let answer =
        world.post(&format!("{AUTHORIZE}/sign-in?{query}"), &[("content-type", "text/plain")], &[]).await;
    assert!(answer.status.is_client_error());
    assert!(REDIRECT_URI.starts_with("https"));
}
