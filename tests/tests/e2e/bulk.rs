//! Fleets of a size: everything marked at once drains in large calls at KV's pace, and the memory that takes does not grow
//! with the fleet; a publisher key that takes over has everything signed anew within its time.
//!
//! `cargo xtask test` runs them small; `--long` with a million keys, and 100,000. Figures count with a release build, which
//! `KEYPOST_TEST_BINARY` names.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use keypost_tests::admin::Fleet;
use keypost_tests::lone_control_plane::LoneControlPlane;
use keypost_tests::stack::{database, is_long};
use keypost_tests::wait;
use kv_stand_in::{Limits, Options};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// How long a fleet may take to be written.
const DRAINED: Duration = Duration::from_secs(1_800);

struct Bulk {
    plane: LoneControlPlane,
    fleet: Fleet,
    database: PgConnection,
}

impl Bulk {
    /// A control plane whose database has an environment with so many devices, each with an app and a secret, of which
    /// nothing has been marked yet.
    async fn start(name: &str, devices: usize) -> Self {
        let url = database(&format!("e2e_{}", name.replace('-', "_"))).await;
        let stand_in = Options {
            keep_values: false,
            keep_calls: false,
            limits: Limits::default(),
            ..Options::default()
        };
        let mut plane = LoneControlPlane::new(name, 1, url.clone(), None, stand_in).await;
        if let Some(binary) = std::env::var_os("KEYPOST_TEST_BINARY") {
            plane.options.binary = PathBuf::from(binary);
        }
        plane.start_all().await;
        let fleet = plane.admin(0).fleet(name).await;
        let mut database = PgConnection::connect(&url).await.unwrap();
        let fill = format!(
            "insert into device (org_id, env_id, id, name, metadata, tags, server_urls, status, created_at, updated_at)
             select '{name}', 'production', 'pos-' || n, 'Till ' || n, json_build_object('location', 'checkout-' || n % 40),
                    '{{}}', '{{https://pos.example.com}}', 'active', now(), now()
               from generate_series(1, {devices}) as n;
             insert into device_app (id, org_id, env_id, device_id, client_app_id, created_at, updated_at)
             select gen_random_uuid(), org_id, env_id, id, 'client', now(), now() from device where org_id = '{name}';
             insert into oauth_client (client_id, org_id, env_id, pool_id, device_app_id, name, scopes, status, secret_hash,
                                       secret_created_at, created_at, updated_at)
             select a.id::text, a.org_id, a.env_id, p.id, a.id, 'client', '{{device}}', 'enabled',
                    sha256(a.id::text::bytea), now(), now(), now()
               from device_app a join client_pool p on p.org_id = a.org_id and p.env_id = a.env_id
              where a.org_id = '{name}';
             analyze"
        );
        sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut database).await.unwrap();
        Self { plane, fleet, database }
    }

    /// Marks the documents of all clients, and of all devices too if asked.
    async fn mark(&mut self, devices_too: bool) {
        let pool = self.fleet.pool();
        let insert =
            "insert into publication (key, pool_id, generation, published_generation, priority, marked_at)";
        let mut mark = format!(
            "{insert} select 'v1/client/' || pool_id || '/' || client_id, pool_id, 1, 0, 2, now()
               from oauth_client where pool_id = '{pool}';"
        );
        if devices_too {
            mark += &format!(
                "{insert} select 'v1/device/{pool}/' || id, '{pool}', 1, 0, 2, now() from device where org_id = '{}';",
                self.fleet.environment["orgId"].as_str().unwrap()
            );
        }
        sqlx::raw_sql(AssertSqlSafe(mark)).execute(&mut self.database).await.unwrap();
    }

    async fn count(&mut self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut self.database).await.unwrap()
    }

    /// Waits until nothing waits to be published. Answers with how long that took, and with the memory of the control
    /// plane (MiB) at each look.
    async fn drained(&mut self) -> (Duration, Vec<u64>) {
        let started = Instant::now();
        let pid = self.plane.running[0].as_mut().unwrap().process().pid();
        let mut memory = Vec::new();
        while self.count("select count(*) from publication where generation > published_generation").await > 0
        {
            assert!(started.elapsed() < DRAINED, "it takes too long");
            memory.push(resident_mebibytes(pid));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        (started.elapsed(), memory)
    }
}

