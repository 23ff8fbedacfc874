//! API keys: a key never grants what its maker lacks, rotation overlaps, and uses are written down now and then.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use keypost::service;
use keypost::service::access::Permission;
use keypost_shared::secret::{ApiKey, KeyKind};
use rand_core::OsRng;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;

use crate::support::{KvServer, Serving, TestApp, TestDatabase, keypost};

const KEYS: &str = "/api/internal/api-key";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// A time so many seconds from the app's now.
fn in_seconds(app: &TestApp, seconds: i64) -> String {
    let time = app.context.clock.now() + time::Duration::seconds(seconds);
    time.format(&Rfc3339).unwrap()
}

async fn is_good(app: &TestApp, key: &str) -> bool {
    let answer = app.call_with(key, "GET", "/api/internal/org", None).await;
    if answer.status == 401 {
        return false;
    }
    assert_eq!(answer.status, 200, "{}", answer.text);
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_shown_once_and_then_only_described() {
    let app = TestApp::start().await;
    app.acme().await;
    let permissions = json!(["device:read", "org:read"]);
    let expires_at = in_seconds(&app, 3600);
    let body =
        json!({"name": "Importer", "orgId": "acme", "permissions": permissions, "expiresAt": expires_at});
    let made = app.call("POST", KEYS, Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let etag = made.header("etag").unwrap().to_owned();
    let made = made.json();
    let key = text(&made["key"]).to_owned();
    let prefix = text(&made["prefix"]).to_owned();
    assert!(ApiKey::parse(&key).is_some_and(|key| key.kind() == KeyKind::Organization));
    assert!(key.starts_with(&prefix) && prefix.len() == "kp_org_".len() + 4, "{prefix}");
    assert_eq!(made["orgId"], "acme");
    assert_eq!(made["permissions"], permissions);
    assert_eq!(made["expiresAt"], expires_at.as_str());
    for null in ["lastUsedAt", "previousExpiresAt"] {
        assert_eq!(made.get(null), Some(&Value::Null));
    }

    let path = format!("{KEYS}/{}", text(&made["id"]));
    let read = app.call("GET", &path, None).await;
    assert_eq!((read.status.as_u16(), read.header("etag")), (200, Some(etag.as_str())));
    let mut described = made.clone();
    described.as_object_mut().unwrap().remove("key");
    assert_eq!(read.json(), described);
    let list = app.call("GET", KEYS, None).await;
    assert!(list.json()["items"].as_array().unwrap().contains(&described));
    let secret = &key[prefix.len()..];
    assert!(!list.text.contains(secret) && !read.text.contains(secret));
    let stored = app.database.number("select count(*) from api_key where name = 'Importer'").await;
    assert_eq!(stored, 1);
    let told: Vec<String> = sqlx::query_scalar("select changes::text from audit_event")
        .fetch_all(&app.database.pool)
        .await
        .unwrap();
    assert!(told.iter().all(|changes| !changes.contains(secret)));

    assert!(is_good(&app, &key).await);
    app.call_with(&key, "GET", KEYS, None).await.assert_problem(403, "forbidden");
    app.clock.advance(Duration::from_secs(3601));
    assert!(!is_good(&app, &key).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_makes_no_key_that_reaches_further_may_more_or_lives_longer() {
    let app = TestApp::start().await;
    app.acme().await;
    app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    let make = async |key: &str, body: Value| app.call_with(key, "POST", KEYS, Some(body)).await;

    // Reach.
    let own = app.key(Some("acme"), None).await;
    make(&own, json!({"name": "n"})).await.assert_problem(403, "forbidden");
    make(&own, json!({"name": "n", "orgId": null})).await.assert_problem(403, "forbidden");
    let theirs = make(&own, json!({"name": "n", "orgId": "other"})).await;
    theirs.assert_problem(404, "not_found");
    assert_eq!(theirs.text, make(&own, json!({"name": "n", "orgId": "nobody"})).await.text);
    make(&app.admin, json!({"name": "n", "orgId": "nobody"})).await.assert_problem(404, "not_found");
    assert_eq!(make(&own, json!({"name": "n", "orgId": "acme"})).await.status, 201);

    // Permissions.
    let narrow = app.key(Some("acme"), Some(&[Permission::ApiKeyWrite, Permission::OrgRead])).await;
    let with = |permissions: Value| json!({"name": "n", "orgId": "acme", "permissions": permissions});
    make(&narrow, json!({"name": "n", "orgId": "acme"})).await.assert_problem(403, "forbidden");
    make(&narrow, with(Value::Null)).await.assert_problem(403, "forbidden");
    make(&narrow, with(json!(["org:read", "org:write"]))).await.assert_problem(403, "forbidden");
    assert_eq!(make(&narrow, with(json!(["org:read"]))).await.status, 201);
    let without = app.key(Some("acme"), Some(&[Permission::OrgRead])).await;
    make(&without, with(json!(["org:read"]))).await.assert_problem(403, "forbidden");

    // Lifetime.
    let until = |seconds| json!({"name": "n", "orgId": "acme", "expiresAt": in_seconds(&app, seconds)});
    let mortal = make(&own, until(1000)).await.json();
    let mortal = text(&mortal["key"]);
    make(mortal, until(1100)).await.assert_problem(403, "forbidden");
    make(mortal, json!({"name": "n", "orgId": "acme"})).await.assert_problem(403, "forbidden");
    assert_eq!(make(mortal, until(900)).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organizations_key_sees_the_keys_of_its_organization_alone() {
    let app = TestApp::start().await;
    app.acme().await;
    app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    let make = async |body: Value| app.create(KEYS, body).await;
    let mine = make(json!({"name": "mine", "orgId": "acme"})).await;
    let theirs = make(json!({"name": "theirs", "orgId": "other"})).await;
    let global = make(json!({"name": "global"})).await;
    let own = text(&mine["key"]);

    let list = app.call_with(own, "GET", KEYS, None).await.json();
    let names: Vec<&str> = list["items"].as_array().unwrap().iter().map(|key| text(&key["name"])).collect();
    assert_eq!(names, ["mine"]);
    let absent =
        app.call_with(own, "GET", &format!("{KEYS}/6ba7b810-9dad-11d1-80b4-00c04fd430c8"), None).await;
    for hidden in [&theirs, &global] {
        let path = format!("{KEYS}/{}", text(&hidden["id"]));
        for (method, path) in
            [("GET", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/rotate"))]
        {
            let answer = app.call_with(own, method, &path, None).await;
            answer.assert_problem(404, "not_found");
            assert_eq!(answer.text, absent.text);
        }
        assert!(is_good(&app, text(&hidden["key"])).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_keys_is_walked_page_by_page() {
    let app = TestApp::start().await;
    for n in 0..4 {
        app.create(KEYS, json!({"name": format!("key {n}")})).await;
    }
    let mut seen = Vec::new();
    let mut path = format!("{KEYS}?limit=2");
    loop {
        let page = app.call("GET", &path, None).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|key| text(&key["id"]).to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("{KEYS}?limit=2&cursor={cursor}");
    }
    let ordered = {
        let mut ids = seen.clone();
        ids.sort();
        ids.dedup();
        ids
    };
    assert_eq!((seen.len(), &seen), (5, &ordered));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rotation_both_keys_count_until_the_overlap_ends() {
    let app = TestApp::start().await;
    let first = app.create(KEYS, json!({"name": "Deployer"})).await;
    let path = format!("{KEYS}/{}/rotate", text(&first["id"]));
    let rotated = app.call("POST", &path, Some(json!({"overlapSeconds": 600}))).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    assert!(rotated.header("etag").is_some());
    let second = rotated.json();
    assert_eq!(second["id"], first["id"]);
    assert_ne!(second["prefix"], first["prefix"]);
    let (first, second) = (text(&first["key"]).to_owned(), text(&second["key"]).to_owned());
    assert!(is_good(&app, &first).await && is_good(&app, &second).await);

    // Another rotation within the overlap ends the oldest.
    let third = app.call("POST", &path, Some(json!({"overlapSeconds": 600}))).await.json();
    let third = text(&third["key"]).to_owned();
    assert!(!is_good(&app, &first).await);
    assert!(is_good(&app, &second).await && is_good(&app, &third).await);
    app.clock.advance(Duration::from_secs(599));
    assert!(is_good(&app, &second).await);
    app.clock.advance(Duration::from_secs(1));
    assert!(!is_good(&app, &second).await && is_good(&app, &third).await);

    // Without an overlap the old one ends at once; without a word it has a day.
    let fourth = app.call("POST", &path, Some(json!({"overlapSeconds": 0}))).await.json();
    let fourth = text(&fourth["key"]).to_owned();
    assert!(!is_good(&app, &third).await && is_good(&app, &fourth).await);
    let fifth = app.call("POST", &path, None).await.json();
    let overlap = OffsetDateTime::parse(text(&fifth["previousExpiresAt"]), &Rfc3339).unwrap()
        - OffsetDateTime::parse(text(&fifth["updatedAt"]), &Rfc3339).unwrap();
    assert_eq!(overlap, time::Duration::days(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlap_ends_with_the_key() {
    let app = TestApp::start().await;
    let expires_at = in_seconds(&app, 60);
    let key = app.create(KEYS, json!({"name": "short", "expiresAt": expires_at})).await;
    let path = format!("{KEYS}/{}/rotate", text(&key["id"]));
    let rotated = app.call("POST", &path, None).await.json();
    assert_eq!(rotated["previousExpiresAt"], expires_at.as_str());
    assert_eq!(rotated["expiresAt"], expires_at.as_str());
    app.clock.advance(Duration::from_secs(60));
    app.call("POST", &path, None).await.assert_problem(409, "expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_hands_out_no_key_that_may_more_than_the_callers() {
    let app = TestApp::start().await;
    app.acme().await;
    let rotate = async |key: &str, id: &Value| {
        app.call_with(key, "POST", &format!("{KEYS}/{}/rotate", text(id)), None).await
    };
    let whole = app.create(KEYS, json!({"name": "whole", "orgId": "acme"})).await;
    let narrow = json!({"name": "narrow", "orgId": "acme", "permissions": ["apikey:write"]});
    let narrow = app.create(KEYS, narrow).await;
    rotate(text(&narrow["key"]), &whole["id"]).await.assert_problem(403, "forbidden");
    assert_eq!(rotate(text(&narrow["key"]), &narrow["id"]).await.status, 200);
    assert_eq!(rotate(text(&whole["key"]), &narrow["id"]).await.status, 200);

    let mortal = json!({"name": "mortal", "orgId": "acme", "expiresAt": in_seconds(&app, 1000)});
    let mortal = app.create(KEYS, mortal).await;
    rotate(text(&mortal["key"]), &whole["id"]).await.assert_problem(403, "forbidden");
    assert_eq!(rotate(text(&mortal["key"]), &mortal["id"]).await.status, 200);

    // A permission that this version does not know is one that the caller lacks.
    let reader = json!({"name": "later", "orgId": "acme", "permissions": ["apikey:write"]});
    let later = app.create(KEYS, reader).await;
    let grown = "update api_key set permissions = permissions || '{moon:walk}' where name = 'later'";
    app.database.execute(grown).await.unwrap();
    rotate(text(&later["key"]), &later["id"]).await.assert_problem(403, "forbidden");
    assert_eq!(rotate(text(&whole["key"]), &later["id"]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_key_before_gets_nothing_that_outlasts_the_overlap() {
    let app = TestApp::start().await;
    let first = app.create(KEYS, json!({"name": "leaked"})).await;
    let path = format!("{KEYS}/{}/rotate", text(&first["id"]));
    assert_eq!(app.call("POST", &path, Some(json!({"overlapSeconds": 600}))).await.status, 200);
    let leaked = text(&first["key"]);
    assert!(is_good(&app, leaked).await);
    app.call_with(leaked, "POST", &path, None).await.assert_problem(403, "forbidden");
    let make = async |body: Value| app.call_with(leaked, "POST", KEYS, Some(body)).await;
    make(json!({"name": "n"})).await.assert_problem(403, "forbidden");
    make(json!({"name": "n", "expiresAt": in_seconds(&app, 700)})).await.assert_problem(403, "forbidden");
    assert_eq!(make(json!({"name": "n", "expiresAt": in_seconds(&app, 500)})).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_whose_answer_was_lost_is_asked_for_again() {
    let app = TestApp::start().await;
    let key = app.create(KEYS, json!({"name": "Deployer"})).await;
    let path = format!("{KEYS}/{}/rotate", text(&key["id"]));
    let rotate = async || {
        let request = Request::builder().method("POST").uri(&path);
        let request = request.header("x-api-key", &app.admin).header("idempotency-key", "once");
        app.send(request.body(Body::empty()).unwrap()).await
    };
    let (first, again) = (rotate().await, rotate().await);
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (200, 200));
    assert_eq!(first.text, again.text);
    assert_eq!(
        (first.header("etag"), again.header("idempotent-replayed")),
        (again.header("etag"), Some("true"))
    );
    assert!(is_good(&app, text(&first.json()["key"])).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_key_ends_at_once_and_so_does_the_one_before() {
    let app = TestApp::start().await;
    let first = app.create(KEYS, json!({"name": "gone"})).await;
    let path = format!("{KEYS}/{}", text(&first["id"]));
    let second = app.call("POST", &format!("{path}/rotate"), None).await;
    let stale = app.call("GET", &path, None).await.header("etag").unwrap().to_owned();
    let third = app.call("POST", &format!("{path}/rotate"), None).await.json();
    let second = second.json();
    let delete = async |etag: &str| {
        let request = Request::builder().method("DELETE").uri(&path).header("x-api-key", &app.admin);
        app.send(request.header("if-match", etag).body(Body::empty()).unwrap()).await
    };
    delete(&stale).await.assert_problem(412, "precondition_failed");
    assert!(is_good(&app, text(&second["key"])).await);
    let deleted = delete("*").await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    for key in [&first, &second, &third] {
        assert!(!is_good(&app, text(&key["key"])).await);
    }
    delete("*").await.assert_problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_admin_key_cannot_be_deleted_even_by_two_at_once() {
    let app = TestApp::start().await;
    let id_of = async |name: &str| {
        let keys = app.call("GET", KEYS, None).await.json();
        let found = keys["items"].as_array().unwrap().iter().find(|key| key["name"] == name).cloned();
        text(&found.unwrap()["id"]).to_owned()
    };
    let first = id_of("KEYPOST_ADMIN_API_KEY").await;
    app.create(KEYS, json!({"name": "narrow", "permissions": ["apikey:write"]})).await;
    app.create(KEYS, json!({"name": "short", "expiresAt": in_seconds(&app, 10)})).await;
    app.clock.advance(Duration::from_secs(10));
    let last = app.call("DELETE", &format!("{KEYS}/{first}"), None).await;
    last.assert_problem(409, "last_admin_key");
    assert_eq!(app.call("DELETE", &format!("{KEYS}/{}", id_of("narrow").await), None).await.status, 204);

    let second = app.create(KEYS, json!({"name": "second"})).await;
    let paths = [format!("{KEYS}/{first}"), format!("{KEYS}/{}", text(&second["id"]))];
    let (one, other) = tokio::join!(
        app.call("DELETE", &paths[0], None),
        app.call_with(text(&second["key"]), "DELETE", &paths[1], None)
    );
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409], "{} {}", one.text, other.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_fields_of_keys_are_named() {
    let app = TestApp::start().await;
    let key = app.create(KEYS, json!({"name": "n"})).await;
    let rotate = format!("{KEYS}/{}/rotate", text(&key["id"]));
    let long = "x".repeat(201);
    for (body, fields) in [
        (json!({}), vec!["name"]),
        (json!({"name": ""}), vec!["name"]),
        (json!({"name": long}), vec!["name"]),
        (json!({"name": "a\u{0}b"}), vec!["name"]),
        (json!({"name": "a\u{1b}[31m"}), vec!["name"]),
        (json!({"name": "n", "orgId": "Not A Slug"}), vec!["orgId"]),
        (json!({"name": "n", "orgId": "../etc"}), vec!["orgId"]),
        (json!({"name": "n", "permissions": []}), vec!["permissions"]),
        (json!({"name": "n", "permissions": "org:read"}), vec!["permissions"]),
        (json!({"name": "n", "permissions": ["org:read", 7]}), vec!["permissions"]),
        (
            json!({"name": "n", "permissions": ["*", "org:read", "org:everything"]}),
            vec!["permissions[0]", "permissions[2]"],
        ),
        (json!({"name": "n", "permissions": ["org:read", "org:read"]}), vec!["permissions[1]"]),
        (json!({"name": "n", "permissions": vec!["org:read"; 1000]}), vec!["permissions"]),
        (json!({"name": "n", "expiresAt": "tomorrow"}), vec!["expiresAt"]),
        (json!({"name": "n", "expiresAt": 1_900_000_000}), vec!["expiresAt"]),
        (json!({"name": "n", "expiresAt": "2020-01-01T00:00:00Z"}), vec!["expiresAt"]),
        (json!({"name": "n", "expiresAt": "0000-01-01T00:00:00Z"}), vec!["expiresAt"]),
        (json!({"name": "n", "expiresAt": "9999-12-31T23:59:59-23:59"}), vec!["expiresAt"]),
        (json!({"name": "n", "expiresAt": "10000-01-01T00:00:00Z"}), vec!["expiresAt"]),
        (json!({"name": "n", "key": "kp_admin_mine"}), vec!["key"]),
    ] {
        let answer = app.call("POST", KEYS, Some(body.clone())).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), fields, "{body}: {}", answer.text);
    }
    for overlap in [json!(-1), json!(2_592_001), json!(1e30), json!("60"), json!(0.5), json!([])] {
        let answer = app.call("POST", &rotate, Some(json!({"overlapSeconds": overlap}))).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), ["overlapSeconds"], "{overlap}");
    }
    assert!(is_good(&app, text(&key["key"])).await, "nothing was rotated");
    let far = app.create(KEYS, json!({"name": "far", "expiresAt": "9999-12-31T23:59:59.9999Z"})).await;
    assert_eq!(far["expiresAt"], "9999-12-31T23:59:59.999Z");
    assert_eq!(app.call("POST", &format!("{KEYS}/{}/rotate", text(&far["id"])), None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_cursors_that_are_forged_lead_nowhere() {
    let app = TestApp::start().await;
    let key = app.create(KEYS, json!({"name": "n"})).await;
    let id = text(&key["id"]);
    for wrong in [
        id.to_uppercase().as_str(),
        &id.replace('-', ""),
        &format!("%7B{id}%7D"),
        "%00",
        "%2e%2e%2forg",
        "%2e%2e",
    ] {
        let answer = app.call("GET", &format!("{KEYS}/{wrong}"), None).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), ["apiKeyId"], "{wrong}");
    }
    for nowhere in [
        format!("{KEYS}/"),
        format!("{KEYS}//{id}"),
        format!("{KEYS}/{id}/"),
        format!("/api/internal//api-key/{id}"),
    ] {
        app.call("GET", &nowhere, None).await.assert_problem(404, "not_found");
    }
    for cursor in ["", "AAAA", "%00", "Li4vLi4", "JyBvciAxPTE"] {
        let answer = app.call("GET", &format!("{KEYS}?cursor={cursor}"), None).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), ["cursor"], "{cursor}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_are_written_down_now_and_then_and_never_put_back() {
    let app = TestApp::start().await;
    let key = app.create(KEYS, json!({"name": "used"})).await;
    let path = format!("{KEYS}/{}", text(&key["id"]));
    let etag = app.call("GET", &path, None).await.header("etag").unwrap().to_owned();
    let last_use = async || app.call("GET", &path, None).await.json()["lastUsedAt"].clone();
    for _ in 0..20 {
        assert!(is_good(&app, text(&key["key"])).await);
    }
    assert_eq!(last_use().await, Value::Null, "no request writes");
    app.context.api_key_uses.write(&app.database.pool).await.unwrap();
    let first = last_use().await;
    assert!(first.is_string());
    assert_eq!(app.call("GET", &path, None).await.header("etag"), Some(etag.as_str()));

    // Another control plane writes down an earlier use, later.
    let id = text(&key["id"]).parse().unwrap();
    let other = service::api_key_use::ApiKeyUses::default();
    other.note(id, app.context.clock.now() - time::Duration::hours(1));
    other.write(&app.database.pool).await.unwrap();
    assert_eq!(last_use().await, first);
    let later = app.context.clock.now() + time::Duration::hours(1);
    other.note(id, later);
    other.note(id, later - time::Duration::minutes(1));
    other.write(&app.database.pool).await.unwrap();
    assert_eq!(last_use().await, later.format(&Rfc3339).unwrap().as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_that_could_not_be_written_down_are_tried_again() {
    let app = TestApp::start().await;
    let key = app.create(KEYS, json!({"name": "used"})).await;
    assert!(is_good(&app, text(&key["key"])).await);
    app.database.execute("alter table api_key rename to hidden").await.unwrap();
    app.context.api_key_uses.write(&app.database.pool).await.unwrap_err();
    app.database.execute("alter table hidden rename to api_key").await.unwrap();
    app.context.api_key_uses.write(&app.database.pool).await.unwrap();
    let count = "select count(*) from api_key where last_used_at is not null";
    assert_eq!(app.database.number(count).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_are_written_down_at_the_end() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let key = ApiKey::generate(KeyKind::Admin, &mut OsRng);
    let mut command: Command = keypost(&database, &kv, &["serve"]);
    command.env("KEYPOST_ADMIN_API_KEY", key.expose()).env("KEYPOST_LOG", "json");
    let serving = Serving::start(command).await;
    let asked = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = asked.get(serving.url("/api/internal/org")).header("x-api-key", key.expose());
    assert_eq!(asked.send().await.unwrap().status(), 200);
    serving.stop().await;
    assert_eq!(database.number("select count(*) from api_key where last_used_at is not null").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_key_that_was_rotated_is_not_added_again() {
    let app = TestApp::start().await;
    let configured = ApiKey::generate(KeyKind::Admin, &mut OsRng);
    let start = async || service::api_key::ensure_first(&app.context, Some(&configured)).await.unwrap();
    assert!(start().await.is_none());
    assert!(is_good(&app, configured.expose()).await);
    let id: uuid::Uuid = sqlx::query_scalar("select id from api_key where prefix = $1")
        .bind(configured.display_prefix())
        .fetch_one(&app.database.pool)
        .await
        .unwrap();
    let rotate = app.call("POST", &format!("{KEYS}/{id}/rotate"), Some(json!({"overlapSeconds": 0}))).await;
    assert_eq!(rotate.status, 200);
    assert!(start().await.is_none());
    assert!(!is_good(&app, configured.expose()).await);
    assert_eq!(app.database.number("select count(*) from api_key").await, 2);
}
