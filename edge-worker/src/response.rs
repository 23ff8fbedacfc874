//! Handing the core's answer to JavaScript.

use js_sys::Uint8Array;
use keypost_shared::edge::Response;
use wasm_bindgen::JsValue;
use web_sys::{Headers, ResponseInit};

/// The answer as a JavaScript `Response`.
pub(crate) fn into_js(response: Response) -> Result<web_sys::Response, JsValue> {
    let headers = Headers::new()?;
    for (name, value) in &response.headers {
        headers.append(name, value)?;
    }
    let init = ResponseInit::new();
    init.set_status(response.status);
    init.set_headers(&headers);
    // A copy, because a view would be of this program's memory while the answer is still being sent. No body at all
    // where there is none: 204 and 304 must not have even an empty one.
    let body = (!response.body.is_empty()).then(|| Uint8Array::from(response.body.as_slice()));
    web_sys::Response::new_with_opt_js_u8_array_and_init(body.as_ref(), &init)
}
