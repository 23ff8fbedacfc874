//! Imports that do not come to their end, and imports that meet.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use futures_util::stream;
use keypost::server::{self, ServerLimits};
use serde_json::json;
use sqlx::ConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{DEVICES, IMPORT, ndjson, summary};
use crate::support::{KvServer, Serving, TestApp, TestDatabase, eventually, keypost};

const COUNT: &str = "select count(*) from device";
/// What the audit says has been made: as much as there is, unless a batch was torn.
const TOLD: &str = "select coalesce(sum((changes->'after'->>'devices')::bigint), 0)::bigint from audit_event where action = 'device.import'";

fn rows(range: impl Iterator<Item = u32>) -> String {
    range.map(|n| format!("{{\"id\":\"d-{n}\",\"name\":\"Device {n}\"}}\n")).collect()
}

async fn serve(app: &TestApp) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let limits = ServerLimits {
        head: Duration::from_secs(60),
        idle: Duration::from_secs(120),
        send: Duration::from_secs(2),
        drain: Duration::from_secs(5),
    };
    tokio::spawn(server::serve(listener, app.router.clone(), stop.clone(), limits));
    (address, stop)
}

fn head(key: &str) -> String {
    format!(
        "POST {IMPORT} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/x-ndjson\r\n\
         transfer-encoding: chunked\r\n\r\n"
    )
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_an_import_says_where_it_stands() {
    let app = TestApp::start().await;
    app.acme().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<String>(1);
    let pieces = stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((Ok::<_, Infallible>(piece), receiver))
    });
    let going = async {
        sender.send(rows(0..1000)).await.unwrap();
        eventually("the first batch is stored", async || app.database.number(COUNT).await == 1000).await;
        app.database.pool.close().await;
        sender.send(rows(1000..2000)).await.unwrap();
        drop(sender);
    };
    let ((told, end), ()) = tokio::join!(ndjson(&app, "", Body::from_stream(pieces)), going);
    assert!(told.is_empty());
    assert_eq!(
        (&end["status"], &end["created"], &end["error"]["code"]),
        (&json!("failed"), &json!(1000), &json!("unavailable"))
    );
    let mut connection = app.database.config.options.connect().await.unwrap();
    let count: i64 = sqlx::query_scalar(COUNT).fetch_one(&mut connection).await.unwrap();
    assert_eq!(count, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_leaves_whole_batches() {
    let app = TestApp::start().await;
    app.acme().await;
    let pieces = [
        Ok(rows(0..1500)),
        Ok("{\"id\":\"half\",\"name\":\"n\"}".to_owned()),
        Err(io::Error::other("reset")),
    ];
    let (told, end) = ndjson(&app, "", Body::from_stream(stream::iter(pieces))).await;
    assert!(told.is_empty());
    assert_eq!(
        (&end["status"], &end["created"], &end["error"]["code"]),
        (&json!("failed"), &json!(1000), &json!("malformed_body"))
    );
    assert_eq!((app.database.number(COUNT).await, app.database.number(TOLD).await), (1000, 1000));
    assert_eq!(ndjson(&app, "", rows(0..1500)).await.1, summary([500, 0, 1000, 0, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_comes_while_the_body_is_on_its_way() {
    let app = TestApp::start().await;
    app.acme().await;
    let (address, stop) = serve(&app).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head(&app.admin).as_bytes()).await.unwrap();
    let mut said = String::new();
    let mut buffer = [0; 4096];
    let mut hear = async |stream: &mut TcpStream, what: &str| {
        while !said.contains(what) {
            let read =
                timeout(Duration::from_secs(60), stream.read(&mut buffer)).await.expect("it speaks").unwrap();
            assert!(read > 0, "it ended: {said}");
            said.push_str(str::from_utf8(&buffer[..read]).unwrap());
        }
    };
    hear(&mut stream, "HTTP/1.1 200").await;
    // A row in two pieces, and bad rows that are told before the body ends.
    for piece in ["{\"id\":\"d\",", "\"name\":\"n\"}\n{\n"] {
        stream.write_all(chunk(piece).as_bytes()).await.unwrap();
    }
    hear(&mut stream, "\"line\":2").await;
    assert_eq!(app.database.number(COUNT).await, 1);
    stream.write_all(format!("{}0\r\n\r\n", chunk("[]\n")).as_bytes()).await.unwrap();
    hear(&mut stream, "\"status\":\"completed\"").await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_takes_the_import_with_it() {
    let app = TestApp::start().await;
    app.acme().await;
    let (address, stop) = serve(&app).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head(&app.admin).as_bytes()).await.unwrap();
    stream.write_all(chunk(&rows(0..1000)).as_bytes()).await.unwrap();
    eventually("a batch is stored", async || app.database.number(COUNT).await > 0).await;
    for n in 1..4 {
        stream.write_all(chunk(&rows(n * 1000..n * 1000 + 999)).as_bytes()).await.unwrap();
    }
    drop(stream);
    let torn = format!("select ({COUNT}) - ({TOLD})");
    assert_eq!(app.database.number(&torn).await, 0);
    // The publisher needs one now and then.
    let all = join_all((0..8).map(|_| app.database.pool.acquire()));
    let all = timeout(Duration::from_secs(60), all).await.expect("no connection is kept");
    assert!(all.iter().all(Result::is_ok));
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_not_read_either() {
    let app = TestApp::start().await;
    app.acme().await;
    let (address, stop) = serve(&app).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head(&app.admin).as_bytes()).await.unwrap();
    // Every row is bad, and is answered with some forty times its size.
    let bad = chunk(&"{\n".repeat(1 << 19));
    let writing = async {
        for _ in 0..256 {
            stream.write_all(bad.as_bytes()).await?;
        }
        Ok::<_, io::Error>(())
    };
    let written = timeout(Duration::from_secs(30), writing).await;
    assert!(!matches!(written, Ok(Ok(()))), "256 MiB were taken from a client that reads nothing");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_at_once_neither_deadlock_nor_take_all_connections() {
    let app = TestApp::start().await;
    app.acme().await;
    // The same rows in different orders, more imports than there are connections.
    let imports = (1..=12_u32).map(|step| {
        let order = (0..2000_u32).map(move |n| (n * [1, 3, 7, 1999][step as usize % 4] + step * 131) % 2000);
        ndjson(&app, "?app=client", rows(order))
    });
    let asking = async {
        for _ in 0..20 {
            let answer = app.call("GET", &format!("{DEVICES}/d-0"), None).await;
            assert!([200, 404].contains(&answer.status.as_u16()), "{}", answer.text);
        }
    };
    let (done, ()) = tokio::join!(join_all(imports), asking);
    let mut made = 0;
    for (lines, end) in done {
        assert_eq!(end["status"], "completed", "{end}");
        made += end["created"].as_u64().unwrap();
        assert!(lines.iter().all(|line| line["status"] != "conflict"));
    }
    assert_eq!((made, app.database.number(COUNT).await, app.database.number(TOLD).await), (2000, 2000, 2000));
    assert_eq!(app.database.number("select count(*) from otp").await, 2000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_leaves_whole_batches_and_a_repetition_does_the_rest() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let key = {
        let output = keypost(&database, &kv, &["apikey", "generate"]).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let start = async || {
        let mut command = keypost(&database, &kv, &["serve"]);
        command.env("KEYPOST_ADMIN_API_KEY", &key).env("KEYPOST_LOG", "json");
        Serving::start(command).await
    };
    let client = reqwest::Client::new();
    let serving = start().await;
    for (path, body) in [
        ("/api/internal/org", json!({"id": "acme", "name": "Acme"})),
        ("/api/internal/org/acme/env", json!({"id": "prod", "name": "Production"})),
    ] {
        let made = client.post(serving.url(path)).header("x-api-key", &key).json(&body).send().await.unwrap();
        assert_eq!(made.status(), 201);
    }
    let total = 20_000;
    let import = async |serving: &Serving| {
        let pieces =
            stream::iter((0..total / 1000).map(|n| Ok::<_, Infallible>(rows(n * 1000..(n + 1) * 1000))));
        let request = client
            .post(serving.url(&format!("{IMPORT}?app=client")))
            .header("x-api-key", &key)
            .header("content-type", "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(pieces));
        request.send().await?.text().await
    };
    let killed = async {
        eventually("some batches are stored", async || database.number(COUNT).await >= 3000).await;
    };
    tokio::select! {
        answer = import(&serving) => panic!("it was faster than the test: {answer:?}"),
        () = killed => {}
    }
    // SIGKILL.
    drop(serving);
    let open = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'keypost'
        and pid <> pg_backend_pid() and state <> 'idle'";
    eventually("its transactions have ended", async || database.number(open).await == 0).await;
    let count = database.number(COUNT).await;
    assert!((3000..i64::from(total)).contains(&count), "{count}");
    assert_eq!(database.number(TOLD).await, count);
    for table in ["device_app", "oauth_client", "otp"] {
        assert_eq!(database.number(&format!("select count(*) from {table}")).await, count);
    }

    let serving = start().await;
    let text = import(&serving).await.unwrap();
    let end: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(
        end,
        summary([u64::from(total) - count as u64, count as u64, 0, 0, 0]),
        "every device has a password that somebody knows"
    );
    assert_eq!(database.number(COUNT).await, i64::from(total));
}
