//! Service clients: their secrets, their documents, and whose they are.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use keypost::service::access::Permission;
use keypost_shared::document::{ClientDocument, ClientStatus, ClientSubject};
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::SecretHash;
use serde_json::{Value, json};

use crate::support::{Fault, TestApp, eventually};

const CLIENTS: &str = "/api/internal/org/acme/env/prod/client";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn jwks() -> Value {
    let (x, y) =
        ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    json!({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "mine"}]})
}

/// `acme`'s environment with a service client: the client, its path, and its key in KV.
async fn with_client(app: &TestApp) -> (Value, String, KvKey) {
    let environment = app.acme().await;
    let client = app.create(CLIENTS, json!({"name": "Reports", "scopes": ["reports", "introspect"]})).await;
    let pool = text(&environment["clientPoolId"]).parse().unwrap();
    let key = KvKey::Client(pool, text(&client["clientId"]).parse().unwrap());
    let path = format!("{CLIENTS}/{}", text(&client["clientId"]));
    (client, path, key)
}

async fn document(app: &TestApp, key: &KvKey) -> Option<ClientDocument> {
    app.kv.get(key)?;
    Some(app.kv.verified::<ClientDocument>(&app.publisher.root, key).await.unwrap().document)
}

fn knows(document: &ClientDocument, secret: &Value) -> bool {
    let hash = SecretHash::of(text(secret).as_bytes());
    document.secrets.iter().any(|stored| stored.sha256.matches(&hash))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_client_is_answered_once_the_edge_can_know_it() {
    let app = TestApp::start().await;
    let environment = app.acme().await;
    let body = json!({"name": "Reports", "scopes": ["reports"], "audience": ["https://reports.example"], "jwks": jwks()});
    let made = app.call("POST", CLIENTS, Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let etag = made.header("etag").unwrap().to_owned();
    let made = made.json();
    assert_eq!(made["published"], true);
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    assert!(is_plain(text(&made["clientId"])) && is_plain(text(&made["clientSecret"])));
    assert_eq!(text(&made["clientSecret"]).len(), 43);

    let pool = text(&environment["clientPoolId"]).parse().unwrap();
    let key = KvKey::Client(pool, text(&made["clientId"]).parse().unwrap());
    let document = document(&app, &key).await.unwrap();
    assert!(matches!(document.subject, ClientSubject::Service));
    assert_eq!((document.status, document.secrets.len()), (ClientStatus::Enabled, 1));
    assert!(knows(&document, &made["clientSecret"]));
    assert_eq!(document.audience, ["https://reports.example"]);
    assert_eq!(document.scopes.to_string(), "reports");
    assert!(document.jwks.is_some());

    let read = app.call("GET", &format!("{CLIENTS}/{}", text(&made["clientId"])), None).await;
    assert_eq!((read.status.as_u16(), read.header("etag")), (200, Some(etag.as_str())));
    let mut described = made.clone();
    for once in ["clientSecret", "published"] {
        described.as_object_mut().unwrap().remove(once);
    }
    assert_eq!(read.json(), described);
    let list = app.call("GET", CLIENTS, None).await;
    assert_eq!(list.json()["items"], json!([described]));
    assert!(!list.text.contains(text(&made["clientSecret"])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_secrets_count_during_the_overlap() {
    let app = TestApp::start().await;
    let (client, path, key) = with_client(&app).await;
    let rotate = async |body: Value| {
        let answer = app.call("POST", &format!("{path}/secret"), Some(body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json()["published"], true);
        answer.json()
    };
    let first = &client["clientSecret"];
    let second = rotate(json!({"overlapSeconds": 600})).await;
    let stored = document(&app, &key).await.unwrap();
    assert!(knows(&stored, first) && knows(&stored, &second["clientSecret"]));
    assert!(stored.secrets.iter().any(|secret| secret.expires_at.is_some()));
    let read = app.call("GET", &path, None).await.json();
    assert_eq!(read["previousSecretExpiresAt"], second["previousExpiresAt"]);

    // A third one ends the first before its time.
    let third = rotate(json!({})).await;
    let stored = document(&app, &key).await.unwrap();
    assert!(!knows(&stored, first));
    assert!(knows(&stored, &second["clientSecret"]) && knows(&stored, &third["clientSecret"]));

    let fourth = rotate(json!({"overlapSeconds": 0})).await;
    assert_eq!(fourth["previousExpiresAt"], Value::Null);
    let stored = document(&app, &key).await.unwrap();
    assert_eq!(stored.secrets.len(), 1);
    assert!(knows(&stored, &fourth["clientSecret"]));
}

/// Does something while nothing reaches KV, and answers with how urgent it is.
async fn urgency(app: &TestApp, key: &KvKey, method: &str, path: &str, body: Option<Value>) -> i64 {
    // As if what went before had been published: a key that waits keeps its urgency.
    app.database.execute("update publication set published_generation = generation").await.unwrap();
    let answer = app.call(method, path, body).await;
    assert!(answer.status.is_success(), "{}", answer.text);
    let query = format!(
        "select priority::bigint from publication where key = '{key}' and generation > published_generation"
    );
    app.database.number(&query).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_something_away_overtakes_other_changes() {
    let app = TestApp::start().await;
    let (_, path, key) = with_client(&app).await;
    app.kv.fail_next(std::iter::repeat_n(Fault::Status(500), 10_000));
    let urgency = async |method, path: &str, body| urgency(&app, &key, method, path, body).await;
    let (change, revocation) = (1, 0);
    let wider = json!({"name": "New", "scopes": ["reports", "introspect", "more"], "jwks": jwks()});
    assert_eq!(urgency("PUT", &path, Some(wider)).await, change);
    let no_keys = json!({"name": "New", "scopes": ["reports", "introspect", "more"]});
    assert_eq!(urgency("PUT", &path, Some(no_keys)).await, revocation);
    assert_eq!(urgency("PUT", &path, Some(json!({"name": "New", "scopes": ["reports"]}))).await, revocation);
    let secret = format!("{path}/secret");
    assert_eq!(urgency("POST", &secret, Some(json!({"overlapSeconds": 3600}))).await, change);
    assert_eq!(urgency("POST", &secret, None).await, revocation, "the oldest ends before its time");
    app.clock.advance(Duration::from_secs(86_400));
    assert_eq!(urgency("POST", &secret, Some(json!({"overlapSeconds": 0}))).await, revocation);
    assert_eq!(urgency("DELETE", &path, None).await, revocation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_whose_answer_was_lost_is_asked_for_again() {
    let app = TestApp::start().await;
    let (_, path, key) = with_client(&app).await;
    let rotate = async || {
        let request = Request::builder().method("POST").uri(format!("{path}/secret"));
        let request = request.header("x-api-key", &app.admin).header("idempotency-key", "once");
        app.send(request.body(Body::empty()).unwrap()).await
    };
    let (first, again) = (rotate().await, rotate().await);
    assert_eq!((first.status.as_u16(), again.status.as_u16(), &first.text), (200, 200, &again.text));
    assert!(knows(&document(&app, &key).await.unwrap(), &first.json()["clientSecret"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_client_keeps_its_secret() {
    let app = TestApp::start().await;
    let (client, path, key) = with_client(&app).await;
    let put = async |etag: &str, body: Value| {
        let request = Request::builder().method("PUT").uri(&path).header("x-api-key", &app.admin);
        let request = request.header("content-type", "application/json").header("if-match", etag);
        app.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let etag = app.call("GET", &path, None).await.header("etag").unwrap().to_owned();
    let wider = json!({"name": "New", "scopes": ["reports", "introspect", "more"], "audience": "one"});
    let changed = put(&etag, wider).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!((&changed.json()["name"], &changed.json()["audience"]), (&json!("New"), &json!(["one"])));
    put(&etag, json!({"name": "Lost", "scopes": ["a"]})).await.assert_problem(412, "precondition_failed");
    eventually("the change is in KV", async || {
        document(&app, &key).await.is_some_and(|document| document.audience == ["one"])
    })
    .await;
    // What is not sent is reset.
    assert_eq!(put("*", json!({"name": "New", "scopes": ["reports"]})).await.status, 200);
    eventually("the scopes have gone from KV", async || {
        document(&app, &key).await.is_some_and(|document| document.scopes.to_string() == "reports")
    })
    .await;
    let document = document(&app, &key).await.unwrap();
    assert!(document.audience.is_empty() && knows(&document, &client["clientSecret"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_client_has_no_document() {
    let app = TestApp::start().await;
    let (_, path, key) = with_client(&app).await;
    let deleted = app.call("DELETE", &path, None).await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    for (method, path) in
        [("GET", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/secret"))]
    {
        app.call(method, &path, None).await.assert_problem(404, "not_found");
    }
    eventually("the document has gone", async || app.kv.get(&key).is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_devices_client_is_no_service_client_and_one_of_another_environment_is_not_there() {
    let app = TestApp::start().await;
    let (client, path, _) = with_client(&app).await;
    let device = app.device("pos-1").await;
    let devices_client = app.call("GET", &device, None).await.json()["clientId"].clone();
    app.create("/api/internal/org/acme/env", json!({"id": "test", "name": "Test"})).await;
    let elsewhere = path.replace("/prod/", "/test/");
    for path in [format!("{CLIENTS}/{}", text(&devices_client)), elsewhere, format!("{CLIENTS}/nobody")] {
        for (method, path) in
            [("GET", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/secret"))]
        {
            app.call(method, &path, None).await.assert_problem(404, "not_found");
        }
    }
    let list = app.call("GET", CLIENTS, None).await.json();
    let ids: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|item| &item["clientId"]).collect();
    assert_eq!(ids, [&client["clientId"]]);
    let elsewhere = app.call("GET", "/api/internal/org/acme/env/test/client", None).await;
    assert_eq!(elsewhere.json()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_clients_needs_org_read_and_changing_them_client_write() {
    let app = TestApp::start().await;
    let (_, path, _) = with_client(&app).await;
    let body = json!({"name": "n", "scopes": ["s"]});
    let secret = format!("{path}/secret");
    let operations = [
        ("GET", CLIENTS, None, Permission::OrgRead),
        ("GET", path.as_str(), None, Permission::OrgRead),
        ("POST", CLIENTS, Some(body.clone()), Permission::ClientWrite),
        ("PUT", &path, Some(body), Permission::ClientWrite),
        ("POST", &secret, None, Permission::ClientWrite),
        ("DELETE", &path, None, Permission::ClientWrite),
    ];
    for (method, path, body, permission) in operations {
        let other =
            if permission == Permission::OrgRead { Permission::ClientWrite } else { Permission::OrgRead };
        let lacking =
            app.key(Some("acme"), Some(&[other, Permission::DeviceWrite, Permission::OrgWrite])).await;
        app.call_with(&lacking, method, path, body.clone()).await.assert_problem(403, "forbidden");
        let enough = app.key(Some("acme"), Some(&[permission])).await;
        let answer = app.call_with(&enough, method, path, body).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_fields_of_clients_are_named() {
    let app = TestApp::start().await;
    let (client, path, key) = with_client(&app).await;
    let with = |field: &str, value: Value| {
        let mut body = json!({"name": "n", "scopes": ["s"]});
        body[field] = value;
        body
    };
    for (body, fields) in [
        (json!({}), vec!["name", "scopes"]),
        (with("name", json!("a\u{0}b")), vec!["name"]),
        (with("name", json!("x".repeat(201))), vec!["name"]),
        (with("scopes", json!([])), vec!["scopes"]),
        (with("scopes", json!(["a", "a"])), vec!["scopes"]),
        (with("scopes", json!(["a b"])), vec!["scopes"]),
        (with("scopes", json!(["a\u{0}"])), vec!["scopes"]),
        (with("scopes", json!({"a": 1})), vec!["scopes"]),
        (with("audience", json!([""])), vec!["audience"]),
        (with("audience", json!(["a\u{7f}"])), vec!["audience"]),
        (with("audience", json!(["a", "a"])), vec!["audience"]),
        (with("audience", json!(5)), vec!["audience"]),
        (with("jwks", json!({"keys": []})), vec!["jwks"]),
        (with("jwks", json!({"keys": [{"kty": "EC", "d": "secret"}]})), vec!["jwks.keys[0]"]),
        (with("clientId", json!("mine")), vec!["clientId"]),
        (with("clientSecret", json!("mine")), vec!["clientSecret"]),
    ] {
        for (method, path) in [("POST", CLIENTS), ("PUT", path.as_str())] {
            let answer = app.call(method, path, Some(body.clone())).await;
            answer.assert_problem(400, "invalid_request");
            assert_eq!(answer.wrong_fields(), fields, "{method} {body}: {}", answer.text);
        }
    }
    let large = json!({"name": "x".repeat(1 << 20), "scopes": ["s"]});
    app.call("POST", CLIENTS, Some(large)).await.assert_problem(413, "body_too_large");
    for overlap in [json!(-1), json!(2_592_001), json!(1e30), json!("60"), json!(0.5), json!([])] {
        let answer =
            app.call("POST", &format!("{path}/secret"), Some(json!({"overlapSeconds": overlap}))).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), ["overlapSeconds"], "{overlap}");
    }
    for wrong in ["a%20b", "%00", "%2e%2e", "%2e%2e%2fdevice", &"x".repeat(65)] {
        let answer = app.call("GET", &format!("{CLIENTS}/{wrong}"), None).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), ["clientId"], "{wrong}");
    }
    for cursor in ["%00", "Li4vLi4", "JyBvciAxPTE"] {
        let answer = app.call("GET", &format!("{CLIENTS}?cursor={cursor}"), None).await;
        answer.assert_problem(400, "invalid_request");
    }
    app.call("POST", &format!("{CLIENTS}//secret"), None).await.assert_problem(400, "invalid_request");
    assert!(knows(&document(&app, &key).await.unwrap(), &client["clientSecret"]), "nothing was rotated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_kv_is_away_a_client_is_made_and_said_to_be_unpublished() {
    let app = TestApp::start_impatient().await;
    let (_, _, _) = with_client(&app).await;
    app.kv.fail_next(std::iter::repeat_n(Fault::Status(500), 10_000));
    let started = std::time::Instant::now();
    let client = app.create(CLIENTS, json!({"name": "Later", "scopes": ["s"]})).await;
    assert_eq!(client["published"], false);
    assert!(started.elapsed() < Duration::from_secs(30));
    app.kv.recover();
    let path = format!("{CLIENTS}/{}", text(&client["clientId"]));
    assert_eq!(app.call("GET", &path, None).await.status, 200);
}
