//! What the commands do when the server is not at its best: a server that answers as it is told.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use futures_util::{StreamExt, stream};
use keypost_shared::secret::{ApiKey, KeyKind};
use rand_core::OsRng;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Server, Terminal, finish};

/// What was asked for.
#[derive(Clone, Debug)]
struct Asked {
    request: String,
    headers: HeaderMap,
    body: String,
}

/// A server that gives these answers, one after the other, and then none.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Response<Body>>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Script {
    async fn serve(answers: impl IntoIterator<Item = Response<Body>>) -> (Self, Server) {
        let script = Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() };
        let router = Router::new().fallback(play).with_state(script.clone());
        let key = ApiKey::generate(KeyKind::Admin, &mut OsRng);
        (script, Server::start(router, key.expose()).await)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn play(State(script): State<Script>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap();
    let request = format!("{} {}", parts.method, parts.uri);
    script.asked.lock().unwrap().push(Asked { request, headers: parts.headers, body });
    script.answers.lock().unwrap().pop_front().unwrap_or_else(|| answer(500, &[], "the script is at its end"))
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<String>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(body.into())).unwrap()
}

fn ok(body: Value) -> Response<Body> {
    answer(200, &[("etag", "\"v1\"")], body.to_string())
}

fn busy(status: u16) -> Response<Body> {
    answer(status, &[("retry-after", "1")], json!({"detail": "come back later"}).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_asked_again_after_the_time_that_it_names() {
    let (script, server) = Script::serve([busy(503), busy(429), ok(json!({"pending": 7}))]).await;
    let began = Instant::now();
    let done = server.run(&["sync", "status", "--json"]).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "it waited");
    assert!(done.stderr.contains("(1 of 4)") && done.stderr.contains("(2 of 4)"), "{done:?}");
    assert_eq!(done.json()[0]["pending"], 7);
    assert_eq!(script.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_ends() {
    let (script, server) = Script::serve([busy(503), busy(503), busy(503)]).await;
    server.run(&["sync", "status", "--retries", "1"]).await.failed(6, "come back later");
    assert_eq!(script.asked().len(), 2);
    let (script, server) = Script::serve([answer(429, &[("retry-after", "3600")], "{}")]).await;
    server.run(&["sync", "status"]).await.failed(6, "3600 s");
    assert_eq!(script.asked().len(), 1, "nobody waits for an hour");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_is_sent_again_is_the_same_creation() {
    let made = answer(201, &[], json!({"id": "acme"}).to_string());
    let (script, server) = Script::serve([busy(503), made]).await;
    server.run(&["org", "create", "acme", "--name", "Acme"]).await.ok();
    let keys: Vec<Option<_>> =
        script.asked().iter().map(|asked| asked.headers.get("idempotency-key").cloned()).collect();
    assert!(keys[0].is_some() && keys[0] == keys[1], "{keys:?}");
    let bodies: Vec<String> = script.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, [r#"{"id":"acme","name":"Acme"}"#; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_be_done_twice_is_not_sent_again_unless_it_was_not_done() {
    let rename = ["org", "update", "acme", "--name", "New"];
    let current = || ok(json!({"id": "acme", "name": "Old", "description": null}));
    let (script, server) = Script::serve([current(), busy(503)]).await;
    server.run(&rename).await.failed(6, "come back later");
    assert_eq!(script.asked().len(), 2);
    let (script, server) = Script::serve([current(), busy(429), current()]).await;
    server.run(&rename).await.ok();
    assert_eq!(script.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_whose_answer_was_lost_is_done() {
    let (_, server) = Script::serve([busy(503), answer(404, &[], "{}")]).await;
    server.run(&["org", "delete", "acme"]).await.ok();
    let (_, server) = Script::serve([answer(404, &[], r#"{"detail": "none such"}"#)]).await;
    server.run(&["org", "delete", "acme"]).await.failed(4, "none such");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_names_the_version_that_it_was_made_from() {
    let current = json!({
        "id": "prod", "orgId": "acme", "name": "Old", "description": "Kept", "tagDefaults": {"a": "1", "b": "2"},
        "primaryServerUrl": null, "serverUrls": ["http://one"], "clientPoolId": "x", "updatedAt": "2026-01-01T00:00:00Z",
    });
    let (script, server) = Script::serve([ok(current.clone()), ok(current.clone())]).await;
    let update = ["env", "update", "prod", "--org", "acme", "--name", "New", "--tag-default", "c=3"];
    let update = [&update[..], &["--remove-tag-default", "a", "--clear", "serverUrls"]].concat();
    server.run(&update).await.ok();
    let asked = script.asked();
    assert_eq!(asked[0].request, "GET /api/internal/org/acme/env/prod");
    assert_eq!(asked[1].request, "PUT /api/internal/org/acme/env/prod");
    assert_eq!(asked[1].headers["if-match"], "\"v1\"");
    let sent: Value = serde_json::from_str(&asked[1].body).unwrap();
    assert_eq!(sent, json!({"name": "New", "description": "Kept", "tagDefaults": {"b": "2", "c": "3"}}));

    let (_, server) = Script::serve([ok(current.clone()), answer(412, &[], "{}")]).await;
    server.run(&update).await.failed(5, "somebody else changed it");
    let (script, server) = Script::serve([answer(200, &[], current.to_string())]).await;
    server.run(&update).await.failed(1, "nothing was changed");
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_followed_as_far_as_wanted() {
    let page = |from: usize, to: usize, next: Option<&str>| {
        let items: Vec<Value> =
            (from..to).map(|n| json!({"id": format!("org-{n}"), "name": n.to_string()})).collect();
        ok(json!({"items": items, "nextCursor": next}))
    };
    let (script, server) = Script::serve([page(0, 500, Some("c1")), page(500, 700, Some("c2"))]).await;
    let listed = server.run(&["org", "list", "--limit", "700", "--json"]).await;
    assert!(listed.stderr.contains("--cursor c2"), "{listed:?}");
    assert_eq!(listed.json().len(), 700);
    let asked: Vec<String> = script.asked().into_iter().map(|asked| asked.request).collect();
    assert_eq!(asked, ["GET /api/internal/org?limit=500", "GET /api/internal/org?limit=200&cursor=c1"]);

    let (_, server) = Script::serve([page(0, 2, Some("c1")), page(2, 3, None)]).await;
    let table = server.run(&["org", "list", "--all"]).await.ok();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("ID ") && lines[3].starts_with("org-2 "), "{table}");
    let name_at = |line: usize, name| lines[line].find(name).unwrap();
    assert_eq!(name_at(0, "NAME"), name_at(1, " 0  ") + 1, "{table}");
    assert_eq!(name_at(0, "NAME"), name_at(3, " 2  ") + 1, "columns stay where they were: {table}");
    assert_eq!(name_at(0, "DESCRIPTION"), name_at(3, " -") + 1, "{table}");

    let (_, server) = Script::serve([page(0, 1, Some("c1")), page(1, 2, Some("c1"))]).await;
    let endless = server.run(&["org", "list", "--all"]).await;
    assert!(endless.code == Some(1) && endless.stderr.contains("does not move"), "{endless:?}");
    let (_, server) = Script::serve([page(0, 0, None)]).await;
    let none = server.run(&["org", "list"]).await;
    assert!(none.stderr.contains("none") && none.ok().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_are_parameters_whatever_is_in_them() {
    let (script, server) = Script::serve([ok(json!({"items": [], "nextCursor": null}))]).await;
    let list = [
        "device", "list", "--org", "a", "--env", "b", "--tag", "k=v&x=y", "--status", "active", "--q", "ü +",
    ];
    server.run(&list).await.ok();
    let asked = &script.asked()[0].request;
    assert_eq!(
        asked,
        "GET /api/internal/org/a/env/b/device?tag.k=v%26x%3Dy&status=active&q=%C3%BC+%2B&limit=50"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_stands_on_standard_output_alone() {
    let made = || answer(201, &[], json!({"clientId": "abc", "clientSecret": "s3cret"}).to_string());
    let (_, server) = Script::serve([made(), made()]).await;
    let create = ["client", "create", "--org", "a", "--env", "b", "--name", "N", "--scope", "s"];
    let done = server.run(&create).await;
    assert!(done.stderr.contains("abc") && !done.stderr.contains("s3cret"), "{done:?}");
    assert_eq!(done.ok(), "s3cret\n");
    let done = server.run(&[&create[..], &["--json"]].concat()).await;
    assert_eq!(done.json()[0]["clientSecret"], "s3cret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_keypost_is_said_to_be_none() {
    let page = answer(502, &[("content-type", "text/html")], "<h1>\u{1b}[2JBad gateway</h1>");
    let (_, server) =
        Script::serve([page, answer(200, &[], "<html>"), answer(302, &[("location", "/")], "")]).await;
    server.run(&["sync", "status", "--retries", "0"]).await.failed(6, "502 Bad Gateway");
    server.run(&["sync", "status"]).await.failed(1, "not what a Keypost answers");
    server.run(&["sync", "status"]).await.failed(1, "302 Found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_moves_no_cursor() {
    let problem = json!({"detail": "no\u{1b}[2J", "errors": [{"field": "a\u{7}", "detail": "b\u{9b}"}]});
    let (_, server) = Script::serve([answer(400, &[], problem.to_string())]).await;
    let done = server.run(&["sync", "status"]).await;
    assert!(!done.stderr.chars().any(|c| c.is_control() && c != '\n'), "{done:?}");
    done.failed(1, r"a\u{7}: b\u{9b}");

    let thing = json!({"id": "a\u{1b}[2J", "metadata": {"k\u{202e}": "\u{9b}31m", "deep": ["\u{7}"]}});
    let (_, server) =
        Script::serve([ok(thing.clone()), ok(json!({"items": [thing], "nextCursor": null}))]).await;
    for command in [["org", "get", "a"].as_slice(), &["org", "list"]] {
        let shown = server.run(command).await.ok();
        assert!(shown.contains(r"a\u{1b}[2J"), "{shown:?}");
        assert!(!shown.chars().any(|c| c == '\u{202e}' || c.is_control() && c != '\n'), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_named() {
    let (_, server) = Script::serve([]).await;
    // Nobody listens where somebody has just stopped to.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut command = server.command(&["sync", "status"]);
    let done = finish(command.env("KEYPOST_URL", format!("http://{address}"))).await;
    assert!(done.stderr.contains(&address), "{done:?}");
    done.failed(6, "cannot be reached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_asks_whoever_sits_at_a_terminal() {
    let deleted = || answer(204, &[], "");
    let (script, server) = Script::serve([deleted(), deleted()]).await;
    let terminal = Terminal::open();
    let at_terminal = async |words: &[&str], said: &str| {
        rustix::io::write(&terminal.person, said.as_bytes()).unwrap();
        finish(
            server.command(&[&["org", "delete", "acme"], words].concat()).stdin(Stdio::from(terminal.end())),
        )
        .await
    };
    let refused = at_terminal(&["--cascade"], "n\n").await;
    let asked = "Delete the organization acme and all that is below it? [y/N] ";
    assert!(refused.stderr.starts_with(asked), "{refused:?}");
    refused.failed(1, "nothing was deleted");
    at_terminal(&[], "\n").await.failed(1, "nothing was deleted");
    assert_eq!(script.asked().len(), 0);
    assert_eq!(at_terminal(&[], "Yes\n").await.ok(), "Deleted the organization acme.\n");
    let sure = at_terminal(&["--yes", "--cascade"], "").await;
    assert!(!sure.stderr.contains("[y/N]"), "{sure:?}");
    sure.ok();
    let asked: Vec<String> = script.asked().into_iter().map(|asked| asked.request).collect();
    assert_eq!(asked, ["DELETE /api/internal/org/acme", "DELETE /api/internal/org/acme?cascade=true"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_has_seen_enough_is_no_error_to_talk_about() {
    let items: Vec<Value> =
        (0..500).map(|n| json!({"id": format!("org-{n}"), "name": "x".repeat(1000)})).collect();
    let page = |next| ok(json!({"items": items, "nextCursor": next}));
    let (_, server) = Script::serve([page("a"), page("b")]).await;
    let mut child = server.command(&["org", "list", "--all", "--json"]).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().await.unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(141), &b""[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_passed_on_as_it_comes_and_one_that_breaks_off_is_no_success() {
    let lines = "{\"seq\":2}\n{\"seq\":1}\n";
    let breaks = Arc::new(Notify::new());
    let broken = breaks.clone();
    let broken = stream::once(async move {
        broken.notified().await;
        Err(std::io::Error::other("broken"))
    });
    let broken = Response::new(Body::from_stream(stream::iter([Ok(lines)]).chain(broken)));
    let (script, server) = Script::serve([answer(200, &[], lines), broken]).await;
    let export = [
        "audit",
        "export",
        "--org",
        "acme",
        "--since",
        "2026-01-31T00:00:00+01:00",
        "--action",
        "device.create",
    ];
    assert_eq!(server.run(&export).await.ok(), lines);
    let query = "orgId=acme&action=device.create&since=2026-01-31T00%3A00%3A00%2B01%3A00&format=ndjson";
    assert_eq!(script.asked()[0].request, format!("GET /api/internal/audit?{query}"));
    let mut child = server.command(&export).spawn().unwrap();
    let mut begun = vec![0; lines.len()];
    child.stdout.as_mut().unwrap().read_exact(&mut begun).await.unwrap();
    assert_eq!(begun, lines.as_bytes());
    breaks.notify_one();
    assert_eq!(child.wait().await.unwrap().code(), Some(6));
    server.run(&["audit", "list", "--since", "yesterday"]).await.failed(2, "RFC 3339");
}
