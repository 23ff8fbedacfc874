//! The import of devices: what it answers, what it leaves, and what it survives.

mod apps;
mod faults;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

const IMPORT: &str = "/api/internal/org/acme/env/prod/device/import";
const DEVICES: &str = "/api/internal/org/acme/env/prod/device";

async fn send(app: &TestApp, query: &str, content_type: &str, body: impl Into<Body>) -> Answer {
    let request = Request::builder()
        .method("POST")
        .uri(format!("{IMPORT}{query}"))
        .header("x-api-key", &app.admin)
        .header("content-type", content_type);
    app.send(request.body(body.into()).unwrap()).await
}

/// The lines of an answer: those of rows, and the summary.
fn lines(answer: &Answer) -> (Vec<Value>, Value) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.text.ends_with('\n'));
    let mut lines: Vec<Value> =
        answer.text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    let summary = lines.pop().unwrap();
    assert!(
        summary.get("line").is_none() && lines.iter().all(|line| line["line"].is_u64()),
        "{}",
        answer.text
    );
    (lines, summary)
}

async fn import(
    app: &TestApp,
    query: &str,
    content_type: &str,
    body: impl Into<Body>,
) -> (Vec<Value>, Value) {
    lines(&send(app, query, content_type, body).await)
}

async fn ndjson(app: &TestApp, query: &str, body: impl Into<Body>) -> (Vec<Value>, Value) {
    import(app, query, "application/x-ndjson", body).await
}

async fn csv(app: &TestApp, query: &str, body: impl Into<Body>) -> (Vec<Value>, Value) {
    import(app, query, "text/csv; charset=utf-8", body).await
}

fn summary(counts: [u64; 5]) -> Value {
    let [created, issued, unchanged, conflict, invalid] = counts;
    let rows: u64 = counts.iter().sum();
    json!({"status": "completed", "rows": rows, "created": created, "issued": issued, "unchanged": unchanged,
        "conflict": conflict, "invalid": invalid})
}

