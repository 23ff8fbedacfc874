//! What the publisher does when KV, the database, or another publisher fails: nothing that was accepted is lost, and
//! nothing old stays.

use std::sync::Arc;
use std::time::Duration;

use keypost::clock::Clock;
use keypost::store::publication::{self, Failed, LeaseRequest, Leased, Mark, Priority, Written};
use keypost_shared::document::PoolDocument;
use keypost_shared::id::PoolId;
use keypost_shared::kv_key::KvKey;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::sleep;
use uuid::Uuid;

use crate::support::{Fault, KvServer, TestApp, TestClock, TestDatabase, TestPublisher, eventually};

const POOL: &str = "/api/internal/org/acme/env/prod/pool";
const PENDING: &str = "select count(*) from publication where generation > published_generation";
const UNCERTAIN: &str = "select count(*) from publication where uncertain_until is not null";

fn pool_key(environment: &Value) -> KvKey {
    KvKey::Pool(environment["clientPoolId"].as_str().unwrap().parse().unwrap())
}

async fn nothing_waits(app: &TestApp) {
    eventually("nothing waits", async || app.database.number(PENDING).await == 0).await;
}

async fn token_ttl(app: &TestApp, key: &KvKey) -> u64 {
    let verified = app.kv.verified::<PoolDocument>(&app.publisher.root, key).await;
    verified.map_or(0, |verified| verified.document.token_ttl)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_of_kv_is_overcome() {
    let app = TestApp::start_impatient().await;
    let key = pool_key(&app.acme().await);
    for (ttl, fault) in (100..).zip([
        Fault::Status(400),
        Fault::Status(401),
        Fault::Status(403),
        Fault::Status(500),
        Fault::Status(503),
        Fault::RateLimited(Some(0)),
        Fault::NoSuccess,
        Fault::Rubbish,
        Fault::Unsuccessful("v1/pool".to_owned()),
        Fault::CarriedOutThen(502),
        Fault::Hang,
    ]) {
        nothing_waits(&app).await;
        app.kv.fail_next([fault.clone(), fault.clone()]);
        let calls = app.kv.calls().len();
        let change = app.call("PATCH", POOL, Some(json!({"tokenTtlSeconds": ttl}))).await;
        eventually("three calls are made", async || app.kv.calls().len() >= calls + 3).await;
        assert_eq!(change.status, 200, "the change is accepted whatever KV does");
        let failing = "select count(*) from publication where attempts > 0";
        eventually(&format!("{fault:?} is overcome"), async || {
            token_ttl(&app, &key).await == ttl && app.database.number(failing).await == 0
        })
        .await;
        // Where the outcome of the failed calls is unknown, the key is written once more later.
        app.clock.advance(TestPublisher::LATE_WRITE_WINDOW + Duration::from_secs(1));
        nothing_waits(&app).await;
        assert_eq!(app.database.number(UNCERTAIN).await, 0, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_lands_late_does_not_last() {
    let app = TestApp::start_impatient().await;
    let key = pool_key(&app.acme().await);
    nothing_waits(&app).await;
    sleep(Duration::from_secs(1)).await;

    app.kv.fail_next([Fault::Hang]);
    app.call("PATCH", POOL, Some(json!({"tokenTtlSeconds": 11}))).await;
    let lost = "select count(*) from publication where uncertain_until is not null and attempts > 0";
    eventually("the call is given up", async || app.database.number(lost).await == 1).await;
    app.call("PATCH", POOL, Some(json!({"tokenTtlSeconds": 22}))).await;
    eventually("the new document is there", async || token_ttl(&app, &key).await == 22).await;
    assert_eq!(app.database.number(PENDING).await, 1, "it will be written once more");
    let calls = app.kv.calls().len();

    app.kv.land_lost_calls();
    assert_eq!(token_ttl(&app, &key).await, 11, "the old document has overwritten it");
    sleep(Duration::from_millis(300)).await;
    assert_eq!(
        app.kv.calls().len(),
        calls,
        "as long as the lost call may land, writing again would not settle it"
    );

    app.clock.advance(TestPublisher::LATE_WRITE_WINDOW + Duration::from_secs(1));
    eventually("the new document is back", async || token_ttl(&app, &key).await == 22).await;
    nothing_waits(&app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_to_be_repeated_does_not_hold_up_a_new_change() {
    let app = TestApp::start_impatient().await;
    let key = pool_key(&app.acme().await);
    nothing_waits(&app).await;
    sleep(Duration::from_secs(1)).await;
    app.kv.fail_next([Fault::Hang]);
    app.call("PATCH", POOL, Some(json!({"tokenTtlSeconds": 11}))).await;
    eventually("it is written in the second try", async || token_ttl(&app, &key).await == 11).await;
    app.call("PATCH", POOL, Some(json!({"tokenTtlSeconds": 22}))).await;
    eventually("the change is written at once", async || token_ttl(&app, &key).await == 22).await;
    assert_eq!(app.database.number(PENDING).await, 1, "and the obligation to repeat stays");
    app.clock.advance(TestPublisher::LATE_WRITE_WINDOW + Duration::from_secs(1));
    nothing_waits(&app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_is_obeyed() {
    let app = TestApp::start().await;
    let key = pool_key(&app.acme().await);
    nothing_waits(&app).await;
    sleep(Duration::from_secs(1)).await;
    app.kv.fail_next([Fault::RateLimited(Some(2))]);
    let calls = app.kv.calls().len();
    app.call("PATCH", POOL, Some(json!({"tokenTtlSeconds": 77}))).await;
    eventually("it is written in the end", async || token_ttl(&app, &key).await == 77).await;
    let calls = &app.kv.calls()[calls..];
    let pause = calls[1].at - calls[0].at;
    assert!(pause >= Duration::from_millis(1990), "{pause:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_document_that_kv_refuses_does_not_hold_up_the_others() {
    let app = TestApp::start().await;
    app.acme().await;
    nothing_waits(&app).await;
    let mut clients = Vec::new();
    for n in 0..20 {
        let path = app.device(&format!("pos-{n}")).await;
        clients.push(app.call("GET", &path, None).await.json()["clientId"].as_str().unwrap().to_owned());
    }
    nothing_waits(&app).await;
    app.kv.fail_next([Fault::RefuseEach(clients[7].clone())]);
    app.database
        .execute("update publication set generation = generation + 1, published_at = null")
        .await
        .unwrap();
    app.publisher.publications.wake();
    eventually("all others are written", async || app.database.number(PENDING).await == 1).await;
    let error: Option<String> =
        sqlx::query_scalar("select last_error from publication where generation > published_generation")
            .fetch_one(&app.database.pool)
            .await
            .unwrap();
    assert!(error.unwrap().contains("KV refused with status 400"));
    app.kv.recover();
    nothing_waits(&app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_cannot_be_opened_stops_its_own_pool_only() {
    let app = TestApp::start().await;
    let broken = app.acme().await;
    nothing_waits(&app).await;
    app.database.execute("update signing_key set private_sealed = '\\x00'").await.unwrap();
    app.call("PATCH", POOL, Some(json!({"tokenTtlSeconds": 77}))).await;
    let good = app.create("/api/internal/org/acme/env", json!({"id": "good", "name": "Good"})).await;
    assert_eq!(good["published"], true);
    assert_eq!(token_ttl(&app, &pool_key(&broken)).await, 3600, "the last good document stays");
    eventually("the backlog says why", async || {
        let sync = app.call("GET", "/api/internal/sync", None).await.json();
        sync["lastError"].as_str().is_some_and(|error| error.contains("does not open"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_read_stops_itself_only() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    app.device("pos-2").await;
    nothing_waits(&app).await;
    let spoil = "update oauth_client set secret_created_at = now(), secret_hash = '\\x00'
                 where client_id = (select min(client_id) from oauth_client)";
    app.database
        .execute("alter table oauth_client drop constraint oauth_client_secret_hash_check")
        .await
        .unwrap();
    app.database.execute(spoil).await.unwrap();
    app.database
        .execute("update publication set generation = generation + 1, published_at = null")
        .await
        .unwrap();
    app.publisher.publications.wake();
    eventually("all others are written", async || app.database.number(PENDING).await == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_before_a_crash_is_published_after_the_restart() {
    let app = TestApp::start().await;
    app.acme().await;
    nothing_waits(&app).await;
    let TestApp { publisher, kv, database, clock, context, .. } = app;
    publisher.stop().await;
    // The change commits, and the process dies before anything is written.
    let mut tx = database.pool.begin().await.unwrap();
    let pool: Uuid = sqlx::query_scalar("select id from client_pool").fetch_one(&mut *tx).await.unwrap();
    sqlx::query("update client_pool set token_ttl_seconds = 77").execute(&mut *tx).await.unwrap();
    let key = KvKey::Pool(PoolId(pool));
    publication::mark(&mut tx, std::slice::from_ref(&key), Priority::Change, clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    drop(context);

    let publisher = TestPublisher::start(&database, &kv, &clock).await;
    eventually("it is published", async || {
        let verified = kv.verified::<PoolDocument>(&publisher.root, &key).await;
        verified.is_ok_and(|verified| verified.document.token_ttl == 77)
    })
    .await;
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_takes_over_what_a_dead_one_had_leased() {
    let app = TestApp::start().await;
    let key = pool_key(&app.acme().await);
    nothing_waits(&app).await;
    let TestApp { publisher, kv, database, clock, .. } = app;
    publisher.stop().await;
    clock.advance(Duration::from_secs(2));
    let marks = mark(&database, &clock, &key).await;
    let dead = lease(&database, &clock).await;
    assert_eq!(dead.1.len(), 1);

    let publisher = TestPublisher::start(&database, &kv, &clock).await;
    assert!(
        !publisher.publications.published_within(&marks, Duration::from_millis(500)).await,
        "it is leased"
    );
    clock.advance(Duration::from_secs(31));
    assert!(publisher.publications.published(&marks).await);
    assert!(kv.get(&key).unwrap().metadata.version > dead.1[0].version);
    // Perhaps the dead one had sent its document before it died: it is written over once that has surely landed.
    assert_eq!(database.number(PENDING).await, 1);
    let before = kv.get(&key).unwrap().metadata.version;
    clock.advance(TestPublisher::LATE_WRITE_WINDOW + Duration::from_secs(1));
    eventually("it is written once more", async || kv.get(&key).unwrap().metadata.version > before).await;
    eventually("nothing waits", async || database.number(PENDING).await == 0).await;
    publisher.stop().await;
}

async fn mark(database: &TestDatabase, clock: &TestClock, key: &KvKey) -> Vec<Mark> {
    let mut tx = database.pool.begin().await.unwrap();
    let marks =
        publication::mark(&mut tx, std::slice::from_ref(key), Priority::Change, clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    marks
}

async fn lease(database: &TestDatabase, clock: &TestClock) -> (Uuid, Vec<Leased>, OffsetDateTime) {
    let request = LeaseRequest {
        lease_id: Uuid::from_u128(clock.now().unix_timestamp_nanos() as u128),
        priorities: (Priority::Revocation, Priority::Resign),
        only_trust: false,
        limit: 10,
        duration: Duration::from_secs(30),
        late_write_window: TestPublisher::LATE_WRITE_WINDOW,
    };
    let now = clock.now();
    let mut tx = database.pool.begin().await.unwrap();
    let leased = publication::lease(&mut tx, &request, now).await.unwrap();
    tx.commit().await.unwrap();
    (request.lease_id, leased, now)
}

fn written(leased: &Leased) -> Written {
    Written {
        key: leased.key.clone(),
        generation: leased.generation,
        digest: Some([1; 32]),
        signed_by: None,
        resign_at: None,
    }
}

async fn complete(
    database: &TestDatabase,
    clock: &TestClock,
    lease: &(Uuid, Vec<Leased>, OffsetDateTime),
) -> usize {
    let written: Vec<Written> = lease.1.iter().map(written).collect();
    let mut tx = database.pool.begin().await.unwrap();
    let mine = publication::complete(&mut tx, lease.0, &written, lease.2, clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    mine.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_after_its_lease_was_taken_over_marks_the_key_again() {
    let database = TestDatabase::create().await;
    let clock = TestClock::default();
    let key = KvKey::Pool(PoolId(Uuid::from_u128(1)));
    mark(&database, &clock, &key).await;
    let slow = lease(&database, &clock).await;
    clock.advance(Duration::from_secs(31));
    let quick = lease(&database, &clock).await;
    assert!(quick.1[0].version > slow.1[0].version);
    assert_eq!(complete(&database, &clock, &quick).await, 1);
    clock.advance(TestPublisher::LATE_WRITE_WINDOW + Duration::from_secs(2));
    let repeated = lease(&database, &clock).await;
    assert_eq!(complete(&database, &clock, &repeated).await, 1);
    assert_eq!(database.number(PENDING).await, 0);

    assert_eq!(complete(&database, &clock, &slow).await, 0, "its lease is long gone");
    assert_eq!(database.number(PENDING).await, 1, "and so it may have written over a newer document");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_call_of_a_lost_lease_is_written_over_when_it_can_no_longer_land() {
    let database = TestDatabase::create().await;
    let clock = TestClock::default();
    let key = KvKey::Pool(PoolId(Uuid::from_u128(1)));
    mark(&database, &clock, &key).await;
    let slow = lease(&database, &clock).await;
    clock.advance(TestPublisher::LATE_WRITE_WINDOW * 2);
    let quick = lease(&database, &clock).await;
    assert_eq!(complete(&database, &clock, &quick).await, 1);
    let now = clock.now();
    let until = now + TestPublisher::LATE_WRITE_WINDOW;
    let failed = [Failed { key: key.clone(), not_before: now, error: "timeout".to_owned() }];
    let mut tx = database.pool.begin().await.unwrap();
    publication::fail(&mut tx, slow.0, &failed, Some(until), now).await.unwrap();
    tx.commit().await.unwrap();
    clock.advance(Duration::from_secs(2));
    let again = lease(&database, &clock).await;
    assert_eq!(complete(&database, &clock, &again).await, 1);
    assert_eq!(database.number(PENDING).await, 1, "one more, for after the window");
    clock.advance(TestPublisher::LATE_WRITE_WINDOW);
    let last = lease(&database, &clock).await;
    assert_eq!(complete(&database, &clock, &last).await, 1);
    assert_eq!(database.number(PENDING).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_never_given_twice() {
    let database = TestDatabase::create().await;
    let clock = TestClock::default();
    let key = KvKey::Pool(PoolId(Uuid::from_u128(1)));
    let mut versions = Vec::new();
    for _ in 0..5 {
        mark(&database, &clock, &key).await;
        let leased = lease(&database, &clock).await;
        versions.push(leased.1[0].version);
        let mut tx = database.pool.begin().await.unwrap();
        publication::release(&mut tx, leased.0, std::slice::from_ref(&key)).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_database_connections_are_overcome() {
    let app = TestApp::start().await;
    let key = pool_key(&app.acme().await);
    nothing_waits(&app).await;
    app.database
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
              where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await
        .unwrap();
    eventually("the change is accepted", async || {
        app.call("PATCH", POOL, Some(json!({"tokenTtlSeconds": 77}))).await.status == 200
    })
    .await;
    eventually("and published", async || token_ttl(&app, &key).await == 77).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_many_callers_at_once_neither_block_each_other_nor_get_lost() {
    let database = Arc::new(TestDatabase::create().await);
    let kv = KvServer::start().await;
    let clock = Arc::new(TestClock::default());
    let publisher = TestPublisher::start(&database, &kv, &clock).await;
    let keys: Vec<KvKey> = (1..=30).map(|n| KvKey::Pool(PoolId(Uuid::from_u128(n)))).collect();
    let callers = (0..8_usize).map(|caller| {
        let (database, clock, mut keys) = (database.clone(), clock.clone(), keys.clone());
        keys.rotate_left(caller * 3);
        tokio::spawn(async move {
            for _ in 0..20 {
                let mut tx = database.pool.begin().await.unwrap();
                publication::mark(&mut tx, &keys, Priority::Change, clock.now()).await.unwrap();
                tx.commit().await.unwrap();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    eventually("nothing waits", async || database.number(PENDING).await == 0).await;
    let least = "select min(published_generation) from publication where key <> 'v1/trust'";
    assert!(database.number(least).await >= 160);
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_gets_the_token_and_never_more_than_it_takes() {
    let app = TestApp::start().await;
    app.acme().await;
    nothing_waits(&app).await;
    let report = app.kv.report();
    assert!(report.writes > 0 && report.exceeded.is_empty(), "{report:?}");
    assert!(report.older_over_newer.is_empty() && report.not_the_newest.is_empty(), "{report:?}");
}
