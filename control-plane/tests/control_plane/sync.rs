//! Work on all documents: what a verification finds and mends, what a rebuild writes, and a publisher key that was stolen.

use std::time::Duration;

use keypost::kv::Metadata;
use keypost_shared::document::{ClientDocument, PoolDocument};
use keypost_shared::id::PoolId;
use keypost_shared::kv_key::KvKey;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::housekeeping;
use crate::support::{Fault, TestApp, eventually};

const SYNC: &str = "/api/internal/sync";
const KEYS: &str = "/api/internal/sync/publisher-keys";
const PENDING: &str = "select count(*) from publication where generation > published_generation";

async fn nothing_waits(app: &TestApp) {
    eventually("nothing waits", async || app.database.number(PENDING).await == 0).await;
}

/// Lets a job of this kind come to its end, and what it marked be written.
async fn run(app: &TestApp, kind: &str) -> Value {
    nothing_waits(app).await;
    let started = app.call("POST", &format!("{SYNC}/{kind}"), None).await;
    assert_eq!(started.status, 202, "{}", started.text);
    let mut job = Value::Null;
    eventually("the job is done", async || {
        let sync = app.call("GET", SYNC, None).await.json();
        let jobs = sync["jobs"].as_array().unwrap();
        job = jobs.iter().find(|job| job["jobId"] == started.json()["jobId"]).unwrap().clone();
        job["published"] == true
    })
    .await;
    job
}

fn found(job: &Value) -> [i64; 3] {
    ["missing", "differing", "unowned"].map(|kind| job[kind].as_i64().unwrap())
}

