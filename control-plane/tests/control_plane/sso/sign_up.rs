//! Signing up.

use axum::body::Body;
use axum::http::Request;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::sso::{Owner, SsoRequest, claims, owner_fields, user_fields};
use crate::support::{Answer, TestApp};

async fn sign_up(app: &TestApp, body: Value) -> Answer {
    app.sso(SsoRequest::post("/api/auth/signup", body)).await
}

async fn sign_up_at(app: &TestApp, key: &str, body: Value) -> Answer {
    app.sso(SsoRequest::post("/api/auth/signup", body).key(key)).await
}

fn with(mut fields: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => fields.as_object_mut().unwrap().remove(name),
            value => fields.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_gets_tokens_an_organization_and_its_key_once_the_pool_is_published() {
    let app = TestApp::start().await;
    let answer = sign_up(&app, owner_fields("ada")).await;
    let data = answer.data(201);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!((&data["tokenType"], &data["expiresIn"]), (&json!("Bearer"), &json!(3600)));
    let user = &data["userClaims"];
    assert_eq!(
        (&user["username"], &user["userType"], &user["organizationName"], &user["user_metadata"]),
        (&json!("ada"), &json!("ORG_OWNER"), &json!("ada's"), &json!({}))
    );
    assert!(user.get("clientAppId").is_none() && data.get("clientAppApiKey").is_none());
    let (org, key) = (user["organizationId"].as_str().unwrap(), data["orgOwnerApiKey"].as_str().unwrap());
    assert!(key.starts_with("org_"));

    let claims = claims(data["accessToken"].as_str().unwrap());
    assert_eq!((&claims["sub"], &claims["aud"]), (&user["userId"], &json!([org])));
    let pool = claims["iss"].as_str().unwrap().rsplit_once('/').unwrap().1;
    assert!(app.kv.keys().iter().any(|key| *key == format!("v1/pool/{pool}")), "it is in KV by now");

    // It is the organization of the management API.
    let found = app.call("GET", &format!("/api/internal/org/{org}"), None).await;
    assert_eq!(found.json()["name"], "ada's");
    let me = app.sso(SsoRequest::get("/api/organization/me").key(key)).await.data(200);
    assert_eq!((&me["id"], &me["ssoPoolId"]), (&json!(org), &json!(pool)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_gets_tokens_for_the_app_that_carry_the_metadata_as_it_was_sent() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let till = app.client_app(&owner, "Till").await;
    let data = app.app_user(&till, "bob").await;
    assert_eq!(data["clientAppApiKey"], till.key);
    assert!(data.get("orgOwnerApiKey").is_none());
    let user = &data["userClaims"];
    assert_eq!((&user["userType"], &user["clientAppId"]), (&json!("CLIENT_USER"), &json!(till.id)));
    assert_eq!(
        user["user_metadata"],
        json!({"role": "DRIVER", "empID": "E26241", "department": "Operations"})
    );
    let claims = claims(data["accessToken"].as_str().unwrap());
    assert_eq!(claims["aud"], json!([till.id, owner.org]));
    for (name, value) in user.as_object().unwrap() {
        assert_eq!(&claims[name], value, "{name}");
    }

    // To the digit.
    let body = user_fields("carol").to_string().replace("\"DRIVER\"", "12345678901234567890.10");
    let request = axum::http::Request::builder()
        .method("POST")
        .uri("/api/auth/signup")
        .header("apikey", &till.key)
        .header("content-type", "application/json")
        .body(axum::body::Body::from(body));
    let answer = app.send(request.unwrap()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert!(answer.text.contains("12345678901234567890.10"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_field_is_named() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let till = app.client_app(&owner, "Till").await;
    for (change, field) in [
        (json!({"username": null}), "username"),
        (json!({"username": ""}), "username"),
        (json!({"username": " eve"}), "username"),
        (json!({"username": "e".repeat(201)}), "username"),
        (json!({"username": 7}), "username"),
        (json!({"email": "nobody"}), "email"),
        (json!({"email": null}), "email"),
        (json!({"password": "short"}), "password"),
        (json!({"password": "p".repeat(257)}), "password"),
        (json!({"password": "password1"}), "password"),
        (json!({"password": "eve@users.test"}), "password"),
        (json!({"user_metadata": []}), "user_metadata"),
        (json!({"user_metadata": "text"}), "user_metadata"),
        (json!({"user_metadata": {"a": "x".repeat(16 << 10)}}), "user_metadata"),
        (json!({"user_metadata": {"sub": "somebody else"}}), "user_metadata.sub"),
        (json!({"user_metadata": {"organizationId": "other"}}), "user_metadata.organizationId"),
        (json!({"role": "OWNER"}), "role"),
        (json!({"organizationName": "Mine"}), "organizationName"),
    ] {
        let answer = sign_up_at(&app, &till.key, with(user_fields("eve"), change.clone())).await;
        answer.assert_failed(400, "invalid_request");
        assert_eq!(answer.failed_fields(), [field], "{change}: {}", answer.text);
    }
    for (change, field) in [
        (json!({"organizationName": null}), "organizationName"),
        (json!({"organizationName": "o".repeat(201)}), "organizationName"),
        (json!({"organizationDescription": "d".repeat(2001)}), "organizationDescription"),
        (json!({"firstName": "f".repeat(201)}), "firstName"),
        (json!({"user_metadata": {}}), "user_metadata"),
        (json!({"username": "somebody@else.test"}), "username"),
    ] {
        let answer = sign_up(&app, with(owner_fields("eve"), change.clone())).await;
        answer.assert_failed(400, "invalid_request");
        assert_eq!(answer.failed_fields(), [field], "{change}: {}", answer.text);
    }
    // Several at once.
    let answer = sign_up_at(&app, &till.key, json!({"email": "x"})).await;
    assert_eq!(answer.failed_fields(), ["username", "email", "password"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_unique_per_app_and_among_owners_whatever_their_case() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let (till, back_office) =
        (app.client_app(&owner, "Till").await, app.client_app(&owner, "Back office").await);
    app.app_user(&till, "Bob").await;
    app.app_user(&back_office, "bob").await;
    for (change, field) in
        [(json!({"username": "ＢＯＢ"}), "username"), (json!({"email": "BOB@Users.test"}), "email")]
    {
        let answer = sign_up_at(&app, &till.key, with(user_fields("other"), change)).await;
        answer.assert_failed(409, "already_exists");
        assert_eq!(answer.failed_fields(), [field]);
    }
    let answer = sign_up(&app, with(owner_fields("other"), json!({"username": "ADA"}))).await;
    answer.assert_failed(409, "already_exists");
    assert_eq!(answer.failed_fields(), ["username"]);
    let answer = sign_up(&app, with(owner_fields("other"), json!({"email": "Ada@Owners.test"}))).await;
    assert_eq!(answer.failed_fields(), ["email"]);
    // Nothing is left of an owner who was not signed up.
    assert_eq!(app.database.number("select count(*) from organization").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_who_want_one_name_at_once_one_gets_it() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let till = app.client_app(&owner, "Till").await;
    let many = join_all((0..50).map(|n| {
        let fields = with(user_fields("bob"), json!({"email": format!("bob{n}@users.test")}));
        sign_up_at(&app, &till.key, fields)
    }));
    let answers = many.await;
    let status = |wanted: u16| answers.iter().filter(|answer| answer.status == wanted).count();
    assert_eq!((status(201), status(409)), (1, 49));
    assert_eq!(app.database.number("select count(*) from sso_user where username = 'bob'").await, 1);
    assert_eq!(app.database.number("select count(*) from sso_session").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_decides_who_signs_up_and_with_which_metadata() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let closed = app.client_app_with(&owner, json!({"name": "Closed", "publicSignup": false})).await;
    sign_up_at(&app, &closed.key, user_fields("bob")).await.assert_failed(403, "signup_closed");
    let strict = json!({"name": "Strict", "signupMetadataKeys": ["role"]});
    let strict = app.client_app_with(&owner, strict).await;
    let answer = sign_up_at(&app, &strict.key, user_fields("bob")).await;
    answer.assert_failed(400, "invalid_request");
    assert_eq!(answer.failed_fields(), ["user_metadata.department", "user_metadata.empID"]);
    let modest = with(user_fields("bob"), json!({"user_metadata": {"role": "DRIVER"}}));
    assert_eq!(sign_up_at(&app, &strict.key, modest).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_do_not_count_or_are_not_an_apps_sign_nobody_up() {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let till = app.client_app(&owner, "Till").await;
    sign_up_at(&app, &owner.key, user_fields("bob")).await.assert_failed(403, "forbidden");
    let last = till.key.chars().next_back().unwrap();
    let mistyped = format!("{}{}", &till.key[..till.key.len() - 1], if last == 'A' { 'B' } else { 'A' });
    for key in ["", "app_", "nonsense", &app.admin, &mistyped] {
        sign_up_at(&app, key, user_fields("bob")).await.assert_failed(401, "invalid_api_key");
    }
    assert_eq!(app.database.number("select count(*) from sso_user").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_public_signup_is_off_nobody_becomes_an_owner() {
    let app = TestApp::start_changed(|context| context.sso.public_signup = false).await;
    sign_up(&app, owner_fields("ada")).await.assert_failed(403, "signup_closed");
    assert_eq!(app.database.number("select count(*) from organization").await, 0);
}

/// Signs up with an `Idempotency-Key`.
async fn again(app: &TestApp, key: Option<&str>, idempotency_key: &str, body: &Value) -> Answer {
    let mut request = Request::post("/api/auth/signup")
        .header("content-type", "application/json")
        .header("idempotency-key", idempotency_key);
    if let Some(key) = key {
        request = request.header("apikey", key);
    }
    app.send(request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_again_with_the_same_idempotency_key_gets_the_same_answer() {
    let app = TestApp::start().await;
    let body = owner_fields("ada");
    let all = join_all((0..3).map(|_| again(&app, None, "k1", &body))).await;
    let first = all[0].data(201);
    assert!(all.iter().all(|answer| answer.data(201) == first), "at the same time too");
    let later = again(&app, None, "k1", &body).await;
    assert_eq!((later.data(201), later.header("idempotent-replayed")), (first.clone(), Some("true")));
    assert_eq!(app.database.number("select count(*) from sso_user").await, 1);
    assert!(app.counts(later.data(201)["accessToken"].as_str().unwrap()).await);
    again(&app, None, "k2", &body).await.assert_failed(409, "already_exists");

    let owner = Owner {
        org: first["userClaims"]["organizationId"].as_str().unwrap().to_owned(),
        key: first["orgOwnerApiKey"].as_str().unwrap().to_owned(),
        access_token: first["accessToken"].as_str().unwrap().to_owned(),
    };
    let client_app = app.client_app(&owner, "A").await;
    let bob = user_fields("bob");
    let first = again(&app, Some(&client_app.key), "k1", &bob).await.data(201);
    assert_eq!(again(&app, Some(&client_app.key), "k1", &bob).await.data(201), first);
    // Others hold the app's key too.
    again(&app, Some(&client_app.key), "k1", &user_fields("eve")).await.data(201);
    again(&app, None, "", &bob).await.assert_failed(400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_is_no_way_to_guess_a_password() {
    let app = TestApp::start().await;
    let body = owner_fields("ada");
    again(&app, None, "k1", &body).await.data(201);
    app.clock.stop();
    let mut statuses = Vec::new();
    for guess in 0..32 {
        let mut guessed = body.clone();
        guessed["password"] = json!(format!("a long guess {guess}"));
        statuses.push(again(&app, None, "k1", &guessed).await.status.as_u16());
    }
    assert_eq!((statuses[0], statuses[29], statuses[31]), (409, 409, 429), "{statuses:?}");
    // What is kept says nothing about the password to who has the database alone.
    let plain: [u8; 32] = Sha256::digest(body.to_string()).into();
    let kept: Vec<u8> =
        sqlx::query_scalar("select body_hash from idempotency").fetch_one(&app.database.pool).await.unwrap();
    assert_ne!(kept, plain);
}
