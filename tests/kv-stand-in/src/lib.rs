//! A strict stand-in for Cloudflare's KV REST API, for tests: `wrangler dev` serves the same calls, but takes what
//! Cloudflare would refuse, and is slow.
//!
//! It keeps the documented limits (calls and bytes, pairs, lengths, one write a second per key, lifetimes), answers in
//! Cloudflare's envelope, fails on demand ([`Fault`]), and remembers what was written, so that a test can ask afterwards
//! whether an older document ever took the place of a newer one, and whether the rates were kept ([`Report`]). What
//! exceeds a limit is refused and reported, never silently taken.
//!
//! It knows one thing of Keypost: that the metadata of a document holds its `version`.
//!
//! It runs on a thread of its own, so that a test may block; `kv-stand-in` is the same as a process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends there"
)]

mod account;
mod api;
mod fault;
mod server;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::account::Account;
pub use self::account::{CallKind, CallRecord, Entry, Report};
pub use self::fault::Fault;

/// The account in the URLs; any other is not found.
pub const ACCOUNT: &str = "test-account";
/// The one namespace.
pub const NAMESPACE: &str = "test-namespace";

/// What the stand-in takes: Cloudflare's limits, unless a test has a reason.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The calls in [`Limits::calls_window`].
    pub calls: usize,
    /// The window that calls are counted in.
    pub calls_window: Duration,
    /// The pairs or keys of a bulk call.
    pub pairs: usize,
    /// The bytes of a bulk call.
    pub bytes: usize,
    /// The least time between two writes of a key.
    pub write_interval: Duration,
    /// The keys of a page of a list, whatever is asked for.
    pub page: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 1_200,
            calls_window: Duration::from_secs(300),
            pairs: 10_000,
            bytes: 100_000_000,
            write_interval: Duration::from_secs(1),
            page: 1_000,
        }
    }
}

/// How the stand-in is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The bearer token that a caller must have.
    pub token: String,
    /// What it takes.
    pub limits: Limits,
    /// Whether values are kept; without them a million documents take little memory.
    pub keep_values: bool,
    /// Whether the keys of each call are remembered.
    pub keep_calls: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: "kv-api-token".to_owned(),
            limits: Limits::default(),
            keep_values: true,
            keep_calls: true,
        }
    }
}

/// A running stand-in. It ends when it is dropped.
pub struct KvStandIn {
    address: SocketAddr,
    token: String,
    account: Arc<Mutex<Account>>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl KvStandIn {
    /// Starts it.
    pub fn start(options: Options) -> Self {
        let listener = std::net::TcpListener::bind(options.listen).expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("a bound listener");
        let token = options.token.clone();
        let account = Arc::new(Mutex::new(Account::new(options)));
        let stop = CancellationToken::new();
        let (served, told) = (account.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(server::serve(listener, served, told));
        });
        Self { address, token, account, stop, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything before `/storage/kv/` in its URLs.
    pub fn api_url(&self) -> String {
        format!("http://{}/client/v4/accounts/{ACCOUNT}", self.address)
    }

    /// The bearer token that it wants.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What happens to the next bulk writes and deletes, one after the other.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.account().fail_next(faults);
    }

    /// How many of these faults have not happened yet.
    pub fn faults_left(&self) -> usize {
        self.account().faults_left()
    }

    /// From now on every call is carried out.
    pub fn recover(&self) {
        self.account().recover();
    }

    /// Carries out, late, all calls that hung.
    pub fn land_lost_calls(&self) {
        self.account().land_lost_calls();
    }

    /// What stands at a key.
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.account().get(key)
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.account().keys()
    }

    /// Writes a value as a Worker does: no limit of the REST API applies.
    pub fn write(&self, key: &str, value: &str, metadata: serde_json::Value) {
        self.account().write(key, value, metadata);
    }

    /// Deletes a key behind everybody's back.
    pub fn delete(&self, key: &str) {
        self.account().delete(key);
    }

    /// The calls that have come, of all kinds.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.account().calls()
    }

    /// What can be said of all that was written.
    pub fn report(&self) -> Report {
        self.account().report()
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().expect("nobody panics with the account")
    }
}

impl Drop for KvStandIn {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
