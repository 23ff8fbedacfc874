//! Requests and answers as the core sees them: only what matters of HTTP, so that the shell has little to convert.

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
    /// The body; empty for 204 and 304.
    pub body: Vec<u8>,
}
