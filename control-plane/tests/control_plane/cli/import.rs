//! `keypost device import`, against a server that answers as api.md says.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::Response;
use futures_util::{StreamExt, stream};
use http_body_util::BodyDataStream;
use keypost_shared::secret::{ApiKey, KeyKind};
use rand_core::OsRng;
use rustix::termios::tcgetattr;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Done, Server, Terminal, finish_with};
use crate::support::{TestApp, eventually};

const IMPORT: [&str; 6] = ["device", "import", "--org", "acme", "--env", "prod"];

/// A server that answers each line of the body with a line: the line itself, if it is the answer to an import's row, and
/// a summary.
#[derive(Default)]
struct Importer {
    lines: AtomicU64,
    bytes: AtomicU64,
    asked: std::sync::Mutex<Option<(String, String)>>,
    /// Whether the summary waits.
    holds: bool,
    released: Notify,
}

impl Importer {
    async fn serve(self) -> (Arc<Self>, Server) {
        let importer = Arc::new(self);
        let router = Router::new()
            .fallback(echo)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(importer.clone());
        let key = ApiKey::generate(KeyKind::Admin, &mut OsRng);
        (importer, Server::start(router, key.expose()).await)
    }

    fn asked(&self) -> (String, String) {
        self.asked.lock().unwrap().clone().unwrap()
    }
}