/// The memory that a process holds.
fn resident_mebibytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse().map_or(0, |kibibytes: u64| kibibytes / 1024)
}

#[expect(clippy::print_stderr, reason = "whoever asks for the long tests wants the figures")]
fn tell(text: &str) {
    eprintln!("{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_marked_keys_drain_in_large_calls_within_the_rates_and_in_bounded_memory() {
    let keys = if is_long() { 1_000_000 } else { 6_000 };
    let mut bulk = Bulk::start("bulk-drain", keys / 2).await;
    let before = bulk.plane.kv.report();
    bulk.mark(true).await;
    let (took, memory) = bulk.drained().await;
    let report = bulk.plane.kv.report();
    let calls = report.writes - before.writes;
    let most = memory.iter().copied().max().unwrap_or(0);
    let early = memory.iter().take(memory.len() / 4).copied().max().unwrap_or(most);
    tell(&format!(
        "{keys} keys: {took:?}, {calls} calls, at most {} in ten seconds; {most} MiB at most, {early} in the first quarter",
        report.most_calls_in_ten_seconds
    ));
    // Each once, and the status lists that begin when a client gets a place in them, with their pool.
    let written = report.keys - before.keys;
    assert!((keys..=keys + 40).contains(&written), "{written} keys");
    assert!(calls <= keys / 10_000 + 8, "{calls} calls");
    assert!(
        report.most_calls_in_ten_seconds <= 40,
        "{} calls in ten seconds",
        report.most_calls_in_ten_seconds
    );
    assert_eq!(report.exceeded, [""; 0]);
    assert!(report.older_over_newer.is_empty() && report.not_the_newest.is_empty());
    assert!(!is_long() || most <= early + early / 2, "it grew from {early} to {most} MiB");
    let verified =
        keypost_tests::lone_control_plane::run_job_within(&bulk.fleet.admin, "verify", DRAINED).await;
    tell(&format!("verified: {verified}"));
    assert_eq!(verified["marked"], 0, "{verified}");
    assert!(verified["checked"].as_u64().unwrap() >= keys as u64, "{verified}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_publisher_key_takes_over_a_hundred_thousand_records_are_signed_anew_and_changes_overtake_them()
 {
    let clients = if is_long() { 100_000 } else { 3_000 };
    let mut bulk = Bulk::start("bulk-resign", clients).await;
    bulk.mark(false).await;
    bulk.drained().await;
    let signer =
        "select kid from publisher_key where signs_since is not null order by signs_since desc limit 1";
    let old: String = sqlx::query_scalar(signer).fetch_one(&mut bulk.database).await.unwrap();
    // As if two days had passed.
    let age = "update publisher_key set listed_at = listed_at - interval '2 days', signs_since = signs_since - interval '2 days'";
    sqlx::query(age).execute(&mut bulk.database).await.unwrap();
    let started = Instant::now();
    let left = format!("select count(*) from publication where publisher_kid = '{old}'");
    let total = bulk.count(&left).await;
    assert!(total >= clients as i64);
    while bulk.count(&left).await > total * 3 / 4 {
        assert!(started.elapsed() < DRAINED, "it takes too long");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A change in the middle of it does not wait for its end.
    let changed = Instant::now();
    let path = format!("{}/pool", bulk.fleet.path);
    let key = format!("v1/pool/{}", bulk.fleet.pool());
    let before = bulk.plane.kv.get(&key).unwrap();
    bulk.fleet.admin.patch(&path, serde_json::json!({"tokenTtlSeconds": 77})).await;
    let digest = before.metadata["digest"].clone();
    wait::until("the change", Duration::from_secs(30), || async {
        let now = bulk.plane.kv.get(&key).unwrap();
        if now.metadata["digest"] != digest { Ok(()) } else { Err(now.metadata.to_string()) }
    })
    .await;
    let change_took = changed.elapsed();
    while bulk.count(&left).await > 0 {
        assert!(started.elapsed() < DRAINED, "it takes too long");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = started.elapsed();
    tell(&format!("{total} documents signed anew in {took:?}; a change meanwhile took {change_took:?}"));
    assert!(!is_long() || took < Duration::from_secs(60), "{took:?}");
    let report = bulk.plane.kv.report();
    assert!(report.most_calls_in_ten_seconds <= 40 && report.exceeded.is_empty(), "{report:?}");
    assert!(report.older_over_newer.is_empty() && report.not_the_newest.is_empty());
}
