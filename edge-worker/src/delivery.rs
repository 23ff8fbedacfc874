//! Telling the control plane something: after the answer has gone out, or before.

use js_sys::{Object, Promise};
use keypost_shared::edge::{Delivery, LogLevel, LogLine};
use wasm_bindgen::prelude::*;
use web_sys::{AbortSignal, Headers, RequestInit};
use worker::Context;

use crate::outbound::fetch;
use crate::platform::{KvNamespace, describe, log};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(method, catch, js_class = "KvNamespace")]
    fn put(this: &KvNamespace, key: &str, value: &str, options: &KvPutOptions) -> Result<Promise, JsValue>;

    #[wasm_bindgen(extends = Object)]
    type KvPutOptions;

    #[wasm_bindgen(method, setter, js_name = expirationTtl)]
    fn set_expiration_ttl(this: &KvPutOptions, seconds: u32);
}

/// How long the control plane may take to answer, in milliseconds.
const PATIENCE: u32 = 10_000;

/// Writes it to KV, where it waits, and then posts it. In this order, because the control plane takes it out of KV again
/// once it has taken it up.
pub(crate) async fn deliver(kv: KvNamespace, delivery: Delivery) {
    keep(&kv, &delivery).await;
    post(&delivery).await;
}

/// The same while somebody waits for the answer: whether KV or the control plane has it. Once KV has it, the rest goes on
/// by itself.
pub(crate) async fn hand_over(kv: KvNamespace, context: &Context, delivery: Delivery) -> bool {
    if !keep(&kv, &delivery).await {
        return post(&delivery).await;
    }
    context.wait_until(async move {
        post(&delivery).await;
    });
    true
}

/// Writes it to KV.
async fn keep(kv: &KvNamespace, delivery: &Delivery) -> bool {
    let put = async {
        let options = Object::new().unchecked_into::<KvPutOptions>();
        options.set_expiration_ttl(delivery.kv_ttl);
        kv.put(&delivery.kv_key, &delivery.kv_value, &options)?.await
    };
    let outcome = put.await;
    if let Err(error) = &outcome {
        warn(delivery, &format!("KV: {}", describe(error)));
    }
    outcome.is_ok()
}

/// Posts it to the control plane, where there is one.
async fn post(delivery: &Delivery) -> bool {
    let Some(url) = &delivery.url else { return false };
    match send(url, delivery).await {
        Ok(status) if (200..300).contains(&status) => return true,
        Ok(status) => warn(delivery, &format!("the control plane answered {status}")),
        Err(error) => warn(delivery, &describe(&error)),
    }
    false
}

async fn send(url: &str, delivery: &Delivery) -> Result<u16, JsValue> {
    let headers = Headers::new()?;
    headers.append("x-request-id", &delivery.request_id)?;
    for (name, value) in &delivery.headers {
        headers.append(name, value)?;
    }
    let init = RequestInit::new();
    init.set_method("POST");
    init.set_headers(&headers);
    init.set_body(&JsValue::from_str(&delivery.body));
    init.set_signal(Some(&AbortSignal::timeout_with_u32(PATIENCE)));
    Ok(fetch(url, &init)?.await?.status())
}

fn warn(delivery: &Delivery, detail: &str) {
    log(LogLine {
        level: LogLevel::Warn,
        request_id: &delivery.request_id,
        event: "report_undelivered",
        detail: &format!("{}: {detail}", delivery.kv_key),
    });
}
