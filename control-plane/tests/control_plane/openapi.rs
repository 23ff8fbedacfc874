//! Every operation of the OpenAPI document, and the document itself.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::sso::{SsoRequest, claims, user_fields};
use crate::support::{Answer, Ca, TestApp};

const USER: &str = "00000000-0000-4000-8000-000000000001";

/// One operation, with its path filled in.
struct Operation {
    name: String,
    method: String,
    path: String,
    has_path_ids: bool,
    /// Whether it needs a key of management.
    needs_key: bool,
    /// The access token of somebody who may do it, where it takes nothing else.
    access_token: Option<String>,
    content_types: Vec<String>,
}

impl Operation {
    /// Whether it is of those by which owners manage what is theirs, in single sign-on.
    fn is_of_owners(&self) -> bool {
        self.path.starts_with("/api/organization")
    }
}

fn document() -> Value {
    keypost::http::api_document()
}

/// What every operation can be tried on: `acme` with one of everything, by the names of path parameters.
async fn one_of_everything(app: &TestApp, names: &BTreeSet<String>) -> BTreeMap<String, String> {
    let environment = app.acme().await;
    app.device("pos-1").await;
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for (name, id) in [
        ("orgId", "acme"),
        ("envId", "prod"),
        ("deviceId", "pos-1"),
        ("appId", "client"),
        ("clientPoolId", environment["clientPoolId"].as_str().unwrap()),
    ] {
        ids.insert(name.to_owned(), id.to_owned());
    }
    if names.contains("clientId") {
        let client = json!({"name": "Reports", "scopes": ["reports"]});
        let client = app.create("/api/internal/org/acme/env/prod/client", client).await;
        ids.insert("clientId".to_owned(), client["clientId"].as_str().unwrap().to_owned());
    }
    if names.contains("fingerprint") {
        let pool = ids["clientPoolId"].clone();
        let root = app.upload(&pool, &Ca::root("A root").pem()).await.json();
        ids.insert("fingerprint".to_owned(), root["fingerprint"].as_str().unwrap().to_owned());
        let denial = json!({"issuer": "CN=A root", "serialNumber": "0a", "reason": "stolen"});
        let denied = app.create(&format!("/api/internal/{pool}/denied-certificates"), denial).await;
        ids.insert("deniedCertificateId".to_owned(), denied["id"].as_str().unwrap().to_owned());
    }
    if names.contains("kid") {
        let keys = app.call("GET", &format!("/api/internal/{}/keys", ids["clientPoolId"]), None).await.json();
        ids.insert("kid".to_owned(), keys["items"][0]["kid"].as_str().unwrap().to_owned());
    }
    if names.contains("apiKeyId") {
        let key = app.create("/api/internal/api-key", json!({"name": "A key", "orgId": "acme"})).await;
        ids.insert("apiKeyId".to_owned(), key["id"].as_str().unwrap().to_owned());
    }
    if names.contains("clientAppId") {
        let made = app.create("/api/organization/acme/client-apps", json!({"name": "An app"})).await;
        let client_app = made["data"]["id"].as_str().unwrap().to_owned();
        app.database
            .execute(&format!(
                "insert into sso_user (id, org_id, client_app_id, username, username_key, email, email_key,
                                       password_hash, password_changed_at, user_metadata, status, created_at, updated_at)
                 values ('{USER}', 'acme', '{client_app}', 'u', 'u', 'u@b.c', 'u@b.c', 'x', now(), '{{}}', 'enabled',
                         now(), now())"
            ))
            .await
            .unwrap();
        let key = made["data"]["clientAppApiKey"].as_str().unwrap();
        let signing_up = SsoRequest::post("/api/auth/signup", user_fields("bob")).key(key);
        let token = app.sso(signing_up).await.data(201)["accessToken"].as_str().unwrap().to_owned();
        ids.insert("sid".to_owned(), claims(&token)["sid"].as_str().unwrap().to_owned());
        ids.insert("accessToken".to_owned(), token);
        ids.insert("clientAppId".to_owned(), client_app);
        ids.insert("userId".to_owned(), USER.to_owned());
    }
    if names.contains("publisherKid") {
        let keys = app.call("GET", "/api/internal/sync/publisher-keys", None).await.json();
        ids.insert("publisherKid".to_owned(), keys["items"][0]["kid"].as_str().unwrap().to_owned());
    }
    ids
}

