//! Traces reach a collector, and one that is away is nobody's problem.

use std::time::Duration;

use keypost_shared::secret::{ApiKey, KeyKind};
use rand_core::OsRng;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::{Collector, KvServer, Serving, Stopped, TestDatabase, eventually, keypost};

const TRACE_ID: [u8; 16] =
    [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36];
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn serve(database: &TestDatabase, kv: &KvServer, admin: &str, collector: &str) -> Serving {
    let mut command = keypost(database, kv, &["serve"]);
    command
        .env("KEYPOST_LOG", "json,info")
        .env("KEYPOST_ADMIN_API_KEY", admin)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
    Serving::start(command).await
}

async fn create_acme(serving: &Serving, admin: &str) {
    let answer = reqwest::Client::new()
        .post(serving.url("/api/internal/org"))
        .header("x-api-key", admin)
        .header("traceparent", TRACEPARENT)
        .header("x-request-id", "the-request-id")
        .json(&json!({"id": "acme-stores", "name": "Acme"}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_what_it_asked_the_database_is_in_the_callers_trace() {
    let (database, kv) = (TestDatabase::create().await, KvServer::start().await);
    let admin = ApiKey::generate(KeyKind::Admin, &mut OsRng).expose().to_owned();
    let collector = Collector::default();
    let serving = serve(&database, &kv, &admin, &collector.start().await).await;
    create_acme(&serving, &admin).await;
    eventually("trust is published", async || !kv.keys().is_empty()).await;
    let Stopped { log, .. } = serving.stop().await;

    assert!(collector.has(&TRACE_ID), "the caller's trace goes on");
    for text in ["POST /api/internal/org", "the-request-id", "insert into organization", "KV put", "keypost"]
    {
        assert!(collector.has(text.as_bytes()), "{text}");
    }
    assert!(collector.received().iter().all(|call| call.content_type == "application/x-protobuf"));
    // Neither the key nor what was sent is in a trace, and the log has nothing of the traces.
    assert!(!collector.has(admin.as_bytes()) && !collector.has(b"acme-stores"));
    assert!(!log.contains("keypost_traces"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_or_never_answers_slows_nothing_and_delays_no_stop() {
    let admin = ApiKey::generate(KeyKind::Admin, &mut OsRng).expose().to_owned();
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for collector in [silent.local_addr().unwrap(), away] {
        let (database, kv) = (TestDatabase::create().await, KvServer::start().await);
        let serving = serve(&database, &kv, &admin, &format!("http://{collector}")).await;
        let started = Instant::now();
        create_acme(&serving, &admin).await;
        let slow = started.elapsed();
        let Stopped { log, took, .. } = serving.stop().await;
        // Who waited for the collector would wait for 10 s each time.
        assert!(slow < Duration::from_secs(8) && took < Duration::from_secs(8), "{slow:?}, {took:?}");
        assert!(
            log.contains("the last traces could not be sent") || log.contains("cannot be reached"),
            "{log}"
        );
    }
}
