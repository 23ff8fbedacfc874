//! Asking a service that the answer depends on.

use js_sys::{ArrayBuffer, Promise, Uint8Array};
use keypost_shared::edge::{Post, PostError, Posted};
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::*;
use web_sys::{AbortSignal, Headers, RequestInit, RequestRedirect, Response};

use crate::platform::describe;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(catch)]
    pub(crate) fn fetch(url: &str, init: &RequestInit) -> Result<Promise<Response>, JsValue>;
}

/// Posts, and waits for the whole answer no longer than the request says.
pub(crate) async fn post(post: Post<'_>) -> Result<Posted, PostError> {
    exchange(post).await.map_err(|error| {
        let name = error.dyn_ref::<js_sys::Error>().map(|error| String::from(error.name()));
        match name.as_deref() {
            // What AbortSignal.timeout rejects with (DOM §3.1).
            Some("TimeoutError") => PostError::TimedOut,
            _ => PostError::Unreachable(describe(&error)),
        }
    })
}

async fn exchange(post: Post<'_>) -> Result<Posted, JsValue> {
    let headers = Headers::new()?;
    for (name, value) in post.headers {
        headers.append(name, value)?;
    }
    let init = RequestInit::new();
    init.set_method("POST");
    init.set_headers(&headers);
    init.set_body(&JsValue::from_str(post.body));
    // What is signed is signed for this address.
    init.set_redirect(RequestRedirect::Manual);
    init.set_signal(Some(&AbortSignal::timeout_with_u32(post.timeout_ms)));
    let response = fetch(post.url, &init)?.await?;
    let body = response.array_buffer()?.unchecked_into::<Promise<ArrayBuffer>>().await?;
    Ok(Posted { status: response.status(), body: Uint8Array::new(&body).to_vec() })
}
