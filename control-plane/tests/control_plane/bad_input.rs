//! Whatever a client sends: the right status, a problem that names every wrong field, and never a 5xx.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

const DEVICES: &str = "/api/internal/org/acme/env/prod/device";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_field_is_named() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    let long = |length: usize| "x".repeat(length);
    let many_tags: serde_json::Map<String, Value> = (0..65).map(|n| (format!("t{n}"), json!("v"))).collect();
    let deep = (0..40).fold(json!(1), |inside, _| json!([inside]));
    let device = |field: &str, value: Value| {
        let mut body = json!({"id": "d", "name": "n"});
        body[field] = value;
        body
    };
    let cases: Vec<(&str, &str, Value, Vec<&str>)> = vec![
        ("POST", "/api/internal/org", json!({}), vec!["name"]),
        ("POST", "/api/internal/org", json!({"name": null}), vec!["name"]),
        ("POST", "/api/internal/org", json!({"name": "  "}), vec!["name"]),
        ("POST", "/api/internal/org", json!({"name": 5, "id": 6, "x": 7}), vec!["id", "name", "x"]),
        ("POST", "/api/internal/org", json!({"name": long(201)}), vec!["name"]),
        ("POST", "/api/internal/org", json!({"name": "a\u{0}b"}), vec!["name"]),
        ("POST", "/api/internal/org", json!({"name": "a\nb"}), vec!["name"]),
        ("POST", "/api/internal/org", json!({"name": "a\u{85}b"}), vec!["name"]),
        ("POST", "/api/internal/org", json!({"name": "n", "id": "Not A Slug"}), vec!["id"]),
        ("POST", "/api/internal/org", json!({"name": "n", "id": long(64)}), vec!["id"]),
        ("POST", "/api/internal/org", json!({"name": "n", "description": long(2001)}), vec!["description"]),
        ("POST", "/api/internal/org/acme/env", json!({"name": "n", "id": "-x"}), vec!["id"]),
        ("POST", "/api/internal/org/acme/env", json!({}), vec!["id", "name"]),
        (
            "POST",
            "/api/internal/org/acme/env",
            json!({"id": "e", "name": "n", "tagDefaults": ["country"]}),
            vec!["tagDefaults"],
        ),
        (
            "POST",
            "/api/internal/org/acme/env",
            json!({"id": "e", "name": "n", "primaryServerUrl": "localhost", "serverUrls": "http://a"}),
            vec!["primaryServerUrl", "serverUrls"],
        ),
        ("POST", DEVICES, device("id", json!("a/b")), vec!["id"]),
        ("POST", DEVICES, device("id", json!(long(129))), vec!["id"]),
        ("POST", DEVICES, device("id", json!("..")), vec!["id"]),
        ("POST", DEVICES, device("tags", json!(many_tags)), vec!["tags"]),
        ("POST", DEVICES, device("tags", json!({"a": 1, "b": "ok"})), vec!["tags.a"]),
        ("POST", DEVICES, device("tags", json!({"a": "x\u{7}"})), vec!["tags.a"]),
        ("POST", DEVICES, device("tags", json!({"a": long(257)})), vec!["tags.a"]),
        ("POST", DEVICES, device("tags", json!({"a b": "v"})), vec!["tags.a b"]),
        ("POST", DEVICES, device("tags", json!({"": "v"})), vec!["tags."]),
        ("POST", DEVICES, device("metadata", json!([])), vec!["metadata"]),
        ("POST", DEVICES, device("metadata", json!({"a": long(16_384)})), vec!["metadata"]),
        ("POST", DEVICES, device("metadata", json!({"a": "\u{0}"})), vec!["metadata"]),
        ("POST", DEVICES, device("metadata", json!({"a\u{0}": "b"})), vec!["metadata"]),
        ("POST", DEVICES, device("metadata", json!({"a": [{"b": "\u{1b}"}]})), vec!["metadata"]),
        ("POST", DEVICES, device("metadata", json!({"a": deep})), vec!["metadata"]),
        (
            "POST",
            DEVICES,
            device("serverUrls", json!(["http://ok", "ftp://no", "http://u:p@h", "http://a b"])),
            vec!["serverUrls[1]", "serverUrls[2]", "serverUrls[3]"],
        ),
        ("POST", DEVICES, device("serverUrls", json!(vec!["http://a"; 33])), vec!["serverUrls"]),
        ("POST", DEVICES, device("primaryServerUrl", json!("http:\\\\h")), vec!["primaryServerUrl"]),
        ("POST", DEVICES, device("primaryServerUrl", json!("http://h\t/")), vec!["primaryServerUrl"]),
        ("POST", DEVICES, device("status", json!("active")), vec!["status"]),
        ("POST", "APP", json!({"clientAppId": "Not A Slug", "scopes": []}), vec!["clientAppId", "scopes"]),
        ("POST", "APP", json!({"clientAppId": "a"}), vec!["scopes"]),
        ("POST", "APP", json!({"clientAppId": "a", "scopes": "device"}), vec!["scopes"]),
        ("POST", "APP", json!({"clientAppId": "a", "scopes": ["two words"]}), vec!["scopes"]),
        ("POST", "APP", json!({"clientAppId": "a", "scopes": ["a", "a"]}), vec!["scopes"]),
        ("POST", "APP", json!({"clientAppId": "a", "scopes": [1]}), vec!["scopes"]),
        ("POST", "APP", json!({"clientAppId": "a", "scopes": ["a"], "jwks": {"keys": []}}), vec!["jwks"]),
        (
            "POST",
            "APP",
            json!({"clientAppId": "a", "scopes": ["a"], "jwks": {"keys": [{"kty": "EC", "d": "secret"}]}}),
            vec!["jwks.keys[0]"],
        ),
        (
            "POST",
            "APP",
            json!({"clientAppId": "a", "scopes": ["a"], "jwks": {"keys": [{"kty": "oct"}]}}),
            vec!["jwks.keys[0]"],
        ),
        ("POST", "OTP", json!({"ttlSeconds": 59}), vec!["ttlSeconds"]),
        ("POST", "OTP", json!({"ttlSeconds": 86_401}), vec!["ttlSeconds"]),
        ("POST", "OTP", json!({"ttlSeconds": "900"}), vec!["ttlSeconds"]),
        ("POST", "OTP", json!({"ttlSeconds": 900.5}), vec!["ttlSeconds"]),
        ("POST", "OTP", json!({"ttlSeconds": -900, "forever": true}), vec!["ttlSeconds", "forever"]),
        ("PATCH", "POOL", json!({"maxStalenessSeconds": 9}), vec!["maxStalenessSeconds"]),
        ("PATCH", "POOL", json!({"maxStalenessSeconds": 604_801}), vec!["maxStalenessSeconds"]),
        ("PATCH", "POOL", json!({"tokenTtlSeconds": 0}), vec!["tokenTtlSeconds"]),
        ("PATCH", "POOL", json!({"tokenTtlSeconds": 86_401}), vec!["tokenTtlSeconds"]),
        ("PATCH", "POOL", json!({"tokenTtlSeconds": 1e20}), vec!["tokenTtlSeconds"]),
        ("PATCH", "POOL", json!({"claimsProfile": "jwt"}), vec!["claimsProfile"]),
        ("PATCH", "POOL", json!({"audience": ["a", ""]}), vec!["audience"]),
        ("PATCH", "POOL", json!({"corsOrigins": ["https://a/"]}), vec!["corsOrigins[0]"]),
        ("PATCH", "POOL", json!({"audience": ["a", "a"]}), vec!["audience"]),
        ("PATCH", "POOL", json!({"tokenTtlSeconds": null}), vec!["tokenTtlSeconds"]),
        (
            "PATCH",
            "POOL",
            json!({"provisioning": {"match": {"o": ["a", "b\u{0}"]}}}),
            vec!["provisioning.match"],
        ),
        ("PATCH", "POOL", json!({"keyBackend": "kms", "kmsKeyId": 5}), vec!["keyBackend", "kmsKeyId"]),
        ("PATCH", "POOL", json!({"keyBackend": "aws_kms", "kmsKeyId": "k"}), vec!["keyMode"]),
        ("PATCH", "POOL", json!({"provisioning": {"mode": "some"}}), vec!["provisioning.mode"]),
        ("POST", "/api/otp/activate", json!({}), vec!["otp"]),
        ("POST", "/api/otp/activate", json!({"otp": 1, "deviceId": "a/b"}), vec!["otp", "deviceId"]),
        ("POST", "/api/otp/activate", json!({"otp": "0000000000", "device": "x"}), vec!["device"]),
    ];
    for (method, path, body, fields) in cases {
        let path = match path {
            "APP" => format!("{DEVICES}/pos-1/app"),
            "OTP" => format!("{DEVICES}/pos-1/app/client/otp"),
            "POOL" => "/api/internal/org/acme/env/prod/pool".to_owned(),
            other => other.to_owned(),
        };
        let answer = app.call(method, &path, Some(body.clone())).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), fields, "{method} {path} {body}: {}", answer.text);
    }
    assert_eq!(app.database.number("select count(*) from device").await, 1, "nothing was created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_ids_in_paths_are_named() {
    let app = TestApp::start().await;
    app.acme().await;
    for (path, fields) in [
        ("/api/internal/org/ACME", vec!["orgId"]),
        ("/api/internal/org/a%2Fb", vec!["orgId"]),
        ("/api/internal/org/a%00b", vec!["orgId"]),
        ("/api/internal/org/ACME/env/PROD", vec!["orgId", "envId"]),
        ("/api/internal/org/acme/env/prod/device/a%2F..%2Fb", vec!["deviceId"]),
        ("/api/internal/org/acme/env/prod/device/%20", vec!["deviceId"]),
        ("/api/internal/org/acme/env/prod/device/%E2%80%AE", vec!["deviceId"]),
        ("/api/internal/org/acme/env/prod/device/%/app/A%20B", vec!["deviceId", "appId"]),
        ("/api/internal/org/%FF", vec!["path"]),
    ] {
        let answer = app.call("GET", path, None).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), fields, "{path}");
    }
}

