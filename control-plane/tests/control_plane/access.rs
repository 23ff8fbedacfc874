//! Who may do what: 401, 403 and 404 (api.md §1).

use axum::body::Body;
use axum::http::Request;
use keypost::service::access::Permission;
use keypost_shared::secret::{ApiKey, KeyKind};
use rand_core::OsRng;
use serde_json::{Value, json};

use crate::support::TestApp;

/// Every operation that needs a key: method, path, body, what it needs, and whether only a global key may.
fn operations() -> Vec<(&'static str, &'static str, Option<Value>, Permission, bool)> {
    let env = json!({"id": "new", "name": "New"});
    let app = json!({"clientAppId": "new", "scopes": ["device"]});
    vec![
        ("POST", "/api/internal/org", Some(json!({"id": "new", "name": "New"})), Permission::OrgWrite, true),
        ("GET", "/api/internal/org/acme", None, Permission::OrgRead, false),
        ("POST", "/api/internal/org/acme/env", Some(env.clone()), Permission::OrgWrite, false),
        ("GET", "/api/internal/org/acme/env/prod", None, Permission::OrgRead, false),
        ("GET", "/api/internal/org/acme/env/prod/pool", None, Permission::OrgRead, false),
        ("PATCH", "/api/internal/org/acme/env/prod/pool", Some(json!({})), Permission::OrgWrite, false),
        ("POST", "/api/internal/org/acme/env/prod/device", Some(env), Permission::DeviceWrite, false),
        ("GET", "/api/internal/org/acme/env/prod/device/pos-1", None, Permission::DeviceRead, false),
        (
            "POST",
            "/api/internal/org/acme/env/prod/device/pos-1/app",
            Some(app),
            Permission::DeviceWrite,
            false,
        ),
        (
            "GET",
            "/api/internal/org/acme/env/prod/device/pos-1/app/client",
            None,
            Permission::DeviceRead,
            false,
        ),
        (
            "POST",
            "/api/internal/org/acme/env/prod/device/pos-1/app/client/otp",
            None,
            Permission::OtpCreate,
            false,
        ),
        ("GET", "/api/internal/org/acme/env/prod/client", None, Permission::OrgRead, false),
        (
            "POST",
            "/api/internal/org/acme/env/prod/client",
            Some(json!({"name": "New", "scopes": ["s"]})),
            Permission::ClientWrite,
            false,
        ),
        ("GET", "/api/internal/sync", None, Permission::SyncWrite, true),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_needs_a_key_that_is_good() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    let unknown = ApiKey::generate(KeyKind::Admin, &mut OsRng).expose().to_owned();
    let mut mistyped = app.admin.clone();
    mistyped.pop();
    mistyped.push('~');
    for (method, path, body, ..) in operations() {
        for key in [unknown.as_str(), mistyped.as_str(), "", "kp_admin_"] {
            let answer = app.call_with(key, method, path, body.clone()).await;
            answer.assert_problem(401, "unauthenticated");
            assert!(answer.header("www-authenticate").is_some());
        }
        let without = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        app.send(without).await.assert_problem(401, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_sent_twice_or_is_not_text_is_no_key() {
    let app = TestApp::start().await;
    let request = || Request::builder().uri("/api/internal/sync");
    let twice = request().header("x-api-key", &app.admin).header("x-api-key", &app.admin);
    app.send(twice.body(Body::empty()).unwrap()).await.assert_problem(401, "unauthenticated");
    let bytes = request().header("x-api-key", &b"kp_admin_\xff"[..]);
    app.send(bytes.body(Body::empty()).unwrap()).await.assert_problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_key_is_no_key() {
    let app = TestApp::start().await;
    let key = app.key(None, None).await;
    assert_eq!(app.call_with(&key, "GET", "/api/internal/sync", None).await.status, 200);
    app.database
        .execute("update api_key set expires_at = now() + interval '1 hour' where name = 'test'")
        .await
        .unwrap();
    assert_eq!(app.call_with(&key, "GET", "/api/internal/sync", None).await.status, 200);
    app.clock.advance(std::time::Duration::from_secs(3601));
    app.call_with(&key, "GET", "/api/internal/sync", None).await.assert_problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_of_a_later_version_gives_nothing_in_this_one() {
    let app = TestApp::start().await;
    app.acme().await;
    let key = app.key(None, Some(&[Permission::OrgRead])).await;
    let add = "update api_key set permissions = permissions || '{moon:walk}' where name = 'test'";
    app.database.execute(add).await.unwrap();
    assert_eq!(app.call_with(&key, "GET", "/api/internal/org/acme", None).await.status, 200);
    app.call_with(&key, "GET", "/api/internal/sync", None).await.assert_problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_needs_its_permission() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    let all = [
        Permission::OrgRead,
        Permission::OrgWrite,
        Permission::DeviceRead,
        Permission::DeviceWrite,
        Permission::OtpCreate,
        Permission::ClientWrite,
        Permission::ApiKeyWrite,
        Permission::AuditRead,
        Permission::SyncWrite,
    ];
    for (method, path, body, permission, _) in operations() {
        let others: Vec<Permission> = all.into_iter().filter(|other| *other != permission).collect();
        let lacking = app.key(None, Some(&others)).await;
        app.call_with(&lacking, method, path, body.clone()).await.assert_problem(403, "forbidden");
        let enough = app.key(None, Some(&[permission])).await;
        let answer = app.call_with(&enough, method, path, body).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organizations_key_reaches_its_own_and_another_organization_is_not_there() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    let own = app.key(Some("acme"), None).await;
    let stranger = app.key(Some("other"), None).await;
    let powerless_stranger = app.key(Some("other"), Some(&[])).await;
    for (method, path, body, _, global) in operations() {
        if global {
            app.call_with(&own, method, path, body).await.assert_problem(403, "forbidden");
            continue;
        }
        for key in [&stranger, &powerless_stranger] {
            let theirs = app.call_with(key, method, path, body.clone()).await;
            theirs.assert_problem(404, "not_found");
            let missing = app.call_with(key, method, &path.replace("acme", "nobody"), body.clone()).await;
            assert_eq!(theirs.text, missing.text, "{method} {path}: there must be no telling");
        }
        let answer = app.call_with(&own, method, path, body).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_404() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    let env = "/api/internal/org/acme/env/prod";
    for path in [
        "/api/internal/org/nobody".to_owned(),
        "/api/internal/org/acme/env/test".to_owned(),
        "/api/internal/org/acme/env/test/pool".to_owned(),
        format!("{env}/device/pos-2"),
        format!("{env}/device/pos-1/app/other"),
        format!("{env}/device/pos-1/app/6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        format!("{env}/device/pos-2/app/client"),
    ] {
        app.call("GET", &path, None).await.assert_problem(404, "not_found");
    }
}
