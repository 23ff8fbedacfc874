//! What nobody needs any more is removed, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use keypost::entropy::SystemEntropy;
use keypost::housekeeping::{Housekeeping, Run};
use keypost::service::audit::{ChainedEvent, event_hash};
use serde_json::json;
use sqlx::{Connection, Row};
use tokio_util::sync::CancellationToken;

use crate::support::TestApp;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn housekeeping(app: &TestApp, retention_days: Option<i64>) -> Housekeeping {
    Housekeeping {
        db: app.database.pool.clone(),
        clock: app.clock.clone(),
        entropy: Arc::new(SystemEntropy),
        metrics: app.context.metrics.clone(),
        audit_retention: retention_days.map(time::Duration::days),
    }
}

/// Runs it once. Answers with how many rows of each kind it removed.
pub(crate) async fn run(app: &TestApp, retention_days: Option<i64>) -> Vec<(&'static str, u64)> {
    match housekeeping(app, retention_days).run(&CancellationToken::new()).await.unwrap() {
        Run::Done(purged) => purged.into_iter().filter(|(_, rows)| *rows > 0).collect(),
        other => panic!("{other:?}"),
    }
}

/// Checks the chain of `acme`'s events from where it was purged to its end. Answers with the places that are left.
async fn checked_chain(app: &TestApp) -> Vec<i64> {
    let head =
        sqlx::query("select seq, hash, purged_seq, purged_hash from audit_chain where org_id = 'acme'")
            .fetch_one(&app.database.pool)
            .await
            .unwrap();
    let mut seq: i64 = head.get("purged_seq");
    let mut before: [u8; 32] = head.get::<Vec<u8>, _>("purged_hash").try_into().unwrap();
    let rows =
        sqlx::query("select *, changes::text as text from audit_event where org_id = 'acme' order by seq")
            .fetch_all(&app.database.pool)
            .await
            .unwrap();
    for row in &rows {
        let event = ChainedEvent {
            chain: "acme".to_owned(),
            seq: row.get("seq"),
            occurred_at: row.get("occurred_at"),
            actor_kind: row.get("actor_kind"),
            actor_id: row.get("actor_id"),
            actor_name: row.get("actor_name"),
            action: row.get("action"),
            target_kind: row.get("target_kind"),
            target_id: row.get("target_id"),
            env_id: row.get("env_id"),
            changes: row.get("text"),
            address: row.get("address"),
            request_id: row.get("request_id"),
        };
        assert_eq!(event.seq, seq + 1, "no event is missing");
        assert_eq!(event_hash(&before, &event).as_slice(), row.get::<Vec<u8>, _>("hash"), "none was altered");
        seq = event.seq;
        before = event_hash(&before, &event);
    }
    assert_eq!((seq, before.to_vec()), (head.get("seq"), head.get("hash")), "the end is where it was");
    rows.iter().map(|row| row.get("seq")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_time_passwords_go_a_day_after_their_end() {
    let app = TestApp::start().await;
    app.acme().await;
    let (first, second) = (app.device("pos-1").await, app.device("pos-2").await);
    app.otp(&first).await;
    app.clock.advance(DAY);
    assert_eq!(run(&app, None).await, []);
    let good = app.otp(&second).await;
    app.clock.advance(Duration::from_secs(16 * 60));
    assert_eq!(run(&app, None).await, [("otps", 1)]);
    assert_eq!(app.database.number("select count(*) from otp").await, 1);
    assert_eq!(
        app.activate(json!({"otp": good})).await.status,
        400,
        "it has expired, and is told so like before"
    );
    assert_eq!(
        app.activate(json!({"otp": app.otp(&first).await})).await.status,
        200,
        "a new one takes its place"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_before_the_current_ones_are_forgotten_once_they_no_longer_count() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await;
    for _ in 0..2 {
        let otp = app.otp(&path).await;
        assert_eq!(app.activate(json!({"otp": otp})).await.status, 200);
    }
    app.key(Some("acme"), None).await;
    let rotated = "update api_key set previous_key_hash = sha256(prefix::bytea), previous_expires_at = now() + interval '9 minutes'";
    app.database.execute(rotated).await.unwrap();
    app.clock.advance(Duration::from_secs(8 * 60));
    assert_eq!(run(&app, None).await, []);
    app.clock.advance(Duration::from_secs(3 * 60));
    assert_eq!(run(&app, None).await, [("previous_client_secrets", 1), ("previous_api_keys", 1)]);
    let left = "select (select count(*) from oauth_client where previous_secret_hash is not null)
                     + (select count(*) from api_key where previous_key_hash is not null and org_id is not null)";
    assert_eq!(app.database.number(left).await, 0);
    let current = "select count(*) from oauth_client where secret_hash is not null";
    assert_eq!(app.database.number(current).await, 1);
    assert_eq!(app.call("GET", "/api/internal/org/acme", None).await.status, 200, "the key itself goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_answers_go_after_their_day() {
    let app = TestApp::start().await;
    let create = async |id: &str| {
        let request = Request::builder()
            .method("POST")
            .uri("/api/internal/org")
            .header("x-api-key", &app.admin)
            .header("idempotency-key", "the-first-organization")
            .header("content-type", "application/json")
            .body(Body::from(json!({"id": id, "name": "Acme"}).to_string()));
        app.send(request.unwrap()).await.status.as_u16()
    };
    assert_eq!([create("acme").await, create("acme").await, create("other").await], [201, 201, 422]);
    app.clock.advance(24 * HOUR);
    assert_eq!(run(&app, None).await, []);
    app.clock.advance(2 * HOUR);
    assert_eq!(run(&app, None).await, [("idempotency", 1)]);
    assert_eq!(create("other").await, 201, "the key can be used anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_events_are_kept_for_ever_or_as_long_as_was_asked_for_and_what_is_left_can_be_checked() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    let before = checked_chain(&app).await;
    assert!(before.len() >= 3, "{before:?}");
    app.clock.advance(31 * DAY);
    assert_eq!(run(&app, None).await, []);
    app.device("pos-2").await;
    let purged = run(&app, Some(30)).await;
    // There may be more of them in the chain of what belongs to no organization.
    assert!(matches!(purged[..], [("audit_events", rows)] if rows >= before.len() as u64), "{purged:?}");
    let after = checked_chain(&app).await;
    assert_eq!(after.first(), Some(&(before.len() as i64 + 1)), "{after:?}");

    // All of it is old: the chain is empty, and goes on all the same.
    app.clock.advance(31 * DAY);
    run(&app, Some(30)).await;
    assert!(checked_chain(&app).await.is_empty());
    app.device("pos-3").await;
    assert_eq!(checked_chain(&app).await.first(), after.last().map(|last| last + 1).as_ref());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_was_tampered_with_is_evidence_and_stays() {
    for tampering in [
        "delete from audit_event where org_id = 'acme' and seq = 2",
        "update audit_event set actor_id = 'somebody else' where org_id = 'acme' and seq = 2",
        "update audit_chain set purged_seq = 2, purged_hash = sha256('x') where org_id = 'acme'",
    ] {
        let app = TestApp::start().await;
        app.acme().await;
        app.device("pos-1").await;
        app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
        assert_eq!(app.database.execute(tampering).await.unwrap(), 1);
        let count = async |org: &str| {
            app.database.number(&format!("select count(*) from audit_event where org_id = '{org}'")).await
        };
        let before = count("acme").await;
        app.clock.advance(31 * DAY);
        run(&app, Some(30)).await;
        assert_eq!(count("acme").await, before, "{tampering}");
        assert_eq!(count("other").await, 0, "another's chain is none the worse for it");
        let metrics = app.call("GET", "/metrics", None).await.text;
        assert!(
            metrics.contains("keypost_housekeeping_runs_total{outcome=\"broken_audit_chain\"} 1"),
            "{metrics}"
        );
    }
}

/// More one-time passwords than go in a batch, all of them expired long ago.
async fn many_expired(app: &TestApp) {
    app.acme().await;
    for statement in [
        "insert into device (org_id, env_id, id, name, metadata, tags, server_urls, status, created_at, updated_at)
         select 'acme', 'prod', 'd' || n, 'Till', '{}', '{}', '{}', 'registered', now(), now()
           from generate_series(1, 1200) n",
        "insert into device_app (id, org_id, env_id, device_id, client_app_id, created_at, updated_at)
         select gen_random_uuid(), 'acme', 'prod', 'd' || n, 'client', now(), now() from generate_series(1, 1200) n",
        "insert into otp (device_app_id, org_id, code_hmac, created_at, expires_at, wrong_tries)
         select id, 'acme', sha256(id::text::bytea), now() - interval '9 days', now() - interval '9 days', 0
           from device_app",
    ] {
        assert_eq!(app.database.execute(statement).await.unwrap(), 1200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_in_batches_and_stops_between_two_of_them() {
    let app = TestApp::start().await;
    many_expired(&app).await;
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(housekeeping(&app, None).run(&stop).await.unwrap(), Run::Stopped);
    assert_eq!(app.database.number("select count(*) from otp").await, 700, "one batch");
    assert_eq!(run(&app, None).await, [("otps", 700)], "it goes on where it was");
    let metrics = app.call("GET", "/metrics", None).await.text;
    assert!(metrics.contains("keypost_housekeeping_purged_total{kind=\"otps\"} 1200"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_request_holds_is_left_for_the_next_time_and_nobody_waits() {
    let app = TestApp::start().await;
    many_expired(&app).await;
    let mut request = app.database.pool.begin().await.unwrap();
    sqlx::query("select from otp order by expires_at limit 10 for update")
        .execute(&mut *request)
        .await
        .unwrap();
    assert_eq!(run(&app, None).await, [("otps", 1190)]);
    request.commit().await.unwrap();
    assert_eq!(run(&app, None).await, [("otps", 10)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_control_plane_at_a_time_is_about_it() {
    let app = TestApp::start().await;
    many_expired(&app).await;
    let mut other = sqlx::PgConnection::connect_with(&app.database.pool.connect_options()).await.unwrap();
    sqlx::query("select pg_advisory_lock($1)").bind(0x6b70_0004_i64).execute(&mut other).await.unwrap();
    let stop = CancellationToken::new();
    assert_eq!(housekeeping(&app, None).run(&stop).await.unwrap(), Run::Elsewhere);
    assert_eq!(app.database.number("select count(*) from otp").await, 1200);
    // It died half-way: its connection ends, and its lock with it.
    drop(other);
    let mut runs = Vec::new();
    crate::support::eventually("the lock is free", async || {
        runs.push(housekeeping(&app, None).run(&stop).await.unwrap());
        runs.last() != Some(&Run::Elsewhere)
    })
    .await;
    assert_eq!(app.database.number("select count(*) from otp").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_at_once_when_told_to() {
    let app = TestApp::start().await;
    let running = housekeeping(&app, None).start();
    tokio::time::timeout(Duration::from_secs(60), running.stop()).await.expect("it stops");
}