/// `acme` with ten devices, all of whose documents are in KV: their keys, in order.
async fn fleet(app: &TestApp) -> Vec<KvKey> {
    app.acme().await;
    for number in 0..10 {
        app.device(&format!("pos-{number}")).await;
    }
    nothing_waits(app).await;
    app.kv.keys().iter().map(|key| key.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_of_what_is_right_finds_nothing_and_writes_nothing() {
    let app = TestApp::start().await;
    let keys = fleet(&app).await;
    let pairs = app.kv.report().pairs;
    let job = run(&app, "verify").await;
    assert_eq!((found(&job), &job["skipped"], &job["marked"]), ([0, 0, 0], &json!(0), &json!(0)), "{job}");
    assert_eq!(job["checked"], keys.len());
    assert_eq!(app.kv.report().pairs, pairs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_mends_what_is_missing_older_altered_or_nobodys_and_leaves_the_edges_alone() {
    let app = TestApp::start().await;
    let keys = fleet(&app).await;
    let clients: Vec<&KvKey> = keys.iter().filter(|key| matches!(key, KvKey::Client(..))).collect();
    // Of the devices, not of the organization's people.
    let devices = clients[0].pool();
    let pool = keys.iter().find(|key| matches!(key, KvKey::Pool(_)) && key.pool() == devices).unwrap();
    let before = app.kv.get(pool).unwrap();
    let path = "/api/internal/org/acme/env/prod/pool";
    app.call("PATCH", path, Some(json!({"tokenTtlSeconds": 77}))).await;
    nothing_waits(&app).await;

    app.kv.delete(clients[0]);
    app.kv.delete(clients[9]);
    app.kv.replay(pool, &before);
    let mut bare = app.kv.get(clients[1]).unwrap();
    bare.metadata = Metadata { version: 0, digest: "x".to_owned() };
    app.kv.replay(clients[1], &bare);
    let stranger = KvKey::Client(PoolId(Uuid::from_u128(7)), "someone".parse().unwrap());
    app.kv.replay(&stranger, &bare);
    app.kv.write("v1/client/junk", "junk");
    let edges = format!("v1/edge/{}/report/pos-1", Uuid::from_u128(7));
    for kept in [edges.as_str(), "v1/later/thing", "notes"] {
        app.kv.write(kept, "kept");
    }

    let job = run(&app, "verify").await;
    assert_eq!(found(&job), [2, 2, 2], "{job}");
    assert_eq!(job["strange"], 1, "{job}");
    nothing_waits(&app).await;
    let mut expected: Vec<String> = keys.iter().map(KvKey::to_string).collect();
    expected.extend([edges, "v1/later/thing".to_owned(), "notes".to_owned()]);
    expected.sort();
    assert_eq!(app.kv.keys(), expected);
    let root = &app.publisher.root;
    let mended = app.kv.verified::<PoolDocument>(root, pool).await.unwrap();
    assert_eq!(mended.document.token_ttl, 77);
    for client in clients {
        app.kv.verified::<ClientDocument>(root, client).await.unwrap();
    }
    assert_eq!(found(&run(&app, "verify").await), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_finds_rows_that_say_something_else_than_what_was_written() {
    let app = TestApp::start().await;
    fleet(&app).await;
    // As after a restored table, or a statement by hand.
    app.database
        .execute("update device set name = name, metadata = '{\"a\": 1}' where id = 'pos-3'")
        .await
        .unwrap();
    app.database.execute("delete from publication where key like 'v1/device/%/pos-4'").await.unwrap();
    let job = run(&app, "verify").await;
    assert_eq!(found(&job), [0, 1, 1], "{job}");
    assert_eq!(found(&run(&app, "verify").await), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_fallen_due_since_it_was_written_does_not_differ_and_neither_does_what_is_forgotten() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    for _ in 0..2 {
        let otp = app.otp(&path).await;
        assert_eq!(app.activate(json!({"otp": otp})).await.status, 200);
    }
    // A device that is kept out for ten minutes.
    app.database
        .execute(
            "insert into refused_device (org_id, pool_id, device_id, code, refused_at, until)
             select org_id, id, 'pos-9', 'too_many_new_devices', now(), now() + interval '10 minutes'
               from client_pool where env_id = 'prod'",
        )
        .await
        .unwrap();
    app.database
        .execute(
            "insert into publication (key, pool_id, generation, published_generation, priority, marked_at)
             select 'v1/device/' || id || '/pos-9', id, 1, 0, 0, now() from client_pool where env_id = 'prod'",
        )
        .await
        .unwrap();
    nothing_waits(&app).await;
    let keys = app.kv.keys();
    assert!(keys.iter().any(|key| key.ends_with("/pos-9")), "{keys:?}");

    // The earlier secret counts no more, its entry in the revocation list begins to, and the refusal is over. Those who would
    // make the documents anew have not come to it yet.
    app.database.execute("update publication set resign_at = null").await.unwrap();
    app.clock.advance(Duration::from_secs(900));
    let due = "select count(*) from revoked_record where next_from is not null";
    assert_eq!(app.database.number(due).await, 1);
    let job = run(&app, "verify").await;
    assert_eq!(found(&job), [0, 0, 0], "{job}");

    let purged = housekeeping::run(&app, None).await;
    assert!(purged.contains(&("previous_client_secrets", 1)), "{purged:?}");
    let job = run(&app, "verify").await;
    assert_eq!(found(&job), [0, 0, 0], "{job}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_kv_is_filled_by_a_verification_and_a_spoilt_one_by_a_rebuild() {
    let app = TestApp::start().await;
    let keys = fleet(&app).await;
    for key in &keys {
        app.kv.delete(key);
    }
    let job = run(&app, "verify").await;
    assert_eq!(found(&job), [keys.len() as i64, 0, 0], "{job}");
    assert_eq!(app.kv.keys().len(), keys.len());

    // Metadata as they should be over a text that is not: a list does not show that.
    for key in &keys {
        let mut stored = app.kv.get(key).unwrap();
        stored.value = "spoilt".to_owned();
        app.kv.replay(key, &stored);
    }
    assert_eq!(found(&run(&app, "verify").await), [0, 0, 0]);
    let job = run(&app, "rebuild").await;
    assert_eq!((&job["checked"], &job["marked"]), (&json!(keys.len()), &json!(keys.len())), "{job}");
    assert!(keys.iter().all(|key| app.kv.get(key).unwrap().value != "spoilt"));
    assert!(app.kv.report().exceeded.is_empty() && app.kv.report().older_over_newer.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_survives_the_failures_of_kv_and_goes_on_where_it_was() {
    let app = TestApp::start().await;
    let keys = fleet(&app).await;
    // A cursor that KV does not know any more, and a place somewhere in the middle.
    let middle = keys[keys.len() / 2].to_string();
    sqlx::query(
        "insert into sync_job (id, kind, state, started_at, after, list_cursor, checked)
         values (gen_random_uuid(), 'verify', 'running', now(), $1, 'gone', 1000)",
    )
    .bind(&middle)
    .execute(&app.database.pool)
    .await
    .unwrap();
    app.kv.delete(&keys[0]);
    app.kv.delete(keys.last().unwrap());
    app.publisher.publications.wake();
    eventually("the job is done", async || {
        app.database.number("select count(*) from sync_job where state = 'done'").await == 1
    })
    .await;
    let sync = app.call("GET", SYNC, None).await.json();
    let job = &sync["jobs"][0];
    assert_eq!(found(job), [1, 0, 0], "what lies before its place is not looked at again: {job}");
    assert_eq!(job["checked"].as_i64().unwrap() - 1000, (keys.len() - keys.len() / 2 - 1) as i64, "{job}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_job_of_a_kind_runs_at_a_time_and_is_told_of() {
    let app = TestApp::start().await;
    fleet(&app).await;
    app.database
        .execute("insert into sync_job (id, kind, state, started_at, finished_at) values (gen_random_uuid(), 'verify', 'failed', now(), now())")
        .await
        .unwrap();
    // As long as somebody else has the lock, the job stays where it is.
    let mut elsewhere = app.database.pool.acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock(1802502165)").execute(&mut *elsewhere).await.unwrap();
    assert_eq!(app.call("POST", &format!("{SYNC}/verify"), None).await.status, 202);
    app.call("POST", &format!("{SYNC}/verify"), None).await.assert_problem(409, "job_running");
    assert_eq!(app.call("POST", &format!("{SYNC}/rebuild"), None).await.status, 202);
    sqlx::query("select pg_advisory_unlock(1802502165)").execute(&mut *elsewhere).await.unwrap();
    eventually("both are done", async || {
        app.database.number("select count(*) from sync_job where state = 'done'").await == 2
    })
    .await;
    let events = app.call("GET", "/api/internal/audit?targetKind=sync", None).await.json();
    let actions: Vec<&Value> =
        events["items"].as_array().unwrap().iter().map(|event| &event["action"]).collect();
    assert_eq!(actions, ["sync.rebuild", "sync.verify"], "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_publisher_key_signs_nothing_that_counts_and_everything_is_signed_anew() {
    let app = TestApp::start().await;
    let keys = fleet(&app).await;
    let listed = app.call("GET", KEYS, None).await.json();
    let state = |listed: &Value, wanted: &str| {
        let items = listed["items"].as_array().unwrap();
        items.iter().find(|key| key["state"] == wanted).map(|key| key["kid"].as_str().unwrap().to_owned())
    };
    let stolen = state(&listed, "signing").unwrap();
    let next = state(&listed, "waiting").unwrap();
    let old_trust = app.kv.trust(&app.publisher.root).await.unwrap();
    assert_eq!(listed["trustVersion"], old_trust.stamp.version);

    let removed = app.call("DELETE", &format!("{KEYS}/{stolen}"), None).await;
    assert_eq!(removed.status, 200, "{}", removed.text);
    assert_eq!(removed.json()["published"], true, "{}", removed.text);
    let trust = app.kv.trust(&app.publisher.root).await.unwrap();
    let least = removed.json()["minTrustVersion"].as_u64().unwrap();
    assert!((old_trust.stamp.version + 1..=trust.stamp.version).contains(&least), "{least}");
    let lists = |kid: &str| trust.document.publisher_keys.iter().any(|key| key.thumbprint().as_str() == kid);
    assert!(!lists(&stolen) && lists(&next));

    eventually("everything verifies again", async || {
        for key in &keys {
            let verified = match key {
                KvKey::Pool(_) => app.kv.verified::<PoolDocument>(&app.publisher.root, key).await.map(|_| ()),
                KvKey::Client(..) => {
                    app.kv.verified::<ClientDocument>(&app.publisher.root, key).await.map(|_| ())
                }
                _ => Ok(()),
            };
            if verified.is_err() {
                return false;
            }
        }
        true
    })
    .await;
    nothing_waits(&app).await;
    let listed = app.call("GET", KEYS, None).await.json();
    assert_eq!(state(&listed, "signing"), Some(next));
    assert_eq!(state(&listed, "removed"), Some(stolen.clone()));
    app.clock.advance(Duration::from_secs(3600));
    eventually("it is forgotten", async || {
        state(&app.call("GET", KEYS, None).await.json(), "removed").is_none()
    })
    .await;
    app.call("DELETE", &format!("{KEYS}/{stolen}"), None).await.assert_problem(404, "not_found");
    let events = app.call("GET", "/api/internal/audit?targetKind=publisher_key", None).await.json();
    assert_eq!(events["items"][0]["action"], "publisher_key.remove");
    assert_eq!(events["items"][0]["targetId"], stolen.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_publisher_keys_can_be_removed_and_the_edge_is_served_again() {
    let app = TestApp::start().await;
    let keys = fleet(&app).await;
    let pool = keys.iter().find(|key| matches!(key, KvKey::Pool(_))).unwrap();
    let listed = app.call("GET", KEYS, None).await.json();
    for key in listed["items"].as_array().unwrap() {
        let path = format!("{KEYS}/{}", key["kid"].as_str().unwrap());
        assert_eq!(app.call("DELETE", &path, None).await.status, 200);
    }
    eventually("a new key signs", async || {
        app.kv.verified::<PoolDocument>(&app.publisher.root, pool).await.is_ok()
    })
    .await;
    nothing_waits(&app).await;
    assert_eq!(found(&run(&app, "verify").await), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_document_makes_it_amber_and_ready_all_the_same() {
    let app = TestApp::start().await;
    fleet(&app).await;
    let ready = app.call("GET", "/readyz", None).await;
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (200, &json!("ready")));
    app.kv.fail_next(std::iter::repeat_n(crate::support::Fault::Status(500), 10_000));
    let path = "/api/internal/org/acme/env/prod/pool";
    app.call("PATCH", path, Some(json!({"tokenTtlSeconds": 77}))).await;
    app.clock.advance(Duration::from_secs(301));
    let ready = app.call("GET", "/readyz", None).await;
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (200, &json!("amber")), "{}", ready.text);
    assert!(ready.json()["oldestPendingSeconds"].as_u64().unwrap() >= 301);
    eventually("it is counted as failing", async || {
        app.call("GET", SYNC, None).await.json()["failing"].as_u64().unwrap() > 0
    })
    .await;
    let metrics = app.call("GET", "/metrics", None).await.text;
    assert!(metrics.contains("keypost_publisher_late 1"), "{metrics}");
    app.kv.recover();
    app.clock.advance(Duration::from_secs(60));
    eventually("it is green again", async || {
        app.call("GET", "/readyz", None).await.json()["status"] == "ready"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_ended_a_month_ago_are_forgotten_but_for_the_latest_of_each_kind() {
    let app = TestApp::start().await;
    fleet(&app).await;
    for kind in ["verify", "verify", "rebuild"] {
        run(&app, kind).await;
    }
    let kept = async || {
        housekeeping::run(&app, None).await;
        app.database.number("select count(*) from sync_job").await
    };
    assert_eq!(kept().await, 3);
    app.clock.advance(Duration::from_secs(31 * 86_400));
    assert_eq!(kept().await, 2);
    let sync = app.call("GET", SYNC, None).await.json();
    assert_eq!(sync["jobs"].as_array().unwrap().len(), 2, "{sync}");
    run(&app, "verify").await;
    assert_eq!(kept().await, 2, "the newer one takes the place of the old one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kv_the_removal_of_a_publisher_key_still_says_which_trust_is_to_count() {
    let app = TestApp::start_impatient().await;
    fleet(&app).await;
    let keys = app.call("GET", KEYS, None).await.json();
    let signing = keys["items"].as_array().unwrap().iter().find(|key| key["state"] == "signing").unwrap();
    let stolen = signing["kid"].as_str().unwrap();
    app.kv.fail_next([Fault::RefuseEach("v1/".to_owned())]);
    let removed = app.call("DELETE", &format!("{KEYS}/{stolen}"), None).await.json();
    assert_eq!(removed["published"], false);
    let old = app.kv.trust(&app.publisher.root).await.unwrap();
    let least = removed["minTrustVersion"].as_u64().unwrap();
    assert!(old.stamp.version < least, "{removed}");
    app.kv.recover();
    eventually("a trust without the key", async || {
        let trust = app.kv.trust(&app.publisher.root).await.unwrap();
        trust.document.publisher_keys.iter().all(|key| key.thumbprint().as_str() != stolen)
    })
    .await;
    assert!(app.kv.trust(&app.publisher.root).await.unwrap().stamp.version >= least);
}
