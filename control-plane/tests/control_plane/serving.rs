//! The process: requests over sockets, ids, shutdown, and the commands.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use keypost::server::{self, ServerLimits};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Fault, KvServer, TestApp, TestDatabase, eventually, keypost};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_a_request_id_and_a_sane_one_is_kept() {
    let app = TestApp::start().await;
    let id = async |path: &str, sent: Option<&str>| {
        let request = Request::builder().uri(path);
        let request = match sent {
            Some(sent) => request.header("x-request-id", sent),
            None => request,
        };
        let answer = app.send(request.body(Body::empty()).unwrap()).await;
        answer.header("x-request-id").unwrap().to_owned()
    };
    for path in ["/healthz", "/readyz", "/nowhere", "/api/internal/org", "/api/internal/sync"] {
        assert_eq!(id(path, Some("my-id.1")).await, "my-id.1");
        assert_ne!(id(path, None).await, id(path, None).await);
        for bad in ["two words", "a\"b", "{}", &"x".repeat(200)] {
            assert_ne!(id(path, Some(bad)).await, bad);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_it_lives_but_is_not_ready() {
    let app = TestApp::start().await;
    assert_eq!(app.call("GET", "/readyz", None).await.status, 200);
    app.database.pool.close().await;
    assert_eq!(app.call("GET", "/healthz", None).await.status, 200);
    for path in ["/readyz", "/api/internal/sync", "/api/internal/org/acme"] {
        let answer = app.call("GET", path, None).await;
        answer.assert_problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
    let answer = app.activate(json!({"otp": "0000000000"})).await;
    answer.assert_problem(503, "unavailable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_free_connection_a_request_is_told_to_come_back() {
    let app = TestApp::start().await;
    let mut held = Vec::new();
    while let Ok(connection) = timeout(Duration::from_millis(300), app.database.pool.acquire()).await {
        held.push(connection.unwrap());
    }
    let answer = app.call("GET", "/api/internal/sync", None).await;
    answer.assert_problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), Some("5"));
    drop(held);
    assert_eq!(app.call("GET", "/api/internal/sync", None).await.status, 200);
}

/// How long a busy machine may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Served {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(app: &TestApp, head: Duration, idle: Duration) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let limits = ServerLimits { head, idle, send: PATIENCE, drain: PATIENCE };
    let task = tokio::spawn(server::serve(listener, app.router.clone(), stop.clone(), limits));
    Served { address, stop, task }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_answered_before_the_server_stops() {
    let app = TestApp::start().await;
    app.create("/api/internal/org", json!({"id": "acme", "name": "Acme"})).await;
    let served = serve(&app, PATIENCE, PATIENCE).await;
    app.kv.fail_next([Fault::Stall(300)]);
    let url = format!("http://{}/api/internal/org/acme/env", served.address);
    let request = reqwest::Client::new()
        .post(url)
        .header("x-api-key", &app.admin)
        .json(&json!({"id": "prod", "name": "Production"}));
    let asked = tokio::spawn(request.send());
    let created = "select count(*) from environment";
    eventually("the request is under way", async || app.database.number(created).await == 1).await;
    served.stop.cancel();
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.json::<Value>().await.unwrap()["published"], true);
    timeout(PATIENCE, served.task).await.expect("the server stops").unwrap();
    assert!(TcpStream::connect(served.address).await.is_err(), "it accepts no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_come_ends_the_connection() {
    let app = TestApp::start().await;
    let served = serve(&app, Duration::from_secs(1), PATIENCE).await;
    // Half a head, half of an HTTP/2 preface, and nothing at all.
    let slow = [&b"GET /healthz HT"[..], b"PRI * HT", b""].map(async |sent| {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "the connection is still open after {sent:?}");
    });
    let [half_a_head, half_a_preface, nothing] = slow;
    tokio::join!(half_a_head, half_a_preface, nothing);
    served.stop.cancel();
    served.task.await.unwrap();
}

/// A request over a connection that stays, and its answer.
async fn is_alive(stream: &mut TcpStream) {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: keypost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the connection has ended");
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_may_wait_longer_for_its_next_request_than_for_its_first() {
    let app = TestApp::start().await;
    let head = Duration::from_millis(500);
    let served = serve(&app, head, PATIENCE).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    is_alive(&mut stream).await;
    sleep(head * 3).await;
    is_alive(&mut stream).await;
    served.stop.cancel();
    served.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_idle_too_long_ends() {
    let app = TestApp::start().await;
    let served = serve(&app, PATIENCE, Duration::from_millis(500)).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    is_alive(&mut stream).await;
    let ended = timeout(PATIENCE / 2, stream.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the connection is still open");
    served.stop.cancel();
    served.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_on_the_wire_is_no_server_error() {
    let app = TestApp::start().await;
    let served = serve(&app, PATIENCE, PATIENCE).await;
    for rubbish in
        [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"GET  \r\n\r\n"]
    {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(rubbish).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    let answer = reqwest::get(format!("http://{}/healthz", served.address)).await.unwrap();
    assert_eq!(answer.status(), 200, "and it lives");
    served.stop.cancel();
    served.task.await.unwrap();
}

async fn first_line(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("it speaks in time").unwrap();
    line.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_do_what_the_contract_says() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let migrated = keypost(&database, &kv, &["migrate"]).output().await.unwrap();
    assert!(migrated.status.success(), "{migrated:?}");

    let shown = [
        keypost(&database, &kv, &["root", "show"]).output().await.unwrap(),
        keypost(&database, &kv, &["root", "show"]).output().await.unwrap(),
    ];
    assert_eq!(shown[0].stdout, shown[1].stdout, "the root is made once");
    let jwk: Value = serde_json::from_slice(&shown[0].stdout).unwrap();
    let names: Vec<&String> = jwk.as_object().unwrap().keys().collect();
    assert_eq!(names, ["crv", "kid", "kty", "x", "y"]);
    assert_eq!((&jwk["kty"], &jwk["crv"]), (&json!("EC"), &json!("P-256")));
    assert_eq!(shown[0].stdout.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");

    let other_master = keypost(&database, &kv, &["root", "show"])
        .env("KEYPOST_MASTER_KEY", crate::support::secret(9))
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(other_master.stderr).unwrap();
    assert!(!other_master.status.success() && said.contains("another master key"), "{said}");

    let generated = keypost(&database, &kv, &["apikey", "generate"]).env_clear().output().await.unwrap();
    let key = String::from_utf8(generated.stdout).unwrap();
    assert!(keypost_shared::secret::ApiKey::parse(key.trim_end()).is_some(), "{key}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serving_prints_the_first_key_once_and_ends_well_at_sigterm() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    for start in ["first", "second"] {
        let mut child = keypost(&database, &kv, &["serve"]).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        while let Some(line) = timeout(PATIENCE, log.next_line()).await.unwrap().unwrap() {
            if line.contains("listening") {
                break;
            }
        }
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let said = first_line(&mut child).await;
        let status = timeout(PATIENCE, child.wait()).await.expect("it ends in time").unwrap();
        assert!(status.success(), "{status}");
        match start {
            "first" => assert!(said.contains("kp_admin_"), "{said}"),
            _ => assert_eq!(said, "", "the key is shown once"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_environment_stops_the_start_with_every_reason() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let mut command = keypost(&database, &kv, &["serve"]);
    command
        .env("KEYPOST_LISTEN", "nowhere")
        .env("KEYPOST_KV_BATCH_SIZE", "0")
        .env_remove("KEYPOST_MASTER_KEY");
    let output = command.output().await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    for variable in ["KEYPOST_LISTEN", "KEYPOST_KV_BATCH_SIZE", "KEYPOST_MASTER_KEY"] {
        assert!(said.contains(variable), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_named() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = keypost(&database, &kv, &["serve"]).env("KEYPOST_LISTEN", &address).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains(&address), "{said}");
    assert_eq!(database.number("select count(*) from api_key").await, 0, "no key was made that nobody saw");
}
