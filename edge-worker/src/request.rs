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

    #[wasm_bindgen(extends = Object)]
    type ReadOptions;

    #[wasm_bindgen(method, setter)]
    fn set_min(this: &ReadOptions, bytes: u32);

    type ReadResult;

    #[wasm_bindgen(method, getter)]
    fn value(this: &ReadResult) -> Option<Uint8Array>;
}

/// How much room is made for a body at a time: all of a usual one at once, and never much more than the client has
/// really sent, so that many who send slowly cannot fill the isolate's memory.
const CHUNK: u32 = 16 * 1024;

/// Reads a body until it ends, or until it has more than it said or than any may have.
async fn read_body(
    content_length: Option<String>,
    stream: Option<ReadableStream>,
) -> Result<ReceivedBody, JsValue> {
    let Some(stream) = stream else { return Ok(ReceivedBody::Complete(Vec::new())) };
    let Some(limit) = body_limit(content_length.as_deref()) else { return Ok(ReceivedBody::TooLarge) };
    let reader = ByobReader::new(&stream)?;
    let options = Object::new().unchecked_into::<ReadOptions>();
    let mut body = Vec::new();
    loop {
        // One byte more than there may be, so that the end shows in the same read.
        let room = u32::try_from(limit + 1 - body.len()).unwrap_or(CHUNK).min(CHUNK);
        options.set_min(room);
        let result = reader.read(&Uint8Array::new_with_length(room), &options)?.await?;
        let Some(bytes) = result.value() else { return Ok(ReceivedBody::Complete(body)) };
        body.append(&mut bytes.to_vec());
        if body.len() > limit {
            return Ok(ReceivedBody::TooLarge);
        }
        if bytes.length() < room {
            return Ok(ReceivedBody::Complete(body));
        }
    }
}

/// The most bytes that a body may turn out to have: what it says to have, else what any may have. `None` for one that
/// says to be too large: it is not read at all.
fn body_limit(content_length: Option<&str>) -> Option<usize> {
    match content_length {
        None => Some(MAX_BODY),
        Some(text) => text.trim().parse().ok().filter(|length| *length <= MAX_BODY),
    }
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
    fn a_body_that_says_to_be_too_large_is_not_read() {
        assert_eq!(body_limit(None), Some(MAX_BODY));
        assert_eq!(body_limit(Some("0")), Some(0));
        assert_eq!(body_limit(Some("17")), Some(17));
        assert_eq!(body_limit(Some(&MAX_BODY.to_string())), Some(MAX_BODY));
        for refused in [&(MAX_BODY + 1).to_string(), "99999999999999999999999", "-1", "x", "", "1, 1"] {
            assert_eq!(body_limit(Some(refused)), None, "{refused}");
        }
    }
}