/// What is told of rows: line, status, and the fields that are wrong.
fn told(lines: &[Value]) -> Vec<(u64, &str, Vec<&str>)> {
    lines
        .iter()
        .map(|line| {
            let errors = line["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
            let fields = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
            (line["line"].as_u64().unwrap(), line["status"].as_str().unwrap(), fields)
        })
        .collect()
}

/// A device without its times.
async fn device(app: &TestApp, id: &str) -> Value {
    let answer = app.call("GET", &format!("{DEVICES}/{id}"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut device = answer.json();
    for name in ["createdAt", "updatedAt", "lastActivatedAt"] {
        device.as_object_mut().unwrap().remove(name);
    }
    device
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_devices_come_of_ndjson_of_csv_and_of_single_requests() {
    let app = TestApp::start().await;
    app.acme().await;
    let full = |id: &str| {
        json!({"id": id, "name": "Till, \"first\"\u{1f600}", "description": "by the door",
            "metadata": {"model": "X 1", "note": "a,b"}, "tags": {"country": "US", "a.b": "ü"},
            "primaryServerUrl": "http://a:1/", "serverUrls": ["http://a:1/", "http://b:2/?x=1"]})
    };
    app.create(DEVICES, full("single")).await;
    let rows = format!("{}\r\n\n   \n{{\"id\":\"bare-n\",\"name\":\"n\"}}", full("ndjson"));
    assert_eq!(ndjson(&app, "", format!("\u{feff}{rows}")).await, (vec![], summary([2, 0, 0, 0, 0])));
    let rows = "\u{feff}\"id\",name,description,metadata.model,metadata.note,tags.country,tags.a.b,primaryServerUrl,serverUrls\r\n\
        csv,\"Till, \"\"first\"\"\u{1f600}\",by the door,X 1,\"a,b\",US,ü,http://a:1/,http://a:1/|http://b:2/?x=1\r\n\r\n\
        bare-c,n,,,,,,,";
    assert_eq!(csv(&app, "", rows).await, (vec![], summary([2, 0, 0, 0, 0])));
    let single = device(&app, "single").await;
    for (id, like) in [("ndjson", &single), ("csv", &single)] {
        let mut same = device(&app, id).await;
        same["id"] = like["id"].clone();
        assert_eq!(&same, like);
    }
    let mut bare = device(&app, "bare-c").await;
    bare["id"] = json!("bare-n");
    assert_eq!(bare, device(&app, "bare-n").await);
    assert_eq!(
        (&bare["tags"], &bare["serverUrls"], &bare["description"]),
        (&json!({}), &json!([]), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_never_changed() {
    let app = TestApp::start().await;
    app.acme().await;
    let body =
        "{\"id\":\"a\",\"name\":\"A\",\"metadata\":{\"x\":1,\"y\":2}}\n{\"id\":\"b\",\"name\":\"B\"}\n";
    assert_eq!(ndjson(&app, "", body).await.1, summary([2, 0, 0, 0, 0]));
    let (again, counts) = ndjson(&app, "", body).await;
    assert_eq!(
        (told(&again), counts),
        (vec![(1, "unchanged", vec![]), (2, "unchanged", vec![])], summary([0, 0, 2, 0, 0]))
    );
    assert_eq!(again[0], json!({"line": 1, "id": "a", "status": "unchanged", "errors": []}));

    let before = device(&app, "a").await;
    let other = "{\"id\":\"a\",\"name\":\"A2\",\"tags\":{\"t\":\"v\"},\"metadata\":{ \"y\":2, \"x\":1}}\n{\"id\":\"c\",\"name\":\"C\"}";
    let (lines, counts) = ndjson(&app, "", other).await;
    assert_eq!(
        (told(&lines), counts),
        (vec![(1, "conflict", vec!["name", "tags"])], summary([1, 0, 0, 1, 0]))
    );
    assert_eq!(device(&app, "a").await, before);

    // Of rows with one id the first counts.
    let twice = "id,name\nd,D\nd,D\nd,other\nb,B\nb,other\n";
    let (lines, counts) = csv(&app, "", twice).await;
    let expected = vec![
        (3, "unchanged", vec![]),
        (4, "conflict", vec!["name"]),
        (5, "unchanged", vec![]),
        (6, "conflict", vec!["name"]),
    ];
    assert_eq!((told(&lines), counts), (expected, summary([1, 0, 2, 2, 0])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_is_named_and_the_others_are_imported() {
    let app = TestApp::start().await;
    app.acme().await;
    let long = "x".repeat((1 << 20) + 1);
    let deep = "[".repeat(100_000);
    let rows: Vec<(Vec<u8>, Vec<&str>)> = vec![
        (b"{\"id\":\"ok-1\",\"name\":\"n\"}".to_vec(), vec![]),
        (b"{".to_vec(), vec!["line"]),
        (b"[]".to_vec(), vec!["line"]),
        (b"null".to_vec(), vec!["line"]),
        (b"{\"id\":\"x\",\"id\":\"y\",\"name\":\"n\"}".to_vec(), vec!["line"]),
        (b"{\"id\":\"x\",\"name\":\"n\"} {}".to_vec(), vec!["line"]),
        (b"{\"id\":\"x\",\"name\":\"\xff\"}".to_vec(), vec!["line"]),
        (b"{\"id\":\"x\",\"name\":\"\\ud800\"}".to_vec(), vec!["name"]),
        (b"\0".to_vec(), vec!["line"]),
        (b"{\"id\":\"x\",\"name\":\"a\\u0000b\"}".to_vec(), vec!["name"]),
        (b"{\"id\":\"x\",\"name\":\"a\x1bb\"}".to_vec(), vec!["line"]),
        (b"{}".to_vec(), vec!["id", "name"]),
        (b"{\"id\":\"import\",\"name\":\"n\"}".to_vec(), vec!["id"]),
        (
            b"{\"id\":\"../x\",\"name\":5,\"colour\":1,\"tags\":{\"a\":1}}".to_vec(),
            vec!["id", "name", "tags.a", "colour"],
        ),
        (
            format!("{{\"id\":\"x\",\"name\":\"n\",\"metadata\":{{\"a\":\"{}\"}}}}", "y".repeat(17_000))
                .into_bytes(),
            vec!["metadata"],
        ),
        (format!("{{\"id\":\"x\",\"name\":\"n\",\"metadata\":{{\"a\":{deep}").into_bytes(), vec!["line"]),
        (format!("{{\"id\":\"x\",\"name\":\"{long}\"}}").into_bytes(), vec!["line"]),
        (format!("{{\"id\":\"x\",\"name\":\"{}\"}}", &long[..1_000_000]).into_bytes(), vec!["name"]),
        (b"{\"id\":\"ok-2\",\"name\":\"n\"}".to_vec(), vec![]),
    ];
    let body: Vec<u8> = rows.iter().flat_map(|(row, _)| [row.as_slice(), b"\n"].concat()).collect();
    let (lines, counts) = ndjson(&app, "", body).await;
    let expected: Vec<_> = (1..)
        .zip(&rows)
        .filter(|(_, (_, fields))| !fields.is_empty())
        .map(|(line, (_, fields))| (line, "invalid", fields.clone()))
        .collect();
    assert_eq!(told(&lines), expected);
    assert_eq!(counts, summary([2, 0, 0, 0, 17]));
    assert_eq!(lines[12]["id"], "../x", "an id that is wrong is repeated");
    assert_eq!(app.database.number("select count(*) from device").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_of_csv_is_named_and_the_others_are_imported() {
    let app = TestApp::start().await;
    app.acme().await;
    let long = "x".repeat(1 << 20);
    let body = [
        b"id,name,tags.t,serverUrls\n".as_slice(),
        b"ok-1,\"two\nlines\",,\n",
        b"ok-2,n,v,http://a\n",
        b"x,n,v\n",
        b"x,n,v,,\n",
        b"x,n,\"v\"w,\n",
        b"x,\xff,,\n",
        b",n,,\n",
        b"x,,,http://a||ftp://b\n",
        b"x,a\0b,,\n",
        b"x,n,a\rb,\n",
        format!("x,\"{long}\n\",,\n").as_bytes(),
        b"ok-3,5\" screen,,\n",
        b"ok-4,n,,\nx,\"never closed,,\nok-5,n,,\n",
    ]
    .concat();
    let (lines, counts) = csv(&app, "", body).await;
    let expected = vec![
        (2, "invalid", vec!["name"]),
        (5, "invalid", vec!["line"]),
        (6, "invalid", vec!["line"]),
        (7, "invalid", vec!["line"]),
        (8, "invalid", vec!["line"]),
        (9, "invalid", vec!["id"]),
        (10, "invalid", vec!["name", "serverUrls[1]", "serverUrls[2]"]),
        (11, "invalid", vec!["name"]),
        (12, "invalid", vec!["tags.t"]),
        (13, "invalid", vec!["line"]),
        (17, "invalid", vec!["line"]),
    ];
    assert_eq!(told(&lines), expected);
    assert_eq!(counts, summary([3, 0, 0, 0, 11]));
    let details: Vec<&str> = lines.iter().map(|line| line["errors"][0]["detail"].as_str().unwrap()).collect();
    assert_eq!(details[1], "has 3 columns where the heading has 4");
    assert_eq!(details[10], "has a quote that is never closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heading_that_is_wrong_is_a_problem() {
    let app = TestApp::start().await;
    app.acme().await;
    let many: String = (0..10_000).map(|n| format!(",metadata.k{n}")).collect();
    for (heading, fields) in [
        ("name\n", vec!["id"]),
        ("colour,Id\n", vec!["colour", "Id", "id", "name"]),
        ("id,name,id\n", vec!["id"]),
        ("id,name,\n", vec!["column 3"]),
        ("id;name\n", vec!["id;name", "id", "name"]),
        ("id,\"name\n", vec!["line"]),
        ("id,name,tags.a,tags.a", vec!["tags.a"]),
        (&format!("id,name,{}\n", "x".repeat(1 << 20)), vec!["line"]),
        (&format!("id{many}\n"), vec!["name"]),
    ] {
        let answer = send(&app, "", "text/csv", heading.to_owned()).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), fields, "{}", answer.text);
    }
    let row = format!("id,name{many}\nok,n{}\n", ",v".repeat(10_000));
    let (lines, counts) = csv(&app, "", row).await;
    assert_eq!((told(&lines), counts), (vec![(2, "invalid", vec!["metadata"])], summary([0, 0, 0, 0, 1])));
    assert_eq!(app.database.number("select count(*) from device").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_imported_of_nothing() {
    let app = TestApp::start().await;
    app.acme().await;
    for content_type in ["application/x-ndjson", "text/csv"] {
        for body in ["", "\n \r\n\n", "\u{feff}"] {
            assert_eq!(import(&app, "", content_type, body).await, (vec![], summary([0; 5])), "{body:?}");
        }
    }
    assert_eq!(csv(&app, "", "id,name").await, (vec![], summary([0; 5])));
    let events = "select count(*) from audit_event where action = 'device.import'";
    assert_eq!(app.database.number(events).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_import_is_refused() {
    let app = TestApp::start().await;
    app.acme().await;
    for content_type in [
        "application/json",
        "text/plain",
        "text/csv; charset=latin1",
        "",
        "application/x-ndjson; charset=utf-16",
    ] {
        send(&app, "", content_type, "{}").await.assert_problem(415, "unsupported_media_type");
    }
    let compressed = Request::builder()
        .method("POST")
        .uri(IMPORT)
        .header("x-api-key", &app.admin)
        .header("content-type", "text/csv")
        .header("content-encoding", "gzip");
    let answer = app.send(compressed.body(Body::from("x")).unwrap()).await;
    answer.assert_problem(415, "unsupported_content_encoding");
    for (query, fields) in [
        ("?app=Not+A+Slug", vec!["app"]),
        ("?scopes=a", vec!["scopes"]),
        ("?issue=otp&ttlSeconds=60", vec!["issue", "ttlSeconds"]),
        ("?app=a&scopes=", vec!["scopes"]),
        ("?app=a&scopes=a,a", vec!["scopes"]),
        ("?app=a&scopes=a%20b", vec!["scopes"]),
        ("?app=a&issue=both", vec!["issue"]),
        ("?app=a&ttlSeconds=59", vec!["ttlSeconds"]),
        ("?app=a&ttlSeconds=86401", vec!["ttlSeconds"]),
        ("?app=a&issue=client&ttlSeconds=60", vec!["ttlSeconds"]),
        ("?app=a&app=b", vec!["app"]),
        ("?format=csv", vec!["format"]),
    ] {
        let answer = send(&app, query, "text/csv", "id,name\nx,n\n").await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), fields, "{query}");
    }
    assert_eq!(app.database.number("select count(*) from device").await, 0);
}
