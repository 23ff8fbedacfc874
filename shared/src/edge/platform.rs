//! What the edge's core needs from the platform that it runs on: workerd in production, a simulation in tests.

use crate::certificate::VerifySignature;
use crate::crypto::Crypto;
use crate::time::UnixTime;

/// A KV read that did not come about. What a read *found* is no error: neither a missing key nor rubbish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("KV cannot be read: {0}")]
pub struct KvReadError(pub String);

/// The platform, as one request sees it.
#[allow(async_fn_in_trait, reason = "only this workspace implements it, and a Worker's futures are not Send")]
pub trait Platform: Crypto + VerifySignature {
    /// The time now.
    fn now(&self) -> UnixTime;

    /// Fills `bytes` from a cryptographically secure source.
    fn fill_random(&self, bytes: &mut [u8]);

    /// Reads a value from KV. `cache_seconds` is how old an answer the location's KV cache may give (at least 30 s on
    /// Cloudflare).
    async fn kv_get(&self, key: &str, cache_seconds: u32) -> Result<Option<String>, KvReadError>;

    /// Whether nobody has noted this name at this location for as long as it was to be remembered; notes it for
    /// `seconds`. Best effort: two who ask at once may both be told that they are the first, and a location may forget.
    async fn note_first(&self, name: &str, seconds: u32) -> bool;

    /// Posts to a service that the answer depends on, and waits for what it says: no longer than `timeout_ms` in all.
    /// Follows no redirect.
    async fn post(&self, post: Post<'_>) -> Result<Posted, PostError>;

    /// What has been noted under this name at this location, if it has not forgotten. Best effort.
    async fn noted(&self, name: &str) -> Option<String>;

    /// Notes a text under a name at this location for `seconds`. Best effort.
    async fn note(&self, name: &str, text: &str, seconds: u32);

    /// Sends a report before the answer goes out: to KV, and to the control plane too. Whether at least one of them has
    /// it. What may go on after the answer does.
    async fn hand_over(&self, delivery: Delivery) -> bool;

    /// Sends a report after the answer has gone out. What fails is logged, and else lost.
    fn deliver(&self, delivery: Delivery);

    /// Writes a line to the Worker's log, for operators. Never a secret or a token.
    fn log(&self, line: LogLine<'_>);
}

/// A request to a service.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// Where it goes.
    pub url: &'a str,
    /// Its headers.
    pub headers: &'a [(&'static str, String)],
    /// Its body: JSON, so text.
    pub body: &'a str,
    /// How long the whole exchange may take, in milliseconds.
    pub timeout_ms: u32,
}

/// What a service answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// A service that gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// Not within the time that it had.
    #[error("no answer in time")]
    TimedOut,
    /// It cannot be reached, or broke off.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
}

/// Something to tell the control plane: by KV, where it waits if nobody listens, and directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The request that it belongs to.
    pub request_id: String,
    /// The key in KV.
    pub kv_key: String,
    /// The value there.
    pub kv_value: String,
    /// How long it stays there, in seconds.
    pub kv_ttl: u32,
    /// Where to post it; none where the Worker does not know its control plane.
    pub url: Option<String>,
    /// The headers of that request.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: String,
}

/// A line of the Worker's log.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// How bad it is.
    pub level: LogLevel,
    /// The request that it belongs to, as in the answer's `X-Request-Id`.
    pub request_id: &'a str,
    /// What happened, as a stable name.
    pub event: &'a str,
    /// What exactly, for a person.
    pub detail: &'a str,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something that a client did wrong, or that repairs itself.
    Info,
    /// Something that an operator should look at.
    Warn,
    /// Something because of which tokens are refused.
    Error,
}