async fn send_raw(app: &TestApp, content_type: Option<&str>, body: impl Into<Body>) -> Answer {
    let request = Request::builder().method("POST").uri("/api/internal/org").header("x-api-key", &app.admin);
    let request = match content_type {
        Some(content_type) => request.header("content-type", content_type),
        None => request,
    };
    app.send(request.body(body.into()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_not_json_objects_are_malformed() {
    let app = TestApp::start().await;
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"a\"",
        "{}{}",
        "{\"name\": NaN}",
        "{'name': 'x'}",
        "{\"name\": \"a\", \"name\": \"b\"}",
        "\u{feff}{}",
        "<org/>",
    ] {
        send_raw(&app, Some("application/json"), body).await.assert_problem(400, "malformed_body");
    }
    let binary: Vec<u8> = (0..=255).collect();
    send_raw(&app, Some("application/json"), binary).await.assert_problem(400, "malformed_body");
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!("{{\"name\": {nested}}}");
    for body in
        [nested.as_str(), r#"{"name": 1e999}"#, r#"{"name": "\ud800"}"#, r#"{"name": {"a": 1, "a": 2}}"#]
    {
        let answer = send_raw(&app, Some("application/json"), body.to_owned()).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), ["name"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_content_types_are_not_taken() {
    let app = TestApp::start().await;
    let body = r#"{"name": "n"}"#;
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonp"),
        Some("application/json; charset=utf-16"),
    ] {
        send_raw(&app, content_type, body).await.assert_problem(415, "unsupported_media_type");
    }
    for content_type in ["application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\""] {
        let answer = send_raw(&app, Some(content_type), body).await;
        assert_eq!(answer.status, 201, "{content_type}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_refused_announced_or_not() {
    let app = TestApp::start().await;
    let body = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    send_raw(&app, Some("application/json"), body.clone()).await.assert_problem(413, "body_too_large");
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
        body.into_bytes().chunks(64 << 10).map(|chunk| Ok(chunk.to_vec())).collect();
    let streamed = Body::from_stream(futures_util::stream::iter(chunks));
    send_raw(&app, Some("application/json"), streamed).await.assert_problem(413, "body_too_large");
    // Not a byte is read, but there is a key: who is asking comes first.
    let request = Request::builder()
        .method("POST")
        .uri("/api/internal/org")
        .header("content-length", "99999999999")
        .body(Body::empty());
    app.send(request.unwrap()).await.assert_problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_or_long_wrong_fields_do_not_make_a_large_answer() {
    let app = TestApp::start().await;
    let fields: serde_json::Map<String, Value> =
        (0..20_000).map(|n| (format!("field{n}"), json!(n))).collect();
    let answer = app.call("POST", "/api/internal/org", Some(json!(fields))).await;
    answer.assert_problem(400, "invalid_request");
    assert!(answer.text.len() < 8192, "{} bytes", answer.text.len());
    let mut fields = serde_json::Map::new();
    fields.insert("x".repeat(900_000), json!(1));
    let answer = app.call("POST", "/api/otp/activate", Some(json!(fields))).await;
    answer.assert_problem(400, "invalid_request");
    assert!(answer.text.len() < 2048, "{} bytes", answer.text.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_paths_and_methods_are_problems() {
    let app = TestApp::start().await;
    for path in ["/", "/api", "/api/internal/org/", "/api/internal/orgs", "/api/internal/org/acme/env/", "//"]
    {
        app.call("GET", path, None).await.assert_problem(404, "not_found");
    }
    for (method, path, allow) in [
        ("DELETE", "/api/internal/org", "POST,GET,HEAD"),
        ("GET", "/api/otp/activate", "POST"),
        ("PUT", "/api/internal/org/acme/env/prod/pool", "GET,HEAD,PATCH"),
        ("POST", "/healthz", "GET,HEAD"),
    ] {
        let answer = app.call(method, path, None).await;
        answer.assert_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_needs_no_body_and_takes_an_empty_one() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = format!("{}/otp", app.device("pos-1").await);
    assert_eq!(app.call("POST", &path, None).await.status, 201);
    assert_eq!(app.call("POST", &path, Some(json!({}))).await.status, 201);
    assert_eq!(app.call("POST", &path, Some(json!({"ttlSeconds": null}))).await.status, 201);
}
