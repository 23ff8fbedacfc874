//! Requests and answers as the core sees them: only what matters of HTTP, so that the shell has little to convert.

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

/// A request. The shell hands over the headers that the core reads, and the body of a POST.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The URL's path as it was sent, still percent-encoded.
    pub path: &'a str,
    /// The URL's query without `?`; empty where there is none.
    pub query: &'a str,
    /// The headers that the core reads.
    pub headers: Headers<'a>,
    /// The body; empty where there is none.
    pub body: Body<'a>,
}

/// The headers that the core reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `X-Request-Id`.
    pub request_id: Option<&'a str>,
}

/// A request's body.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// All of it.
    Complete(&'a [u8]),
    /// More than [`MAX_BODY`] bytes: the shell stopped reading.
    TooLarge,
}

impl std::fmt::Debug for Body<'_> {
    /// Shows the length alone: bodies hold credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Body::Complete(bytes) => write!(f, "Complete({} bytes)", bytes.len()),
            Body::TooLarge => f.write_str("TooLarge"),
        }
    }
}

/// The most that a request's body may have, in bytes: an assertion with six RSA-4096 certificates has some 15 KiB.
pub const MAX_BODY: usize = 128 * 1024;

/// An answer. Header names are lower-case and come at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, all but `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty for 204, 304 and whatever `HEAD` asked for.
    pub body: Vec<u8>,
}

impl Response {
    /// JSON that no cache may keep: tokens, errors, and whatever else is one client's business (RFC 6749 §5.1).
    pub(super) fn secret_json(status: u16, body: Vec<u8>) -> Self {
        let mut headers = Vec::with_capacity(SECRET_JSON.len() + 1);
        headers.extend(SECRET_JSON.map(|(name, value)| (name, value.to_owned())));
        Self { status, headers, body }
    }

    /// The request id, where the headers are those of JSON that no cache may keep, and no more: what a shell may have
    /// a shorter way for.
    pub fn as_secret_json(&self) -> Option<&str> {
        let (last, usual) = self.headers.split_last()?;
        let same = usual.len() == SECRET_JSON.len()
            && usual.iter().zip(SECRET_JSON).all(|((name, value), usual)| (*name, value.as_str()) == usual);
        (same && last.0 == REQUEST_ID && !self.body.is_empty()).then_some(&last.1)
    }

    /// Whether it is a page that is the same for everybody, whatever headers they send but `If-None-Match` and the request
    /// id. Until the clock shows another second, a shell may answer others so who GET the same.
    pub fn is_for_everybody(&self) -> bool {
        let public = |(name, value): &(&str, String)| *name == "cache-control" && value.starts_with("public");
        self.status == 200 && self.headers.first().is_some_and(public)
    }

    /// An answer without a body that no cache may keep.
    pub(super) fn secret_empty(status: u16) -> Self {
        let headers = vec![("cache-control", "no-store".to_owned()), ("pragma", "no-cache".to_owned())];
        Self { status, headers, body: Vec::new() }
    }

    /// What everybody may read and caches may keep for `max_age` seconds, from any origin.
    pub(super) fn public(request: &Request<'_>, page: &Page, max_age: u64) -> Self {
        let mut headers = vec![
            ("cache-control", format!("public, max-age={max_age}")),
            ("access-control-allow-origin", "*".to_owned()),
            ("etag", page.etag.clone()),
        ];
        if request.headers.if_none_match.is_some_and(|known| names(known, &page.etag)) {
            return Self { status: 304, headers, body: Vec::new() };
        }
        headers.push(("content-type", page.content_type.to_owned()));
        Self { status: 200, headers, body: page.body.clone() }
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The content type of JSON.
pub(super) const JSON: &str = "application/json";

/// The headers of JSON that no cache may keep.
const SECRET_JSON: [(&str, &str); 3] =
    [("content-type", JSON), ("cache-control", "no-store"), ("pragma", "no-cache")];

/// The header that every answer has, as its last one.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// A page that everybody may read, ready to serve.
pub(super) struct Page {
    content_type: &'static str,
    body: Vec<u8>,
    etag: String,
}

impl Page {
    pub(super) fn new(content_type: &'static str, body: Vec<u8>) -> Self {
        Self { content_type, etag: etag(&body), body }
    }

    /// What is served.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }
}

/// A strong entity tag (RFC 9110 §8.8.3): the body's hash.
fn etag(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let short = digest.get(..16).unwrap_or_default();
    format!("\"{}\"", Base64UrlUnpadded::encode_string(short))
}

/// Whether `If-None-Match` names the tag, by weak comparison (RFC 9110 §13.1.2).
fn names(if_none_match: &str, etag: &str) -> bool {
    let mut tags = if_none_match.split(',').map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}
