//! What the edge's core needs from the platform that it runs on: workerd in production, a simulation in tests.

use crate::crypto::Crypto;
use crate::time::UnixTime;

/// A KV read that did not come about. What a read *found* is no error: neither a missing key nor rubbish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("KV cannot be read: {0}")]
pub struct KvReadError(pub String);

/// The platform, as one request sees it.
#[allow(async_fn_in_trait, reason = "only this workspace implements it, and a Worker's futures are not Send")]
pub trait Platform: Crypto {
    /// The time now.
    fn now(&self) -> UnixTime;

    /// Fills `bytes` from a cryptographically secure source.
    fn fill_random(&self, bytes: &mut [u8]);

    /// Reads a value from KV. `cache_seconds` is how old an answer the location's KV cache may give (at least 30 s on
    /// Cloudflare).
    async fn kv_get(&self, key: &str, cache_seconds: u32) -> Result<Option<String>, KvReadError>;

    /// Writes a line to the Worker's log, for operators. Never a secret or a token.
    fn log(&self, line: LogLine<'_>);
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
