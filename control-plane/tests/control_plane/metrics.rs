//! `/metrics`: what Prometheus is told.

use serde_json::json;

use crate::support::{Answer, Fault, TestApp, eventually};

async fn metrics(app: &TestApp) -> String {
    let answer: Answer = app.call("GET", "/metrics", None).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let content_type = answer.header("content-type").unwrap();
    assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"), "{content_type}");
    answer.text
}

/// The value of the series that begins so.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("{series} is not in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_counted() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    let otp = app.otp(&path).await;
    assert_eq!(app.activate(json!({"otp": otp})).await.status, 200);
    assert_eq!(app.activate(json!({"otp": otp})).await.status, 400);
    assert_eq!(app.call_with("kp_admin_forged", "GET", "/api/internal/sync", None).await.status, 401);
    app.kv.fail_next([Fault::Status(400)]);
    app.call("PATCH", "/api/internal/org/acme/env/prod/pool", Some(json!({"tokenTtlSeconds": 77}))).await;
    let refused = "keypost_kv_calls_total{operation=\"put\",outcome=\"refused\"} 1";
    eventually("the refusal is counted", async || metrics(&app).await.contains(refused)).await;

    let text = metrics(&app).await;
    let activate = "method=\"POST\",route=\"/api/otp/activate\"";
    assert_eq!(value(&text, &format!("keypost_http_requests_total{{{activate},status=\"2xx\"}}")), 1.0);
    assert_eq!(value(&text, &format!("keypost_http_requests_total{{{activate},status=\"4xx\"}}")), 1.0);
    assert_eq!(value(&text, &format!("keypost_http_request_duration_seconds_count{{{activate}}}")), 2.0);
    assert_eq!(value(&text, "keypost_activations_total{outcome=\"activated\"}"), 1.0);
    assert_eq!(value(&text, "keypost_activations_total{outcome=\"invalid_otp\"}"), 1.0);
    assert_eq!(value(&text, "keypost_authentication_failures_total"), 1.0);
    assert!(value(&text, "keypost_publisher_published_total") >= 3.0);
    assert!(value(&text, "keypost_publisher_failures_total") >= 1.0);
    assert!(value(&text, "keypost_kv_calls_total{operation=\"put\",outcome=\"ok\"}") >= 1.0);
    assert!(value(&text, "keypost_database_acquire_duration_seconds_count") > 5.0);
    assert_eq!(value(&text, "keypost_database_connections_max"), 10.0);
    assert_eq!(value(&text, "keypost_database_up"), 1.0);
    assert!(value(&text, "keypost_resident_memory_bytes") > 1e6);
    assert!(text.contains("keypost_build_info{version="));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_the_series_stay_few() {
    let app = TestApp::start().await;
    app.acme().await;
    let series = async || {
        metrics(&app).await.lines().filter(|line| line.starts_with("keypost_http_requests_total")).count()
    };
    app.call("GET", "/nowhere/0", None).await;
    app.call("GET", "/api/internal/org/acme", None).await;
    app.call("BREW", "/nowhere/0", None).await;
    let before = series().await;
    for n in 0..50 {
        app.call("GET", &format!("/nowhere/{n}"), None).await;
        app.call(&format!("BREW{n}"), "/nowhere/0", None).await;
        app.call("GET", "/api/internal/org/acme", None).await;
    }
    // `/metrics` itself has become one.
    assert!(series().await <= before + 1);
    assert!(!metrics(&app).await.contains("acme"), "an organization's id is no label");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backlog_is_told_with_the_age_of_its_oldest_mark() {
    let app = TestApp::start().await;
    app.acme().await;
    eventually("all is published", async || {
        app.database.number("select count(*) from publication where generation > published_generation").await
            == 0
    })
    .await;
    let later = "update publication set generation = generation + 1, not_before = now() + interval '1 day',
                        marked_at = now() - interval '90 seconds'
                  where key = (select 'v1/pool/' || id from client_pool where kind = 'device')";
    assert_eq!(app.database.execute(later).await.unwrap(), 1);
    let text = metrics(&app).await;
    assert_eq!(value(&text, "keypost_publisher_backlog"), 1.0);
    let age = value(&text, "keypost_publisher_oldest_mark_seconds");
    assert!((90.0..200.0).contains(&age), "{age}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_it_still_answers_and_says_so() {
    let app = TestApp::start().await;
    app.database.pool.close().await;
    let text = metrics(&app).await;
    assert_eq!(value(&text, "keypost_database_up"), 0.0);
    assert!(!text.contains("keypost_publisher_backlog"), "nobody knows");
}
