//! Telling the control plane something: after the answer has gone out, or before.

use keypost_shared::edge::{Delivery, LogLevel, LogLine};

use crate::platform::{after_the_answer, header_lines, log};
use crate::shell;

/// How long the control plane may take to answer, in milliseconds.
const PATIENCE: u32 = 10_000;

/// Writes it to KV, where it waits, and then posts it. In this order, because the control plane takes it out of KV again
/// once it has taken it up.
pub(crate) async fn deliver(delivery: Delivery) {
    keep(&delivery).await;
    post(&delivery).await;
}

/// The same while somebody waits for the answer: whether KV or the control plane has it. Once KV has it, the rest goes on
/// by itself.
pub(crate) async fn hand_over(delivery: Delivery) -> bool {
    if !keep(&delivery).await {
        return post(&delivery).await;
    }
    after_the_answer(async move {
        post(&delivery).await;
    });
    true
}

/// Writes it to KV.
async fn keep(delivery: &Delivery) -> bool {
    let outcome = shell::kv_put(&delivery.kv_key, &delivery.kv_value, delivery.kv_ttl).await;
    if let Err(failure) = &outcome {
        warn(delivery, &format!("KV: {}", failure.message));
    }
    outcome.is_ok()
}

/// Posts it to the control plane, where there is one.
async fn post(delivery: &Delivery) -> bool {
    let Some(url) = &delivery.url else { return false };
    let own = delivery.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let headers = header_lines([("x-request-id", delivery.request_id.as_str())].into_iter().chain(own));
    match shell::post(url, &headers, &delivery.body, PATIENCE).await {
        Ok((status, _)) if (200..300).contains(&status) => return true,
        Ok((status, _)) => warn(delivery, &format!("the control plane answered {status}")),
        Err(failure) => warn(delivery, &failure.message),
    }
    false
}

fn warn(delivery: &Delivery, detail: &str) {
    log(LogLine {
        level: LogLevel::Warn,
        request_id: &delivery.request_id,
        event: "report_undelivered",
        detail: &format!("{}: {detail}", delivery.kv_key),
    });
}