async fn operations(app: &TestApp) -> Vec<Operation> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let parameters = |path: &str| -> Vec<String> {
        path.split('/')
            .filter_map(|part| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned()))
            .collect()
    };
    let names: BTreeSet<String> = paths.keys().flat_map(|path| parameters(path)).collect();
    let ids = one_of_everything(app, &names).await;
    let mut operations = Vec::new();
    for (path, item) in paths {
        let mut filled = path.clone();
        for name in parameters(path) {
            let id = ids.get(&name).unwrap_or_else(|| panic!("{path}: one_of_everything has no {name}"));
            filled = filled.replace(&format!("{{{name}}}"), id);
        }
        for (method, operation) in item.as_object().unwrap() {
            let content = operation["requestBody"]["content"].as_object();
            operations.push(Operation {
                name: format!("{} {path}", method.to_uppercase()),
                method: method.to_uppercase(),
                path: filled.clone(),
                has_path_ids: filled != *path,
                needs_key: operation["security"].is_array() && path.starts_with("/api/internal"),
                access_token: (operation["security"] == json!([{"accessToken": []}]))
                    .then(|| ids["accessToken"].clone()),
                content_types: content.map(|content| content.keys().cloned().collect()).unwrap_or_default(),
            });
        }
    }
    assert!(operations.len() > 15, "the document has lost its operations");
    operations
}

