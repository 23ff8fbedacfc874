//! No secret is ever logged or printed.

use std::time::Duration;

use keypost_shared::secret::{ApiKey, KeyKind, SecretHash};
use rand_core::OsRng;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Fault, KvServer, TestApp, TestDatabase, command_secrets, keypost, secret};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_at_its_most_talkative_contains_no_secret() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let admin = ApiKey::generate(KeyKind::Admin, &mut OsRng).expose().to_owned();
    let mut child = keypost(&database, &kv, &["serve"])
        .env("KEYPOST_LOG", "json,trace")
        .env("KEYPOST_ADMIN_API_KEY", &admin)
        .env("KEYPOST_KV_API_TOKEN", "kv-api-token")
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut log = String::new();
    let address = loop {
        let line = timeout(Duration::from_secs(20), lines.next_line()).await.unwrap().unwrap().unwrap();
        log.push_str(&line);
        log.push('\n');
        let event: Value = serde_json::from_str(&line).expect("every line is JSON");
        if event["message"] == "listening" {
            break event["address"].as_str().unwrap().to_owned();
        }
    };
    let rest = tokio::spawn(async move {
        let mut rest = String::new();
        lines.into_inner().read_to_string(&mut rest).await.unwrap();
        rest
    });

    let http = Client::new();
    let call = async |method: Method, path: &str, body: Option<&str>| {
        let request = http.request(method, format!("http://{address}{path}")).header("x-api-key", &admin);
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_owned()),
            None => request,
        };
        let answer = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let post = async |path: &str, body: Value| call(Method::POST, path, Some(&body.to_string())).await;
    let env = "/api/internal/org/acme/env";
    post("/api/internal/org", json!({"id": "acme", "name": "Acme"})).await;
    post(env, json!({"id": "prod", "name": "Production"})).await;
    post(&format!("{env}/prod/device"), json!({"id": "pos-1", "name": "Till"})).await;
    let app = format!("{env}/prod/device/pos-1/app");
    post(&app, json!({"clientAppId": "client", "scopes": ["device"]})).await;
    let otp =
        async || post(&format!("{app}/client/otp"), json!({})).await["otp"].as_str().unwrap().to_owned();
    let used = otp().await;
    kv.fail_next([Fault::Status(401), Fault::Status(500), Fault::Rubbish]);
    let activated = post("/api/otp/activate", json!({"otp": used, "deviceId": "pos-1"})).await;
    let client_secret = activated["clientSecret"].as_str().unwrap().to_owned();
    let unused = otp().await;
    post("/api/otp/activate", json!({"otp": unused, "deviceId": "pos-2"})).await;
    for body in [format!("{{\"otp\": \"{unused}\""), format!("\"{unused}\""), format!("{{\"{unused}\": 1}}")]
    {
        assert_eq!(call(Method::POST, "/api/otp/activate", Some(&body)).await["status"], 400);
    }
    call(Method::GET, &format!("/api/internal/org/{admin}?key={admin}"), None).await;
    call(Method::GET, &format!("/{admin}"), None).await;

    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    timeout(Duration::from_secs(15), child.wait()).await.unwrap().unwrap();
    log.push_str(&rest.await.unwrap());

    assert!(log.contains("\"request_id\":") && log.contains("a device has been activated"));
    assert!(log.contains("\"level\":\"TRACE\"") && log.contains("publishing failed"));
    let [master_key, sealing_key, shared_secret] = command_secrets();
    let url = std::env::var("KEYPOST_TEST_DATABASE_URL").unwrap();
    let hash = String::from(SecretHash::of(client_secret.as_bytes()));
    for (what, text) in [
        ("an admin key", admin.as_str()),
        ("a used one-time password", &used),
        ("an unused one-time password", &unused),
        ("a client secret", &client_secret),
        ("the hash of a client secret", &hash),
        ("the KV token", "kv-api-token"),
        ("the master key", &master_key),
        ("the sealing key", &sealing_key),
        ("the shared secret", &shared_secret),
        ("the database's password", password(&url)),
    ] {
        let line = log.lines().find(|line| line.contains(text));
        assert!(line.is_none(), "{what} stands in the log: {}", line.unwrap_or_default());
    }
    // Private keys in KV are sealed, but their texts have no place in a log either.
    assert!(!log.contains("\"jwe\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_holds_secrets_does_not_print_them() {
    let app = TestApp::start().await;
    let url = std::env::var("KEYPOST_TEST_DATABASE_URL").unwrap();
    let printed = format!("{:?} {:?} {:?}", app.kv.config(), app.context.master_key, app.database.config);
    for text in ["kv-api-token", &secret(1), password(&url)] {
        assert!(!printed.contains(text), "{printed}");
    }
}

/// The password in a database URL.
fn password(url: &str) -> &str {
    let (_, after_scheme) = url.split_once("://").unwrap();
    let (user, _) = after_scheme.split_once('@').unwrap();
    user.split_once(':').unwrap().1
}
