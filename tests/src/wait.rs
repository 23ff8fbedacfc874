//! Waiting for a condition, with a deadline: never for a length of time.

use std::future::Future;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Asks `probe` until it gives a value; panics with what it said last once `limit` is over.
pub async fn until<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        let last = match probe().await {
            Ok(value) => return value,
            Err(last) => last,
        };
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}; the last answer: {last}");
        tokio::time::sleep(POLL).await;
    }
}