async fn send(app: &TestApp, operation: &Operation, key: Option<&str>, body: Option<(&str, &str)>) -> Answer {
    let mut request = Request::builder().method(operation.method.as_str()).uri(&operation.path);
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    if let Some((content_type, _)) = body {
        request = request.header("content-type", content_type);
    }
    if let Some(token) = &operation.access_token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = body.map_or_else(Body::empty, |(_, body)| Body::from(body.to_owned()));
    app.send(request.body(body).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_refuses_who_has_no_good_key() {
    let app = TestApp::start().await;
    for operation in operations(&app).await.iter().filter(|operation| operation.needs_key) {
        let wrong = app.admin.replace("kp_admin_", "kp_admin_x");
        for key in [None, Some(wrong.as_str()), Some("")] {
            let answer = send(&app, operation, key, None).await;
            assert_eq!(answer.status, 401, "{}: {}", operation.name, answer.text);
            answer.assert_problem(401, "unauthenticated");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_refuses_a_key_that_is_too_narrow() {
    let app = TestApp::start().await;
    let operations = operations(&app).await;
    let (global, own) = (app.key(None, Some(&[])).await, app.key(Some("acme"), Some(&[])).await);
    for operation in operations.iter().filter(|operation| operation.needs_key) {
        for key in [&global, &own] {
            let answer = send(&app, operation, Some(key), None).await;
            assert_eq!(answer.status, 403, "{}: {}", operation.name, answer.text);
            answer.assert_problem(403, "forbidden");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_lets_another_organizations_key_see_that_a_thing_exists() {
    let app = TestApp::start().await;
    let operations = operations(&app).await;
    app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    let strangers = [app.key(Some("other"), None).await, app.key(Some("other"), Some(&[])).await];
    for operation in operations.iter().filter(|operation| operation.needs_key && operation.has_path_ids) {
        let answer = send(&app, operation, Some(&strangers[0]), None).await;
        assert_eq!(answer.status, 404, "{}: {}", operation.name, answer.text);
        answer.assert_problem(404, "not_found");
        // To a narrower key of a stranger nothing else is said about what exists than about what does not.
        let there = send(&app, operation, Some(&strangers[1]), None).await;
        assert!([403, 404].contains(&there.status.as_u16()), "{}: {}", operation.name, there.text);
    }
    // What has no ids in its path shows a stranger nothing of others.
    for operation in operations.iter().filter(|operation| operation.needs_key && !operation.has_path_ids) {
        if operation.method == "GET" {
            let answer = send(&app, operation, Some(&strangers[0]), None).await;
            assert!([200, 403].contains(&answer.status.as_u16()), "{}: {}", operation.name, answer.text);
            assert!(!answer.text.contains("acme"), "{}: {}", operation.name, answer.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_of_owners_lets_anybody_else_in() {
    let app = TestApp::start().await;
    let operations = operations(&app).await;
    let created = async |path: &str, body: Value, field: &str| {
        app.create(path, body).await["data"][field].as_str().unwrap().to_owned()
    };
    let other = json!({"id": "other", "name": "Other"});
    let stranger = created("/api/organization", other, "orgOwnerApiKey").await;
    let apps = "/api/organization/acme/client-apps";
    let client_app = created(apps, json!({"name": "B"}), "clientAppApiKey").await;
    let narrow = app.key(None, Some(&[])).await;
    let mut tried = 0;
    for operation in operations.iter().filter(|operation| operation.is_of_owners()) {
        let by_path = if operation.has_path_ids { 404 } else { 200 };
        for (header, key, status, code) in [
            ("x-nothing", "", 401, "invalid_token"),
            ("apikey", "org_wrong", 401, "invalid_api_key"),
            ("apikey", &app.admin, 401, "invalid_api_key"),
            ("apikey", &client_app, 403, "forbidden"),
            ("apikey", &stranger, by_path, "not_found"),
            ("x-api-key", &stranger, 401, "unauthenticated"),
            ("x-api-key", &narrow, 403, "forbidden"),
            ("authorization", "Bearer wrong", 401, "invalid_token"),
        ] {
            if status == 200 && operation.method != "GET" {
                continue;
            }
            let request = Request::builder().method(operation.method.as_str()).uri(&operation.path);
            let answer = app.send(request.header(header, key).body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status.as_u16(), status, "{} {header}: {}", operation.name, answer.text);
            let envelope = answer.json();
            assert_eq!(envelope["success"], status == 200, "{}: {}", operation.name, answer.text);
            if status == 200 {
                assert!(!answer.text.contains("acme"), "{}: {}", operation.name, answer.text);
            } else {
                assert_eq!(envelope["error"]["code"], code, "{} {header}: {}", operation.name, answer.text);
            }
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_do_themselves_needs_an_access_token_that_counts() {
    let app = TestApp::start().await;
    let operations = operations(&app).await;
    let mut tried = 0;
    for operation in operations.iter().filter(|operation| operation.access_token.is_some()) {
        for (header, value) in [
            ("x-nothing", ""),
            ("x-api-key", app.admin.as_str()),
            ("authorization", "Bearer wrong"),
            ("authorization", "Basic wrong"),
            ("authorization", "wrong"),
        ] {
            let request = Request::builder().method(operation.method.as_str()).uri(&operation.path);
            let answer = app.send(request.header(header, value).body(Body::empty()).unwrap()).await;
            if operation.path == "/api/auth/userinfo" {
                assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (401, &json!("invalid_token")));
            } else {
                answer.assert_failed(401, "invalid_token");
            }
            tried += 1;
        }
    }
    assert!(tried >= 15, "{tried}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_refuses_a_body_of_the_wrong_shape() {
    let app = TestApp::start().await;
    let operations = operations(&app).await;
    let admin = app.admin.clone();
    let mut tried = 0;
    for operation in operations.iter().filter(|operation| !operation.content_types.is_empty()) {
        let json = "application/json";
        if operation.content_types.iter().any(|content_type| content_type == json) {
            for body in ["[]", "1", "\"text\"", "{", "{\"surely-unknown\": 1}", "{\"name\": {}}", "\u{0}"] {
                let answer = send(&app, operation, Some(&admin), Some((json, body))).await;
                assert_eq!(answer.status, 400, "{} {body}: {}", operation.name, answer.text);
                tried += 1;
            }
        }
        let answer = send(&app, operation, Some(&admin), Some(("image/png", "{}"))).await;
        // RFC 6749 §5.2 has one code for all that is malformed, and one status.
        let refused = if operation.path == "/api/auth/token" { 400 } else { 415 };
        // A page is told first that nobody knows which app has sent the browser.
        let is_page = operation.path.starts_with("/api/auth/authorize/");
        let refused = if is_page { 400 } else { refused };
        assert_eq!(answer.status, refused, "{}: {}", operation.name, answer.text);
    }
    assert!(tried > 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_refuses_a_query_that_is_wrong() {
    let app = TestApp::start().await;
    for operation in operations(&app).await.iter().filter(|operation| operation.needs_key) {
        let queried = |query: &str| Operation {
            name: operation.name.clone(),
            method: operation.method.clone(),
            path: format!("{}?{query}", operation.path),
            has_path_ids: operation.has_path_ids,
            needs_key: true,
            access_token: None,
            content_types: Vec::new(),
        };
        let probe = send(&app, &queried("limit=1"), Some(&app.admin), None).await;
        if operation.method == "GET" && probe.text.contains("\"nextCursor\"") {
            for query in ["limit=-1", "limit=0", "limit=1e3", "cursor=%F0%9F%A6%80", "surely-unknown=1"] {
                let answer = send(&app, &queried(query), Some(&app.admin), None).await;
                assert_eq!(answer.status, 400, "{} {query}: {}", operation.name, answer.text);
            }
        }
    }
}

#[test]
fn the_committed_document_is_that_of_the_code() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.json")).unwrap();
    let committed: Value = serde_json::from_str(&committed).unwrap();
    assert!(committed == document(), "openapi.json has drifted: run `cargo xtask openapi`");
}

#[test]
fn the_document_names_every_operation_once_and_describes_it() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_and_its_assets_are_in_the_binary() {
    let app = TestApp::start().await;
    let served = app.call("GET", "/openapi.json", None).await;
    assert_eq!(served.json(), document());
    let page = app.call("GET", "/docs/", None).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html"));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'self'"));
    let assets: Vec<&str> = page
        .text
        .split(['"', '\''])
        .filter(|text| text.ends_with(".js") || text.ends_with(".css") || text.ends_with(".png"))
        .collect();
    assert!(assets.len() >= 3, "{}", page.text);
    for asset in assets {
        let path = format!("/docs/{}", asset.trim_start_matches("./"));
        let response = tower::ServiceExt::oneshot(
            app.router.clone(),
            Request::builder().uri(&path).body(Body::empty()).unwrap(),
        );
        assert_eq!(response.await.unwrap().status(), 200, "{path}");
    }
}
