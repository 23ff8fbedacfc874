//! Signing in, and what slows guessing down.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use keypost::service::sso::password::{PasswordCost, Passwords};
use serde_json::json;

use crate::support::sso::{ClientApp, PASSWORD, SsoRequest, bob, claims, credentials};
use crate::support::{Answer, TestApp};

const WRONG: &str = "a short way to Tipperary";

async fn log_in_from(app: &TestApp, till: &ClientApp, address: &str, name: &str, password: &str) -> Answer {
    let request =
        SsoRequest::post("/api/auth/login", credentials(name, password)).key(&till.key).from(address);
    app.sso(request).await
}

/// Guesses twelve times at an account from an address, as fast as it is let. The next time is after 64 s.
async fn use_up(app: &TestApp, till: &ClientApp, address: &str, name: &str) {
    for n in 0..12_u32 {
        log_in_from(app, till, address, name, WRONG).await.assert_failed(401, "invalid_credentials");
        if (5..11).contains(&n) {
            app.clock.advance(Duration::from_secs(1 + (1 << (n - 5))));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_sign_in_by_username_and_owners_by_username_or_address() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let (till, other) = (app.client_app(&owner, "Till").await, app.client_app(&owner, "Other").await);
    app.app_user(&till, "bob").await;
    let data = app.log_in(&till, " BOB ", PASSWORD).await.data(200);
    assert_eq!(data["userClaims"]["username"], "bob");
    assert_eq!(data["clientAppApiKey"], till.key);
    app.log_in(&till, "bob@users.test", PASSWORD).await.assert_failed(401, "invalid_credentials");
    app.log_in(&other, "bob", PASSWORD).await.assert_failed(401, "invalid_credentials");
    app.log_in(&till, "ada", PASSWORD).await.assert_failed(401, "invalid_credentials");

    let elsewhere = app.owner("eve").await;
    for name in ["ada", "ADA@owners.test"] {
        let request = || SsoRequest::post("/api/auth/login", credentials(name, PASSWORD));
        let data = app.sso(request()).await.data(200);
        assert_eq!(data["userClaims"]["userType"], "ORG_OWNER");
        assert_eq!(claims(data["accessToken"].as_str().unwrap())["aud"], json!([owner.org]));
        assert!(data.get("orgOwnerApiKey").is_none(), "it is shown once, at signup");
        // An organization's key lets its own owners in, and nobody else.
        app.sso(request().key(&owner.key)).await.data(200);
        app.sso(request().key(&elsewhere.key)).await.assert_failed(401, "invalid_credentials");
    }
    let bob = SsoRequest::post("/api/auth/login", credentials("bob", PASSWORD));
    app.sso(bob).await.assert_failed(401, "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_nobody_can_have_is_bad_input() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let till = app.client_app(&owner, "Till").await;
    for name in ["bob\0", "\u{1b}bob", &"b".repeat(255)] {
        let answer = app.log_in(&till, name, PASSWORD).await;
        answer.assert_failed(400, "invalid_request");
        assert_eq!(answer.failed_fields(), ["username"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_right_however_its_characters_are_composed() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let till = app.client_app(&owner, "Till").await;
    let fields = json!({"username": "zoë", "email": "z@users.test", "password": "Zo\u{eb}s Trompete"});
    app.sso(SsoRequest::post("/api/auth/signup", fields).key(&till.key)).await.data(201);
    app.log_in(&till, "zoe\u{308}", "Zoe\u{308}s Trompete").await.data(200);
    app.log_in(&till, "zoë", &"x".repeat(5000)).await.assert_failed(401, "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_in_is_told_the_same_whatever_the_reason() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let till = app.client_app(&owner, "Till").await;
    for name in ["bob", "carol", "dave"] {
        app.app_user(&till, name).await;
    }
    app.database.execute("update sso_user set status = 'disabled' where username = 'carol'").await.unwrap();
    use_up(&app, &till, "198.51.100.1", "dave").await;
    let told = |answer: Answer| (answer.status.as_u16(), answer.json());
    let expected = told(log_in_from(&app, &till, "198.51.100.1", "bob", WRONG).await);
    assert_eq!(expected.0, 401);
    for (name, password) in
        [("nobody", WRONG), ("nobody", PASSWORD), ("carol", PASSWORD), ("dave", PASSWORD), ("bob", "")]
    {
        let answer = log_in_from(&app, &till, "198.51.100.1", name, password).await;
        assert_eq!(told(answer), expected, "{name}");
    }
}

/// The median of how long each of these took, in turns.
async fn medians<const N: usize>(app: &TestApp, till: &ClientApp, names: [&str; N]) -> [Duration; N] {
    let mut took = [(); N].map(|()| Vec::new());
    for round in 0..41 {
        for (name, took) in names.iter().zip(&mut took) {
            // Each from a network of its own, so that none is delayed for the sake of its network.
            let address = format!("2001:db8:{round}:{}::1", took.len());
            let began = Instant::now();
            let answer = log_in_from(app, till, &address, name, WRONG).await;
            took.push(began.elapsed());
            assert_eq!(answer.status, 401);
        }
    }
    took.map(|mut took| {
        took.sort_unstable();
        took[took.len() / 2]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_in_waits_as_long_whatever_the_reason() {
    // As much work as in production: that is what must not be left out.
    let app = TestApp::start_changed(|context| {
        context.passwords = Passwords::new(PasswordCost::default(), context.metrics.clone());
    })
    .await;
    let owner = app.owner("ada").await;
    let till = app.client_app(&owner, "Till").await;
    for name in ["bob", "carol"] {
        app.app_user(&till, name).await;
    }
    app.database.execute("update sso_user set status = 'disabled' where username = 'carol'").await.unwrap();
    // One of them has a hash from when less work was asked for.
    let cheap = Passwords::new(PasswordCost::new(8192, 1).unwrap(), app.context.metrics.clone());
    app.app_user(&till, "dave").await;
    let password = keypost::service::sso::password::Password::typed(PASSWORD);
    let hash = cheap.hash(password, &mut rand_core::OsRng).await.unwrap();
    sqlx::query("update sso_user set password_hash = $1 where username = 'dave'")
        .bind(hash.expose())
        .execute(&app.database.pool)
        .await
        .unwrap();

    // Bob's account is delayed after the twentieth failure, so half of the runs meet that too.
    let names = ["nobody", "bob", "carol", "dave"];
    let [nobody, others @ ..] = medians(&app, &till, names).await;
    for (name, median) in names[1..].iter().zip(others) {
        let ratio = median.as_secs_f64() / nobody.as_secs_f64();
        // One hash more or less would be a factor of two, or none at all.
        assert!((0.7..1.4).contains(&ratio), "{name} takes {median:?}, and nobody {nobody:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_from_one_network_are_delayed_and_the_owner_elsewhere_is_not() {
    let (app, _, till, _) = bob().await;
    let stranger = "198.51.100.1";
    use_up(&app, &till, stranger, "bob").await;
    // The right password does not help the stranger now, and trying makes it no worse.
    for _ in 0..10 {
        log_in_from(&app, &till, stranger, "bob", PASSWORD).await.assert_failed(401, "invalid_credentials");
    }
    log_in_from(&app, &till, "203.0.113.7", "bob", PASSWORD).await.data(200);
    app.clock.advance(Duration::from_secs(65));
    log_in_from(&app, &till, stranger, "bob", PASSWORD).await.data(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_from_everywhere_are_delayed_but_not_where_the_person_has_signed_in_before() {
    let (app, _, till, _) = bob().await;
    let home = "203.0.113.7";
    log_in_from(&app, &till, home, "bob", PASSWORD).await.data(200);
    for n in 0..40 {
        log_in_from(&app, &till, &format!("198.51.100.{n}"), "bob", WRONG).await;
        app.clock.advance(Duration::from_secs(301));
    }
    for n in 40..42 {
        log_in_from(&app, &till, &format!("198.51.100.{n}"), "bob", WRONG).await;
    }
    // From a new place even the right password is refused for a while, at most five minutes; from home it is not.
    log_in_from(&app, &till, "192.0.2.99", "bob", PASSWORD).await.assert_failed(401, "invalid_credentials");
    log_in_from(&app, &till, home, "bob", PASSWORD).await.data(200);
    app.clock.advance(Duration::from_secs(301));
    log_in_from(&app, &till, "192.0.2.99", "bob", PASSWORD).await.data(200);
    // Who was right does not keep the next one out who is.
    log_in_from(&app, &till, "192.0.2.100", "bob", PASSWORD).await.data(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_nothing_is_free_any_more_guesses_come_one_at_a_time() {
    let (app, _, till, _) = bob().await;
    let stranger = "198.51.100.1";
    use_up(&app, &till, stranger, "bob").await;
    app.clock.advance(Duration::from_secs(65));
    let many = join_all((0..16).map(|_| log_in_from(&app, &till, stranger, "bob", WRONG))).await;
    for answer in many {
        answer.assert_failed(401, "invalid_credentials");
    }
    // Twelve were counted for the account, and for the account from there; one of these was let through.
    let thirteen = "select count(*) from sign_in_failure where failures = 13";
    assert_eq!(app.database.number(thirteen).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_is_noted_once_an_hour_and_what_failed_from_it_is_forgotten_at_each_sign_in() {
    let (app, _, till, _) = bob().await;
    app.clock.stop();
    let noted = async || {
        app.database
            .number("select (extract(epoch from last_used_at) * 1000)::bigint from sign_in_network")
            .await
    };
    let from = "198.51.100.1";
    log_in_from(&app, &till, from, "bob", PASSWORD).await.data(200);
    let first = noted().await;
    app.clock.advance(Duration::from_secs(3599));
    log_in_from(&app, &till, from, "bob", WRONG).await.assert_failed(401, "invalid_credentials");
    let failed = "select count(*) from sign_in_failure where failures > 0";
    assert_eq!(app.database.number(failed).await, 2, "of the account from the network, and of the network");
    log_in_from(&app, &till, from, "bob", PASSWORD).await.data(200);
    assert_eq!((noted().await, app.database.number(failed).await), (first, 1));
    app.clock.advance(Duration::from_secs(1));
    log_in_from(&app, &till, from, "bob", PASSWORD).await.data(200);
    assert_eq!(noted().await, first + 3_600_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_fails_thirty_times_in_a_minute_must_wait() {
    let (app, _, till, _) = bob().await;
    app.clock.stop();
    for n in 0..30 {
        let answer = log_in_from(&app, &till, "198.51.100.1", &format!("nobody{n}"), WRONG).await;
        answer.assert_failed(401, "invalid_credentials");
    }
    let answer = log_in_from(&app, &till, "198.51.100.1", "bob", PASSWORD).await;
    answer.assert_failed(429, "too_many_attempts");
    assert!(answer.header("retry-after").is_some());
    log_in_from(&app, &till, "198.51.100.2", "bob", PASSWORD).await.data(200);
    // What succeeds does not count, so that any number may sign in from one address.
    for _ in 0..40 {
        log_in_from(&app, &till, "198.51.100.2", "bob", PASSWORD).await.data(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_is_made_anew_at_sign_in_once_more_work_is_asked_for() {
    let (app, _, till, _) = bob().await;
    let hash = async || -> String {
        sqlx::query_scalar("select password_hash from sso_user where username = 'bob'")
            .fetch_one(&app.database.pool)
            .await
            .unwrap()
    };
    let cheap = Passwords::new(PasswordCost::new(8, 1).unwrap(), app.context.metrics.clone());
    let password = keypost::service::sso::password::Password::typed(PASSWORD);
    let old = cheap.hash(password, &mut rand_core::OsRng).await.unwrap();
    sqlx::query("update sso_user set password_hash = $1 where username = 'bob'")
        .bind(old.expose())
        .execute(&app.database.pool)
        .await
        .unwrap();
    app.log_in(&till, "bob", WRONG).await.assert_failed(401, "invalid_credentials");
    assert_eq!(hash().await, old.expose());
    app.log_in(&till, "bob", PASSWORD).await.data(200);
    let new = hash().await;
    assert!(new.contains("m=64,t=1,p=1"), "{new}");
    app.log_in(&till, "bob", PASSWORD).await.data(200);
    assert_eq!(hash().await, new);
}
