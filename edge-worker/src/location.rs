//! What a Cloudflare location remembers: its cache, which all isolates there share.

use js_sys::Promise;
use wasm_bindgen::prelude::*;
use web_sys::{Headers, Response, ResponseInit};

#[wasm_bindgen]
extern "C" {
    type Cache;

    #[wasm_bindgen(thread_local_v2, js_namespace = caches, js_name = default)]
    static DEFAULT: Cache;

    #[wasm_bindgen(method, catch, js_name = "match")]
    fn find(this: &Cache, url: &str) -> Result<Promise<Option<Response>>, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn put(this: &Cache, url: &str, response: &Response) -> Result<Promise, JsValue>;
}

/// A cache key is a URL. Nothing is ever fetched from this one: `.invalid` is nobody's (RFC 2606 §2).
fn url(name: &str) -> String {
    format!("https://keypost.invalid/{name}")
}

/// What the location remembers under this name.
pub(crate) async fn recall(name: &str) -> Result<Option<String>, JsValue> {
    match DEFAULT.with(|cache| cache.find(&url(name)))?.await? {
        Some(found) => Ok(found.text()?.await?.as_string()),
        None => Ok(None),
    }
}

/// Makes the location remember a text under a name for some seconds.
pub(crate) async fn remember(name: &str, text: &str, seconds: u32) -> Result<(), JsValue> {
    let headers = Headers::new()?;
    headers.append("cache-control", &format!("max-age={seconds}"))?;
    let init = ResponseInit::new();
    init.set_headers(&headers);
    let response = Response::new_with_opt_str_and_init(Some(text), &init)?;
    DEFAULT.with(|cache| cache.put(&url(name), &response))?.await?;
    Ok(())
}
