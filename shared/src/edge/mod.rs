//! The edge: everything that the Worker does, over a [`Platform`]. The Worker itself only moves bytes.
//!
//! [`Edge`] is an isolate's memory. A request never waits for another one: workerd forbids that I/O of one request be
//! awaited by another, so two requests that miss the same document both read it.

mod bounded;
mod client;
mod config;
mod held;
mod http;
mod platform;
mod pool;
mod public;
mod router;
mod token;
mod trust;

#[cfg(test)]
mod tests;

pub use config::{EdgeConfig, EdgeConfigError};
pub use http::{Body, Headers, MAX_BODY, Request, Response};
pub use platform::{KvReadError, LogLevel, LogLine, Platform};
pub use router::unconfigured;

use self::client::ClientStore;
use self::pool::PoolStore;
use self::trust::TrustStore;
use crate::time::UnixTime;

/// What an isolate knows: its configuration, and verified copies of what it has read. Bounded in memory.
pub struct Edge<P: Platform> {
    config: EdgeConfig,
    trust: TrustStore<P>,
    pools: PoolStore<P>,
    clients: ClientStore,
}

impl<P: Platform> Edge<P> {
    /// An isolate that has read nothing yet.
    pub fn new(config: EdgeConfig) -> Self {
        Self { config, trust: TrustStore::new(), pools: PoolStore::new(), clients: ClientStore::new() }
    }
}

/// The most bytes of detail that a line of the log has.
const MAX_LOG_DETAIL: usize = 1_000;

/// One request's surroundings.
struct Context<'a, P> {
    platform: &'a P,
    now: UnixTime,
    request_id: String,
}

impl<P: Platform> Context<'_, P> {
    fn log(&self, level: LogLevel, event: &str, detail: &str) {
        // It may quote what somebody wrote into KV: up to 25 MiB.
        let detail = detail.get(..detail.floor_char_boundary(MAX_LOG_DETAIL)).unwrap_or_default();
        self.platform.log(LogLine { level, request_id: &self.request_id, event, detail });
    }
}
