//! Rate limits: by address, by key, and what an answer says of them.

use std::num::NonZeroU32;

use axum::body::Body;
use axum::http::Request;
use keypost::config::RateLimitConfig;
use keypost::http::PeerAddress;
use keypost_shared::secret::{ApiKey, KeyKind};
use rand_core::OsRng;

use crate::support::{Answer, TestApp};

const SYNC: &str = "/api/internal/sync";

fn limits(per_address: u32, per_key: u32) -> RateLimitConfig {
    let number = |number| NonZeroU32::new(number).unwrap();
    RateLimitConfig { per_address: number(per_address), per_key: number(per_key) }
}

async fn get(app: &TestApp, path: &str, peer: &str, key: &str, forwarded: Option<&str>) -> Answer {
    let request = Request::builder().uri(path).extension(PeerAddress(peer.parse().unwrap()));
    let request = request.header("x-api-key", key);
    let request = match forwarded {
        Some(forwarded) => request.header("x-forwarded-for", forwarded),
        None => request,
    };
    app.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_asks_too_fast_is_told_to_wait_and_others_are_not() {
    let app = TestApp::start_with(&[], limits(3, 1000)).await;
    for left in [2, 1, 0] {
        let answer = get(&app, SYNC, "192.0.2.1", &app.admin, None).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"address\";q=3;w=60, \"key\";q=1000;w=60"));
        let standing = answer.header("ratelimit").unwrap();
        assert!(standing.starts_with(&format!("\"address\";r={left};t=")), "{standing}");
    }
    // On a path that nothing is at, too: whoever looks for one must not go faster.
    for path in [SYNC, "/nowhere"] {
        let refused = get(&app, path, "192.0.2.1", &app.admin, None).await;
        refused.assert_problem(429, "rate_limited");
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=20).contains(&seconds), "{seconds}");
        assert!(refused.header("ratelimit").unwrap().starts_with("\"address\";r=0;t="));
    }
    assert_eq!(get(&app, SYNC, "192.0.2.2", &app.admin, None).await.status, 200);
    for probe in ["/healthz", "/readyz", "/metrics"] {
        let answer = get(&app, probe, "192.0.2.1", &app.admin, None).await;
        assert_eq!(answer.status, 200, "{probe}");
        assert_eq!(answer.header("ratelimit"), None, "{probe}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_household_of_ipv6_counts_as_one_address() {
    let app = TestApp::start_with(&[], limits(2, 1000)).await;
    let statuses = async |peer: &str| get(&app, SYNC, peer, &app.admin, None).await.status.as_u16();
    assert_eq!(statuses("2001:db8::1").await, 200);
    assert_eq!(statuses("2001:db8::2").await, 200);
    assert_eq!(statuses("2001:db8::3").await, 429);
    assert_eq!(statuses("2001:db8:0:1::3").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_proxy_it_is_the_clients_address_that_counts() {
    let app = TestApp::start_with(&["10.0.0.0/8"], limits(1, 1000)).await;
    let status = async |peer: &str, forwarded: &str| {
        get(&app, SYNC, peer, &app.admin, Some(forwarded)).await.status.as_u16()
    };
    assert_eq!(status("10.0.0.1", "198.51.100.1").await, 200);
    assert_eq!(status("10.0.0.1", "198.51.100.2").await, 200);
    assert_eq!(status("10.0.0.1", "198.51.100.1").await, 429);
    // Whoever comes straight is not believed.
    assert_eq!(status("203.0.113.9", "198.51.100.3").await, 200);
    assert_eq!(status("203.0.113.9", "198.51.100.4").await, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_its_own_limit_from_wherever_it_is_used() {
    let app = TestApp::start_with(&[], limits(1000, 2)).await;
    let other = app.key(None, None).await;
    let status = async |peer: &str, key: &str| get(&app, SYNC, peer, key, None).await;
    assert_eq!(status("192.0.2.1", &app.admin).await.status, 200);
    assert_eq!(status("192.0.2.2", &app.admin).await.status, 200);
    let refused = status("192.0.2.3", &app.admin).await;
    refused.assert_problem(429, "rate_limited");
    assert!(refused.header("ratelimit").unwrap().contains("\"key\";r=0;t="));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(status("192.0.2.3", &other).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invented_keys_use_up_nobodys_limit_but_their_address() {
    let app = TestApp::start_with(&[], limits(5, 2)).await;
    for _ in 0..5 {
        let invented = ApiKey::generate(KeyKind::Admin, &mut OsRng);
        let answer = get(&app, SYNC, "192.0.2.66", invented.expose(), None).await;
        assert_eq!(answer.status, 401);
        assert!(!answer.header("ratelimit").unwrap().contains("\"key\""));
    }
    assert_eq!(get(&app, SYNC, "192.0.2.66", &app.admin, None).await.status, 429);
    assert_eq!(get(&app, SYNC, "192.0.2.1", &app.admin, None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_defaults_a_serial_script_meets_no_limit() {
    let app = TestApp::start().await;
    for _ in 0..2000 {
        assert_eq!(app.call("GET", SYNC, None).await.status, 200);
    }
}
