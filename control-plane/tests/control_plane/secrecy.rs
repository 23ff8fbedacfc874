//! No secret is ever logged or printed.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use keypost::telemetry::{LogConfig, subscriber};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Fault, TestApp, eventually, secret};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

// One thread: the log of a thread is what is looked at.
#[tokio::test]
async fn the_log_at_its_most_talkative_contains_no_secret() {
    let log = Log::default();
    let config = LogConfig::parse("json,trace").unwrap();
    let guard = tracing::subscriber::set_default(subscriber(&config, log.clone()));

    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    let otp = app.otp(&path).await;
    app.kv.fail_next([Fault::Status(401), Fault::Status(500), Fault::Rubbish]);
    let activated = app.activate(json!({"otp": otp, "deviceId": "pos-1"})).await.json();
    let client_secret = activated["clientSecret"].as_str().unwrap().to_owned();
    let unused = app.otp(&path).await;
    app.activate(json!({"otp": unused, "deviceId": "pos-2"})).await;
    for body in [format!("{{\"otp\": \"{unused}\""), format!("\"{unused}\""), format!("{{\"{unused}\": 1}}")]
    {
        let request = Request::builder().method("POST").uri("/api/otp/activate");
        let request = request.header("content-type", "application/json").body(Body::from(body)).unwrap();
        assert_eq!(app.send(request).await.status, 400);
    }
    let in_path = format!("/api/internal/org/{}?key={}", app.admin, app.admin);
    app.call("GET", &in_path, None).await;
    app.call("GET", &format!("/{}", app.admin), None).await;
    eventually("all is published", async || {
        app.call("GET", "/api/internal/sync", None).await.json()["pending"].as_i64().unwrap() <= 1
    })
    .await;
    drop(guard);
    let TestApp { publisher, database, admin, .. } = app;
    publisher.stop().await;
    database.pool.close().await;

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("\"request_id\":") && log.contains("a device has been activated"));
    assert!(log.contains("\"level\":\"TRACE\"") && log.contains("publishing failed"));
    let hash = |text: &str| keypost_shared::secret::SecretHash::of(text.as_bytes());
    for (what, text) in [
        ("an admin key", admin),
        ("a used one-time password", otp),
        ("an unused one-time password", unused),
        ("a client secret", client_secret.clone()),
        ("the hash of a client secret", String::from(hash(&client_secret))),
        ("the KV token", "kv-api-token".to_owned()),
        ("the master key", secret(1)),
        ("the sealing key", secret(2)),
    ] {
        let line = log.lines().find(|line| line.contains(&text));
        assert!(line.is_none(), "{what} stands in the log: {}", line.unwrap_or_default());
    }
    // Private keys in KV are sealed, but their texts have no place in a log either.
    assert!(!log.contains("\"jwe\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_holds_secrets_does_not_print_them() {
    let app = TestApp::start().await;
    app.acme().await;
    let key = app.kv.config();
    let printed = format!("{key:?} {:?} {:?}", app.context.master_key, app.database.config);
    for text in ["kv-api-token".to_owned(), secret(1)] {
        assert!(!printed.contains(&text), "{printed}");
    }
    let url = std::env::var("KEYPOST_TEST_DATABASE_URL").unwrap();
    let password = url.split(':').nth(2).and_then(|rest| rest.split('@').next()).unwrap();
    assert!(!printed.contains(password), "the database's password is printed");
}
