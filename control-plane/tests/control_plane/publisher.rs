//! What the publisher does when all is well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keypost::clock::Clock;
use keypost::publisher::PublisherSettings;
use keypost::store::kv_pace::{self, Spacing};
use keypost::store::publication::{self, Priority};
use keypost_shared::document::{ClientDocument, PoolDocument};
use keypost_shared::id::PoolId;
use keypost_shared::kv_key::KvKey;
use keypost_shared::publisher_key::Schedule;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::support::{Fault, KvServer, TestApp, TestClock, TestDatabase, TestPublisher, eventually};

const DAY: Duration = Duration::from_secs(86_400);

fn pool_key(environment: &Value) -> KvKey {
    KvKey::Pool(environment["clientPoolId"].as_str().unwrap().parse().unwrap())
}

/// A key whose rows do not exist: publishing it deletes it.
fn nobody(n: u128) -> KvKey {
    KvKey::Pool(PoolId(Uuid::from_u128(n)))
}

async fn mark(database: &TestDatabase, clock: &TestClock, keys: &[KvKey], priority: Priority) {
    let mut tx = database.pool.begin().await.unwrap();
    publication::mark(&mut tx, keys, priority, clock.now()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn nothing_waits(database: &TestDatabase) {
    let pending = "select count(*) from publication where generation > published_generation";
    eventually("nothing waits", async || database.number(pending).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_is_signed_again_after_a_quarter_of_its_window() {
    let app = TestApp::start().await;
    let key = pool_key(&app.acme().await);
    let read = async || app.kv.verified::<PoolDocument>(&app.publisher.root, &key).await.unwrap();
    let first = read().await;
    app.clock.advance(DAY / 4 - Duration::from_secs(60));
    sleep(Duration::from_millis(300)).await;
    assert_eq!(read().await.stamp.version, first.stamp.version, "not before its time");
    app.clock.advance(Duration::from_secs(120));
    eventually("it is signed again", async || read().await.stamp.version > first.stamp.version).await;
    let second = read().await;
    assert_eq!(second.stamp.next_update.unwrap(), second.stamp.iat + 86_400);
    assert_eq!(second.document, first.document, "it says the same");
    let digest = |stored: crate::support::Stored| stored.metadata.digest;
    assert_eq!(app.kv.get(&key).map(digest).unwrap().len(), 43);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_with_a_window_of_ten_seconds_stay_fresh() {
    let app = TestApp::start().await;
    let mut keys = Vec::new();
    app.create("/api/internal/org", json!({"id": "acme", "name": "Acme"})).await;
    for env in ["a", "b", "c"] {
        let created = app.create("/api/internal/org/acme/env", json!({"id": env, "name": env})).await;
        keys.push(pool_key(&created));
        let path = format!("/api/internal/org/acme/env/{env}/pool");
        app.call("PATCH", &path, Some(json!({"maxStalenessSeconds": 10}))).await;
    }
    let left = async |key: &KvKey| {
        let stamp = app.kv.verified::<PoolDocument>(&app.publisher.root, key).await.unwrap().stamp;
        stamp.next_update.unwrap().0 - app.clock.now().unix_timestamp()
    };
    for key in &keys {
        eventually("the window is short", async || left(key).await <= 10).await;
    }
    let end = Instant::now() + Duration::from_secs(6);
    while Instant::now() < end {
        for key in &keys {
            let left = left(key).await;
            assert!(left > 0, "{key} had {left} s left");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trust_document_outlives_the_longest_window_by_a_day_and_is_signed_four_times_a_day() {
    let app = TestApp::start().await;
    app.acme().await;
    let trust = async || app.kv.trust(&app.publisher.root).await.unwrap();
    let window = async || {
        let stamp = trust().await.stamp;
        stamp.next_update.unwrap().since(stamp.iat)
    };
    eventually("a pool's day and a day", async || window().await == 2 * 86_400).await;
    let path = "/api/internal/org/acme/env/prod/pool";
    app.call("PATCH", path, Some(json!({"maxStalenessSeconds": 604_800}))).await;
    eventually("a pool's week and a day", async || window().await == 8 * 86_400).await;

    let before = trust().await.stamp.version;
    app.clock.advance(Duration::from_secs(6 * 3600 + 1));
    eventually("it is signed again after six hours", async || trust().await.stamp.version > before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publisher_keys_take_turns_and_every_document_always_verifies() {
    let app = TestApp::start().await;
    let key = pool_key(&app.acme().await);
    app.device("pos-1").await;
    nothing_waits(&app.database).await;
    let signer = async || {
        app.kv.verified::<PoolDocument>(&app.publisher.root, &key).await.map(|verified| verified.signed_by)
    };
    let listed = async || app.kv.trust(&app.publisher.root).await.unwrap().document.publisher_keys;
    let first = signer().await.unwrap();
    eventually("the next key is listed", async || listed().await.len() == 2).await;
    assert_eq!(signer().await.unwrap(), first, "it only stands");
    let listed_at = "select count(*) from publisher_key where listed_at is not null";
    eventually("both are known to be listed", async || app.database.number(listed_at).await == 2).await;

    app.clock.advance(DAY + Duration::from_secs(1));
    eventually("the next key signs", async || signer().await.is_ok_and(|kid| kid != first)).await;
    let not_first = format!("select count(*) from publication where publisher_kid = '{first}'");
    eventually("everything is signed by it", async || app.database.number(&not_first).await == 0).await;
    for name in app.kv.keys().iter().filter(|name| name.starts_with("v1/client")) {
        let key = name.parse().unwrap();
        let verified = app.kv.verified::<ClientDocument>(&app.publisher.root, &key).await.unwrap();
        assert_ne!(verified.signed_by, first);
    }
    let still_listed = async || listed().await.iter().any(|listed| listed.thumbprint() == first);
    assert!(still_listed().await, "a call with a document of its may still be under way");

    app.clock.advance(Duration::from_secs(91));
    eventually("the first key has left", async || !still_listed().await).await;
    assert!(signer().await.is_ok());
    let forgotten = format!("select count(*) from publisher_key where kid = '{first}'");
    assert_eq!(app.database.number(&forgotten).await, 0, "its private half is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_schedule_of_seconds_keys_turn_over_many_times() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let clock = Arc::new(TestClock::default());
    let settings = PublisherSettings {
        schedule: Schedule { stand: 1, sign: 1 },
        lease: Duration::from_secs(1),
        late_write_window: Duration::from_secs(1),
        ..TestPublisher::settings()
    };
    let publisher = TestPublisher::start_with(&database, &kv, &clock, settings).await;
    let mut signers: Vec<String> = Vec::new();
    eventually("four keys have signed, and the first two have left", async || {
        let kid: Option<String> = sqlx::query_scalar(
            "select kid from publisher_key where signs_since is not null order by signs_since desc limit 1",
        )
        .fetch_optional(&database.pool)
        .await
        .unwrap();
        signers.extend(kid.filter(|kid| signers.last() != Some(kid)));
        let Ok(trust) = kv.trust(&publisher.root).await else { return false };
        let listed: Vec<String> =
            trust.document.publisher_keys.iter().map(|key| key.thumbprint().to_string()).collect();
        signers.len() >= 4 && signers.iter().take(2).all(|kid| !listed.contains(kid))
    })
    .await;
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_written_at_most_once_a_second_and_ends_with_the_last_change() {
    let app = TestApp::start().await;
    let key = pool_key(&app.acme().await);
    let path = "/api/internal/org/acme/env/prod/pool";
    let began = Instant::now();
    for ttl in 100..120 {
        app.call("PATCH", path, Some(json!({"tokenTtlSeconds": ttl}))).await;
    }
    nothing_waits(&app.database).await;
    let document = app.kv.verified::<PoolDocument>(&app.publisher.root, &key).await.unwrap().document;
    assert_eq!(document.token_ttl, 119);
    let name = key.to_string();
    let written: Vec<Instant> =
        app.kv.calls().iter().filter(|call| call.keys.contains(&name)).map(|call| call.at).collect();
    assert!(written.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(990)), "{written:?}");
    let seconds = began.elapsed().as_secs() as usize;
    assert!(written.len() <= seconds + 3, "twenty changes took {} writes in {seconds} s", written.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_during_a_write_is_written_after_it() {
    let app = TestApp::start().await;
    let key = pool_key(&app.acme().await);
    sleep(Duration::from_secs(1)).await;
    app.kv.fail_next([Fault::Stall(300)]);
    let calls = app.kv.calls().len();
    let path = "/api/internal/org/acme/env/prod/pool";
    app.call("PATCH", path, Some(json!({"tokenTtlSeconds": 100}))).await;
    eventually("the write is under way", async || app.kv.calls().len() > calls).await;
    app.call("PATCH", path, Some(json!({"tokenTtlSeconds": 200}))).await;
    nothing_waits(&app.database).await;
    let document = app.kv.verified::<PoolDocument>(&app.publisher.root, &key).await.unwrap().document;
    assert_eq!(document.token_ttl, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_rows_are_gone_is_deleted_and_its_version_goes_on_growing() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    nothing_waits(&app.database).await;
    let name = app.kv.keys().into_iter().find(|name| name.starts_with("v1/client")).unwrap();
    let key: KvKey = name.parse().unwrap();
    let version = app.kv.get(&key).unwrap().metadata.version;

    app.database.execute("delete from oauth_client; delete from device_app").await.unwrap();
    mark(&app.database, &app.clock, std::slice::from_ref(&key), Priority::Revocation).await;
    eventually("it is gone", async || app.kv.get(&key).is_none()).await;
    assert!(app.kv.calls().last().unwrap().delete);
    nothing_waits(&app.database).await;

    let apps = path.trim_end_matches("/client");
    app.create(apps, json!({"clientAppId": "client", "scopes": ["device"]})).await;
    eventually("it is back", async || app.kv.get(&key).is_some()).await;
    assert!(app.kv.get(&key).unwrap().metadata.version > version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_grow_even_if_the_clock_goes_back() {
    let app = TestApp::start().await;
    let key = pool_key(&app.acme().await);
    let ahead = app.clock.now().unix_timestamp_nanos() / 1_000_000 + 3_600_000;
    app.database.execute(&format!("update publication set version = {ahead}")).await.unwrap();
    let path = "/api/internal/org/acme/env/prod/pool";
    app.call("PATCH", path, Some(json!({"tokenTtlSeconds": 100}))).await;
    eventually("it is written", async || {
        let document = app.kv.verified::<PoolDocument>(&app.publisher.root, &key).await.unwrap();
        document.document.token_ttl == 100 && i128::from(document.stamp.version) == ahead + 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_go_before_changes_and_old_marks_before_new_ones() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let clock = Arc::new(TestClock::default());
    for (n, priority) in [(1, Priority::Change), (2, Priority::Change), (3, Priority::Revocation)] {
        mark(&database, &clock, &[nobody(n)], priority).await;
        clock.advance(Duration::from_millis(10));
    }
    let settings = PublisherSettings { batch_size: 1, ..TestPublisher::settings() };
    let publisher = TestPublisher::start_with(&database, &kv, &clock, settings).await;
    nothing_waits(&database).await;
    let order: Vec<String> =
        kv.calls().into_iter().filter(|call| call.delete).flat_map(|call| call.keys).collect();
    assert_eq!(order, [nobody(3), nobody(1), nobody(2)].map(|key| key.to_string()));
    assert_eq!(kv.calls()[0].keys, ["v1/trust"], "nothing is written before there is trust");
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_marks_are_written_in_few_calls_each_within_the_batch_size() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let clock = Arc::new(TestClock::default());
    let keys: Vec<KvKey> = (1..=1200).map(nobody).collect();
    mark(&database, &clock, &keys, Priority::Change).await;
    let publisher = TestPublisher::start(&database, &kv, &clock).await;
    nothing_waits(&database).await;
    let sizes: Vec<usize> =
        kv.calls().iter().filter(|call| call.delete).map(|call| call.keys.len()).collect();
    // The first `v1/trust` may take a place in one of them.
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (3, 1200), "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 500), "{sizes:?}");
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_publishers_share_the_work_and_write_nothing_twice() {
    let database = TestDatabase::create().await;
    let kv = KvServer::start().await;
    let clock = Arc::new(TestClock::default());
    let settings = || PublisherSettings { batch_size: 10, ..TestPublisher::settings() };
    let keys: Vec<KvKey> = (1..=300).map(nobody).collect();
    mark(&database, &clock, &keys, Priority::Change).await;
    let (a, b, c) = tokio::join!(
        TestPublisher::start_with(&database, &kv, &clock, settings()),
        TestPublisher::start_with(&database, &kv, &clock, settings()),
        TestPublisher::start_with(&database, &kv, &clock, settings()),
    );
    nothing_waits(&database).await;
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for key in kv.calls().into_iter().filter(|call| call.delete).flat_map(|call| call.keys) {
        *times.entry(key).or_default() += 1;
    }
    assert_eq!(times.len(), 300);
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    assert_eq!(database.number("select count(*) from publisher_key where signs_since is not null").await, 1);
    tokio::join!(a.stop(), b.stop(), c.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_by_another_process_wakes_the_publisher() {
    let app = TestApp::start().await;
    let key = pool_key(&app.acme().await);
    nothing_waits(&app.database).await;
    app.clock.advance(Duration::from_secs(2));
    let before = app.kv.get(&key).unwrap().metadata.version;
    // No wake() here: as from another process, the notification of the database is all there is.
    mark(&app.database, &app.clock, std::slice::from_ref(&key), Priority::Change).await;
    eventually("it is written", async || app.kv.get(&key).unwrap().metadata.version > before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_finishes_the_call_under_way() {
    let app = TestApp::start().await;
    app.acme().await;
    nothing_waits(&app.database).await;
    sleep(Duration::from_secs(1)).await;
    app.kv.fail_next([Fault::Stall(300)]);
    let calls = app.kv.calls().len();
    app.call("PATCH", "/api/internal/org/acme/env/prod/pool", Some(json!({"tokenTtlSeconds": 77}))).await;
    eventually("the write is under way", async || app.kv.calls().len() > calls).await;
    let TestApp { publisher, database, .. } = app;
    publisher.stop().await;
    let unfinished = "select count(*) from publication where lease_id is not null";
    assert_eq!(database.number(unfinished).await, 0);
    nothing_waits(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_somebody_waits_for_follow_each_other_sooner_until_the_allowance_is_used_up() {
    let database = TestDatabase::create().await;
    let (period, soon) = (Duration::from_secs(28), Duration::from_secs(10));
    let place = async |gap: Duration| {
        let spacing = Spacing { period, gap, allowance: Duration::from_secs(100) };
        let mut connection = database.pool.acquire().await.unwrap();
        let pause = kv_pace::take_place(&mut connection, spacing).await.unwrap();
        let (next, _) = kv_pace::next_places(&mut connection, spacing).await.unwrap();
        assert!(next > pause, "the next one is later");
        drop(connection);
        database.number("select (extract(epoch from next_call_at) * 1000)::bigint from kv_pace").await
    };
    let mut places = Vec::new();
    for gap in [soon, soon, soon, period, soon, soon, soon, soon, soon, soon, period] {
        places.push(place(gap).await);
    }
    let apart: Vec<i64> = places.windows(2).map(|pair| (pair[1] - pair[0] + 500) / 1000).collect();
    // Whoever nobody waits for keeps the period, and nobody pays for what others have used up until it is all used up.
    assert_eq!(apart, [10, 10, 28, 10, 10, 10, 18, 28, 28, 28]);
}
