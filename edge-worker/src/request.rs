//! Reading a request: the parts of it that the core looks at, and the body of a POST up to a hard cap.

use js_sys::{Object, Promise, Uint8Array};
use keypost_shared::edge::{Body, Headers, MAX_BODY, Request};
use wasm_bindgen::prelude::*;
use web_sys::ReadableStream;

/// A request, copied out of JavaScript once.
pub(crate) struct ReceivedRequest {
    method: String,
    url: String,
    authorization: Option<String>,
    content_type: Option<String>,
    if_none_match: Option<String>,
    origin: Option<String>,
    request_id: Option<String>,
    body: ReceivedBody,
}

enum ReceivedBody {
    Complete(Vec<u8>),
    TooLarge,
}

impl ReceivedRequest {
    /// Takes out of the request what the core reads. Fails where the body breaks off, so that there is nobody left to
    /// answer.
    pub(crate) async fn read(request: &web_sys::Request) -> Result<Self, JsValue> {
        let headers = request.headers();
        let method = request.method();
        let body = match method.as_str() {
            "POST" => read_body(headers.get("content-length")?, request.body()).await?,
            // No other method's body means anything here.
            _ => ReceivedBody::Complete(Vec::new()),
        };
        Ok(Self {
            method,
            url: request.url(),
            authorization: headers.get("authorization")?,
            content_type: headers.get("content-type")?,
            if_none_match: headers.get("if-none-match")?,
            origin: headers.get("origin")?,
            request_id: headers.get("x-request-id")?,
            body,
        })
    }

    /// The request as the core takes it.
    pub(crate) fn as_request(&self) -> Request<'_> {
        let (path, query) = path_and_query(&self.url);
        Request {
            method: &self.method,
            path,
            query,
            headers: Headers {
                authorization: self.authorization.as_deref(),
                content_type: self.content_type.as_deref(),
                if_none_match: self.if_none_match.as_deref(),
                origin: self.origin.as_deref(),
                request_id: self.request_id.as_deref(),
            },
            body: match &self.body {
                ReceivedBody::Complete(bytes) => Body::Complete(bytes),
                ReceivedBody::TooLarge => Body::TooLarge,
            },
        }
    }
}

/// The path and the query, as they stand in an absolute URL.
fn path_and_query(url: &str) -> (&str, &str) {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let without_fragment = after_scheme.split_once('#').map_or(after_scheme, |(before, _)| before);
    let (before_query, query) = without_fragment.split_once('?').unwrap_or((without_fragment, ""));
    let path = before_query.find('/').and_then(|start| before_query.get(start..)).unwrap_or("/");
    (path, query)
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = ReadableStreamBYOBReader)]
    type ByobReader;

    #[wasm_bindgen(constructor, catch, js_class = "ReadableStreamBYOBReader")]
    fn new(stream: &ReadableStream) -> Result<ByobReader, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn read(
        this: &ByobReader,
        view: &Uint8Array,
        options: &ReadOptions,
    ) -> Result<Promise<ReadResult>, JsValue>;

    #[wasm_bindgen(extends = Object, typescript_type = "ReadableStreamBYOBReaderReadOptions")]
    type ReadOptions;

    #[wasm_bindgen(method, setter)]
    fn set_min(this: &ReadOptions, bytes: u32);

    type ReadResult;

    #[wasm_bindgen(method, getter)]
    fn value(this: &ReadResult) -> Option<Uint8Array>;
}

/// Reads a body in one go: into a buffer that is one byte longer than the body may be, until that is full (then there
/// is too much) or the body ends.
async fn read_body(
    content_length: Option<String>,
    stream: Option<ReadableStream>,
) -> Result<ReceivedBody, JsValue> {
    let Some(stream) = stream else { return Ok(ReceivedBody::Complete(Vec::new())) };
    let Some(room) = body_room(content_length.as_deref()) else { return Ok(ReceivedBody::TooLarge) };
    let options = Object::new().unchecked_into::<ReadOptions>();
    options.set_min(room);
    let result = ByobReader::new(&stream)?.read(&Uint8Array::new_with_length(room), &options)?.await?;
    Ok(match result.value() {
        Some(bytes) if bytes.length() == room => ReceivedBody::TooLarge,
        Some(bytes) => ReceivedBody::Complete(bytes.to_vec()),
        None => ReceivedBody::Complete(Vec::new()),
    })
}

/// How much room to make for a body: one byte more than it says that it has, or, where it does not say, than any may
/// have. `None` for one that says to be too large: it is not read at all.
fn body_room(content_length: Option<&str>) -> Option<u32> {
    let cap = u32::try_from(MAX_BODY).ok()?;
    let length = match content_length {
        None => cap,
        Some(text) => text.trim().parse().ok().filter(|length| *length <= cap)?,
    };
    Some(length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_are_taken_as_they_were_sent() {
        for (url, path, query) in [
            ("https://edge.example/a/oauth2/token", "/a/oauth2/token", ""),
            ("https://edge.example/a%2Fb/../c?x=%20&y=?#z", "/a%2Fb/../c", "x=%20&y=?"),
            ("http://127.0.0.1:8787/", "/", ""),
            ("http://127.0.0.1:8787", "/", ""),
            ("http://h?q=/x", "/", "q=/x"),
            ("", "/", ""),
        ] {
            assert_eq!(path_and_query(url), (path, query), "{url}");
        }
    }

    #[test]
    fn room_is_made_for_what_a_body_may_have_and_no_more() {
        let cap = MAX_BODY as u32;
        assert_eq!(body_room(None), Some(cap + 1));
        assert_eq!(body_room(Some("0")), Some(1));
        assert_eq!(body_room(Some("17")), Some(18));
        assert_eq!(body_room(Some(&cap.to_string())), Some(cap + 1));
        for refused in [&(cap + 1).to_string(), "99999999999999999999999", "-1", "x", "", "1, 1"] {
            assert_eq!(body_room(Some(refused)), None, "{refused}");
        }
    }
}
