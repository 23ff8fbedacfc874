//! What all resources of the management plane have in common: lists, ETags, Idempotency-Key, audit.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

async fn send(app: &TestApp, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("x-api-key", &app.admin)
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_walked_page_by_page() {
    let app = TestApp::start().await;
    for id in ["b", "d", "a", "c", "e"] {
        app.create("/api/internal/org", json!({"id": id, "name": id})).await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/internal/org?limit=2".to_owned();
    loop {
        let page = app.call("GET", &path, None).await.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/api/internal/org?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_is_wrong_is_refused_by_name() {
    let app = TestApp::start().await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=501", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=%00", "cursor"),
        ("cursor=not+base64!", "cursor"),
        ("cursor=AAAA", "cursor"),
        ("colour=red", "colour"),
    ] {
        let answer = app.call("GET", &format!("/api/internal/org?{query}"), None).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), [field], "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_would_be_lost_is_refused() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = "/api/internal/org/acme";
    let read = app.call("GET", path, None).await;
    let etag = read.header("etag").unwrap().to_owned();
    let put = async |name: &str, etag: &str| {
        send(&app, "PUT", path, &[("if-match", etag)], json!({"name": name})).await
    };
    let first = put("First", &etag).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let newer = first.header("etag").unwrap().to_owned();
    assert_ne!(newer, etag);
    put("Second", &etag).await.assert_problem(412, "precondition_failed");
    put("Second", &format!("W/{newer}")).await.assert_problem(412, "precondition_failed");
    put("Second", "unquoted").await.assert_problem(400, "invalid_request");
    assert_eq!(put("Second", &format!("\"other\", {newer}")).await.status, 200);
    assert_eq!(put("Third", "*").await.status, 200);
    assert_eq!(app.call("GET", path, None).await.json()["name"], "Third");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_with_the_same_idempotency_key_gets_the_same_answer() {
    let app = TestApp::start().await;
    app.acme().await;
    let otp = format!("{}/otp", app.device("pos-1").await);
    let ask = async |path: &str, key: &str, body: Value| {
        send(&app, "POST", path, &[("idempotency-key", key)], body).await
    };
    let first = ask(&otp, "k1", json!({"ttlSeconds": 60})).await;
    let again = ask(&otp, "k1", json!({"ttlSeconds": 60})).await;
    assert_eq!((first.status.as_u16(), &first.text), (201, &again.text));
    assert_eq!(
        (first.header("idempotent-replayed"), again.header("idempotent-replayed")),
        (None, Some("true"))
    );
    ask(&otp, "k1", json!({"ttlSeconds": 61})).await.assert_problem(422, "idempotency_key_reused");
    assert_ne!(ask(&otp, "k2", json!({"ttlSeconds": 60})).await.text, first.text);
    for bad in ["", "a b", &"x".repeat(256)] {
        ask(&otp, bad, json!({})).await.assert_problem(400, "invalid_request");
    }

    // What failed is not kept: the key is free for the corrected request.
    let devices = "/api/internal/org/acme/env/prod/device";
    ask(devices, "k3", json!({"id": "pos-1", "name": "Till"})).await.assert_problem(409, "already_exists");
    assert_eq!(ask(devices, "k3", json!({"id": "pos-2", "name": "Till"})).await.status, 201);

    // Another key's holder has keys of its own.
    let other = app.key(Some("acme"), None).await;
    let request = Request::builder()
        .method("POST")
        .uri(&otp)
        .header("x-api-key", other)
        .header("content-type", "application/json")
        .header("idempotency-key", "k1")
        .body(Body::from(json!({"ttlSeconds": 60}).to_string()));
    let others = app.send(request.unwrap()).await;
    assert_eq!((others.status.as_u16(), others.text == first.text), (201, false));

    // A day later it is over.
    app.clock.advance(std::time::Duration::from_secs(86_401));
    assert_ne!(ask(&otp, "k1", json!({"ttlSeconds": 60})).await.text, first.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_equal_requests_at_once_one_creates_and_all_get_its_answer() {
    let app = TestApp::start().await;
    let body = json!({"name": "Acme"});
    let ask = || send(&app, "POST", "/api/internal/org", &[("idempotency-key", "k")], body.clone());
    let answers = futures_util::future::join_all((0..8).map(|_| ask())).await;
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.text), (201, &answers[0].text));
    }
    let all = app.call("GET", "/api/internal/org", None).await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_answer_holds_no_secret_that_the_database_could_tell() {
    let app = TestApp::start().await;
    app.acme().await;
    let otp = format!("{}/otp", app.device("pos-1").await);
    let answer = send(&app, "POST", &otp, &[("idempotency-key", "guessable")], json!({})).await;
    let secret = answer.json()["otp"].as_str().unwrap().to_owned();
    let rows: Vec<String> = sqlx::query_scalar("select encode(answer, 'escape') from idempotency")
        .fetch_all(&app.database.pool)
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert!(!rows[0].contains(&secret) && !rows[0].contains("otp"), "{}", rows[0]);
}
