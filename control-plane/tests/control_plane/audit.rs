//! Who did what: asked for, exported, and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use keypost::service::access::Permission;
use keypost::service::audit_check::{self, Finding, NotedEnd, Told};
use keypost::store::audit::ChainHead;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Answer, KvServer, TestApp, keypost};

const AUDIT: &str = "/api/internal/audit";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

async fn events(app: &TestApp, key: &str, query: &str) -> Vec<Value> {
    let answer = app.call_with(key, "GET", &format!("{AUDIT}{query}"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["items"].as_array().unwrap().clone()
}

fn actions(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| text(&event["action"])).collect()
}

async fn export(app: &TestApp, key: &str, query: &str) -> Vec<String> {
    let request = Request::builder().uri(format!("{AUDIT}{query}")).header("x-api-key", key);
    let request = request.header("accept", "text/html;q=0.1, application/x-ndjson").body(Body::empty());
    let answer = app.send(request.unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("application/x-ndjson")));
    answer.text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_says_who_did_what_to_what_from_where() {
    let app = TestApp::start().await;
    app.acme().await;
    let request = Request::builder()
        .method("PUT")
        .uri("/api/internal/org/acme")
        .header("x-api-key", &app.admin)
        .header("x-request-id", "ticket-42")
        .header("content-type", "application/json")
        .extension(keypost::http::PeerAddress("192.0.2.7".parse().unwrap()))
        .body(Body::from(json!({"name": "Acme Stores"}).to_string()));
    assert_eq!(app.send(request.unwrap()).await.status, 200);

    let found = events(&app, &app.admin, "?orgId=acme&limit=1").await;
    let event = &found[0];
    assert_eq!(event["action"], "organization.update");
    assert_eq!((&event["targetKind"], &event["targetId"]), (&json!("organization"), &json!("acme")));
    assert_eq!((&event["orgId"], &event["envId"]), (&json!("acme"), &Value::Null));
    assert_eq!(event["changes"], json!({"before": {"name": "Acme"}, "after": {"name": "Acme Stores"}}));
    assert_eq!(
        (&event["actorKind"], &event["actorName"]),
        (&json!("api_key"), &json!("KEYPOST_ADMIN_API_KEY"))
    );
    assert_eq!((&event["address"], &event["requestId"]), (&json!("192.0.2.7"), &json!("ticket-42")));
    assert_eq!(text(&event["hash"]).len(), 64);
    let by = events(&app, &app.admin, &format!("?actorId={}", text(&event["actorId"]))).await;
    assert_eq!(actions(&by), ["organization.update", "environment.create", "organization.create"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_found_by_every_filter_newest_first() {
    let app = TestApp::start().await;
    app.acme().await;
    app.clock.advance(Duration::from_secs(10));
    app.device("pos-1").await;
    app.clock.advance(Duration::from_secs(10));
    app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    app.create("/api/internal/org/other/env", json!({"id": "prod", "name": "Production"})).await;

    let ask = async |query: &str| events(&app, &app.admin, query).await;
    let everything = ask("").await;
    let all = [
        "environment.create",
        "organization.create",
        "app.create",
        "device.create",
        "environment.create",
        "organization.create",
        "api_key.create",
    ];
    assert_eq!(actions(&everything), all);
    assert_eq!(everything[6]["orgId"], Value::Null);
    assert_eq!(actions(&ask("?orgId=acme").await), all[2..6]);
    assert_eq!(actions(&ask("?action=device.create").await), ["device.create"]);
    assert_eq!(actions(&ask("?targetKind=environment").await), ["environment.create", "environment.create"]);
    assert_eq!(actions(&ask("?targetKind=device&targetId=pos-1").await), ["device.create"]);
    assert_eq!(actions(&ask("?targetId=other").await), ["organization.create"]);
    assert_eq!(actions(&ask("?orgId=acme&envId=prod").await), all[2..5]);
    assert_eq!(ask("?targetId=nobody").await.len(), 0);
    let times = (text(&everything[3]["occurredAt"]), text(&everything[1]["occurredAt"]));
    assert_eq!(actions(&ask(&format!("?since={}", times.0)).await), all[..4]);
    assert_eq!(actions(&ask(&format!("?until={}", times.1)).await), all[2..]);
    assert_eq!(actions(&ask(&format!("?since={}&until={}", times.0, times.1)).await), all[2..4]);
    assert_eq!(ask(&format!("?since={}&until={}", times.1, times.0)).await.len(), 0);

    let mut walked = Vec::new();
    let mut path = format!("{AUDIT}?limit=2");
    loop {
        let page = app.call("GET", &path, None).await.json();
        walked.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("{AUDIT}?limit=2&cursor={cursor}");
    }
    assert_eq!(walked, everything);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_sees_its_own_events_since_it_was_created() {
    let app = TestApp::start().await;
    app.acme().await;
    app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    let (mine, other) = (app.key(Some("acme"), None).await, app.key(Some("other"), None).await);
    assert_eq!(actions(&events(&app, &mine, "").await), ["environment.create", "organization.create"]);
    assert_eq!(events(&app, &mine, "?orgId=acme").await.len(), 2);
    for path in ["?orgId=other", "?orgId=nobody"] {
        app.call_with(&mine, "GET", &format!("{AUDIT}{path}"), None).await.assert_problem(404, "not_found");
    }
    assert_eq!(export(&app, &other, "").await.len(), 1);

    // The id was another's before, and what that one did is none of this one's business.
    app.database
        .execute(
            "delete from api_key where org_id = 'other'; delete from signing_key where org_id = 'other';
             delete from client_pool where org_id = 'other'; delete from organization where id = 'other'",
        )
        .await
        .unwrap();
    app.create("/api/internal/org", json!({"id": "other", "name": "Successor"})).await;
    let other = app.key(Some("other"), None).await;
    let seen = events(&app, &other, "").await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0]["changes"]["after"]["name"], "Successor");
    assert_eq!(events(&app, &app.admin, "?orgId=other").await.len(), 2);

    let narrow = app.key(Some("acme"), Some(&[Permission::OrgRead])).await;
    app.call_with(&narrow, "GET", AUDIT, None).await.assert_problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_has_every_line_and_its_hashes_can_be_checked_by_anybody() {
    let app = TestApp::start().await;
    app.acme().await;
    // More than a batch, of one moment.
    let insert = "insert into audit_event
        select org_id, 2 + n, occurred_at, actor_kind, actor_id, actor_name, 'device.create', 'device', 'd' || n, 'prod',
               changes, address, request_id, hash
          from audit_event, generate_series(1, 1200) as n where org_id = 'acme' and seq = 2";
    app.database.execute(insert).await.unwrap();
    let lines = export(&app, &app.admin, "?orgId=acme&limit=3").await;
    let seqs: Vec<i64> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_i64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=1202).rev().collect::<Vec<_>>());
    assert_eq!(export(&app, &app.admin, "?orgId=acme&action=device.create").await.len(), 1200);

    // What the OpenAPI document says of the hash, done by hand.
    app.database.execute("delete from audit_event where org_id = 'acme' and seq > 2").await.unwrap();
    let mut before = [0_u8; 32];
    for line in export(&app, &app.admin, "?orgId=acme").await.iter().rev() {
        let event: Value = serde_json::from_str(line).unwrap();
        let changes: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(line).unwrap();
        let occurred_at = time::OffsetDateTime::parse(
            text(&event["occurredAt"]),
            &time::format_description::well_known::Rfc3339,
        );
        let micros = i64::try_from(occurred_at.unwrap().unix_timestamp_nanos() / 1000).unwrap();
        let array = json!([
            event["orgId"],
            event["seq"],
            micros,
            event["actorKind"],
            event["actorId"],
            event["actorName"],
            event["action"],
            event["targetKind"],
            event["targetId"],
            event["envId"],
            changes["changes"].get(),
            event["address"],
            event["requestId"]
        ]);
        before = Sha256::new().chain_update(before).chain_update(array.to_string()).finalize().into();
        assert_eq!(event["hash"], before.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }

    let asked = app.call("GET", &format!("{AUDIT}?format=ndjson"), None).await;
    assert_eq!(asked.header("content-type"), Some("application/x-ndjson"));
    let request = Request::builder().uri(format!("{AUDIT}?format=json")).header("x-api-key", &app.admin);
    let request = request.header("accept", "application/x-ndjson").body(Body::empty()).unwrap();
    assert_eq!(app.send(request).await.header("content-type"), Some("application/json"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_questions_are_refused_by_name() {
    let app = TestApp::start().await;
    let long = "x".repeat(257);
    for (query, field) in [
        ("orgId=Not+A+Slug", "orgId"),
        ("orgId=", "orgId"),
        ("envId=%2e%2e", "envId"),
        ("actorId=%00", "actorId"),
        ("action=device%0acreate", "action"),
        ("targetKind=", "targetKind"),
        (&format!("targetId={long}"), "targetId"),
        ("since=yesterday", "since"),
        ("since=2026-01-01", "since"),
        ("since=10000-01-01T00:00:00Z", "since"),
        ("until=9999-12-31T23:59:59-23:59", "until"),
        ("until=-001-01-01T00:00:00Z", "until"),
        ("format=csv", "format"),
        ("limit=0", "limit"),
        ("cursor=AAAA", "cursor"),
        ("cursor=MSAyIE5vdCBBIFNsdWc", "cursor"),
        ("orgid=acme", "orgid"),
        ("action=a&action=b", "action"),
    ] {
        for format in ["", "&format=ndjson"] {
            let format = if field == "format" { "" } else { format };
            let answer = app.call("GET", &format!("{AUDIT}?{query}{format}"), None).await;
            answer.assert_problem(400, "invalid_request");
            assert_eq!(answer.wrong_fields(), [field], "{query}");
        }
    }
    for fine in [
        "since=0000-01-01T00:00:00Z",
        "until=9999-12-31T23:59:59Z",
        "targetId=%27%20or%201=1--",
        "cursor=MSAyIA",
    ] {
        assert_eq!(app.call("GET", &format!("{AUDIT}?{fine}"), None).await.status, 200, "{fine}");
    }
}

async fn check(
    app: &TestApp,
    noted: &[(&str, ChainHead)],
) -> (Vec<(String, Finding)>, BTreeMap<String, ChainHead>) {
    let mut connection = app.database.pool.acquire().await.unwrap();
    let noted = noted.iter().map(|(chain, head)| ((*chain).to_owned(), *head)).collect();
    let (mut findings, mut ends) = (Vec::new(), BTreeMap::new());
    let tell = |chain: &str, told| match told {
        Told::Finding(finding) => findings.push((chain.to_owned(), finding)),
        Told::End(end) => {
            ends.insert(chain.to_owned(), end);
        }
    };
    audit_check::verify(&mut connection, None, &noted, tell).await.unwrap();
    (findings, ends)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_to_a_chain_is_found() {
    use Finding::{Altered, EndAltered, Foreign, Missing, NoEnd};
    let app = TestApp::start().await;
    app.acme().await;
    for n in 1..=4 {
        app.device(&format!("pos-{n}")).await;
    }
    let (findings, ends) = check(&app, &[]).await;
    assert_eq!(findings, []);
    assert_eq!((ends[""].seq, ends["acme"].seq), (1, 10));

    let of_acme = "where org_id = 'acme' and seq";
    let altered = |seq| vec![Altered { seq }];
    for (statement, expected) in [
        (format!("update audit_event set changes = '{{}}' {of_acme} = 3"), altered(3)),
        (format!("update audit_event set occurred_at = occurred_at + interval '1 microsecond' {of_acme} = 10"), altered(10)),
        (format!("update audit_event set actor_id = null {of_acme} = 1"), altered(1)),
        (format!("update audit_event set request_id = 'x' {of_acme} = 5"), altered(5)),
        // The hash fits what it says, and the next one does not fit it any more.
        (format!("update audit_event set hash = sha256('x') {of_acme} = 4"), vec![Altered { seq: 4 }, Altered { seq: 5 }]),
        (format!("delete from audit_event {of_acme} in (4, 5)"), vec![Missing { from: 4, to: 5 }]),
        (format!("delete from audit_event {of_acme} = 1"), vec![Missing { from: 1, to: 1 }]),
        (format!("delete from audit_event {of_acme} > 7"), vec![Missing { from: 8, to: 10 }]),
        ("delete from audit_event where org_id = 'acme'".to_owned(), vec![Missing { from: 1, to: 10 }]),
        (
            format!("update audit_event set seq = -3 {of_acme} = 3; update audit_event set seq = 3 {of_acme} = 6;
                     update audit_event set seq = 6 {of_acme} = -3"),
            vec![],
        ),
        (
            format!("insert into audit_event select org_id, 11, occurred_at, actor_kind, actor_id, actor_name, action,
                     target_kind, target_id, env_id, changes, address, request_id, hash from audit_event {of_acme} = 10"),
            vec![Foreign { seq: 11, first: 1, last: 10 }],
        ),
        ("update audit_chain set hash = sha256('x') where org_id = 'acme'".to_owned(), vec![EndAltered { seq: 10 }]),
        ("update audit_chain set seq = 9 where org_id = 'acme'".to_owned(),
            vec![Foreign { seq: 10, first: 1, last: 9 }, EndAltered { seq: 9 }]),
        ("delete from audit_chain where org_id = 'acme'".to_owned(), vec![NoEnd]),
    ] {
        app.database.execute("create table kept_event as table audit_event; create table kept_chain as table audit_chain").await.unwrap();
        let done = app.database.execute(&statement).await;
        let swap = done.is_err();
        if swap {
            // A place must be positive, so the swap goes by way of a far one.
            let statement = statement.replace("-3", "1000");
            app.database.execute(&statement).await.unwrap();
        }
        let (findings, _) = check(&app, &[]).await;
        let findings: Vec<Finding> = findings.into_iter().map(|(chain, finding)| {
            assert_eq!(chain, "acme");
            finding
        }).collect();
        if expected.is_empty() {
            // Swapped: both are out of place, and what follows each does not fit.
            assert_eq!(findings, [3, 4, 6, 7].map(|seq| Altered { seq }), "{statement}");
        } else {
            assert_eq!(findings, expected, "{statement}");
        }
        app.database.execute(
            "delete from audit_event; delete from audit_chain; insert into audit_event table kept_event;
             insert into audit_chain table kept_chain; drop table kept_event; drop table kept_chain").await.unwrap();
    }
    assert_eq!(check(&app, &[]).await.0, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_was_written_anew_does_not_have_the_end_that_was_noted() {
    let app = TestApp::start().await;
    app.acme().await;
    let (_, ends) = check(&app, &[]).await;
    let noted = ends["acme"];
    app.device("pos-1").await;
    assert_eq!(check(&app, &[("acme", noted)]).await.0, [], "a chain may grow");
    let anew = ChainHead { hash: [7; 32], ..noted };
    let not_as_noted = |seq| vec![("acme".to_owned(), Finding::NotAsNoted { seq })];
    assert_eq!(check(&app, &[("acme", anew)]).await.0, not_as_noted(2));
    assert_eq!(check(&app, &[("acme", ChainHead { seq: 9, ..noted })]).await.0, not_as_noted(9));
    let gone = vec![("gone".to_owned(), Finding::NotAsNoted { seq: 2 })];
    assert_eq!(check(&app, &[("gone", noted)]).await.0, gone);

    // What was purged is checked from where it ends.
    let purge = "update audit_chain c set purged_seq = 2, purged_hash = e.hash from audit_event e
                  where c.org_id = 'acme' and e.org_id = 'acme' and e.seq = 2;
                 delete from audit_event where org_id = 'acme' and seq <= 2";
    app.database.execute(purge).await.unwrap();
    assert_eq!(check(&app, &[("acme", noted)]).await.0, []);
    assert_eq!(check(&app, &[("acme", anew)]).await.0, not_as_noted(2));
    app.database.execute("delete from audit_event where org_id = 'acme' and seq = 3").await.unwrap();
    assert_eq!(check(&app, &[]).await.0, [("acme".to_owned(), Finding::Missing { from: 3, to: 3 })]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_what_it_finds_and_where_the_chains_end() {
    let app = TestApp::start().await;
    app.acme().await;
    let kv = KvServer::start().await;
    let run = async |arguments: &[&str]| {
        let done = keypost(&app.database, &kv, arguments).output().await.unwrap();
        let texts = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (done.status.code(), texts)
    };
    let (code, [ends, told]) = run(&["audit", "verify"]).await;
    assert_eq!(code, Some(0), "{told}");
    let noted: Vec<NotedEnd> = ends.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(noted.len(), 2);
    assert_eq!((noted[1].chain.as_str(), noted[1].head.seq), ("acme", 2));

    let file = std::env::temp_dir().join(format!("keypost-noted-{}", std::process::id()));
    std::fs::write(&file, &ends).unwrap();
    let against = ["audit", "verify", "--noted", file.to_str().unwrap()];
    assert_eq!(run(&against).await.0, Some(0));
    app.database
        .execute("update audit_event set target_id = 'x' where org_id = 'acme' and seq = 1")
        .await
        .unwrap();
    let (code, [ends_now, told]) = run(&against).await;
    assert_eq!((code, ends_now), (Some(8), ends));
    assert!(told.contains("acme: event 1 does not fit its hash"), "{told}");
    let (code, [only, _]) = run(&["audit", "verify", "--org", "acme"]).await;
    assert_eq!((code, only.lines().count()), (Some(8), 1));
    std::fs::write(&file, "acme x").unwrap();
    assert_eq!(run(&against).await.0, Some(1));
    std::fs::remove_file(&file).unwrap();
}

/// What a creation or change is called that was just carried out, which must be told of exactly once.
async fn only_event(app: &TestApp, seen: &mut BTreeSet<(String, i64)>, what: &str) -> Value {
    let all = events(app, &app.admin, "?limit=500").await;
    let place = |event: &Value| (event["orgId"].to_string(), event["seq"].as_i64().unwrap());
    let new: Vec<&Value> = all.iter().filter(|event| seen.insert(place(event))).collect();
    assert_eq!(new.len(), 1, "{what}: {new:?}");
    new[0].clone()
}

/// The secrets that an answer shows.
fn secrets(answer: &Answer) -> Vec<String> {
    if answer.text.is_empty() {
        return Vec::new();
    }
    let body = answer.json();
    let names = ["key", "clientSecret", "otp", "orgOwnerApiKey", "clientAppApiKey"];
    let fields = names.iter().flat_map(|name| [&body[*name], &body["data"][*name]]);
    fields.filter_map(|field| field.as_str().map(str::to_owned)).collect()
}

/// Everything that changes something, in an order in which each works: method, path, body. `CLIENT` and `KEY` stand for
/// the ids of the service client and the API key that were made on the way.
fn changes() -> Vec<(&'static str, &'static str, Option<Value>)> {
    let org = "/api/internal/org";
    let (client, key) = (json!({"name": "n", "scopes": ["s"]}), json!({"name": "n", "orgId": "acme"}));
    vec![
        ("POST", org, Some(json!({"id": "acme", "name": "Acme"}))),
        ("PUT", "/api/internal/org/acme", Some(json!({"name": "Acme Stores"}))),
        ("POST", "/api/internal/org/acme/env", Some(json!({"id": "prod", "name": "Production"}))),
        ("PATCH", "/api/internal/org/acme/env/prod/pool", Some(json!({"tokenTtlSeconds": 600}))),
        ("POST", "/api/internal/POOL/keys/rotate", None),
        ("POST", "/api/internal/POOL/keys/KID/revoke", None),
        ("POST", "/api/internal/org/acme/env/prod/device", Some(json!({"id": "pos-1", "name": "Till"}))),
        (
            "POST",
            "/api/internal/org/acme/env/prod/device/pos-1/app",
            Some(json!({"clientAppId": "client", "scopes": ["device"]})),
        ),
        ("POST", "/api/internal/org/acme/env/prod/device/pos-1/app/client/otp", None),
        ("POST", "/api/internal/org/acme/env/prod/client", Some(client.clone())),
        ("PUT", "/api/internal/org/acme/env/prod/client/CLIENT", Some(json!({"name": "m", "scopes": ["s"]}))),
        ("POST", "/api/internal/org/acme/env/prod/client/CLIENT/secret", None),
        ("POST", "/api/internal/POOL/revocations", Some(json!({"clientId": "CLIENT"}))),
        ("DELETE", "/api/internal/org/acme/env/prod/client/CLIENT", None),
        ("POST", "/api/internal/api-key", Some(key)),
        ("POST", "/api/internal/api-key/KEY/rotate", None),
        ("DELETE", "/api/internal/api-key/KEY", None),
        ("PUT", "/api/organization/acme", Some(json!({"name": "Acme Shops"}))),
        ("POST", "/api/organization/acme/rotate-key", None),
        ("POST", "/api/organization/acme/client-apps", Some(json!({"name": "An app"}))),
        ("PUT", "/api/organization/client-apps/APP", Some(json!({"name": "The app"}))),
        ("POST", "/api/organization/client-apps/APP/rotate-key", None),
        ("DELETE", "/api/organization/client-apps/APP", None),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_told_of_exactly_once_and_without_a_secret() {
    let app = TestApp::start().await;
    let mut seen = BTreeSet::new();
    only_event(&app, &mut seen, "the first key").await;
    let (mut client, mut key, mut otp) = (String::new(), String::new(), String::new());
    let (mut pool, mut kid, mut app_id) = (String::new(), String::new(), String::new());
    for (method, path, body) in changes() {
        let path = path.replace("CLIENT", &client).replace("KEY", &key);
        let path = path.replace("POOL", &pool).replace("KID", &kid).replace("APP", &app_id);
        let what = format!("{method} {path}");
        let request = Request::builder().method(method).uri(&path).header("x-api-key", &app.admin);
        let request =
            request.header("x-request-id", "the-request").header("content-type", "application/json");
        let request = request.extension(keypost::http::PeerAddress("192.0.2.7".parse().unwrap()));
        let body =
            body.map_or_else(Body::empty, |body| Body::from(body.to_string().replace("CLIENT", &client)));
        let answer = app.send(request.body(body).unwrap()).await;
        assert!(answer.status.is_success(), "{what}: {}", answer.text);
        let event = only_event(&app, &mut seen, &what).await;
        assert_eq!(
            (&event["address"], &event["requestId"]),
            (&json!("192.0.2.7"), &json!("the-request")),
            "{what}"
        );
        assert_eq!((&event["actorKind"], &event["orgId"]), (&json!("api_key"), &json!("acme")), "{what}");
        assert!(event["actorId"].is_string() && !text(&event["targetId"]).is_empty(), "{what}");
        for secret in secrets(&answer) {
            assert!(!event.to_string().contains(&secret), "{what}: {event}");
        }
        if method == "POST" && !answer.text.is_empty() {
            let made = answer.json();
            made["clientId"]
                .as_str()
                .filter(|_| path.ends_with("/client"))
                .inspect(|id| client = (*id).to_owned());
            made["id"].as_str().filter(|_| path.ends_with("/api-key")).inspect(|id| key = (*id).to_owned());
            made["clientPoolId"].as_str().inspect(|id| pool = (*id).to_owned());
            made["kid"].as_str().inspect(|id| kid = (*id).to_owned());
            made["otp"].as_str().inspect(|text| otp = (*text).to_owned());
            made["data"]["id"].as_str().inspect(|id| app_id = (*id).to_owned());
        }
    }
    let activated = app.activate(json!({"otp": otp})).await;
    assert_eq!(activated.status, 200, "{}", activated.text);
    let event = only_event(&app, &mut seen, "activation").await;
    assert_eq!((&event["action"], &event["actorKind"]), (&json!("device.activate"), &json!("otp")));
    assert_eq!((&event["actorId"], &event["address"]), (&json!("pos-1"), &json!("192.0.2.1")));
    for secret in secrets(&activated).into_iter().chain([otp]) {
        assert!(!event.to_string().contains(&secret), "{event}");
    }
    assert_eq!(check(&app, &[]).await.0, []);

    // Nobody changes anything by trying, until that ends a password.
    let otp = app.otp("/api/internal/org/acme/env/prod/device/pos-1/app/client").await;
    only_event(&app, &mut seen, "another password").await;
    for _ in 0..7 {
        let guess = json!({"otp": otp, "deviceId": "pos-2"});
        app.activate(guess).await.assert_problem(400, "invalid_otp");
    }
    let event = only_event(&app, &mut seen, "the fifth guess").await;
    assert_eq!((&event["action"], &event["address"]), (&json!("otp.exhaust"), &json!("192.0.2.1")));
    assert!(!event.to_string().contains(&otp));
}
