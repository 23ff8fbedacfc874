//! The edge: everything that the Worker does, over a [`Platform`]. The Worker itself only moves bytes.
//!
//! [`Edge`] is an isolate's memory. A request never waits for another one: workerd forbids that I/O of one request be
//! awaited by another, so two requests that miss the same document both read it.

mod apart;
mod bounded;
mod client;
mod client_assertion;
mod config;
mod device;
mod held;
mod http;
mod identity;
mod introspect;
mod keyed_hash;
mod kms;
mod on_demand;
mod platform;
mod pool;
mod provisioning;
mod public;
mod record;
mod replay;
mod report;
mod revocation;
mod revocation_list;
mod revoke;
mod router;
mod status_list;
mod token;
mod trust;

#[cfg(test)]
mod tests;

pub use config::{AwsVariables, EdgeConfig, EdgeConfigError, KmsAccess, Variables};
pub use http::{Body, Headers, MAX_BODY, Request, Response};
pub use introspect::INTROSPECT_SCOPE;
pub use platform::{Delivery, KvReadError, LogLevel, LogLine, Platform, Post, PostError, Posted};
pub use router::unconfigured;

use self::identity::IdentityStore;
use self::pool::PoolStore;
use self::provisioning::NewDevices;
use self::record::RecordStore;
use self::replay::ReplayStore;
use self::revocation::RevocationStore;
use self::revocation_list::ShardStore;
use self::status_list::StatusListStore;
use self::trust::TrustStore;
use crate::document::{ClientDocument, DeviceDocument};
use crate::time::UnixTime;

/// What an isolate knows: its configuration, and verified copies of what it has read. Bounded in memory.
pub struct Edge<P: Platform> {
    config: EdgeConfig,
    trust: TrustStore<P>,
    pools: PoolStore<P>,
    clients: RecordStore<ClientDocument>,
    devices: RecordStore<DeviceDocument>,
    shards: ShardStore,
    status_lists: StatusListStore,
    revocations: RevocationStore,
    identities: IdentityStore,
    replays: ReplayStore,
    new_devices: NewDevices,
}

/// The most that an isolate's client records may take, counted as their length in KV.
const MAX_CLIENT_BYTES: usize = 16 * 1024 * 1024;
/// The most that its device records may take.
const MAX_DEVICE_BYTES: usize = 8 * 1024 * 1024;

impl<P: Platform> Edge<P> {
    /// An isolate that has read nothing yet.
    pub fn new(config: EdgeConfig) -> Self {
        Self {
            config,
            trust: TrustStore::new(),
            pools: PoolStore::new(),
            clients: RecordStore::new(MAX_CLIENT_BYTES),
            devices: RecordStore::new(MAX_DEVICE_BYTES),
            shards: ShardStore::new(),
            status_lists: StatusListStore::new(),
            revocations: RevocationStore::new(),
            identities: IdentityStore::new(),
            replays: ReplayStore::new(),
            new_devices: NewDevices::new(),
        }
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