async fn echo(State(importer): State<Arc<Importer>>, request: Request) -> Response<Body> {
    let content_type = request.headers()["content-type"].to_str().unwrap().to_owned();
    *importer.asked.lock().unwrap() = Some((request.uri().to_string(), content_type));
    let counted = importer.clone();
    let rows = BodyDataStream::new(request.into_body()).map(move |chunk| {
        let chunk: Bytes = chunk?;
        let lines = chunk.iter().filter(|byte| **byte == b'\n').count();
        counted.lines.fetch_add(lines as u64, Ordering::SeqCst);
        counted.bytes.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        Ok::<_, axum::Error>(chunk)
    });
    let summary = stream::once(async move {
        if importer.holds {
            importer.released.notified().await;
        }
        let summary =
            json!({"status": "completed", "created": importer.lines.load(Ordering::SeqCst), "unchanged": 0});
        Ok(Bytes::from(format!("{summary}\n")))
    });
    Response::new(Body::from_stream(rows.chain(summary)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_rows_are_told_with_their_line_and_make_an_exit_code_of_their_own() {
    let rows = [
        json!({"line": 1, "id": "a", "status": "unchanged"}),
        json!({"line": 2, "id": "b\u{1b}[2J", "status": "conflict", "errors": [{"field": "id", "detail": "is taken"}]}),
        json!({"line": 3, "status": "invalid", "errors": [{"field": "name", "detail": "is required"}, {"field": "tags.x", "detail": "is long"}]}),
    ];
    let input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let (importer, server) = Importer::default().serve().await;
    let import = [&IMPORT[..], &["-", "--format", "ndjson"]].concat();
    let done = finish_with(&mut server.command(&import), &input).await;
    assert_eq!(
        importer.asked(),
        ("/api/internal/org/acme/env/prod/device/import".to_owned(), "application/x-ndjson".to_owned())
    );
    let told: Vec<&str> = done.stderr.lines().collect();
    assert_eq!(
        told,
        [
            r"line 2 (b\u{1b}[2J): conflict: id is taken",
            "line 3: invalid: name is required; tags.x is long",
            "created 3, unchanged 0",
            "keypost: 2 of the rows were refused",
        ]
    );
    done.failed(7, "");

    let json = [&import[..], &["--json"]].concat();
    let done = finish_with(&mut server.command(&json), &input).await;
    let lines: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[..3], lines.len(), done.code), (&rows[..], 4, Some(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_go_to_standard_output_and_nothing_else_does() {
    let row = json!({"line": 1, "id": "a", "status": "created", "otp": "0123456789"});
    let (importer, server) = Importer::default().serve().await;
    let import =
        [&IMPORT[..], &["-", "--format", "csv", "--app", "client", "--scope", "a", "--scope", "b"]].concat();
    let import = [&import[..], &["--issue", "otp", "--otp-ttl", "900"]].concat();
    let done = finish_with(&mut server.command(&import), &format!("{row}\n")).await;
    assert_eq!(
        importer.asked(),
        (
            "/api/internal/org/acme/env/prod/device/import?app=client&scopes=a%2Cb&issue=otp&ttlSeconds=900"
                .to_owned(),
            "text/csv".to_owned()
        )
    );
    assert!(done.stderr.contains("created 1") && !done.stderr.contains("0123456789"), "{done:?}");
    assert_eq!(done.json(), [row]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_file_holds_is_known_by_its_name_or_has_to_be_said() {
    let (importer, server) = Importer::default().serve().await;
    let folder = std::env::temp_dir().join(format!("keypost-cli-import-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, content_type) in [("a.csv", "text/csv"), ("a.JSONL", "application/x-ndjson")] {
        let file = folder.join(name);
        std::fs::write(&file, "").unwrap();
        server.run(&[&IMPORT[..], &[file.to_str().unwrap()]].concat()).await.ok();
        assert_eq!(importer.asked().1, content_type);
    }
    server
        .run(&[&IMPORT[..], &[folder.join("a.txt").to_str().unwrap()]].concat())
        .await
        .failed(2, "--format");
    server.run(&[&IMPORT[..], &[folder.join("b.csv").to_str().unwrap()]].concat()).await.failed(1, "b.csv");
    server
        .run(&[&IMPORT[..], &["-", "--format", "csv", "--api-key-file", "-"]].concat())
        .await
        .failed(2, "both");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_no_success() {
    let (_, server) = Importer::default().serve().await;
    let key = server.key.clone();
    let no_summary = Router::new().fallback(async |request: Request| request.into_body());
    let other = Server::start(no_summary, &key).await;
    let import = [&IMPORT[..], &["-", "--format", "ndjson"]].concat();
    let row = json!({"line": 1, "id": "a", "status": "unchanged"}).to_string();
    finish_with(&mut other.command(&import), &row).await.failed(1, "without a summary");

    for (code, exit) in [("unavailable", 6), ("invalid_request", 1)] {
        let error = json!({"code": code, "detail": "no more", "errors": [{"field": "id", "detail": "is twice there"}]});
        let summary = json!({"status": "failed", "rows": 7, "created": 5, "error": error});
        let failed = finish_with(&mut other.command(&import), &summary.to_string()).await;
        assert!(failed.stderr.contains("created 5, rows 7\n"), "{failed:?}");
        assert!(failed.stderr.contains("\n  id: is twice there"), "{failed:?}");
        failed.failed(exit, "did not come to its end: no more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_heard_while_the_file_is_still_on_its_way() {
    let key = ApiKey::generate(KeyKind::Admin, &mut OsRng);
    let refused = Router::new().fallback(async || {
        let problem = json!({"detail": "there is no such environment"}).to_string();
        Response::builder().status(404).body(Body::from(problem)).unwrap()
    });
    let server = Server::start(refused, key.expose()).await;
    let import = [&IMPORT[..], &["-", "--format", "ndjson"]].concat();
    for _ in 0..5 {
        let done = finish_with(&mut server.command(&import), &"x".repeat(8 << 20)).await;
        done.failed(4, "no such environment");
    }
}

/// The most memory that a process has had, in bytes.
fn peak_memory(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_any_size_takes_little_memory_in_both_directions() {
    const ROWS: u64 = 1_000_000;
    let (importer, server) = Importer { holds: true, ..Importer::default() }.serve().await;
    let import = [&IMPORT[..], &["-", "--format", "ndjson", "--app", "client"]].concat();
    let mut child = server.command(&import).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeding = tokio::spawn(async move {
        for thousand in 0..ROWS / 1000 {
            let rows: String = (0..1000)
                .map(|n| {
                    let line = thousand * 1000 + n + 1;
                    format!("{{\"line\":{line},\"id\":\"device-{line}\",\"status\":\"created\",\"otp\":\"0123456789\",\"name\":\"A device with a name\"}}\n")
                })
                .collect();
            stdin.write_all(rows.as_bytes()).await.unwrap();
        }
    });
    let mut stdout = child.stdout.take().unwrap();
    let reading = tokio::spawn(async move {
        let (mut lines, mut piece) = (0, vec![0; 1 << 16]);
        loop {
            match stdout.read(&mut piece).await.unwrap() {
                0 => return lines,
                read => lines += piece[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
            }
        }
    });
    feeding.await.unwrap();
    eventually("all has arrived", async || importer.lines.load(Ordering::SeqCst) == ROWS).await;
    let peak = peak_memory(&child);
    importer.released.notify_one();
    let sent = importer.bytes.load(Ordering::SeqCst);
    assert!(sent > 90 << 20, "{sent}");
    assert!(peak < 48 << 20, "it took {peak} bytes for {sent}");
    assert_eq!(reading.await.unwrap(), ROWS);
    let done: Done =
        timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap().into();
    assert!(done.code == Some(0) && done.stderr.contains("created 1000000"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_import_leaves_the_terminal_as_it_was() {
    let terminal = Terminal::open();
    let (kept, theirs) = (terminal.end(), terminal.end());
    let before = tcgetattr(&kept).unwrap();

    let (importer, server) = Importer { holds: true, ..Importer::default() }.serve().await;
    let import = [&IMPORT[..], &["-", "--format", "ndjson"]].concat();
    let mut command = server.command(&import);
    command.env("TERM", "xterm").stdin(Stdio::piped()).stderr(Stdio::from(theirs));
    let mut child = command.spawn().unwrap();
    drop(command);
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let screen = seen.clone();
    let watching = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        // It fails when nobody has the terminal open any more.
        while let Ok(read) = rustix::io::read(&terminal.person, &mut piece) {
            screen.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..read]));
        }
    });
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"line\":1,\"id\":\"a\",\"status\":\"unchanged\"}\n").await.unwrap();
    eventually("the import is under way", async || importer.lines.load(Ordering::SeqCst) == 1).await;
    eventually("there is a bar", async || seen.lock().unwrap().contains(" 41 B ")).await;
    // Standard input stays open: the thread that reads it must not hold the process back.
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = timeout(Duration::from_secs(60), child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(130));

    let after = tcgetattr(&kept).unwrap();
    assert_eq!((before.local_modes, before.input_modes), (after.local_modes, after.input_modes));
    assert_eq!((before.output_modes, before.control_modes), (after.output_modes, after.control_modes));
    drop(kept);
    watching.join().unwrap();
    let shown = seen.lock().unwrap().clone();
    assert_eq!(shown.matches("\u{1b}[?25l").count(), shown.matches("\u{1b}[?25h").count(), "{shown:?}");
    let (_, said) = shown.rsplit_once("\u{1b}[2K").expect("the bar is cleared");
    assert!(
        said.starts_with("\rkeypost: interrupted;") || said.starts_with("keypost: interrupted;"),
        "{shown:?}"
    );
    assert!(said.ends_with("\r\n"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_imported_and_each_device_can_be_activated() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    let csv = "id,name,tags.state\ntill-1,Till 1,NY\ntill-2,Till 2,CA\n till,Wrong,NY\n";
    let import = [&IMPORT[..], &["-", "--format", "csv", "--app", "client"]].concat();
    let done = finish_with(&mut server.command(&import), csv).await;
    assert!(done.code == Some(7) && done.stderr.contains("line 4"), "{done:?}");
    let issued: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(issued.len(), 2, "{done:?}");
    for row in issued {
        let answer = app.activate(json!({"otp": row["otp"], "deviceId": row["id"]})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let csv = csv.trim_end_matches(" till,Wrong,NY\n");
    let again = finish_with(&mut server.command(&import[..9]), csv).await;
    assert!(again.stderr.contains("unchanged 2"), "{again:?}");
    assert_eq!(again.ok(), "");
}
