//! Telling the control plane something after the answer has gone out.

use js_sys::{Object, Promise};
use keypost_shared::edge::{Delivery, LogLevel, LogLine};
use wasm_bindgen::prelude::*;
use web_sys::{Headers, RequestInit};

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

/// Writes it to KV, where it waits, and then posts it. In this order, because the control plane takes it out of KV again
/// once it has taken it up.
pub(crate) async fn deliver(kv: KvNamespace, delivery: Delivery) {
    let warn = |detail: String| {
        let line = LogLine {
            level: LogLevel::Warn,
            request_id: &delivery.request_id,
            event: "report_undelivered",
            detail: &detail,
        };
        log(line);
    };
    if let Err(error) = keep(&kv, &delivery).await {
        warn(format!("{}: KV: {}", delivery.kv_key, describe(&error)));
    }
    let Some(url) = &delivery.url else { return };
    match post(url, &delivery).await {
        Ok(status) if (200..300).contains(&status) => {}
        Ok(status) => warn(format!("{}: the control plane answered {status}", delivery.kv_key)),
        Err(error) => warn(format!("{}: {}", delivery.kv_key, describe(&error))),
    }
}

async fn keep(kv: &KvNamespace, delivery: &Delivery) -> Result<(), JsValue> {
    let options = Object::new().unchecked_into::<KvPutOptions>();
    options.set_expiration_ttl(delivery.kv_ttl);
    kv.put(&delivery.kv_key, &delivery.kv_value, &options)?.await?;
    Ok(())
}

async fn post(url: &str, delivery: &Delivery) -> Result<u16, JsValue> {
    let headers = Headers::new()?;
    headers.append("x-request-id", &delivery.request_id)?;
    for (name, value) in &delivery.headers {
        headers.append(name, value)?;
    }
    let init = RequestInit::new();
    init.set_method("POST");
    init.set_headers(&headers);
    init.set_body(&JsValue::from_str(&delivery.body));
    Ok(fetch(url, &init)?.await?.status())
}
