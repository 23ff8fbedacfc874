//! What is counted and timed, for Prometheus. `docs/operations.md` says what each metric means and what to do about it.
//!
//! Every label has few values, whatever anybody sends: route templates instead of paths, classes instead of statuses,
//! names from lists in this code instead of names from requests.

mod readings;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keypost_shared::device_certificate::RefusalCode;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use self::readings::{Readings, Waiting};

/// What [`Metrics::render`] writes (OpenMetrics 1.0.0, which every Prometheus since 2.5 reads).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a quick read to the patience of a request, in seconds.
const REQUEST_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];
/// From a free connection to the patience of a request, in seconds.
const ACQUIRE_BUCKETS: [f64; 8] = [0.0005, 0.002, 0.01, 0.05, 0.25, 1.0, 2.5, 5.0];
/// From a local KV to the patience with a far one, in seconds.
const KV_BUCKETS: [f64; 8] = [0.01, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 20.0];

/// From a hash of a test to one that a whole queue has waited for, in seconds.
const PASSWORD_BUCKETS: [f64; 9] = [0.001, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The metrics of this process. Clones are the same metrics.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    readings: Arc<readings::Latest>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    rate_limited: Family<PolicyLabels, Counter>,
    authentication_failures: Counter,
    activations: Family<OutcomeLabels, Counter>,
    sign_ins: Family<OutcomeLabels, Counter>,
    acquire_seconds: Histogram,
    kv_calls: Family<CallLabels, Counter>,
    kms_calls: Family<CallLabels, Counter>,
    kv_seconds: Family<KvOperationLabels, Histogram, fn() -> Histogram>,
    published: Counter,
    publish_failures: Counter,
    signing_key_failures: Counter,
    repaired: Family<KindLabels, Counter>,
    housekeeping_runs: Family<OutcomeLabels, Counter>,
    purged: Family<KindLabels, Counter>,
    edge_reports: Family<OutcomeLabels, Counter>,
    edge_reports_refused: Family<CodeLabels, Counter>,
    edge_reports_waiting: Arc<readings::EdgeReportsWaiting>,
    revocations: Family<ByLabels, Counter>,
    password_wait_seconds: Histogram,
    password_hash_seconds: Histogram,
    passwords_refused: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    policy: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLabels {
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KvOperationLabels {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    operation: &'static str,
    outcome: &'static str,
}

/// How a key in KV was not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// It was not there.
    Missing,
    /// It was another document, or an older one.
    Differing,
    /// Nothing owned it.
    Unowned,
}

impl Repair {
    fn as_str(self) -> &'static str {
        match self {
            Repair::Missing => "missing",
            Repair::Differing => "differing",
            Repair::Unowned => "unowned",
        }
    }
}

impl Metrics {
    /// Metrics that have counted nothing yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("keypost");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The version that runs", Info::new(version));
        let readings = Arc::new(readings::Latest::default());
        registry.register_collector(Box::new(readings.clone()));
        let edge_reports_waiting = Arc::new(readings::EdgeReportsWaiting::default());
        registry.register_collector(Box::new(edge_reports_waiting.clone()));
        let request_seconds: fn() -> Histogram = || Histogram::new(REQUEST_BUCKETS);
        let kv_seconds: fn() -> Histogram = || Histogram::new(KV_BUCKETS);
        let mut inner = Inner {
            registry,
            readings,
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(request_seconds),
            rate_limited: Family::default(),
            authentication_failures: Counter::default(),
            activations: Family::default(),
            sign_ins: Family::default(),
            acquire_seconds: Histogram::new(ACQUIRE_BUCKETS),
            kv_calls: Family::default(),
            kv_seconds: Family::new_with_constructor(kv_seconds),
            kms_calls: Family::default(),
            published: Counter::default(),
            publish_failures: Counter::default(),
            signing_key_failures: Counter::default(),
            repaired: Family::default(),
            housekeeping_runs: Family::default(),
            purged: Family::default(),
            edge_reports: Family::default(),
            edge_reports_refused: Family::default(),
            edge_reports_waiting,
            revocations: Family::default(),
            password_wait_seconds: Histogram::new(PASSWORD_BUCKETS),
            password_hash_seconds: Histogram::new(PASSWORD_BUCKETS),
            passwords_refused: Counter::default(),
        };
        inner.register();
        inner.begin();
        Self(Arc::new(inner))
    }

    /// A request has been answered.
    pub fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let (method, route) = (known_method(method), route.to_owned());
        let labels = RouteLabels { method, route: route.clone() };
        self.0.request_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        self.0.requests.get_or_create(&RequestLabels { method, route, status: class(status) }).inc();
    }

    /// A request has met a rate limit.
    pub fn rate_limited(&self, policy: &'static str) {
        self.0.rate_limited.get_or_create(&PolicyLabels { policy }).inc();
    }

    /// A request came without a good API key where it needs one.
    pub fn authentication_failed(&self) {
        self.0.authentication_failures.inc();
    }

    /// A device has been activated, or not.
    pub fn activation(&self, outcome: &'static str) {
        self.0.activations.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Somebody has signed in by a password, or not.
    pub fn sign_in(&self, outcome: &'static str) {
        self.0.sign_ins.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Somebody has waited so long for a database connection, in vain or not.
    pub fn acquired(&self, took: Duration) {
        self.0.acquire_seconds.observe(took.as_secs_f64());
    }

    /// KV has been called.
    pub fn kv_call(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        self.0.kv_seconds.get_or_create(&KvOperationLabels { operation }).observe(took.as_secs_f64());
        self.0.kv_calls.get_or_create(&CallLabels { operation, outcome }).inc();
    }

    /// KMS has been called.
    pub fn kms_call(&self, operation: &'static str, outcome: &'static str) {
        self.0.kms_calls.get_or_create(&CallLabels { operation, outcome }).inc();
    }

    /// So many documents have been written or deleted.
    pub fn published(&self, documents: usize) {
        self.0.published.inc_by(u64::try_from(documents).unwrap_or(u64::MAX));
    }

    /// So many documents could not be made or written; each is tried again.
    pub fn publish_failed(&self, documents: usize) {
        self.0.publish_failures.inc_by(u64::try_from(documents).unwrap_or(u64::MAX));
    }

    /// A pool's signing keys could not be seen to; it is tried again.
    pub fn signing_key_failed(&self) {
        self.0.signing_key_failures.inc();
    }

    /// A verification has found so many keys in KV that are not as they should be.
    pub fn repaired(&self, kind: Repair, keys: usize) {
        let labels = KindLabels { kind: kind.as_str() };
        self.0.repaired.get_or_create(&labels).inc_by(u64::try_from(keys).unwrap_or(u64::MAX));
    }

    /// Housekeeping has run, or another control plane was about it.
    pub fn housekeeping(&self, outcome: &'static str) {
        self.0.housekeeping_runs.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Housekeeping has removed rows.
    pub fn purged(&self, kind: &'static str, rows: u64) {
        self.0.purged.get_or_create(&KindLabels { kind }).inc_by(rows);
    }

    /// A report of the edge has been taken up, or not.
    pub fn edge_report(&self, outcome: &'static str) {
        self.0.edge_reports.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A report of the edge was of a device that is refused. There are as many codes as the code knows.
    pub fn edge_report_refused(&self, code: RefusalCode) {
        self.0.edge_reports_refused.get_or_create(&CodeLabels { code: code.to_string() }).inc();
    }

    /// Tokens have been revoked, by `client` or by `administrator`.
    pub fn revocation(&self, by: &'static str) {
        self.0.revocations.get_or_create(&ByLabels { by }).inc();
    }

    /// A password has waited so long for a core to be hashed on.
    pub fn password_waited(&self, took: Duration) {
        self.0.password_wait_seconds.observe(took.as_secs_f64());
    }

    /// A password has been hashed.
    pub fn password_worked(&self, took: Duration) {
        self.0.password_hash_seconds.observe(took.as_secs_f64());
    }

    /// A password was not hashed: too many waited.
    pub fn password_refused(&self) {
        self.0.passwords_refused.inc();
    }

    /// So many reports of the edge wait in KV; none where this process does not know.
    pub fn edge_reports_waiting(&self, reports: Option<usize>) {
        self.0.edge_reports_waiting.set(reports.map(|reports| u64::try_from(reports).unwrap_or(u64::MAX)));
    }

    /// Everything as text, with what has just been read of the rest of the system.
    pub fn render(&self, readings: Readings) -> Result<String, fmt::Error> {
        self.0.readings.set(readings);
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// Lets counters whose labels are known begin with 0: what appears only once it has happened cannot be seen to grow.
    fn begin(&self) {
        for policy in ["address", "key"] {
            self.rate_limited.get_or_create(&PolicyLabels { policy }).inc_by(0);
        }
        for outcome in ["activated", "invalid_otp", "too_many_attempts", "error"] {
            self.activations.get_or_create(&OutcomeLabels { outcome }).inc_by(0);
        }
        for outcome in ["signed_in", "wrong", "too_many_attempts", "busy", "error"] {
            self.sign_ins.get_or_create(&OutcomeLabels { outcome }).inc_by(0);
        }
        for outcome in ["done", "stopped", "elsewhere", "failed", "broken_audit_chain"] {
            self.housekeeping_runs.get_or_create(&OutcomeLabels { outcome }).inc_by(0);
        }
        for outcome in ["created", "pinned", "revoked", "known", "void", "refused", "junk", "failed"] {
            self.edge_reports.get_or_create(&OutcomeLabels { outcome }).inc_by(0);
        }
        for by in ["client", "administrator"] {
            self.revocations.get_or_create(&ByLabels { by }).inc_by(0);
        }
        for operation in ["put", "delete"] {
            for outcome in ["ok", "partial", "not_sent", "rate_limited", "refused", "unknown"] {
                self.kv_calls.get_or_create(&CallLabels { operation, outcome }).inc_by(0);
            }
        }
    }

    fn register(&mut self) {
        let Self { registry, .. } = self;
        // The library adds `_total` to the names of counters.
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time until an answer began",
            self.request_seconds.clone(),
        );
        registry.register("rate_limited", "Requests refused by a rate limit", self.rate_limited.clone());
        registry.register(
            "authentication_failures",
            "Requests without a good API key where one is needed",
            self.authentication_failures.clone(),
        );
        registry.register("activations", "Attempts to activate a device", self.activations.clone());
        registry.register("sign_ins", "Attempts to sign in by a password", self.sign_ins.clone());
        registry.register(
            "database_acquire_duration_seconds",
            "Time that requests waited for a database connection",
            self.acquire_seconds.clone(),
        );
        registry.register("kv_calls", "Calls to the KV API", self.kv_calls.clone());
        registry.register("kv_call_duration_seconds", "Time that calls to KV took", self.kv_seconds.clone());
        registry.register("kms_calls", "Calls to AWS KMS", self.kms_calls.clone());
        registry.register(
            "publisher_published",
            "Documents written to KV or deleted there",
            self.published.clone(),
        );
        registry.register(
            "publisher_failures",
            "Documents that could not be made or written and are tried again",
            self.publish_failures.clone(),
        );
        registry.register(
            "edge_reports",
            "Reports of the edge, each time they came",
            self.edge_reports.clone(),
        );
        registry.register(
            "edge_reports_refused",
            "Reports of devices that the edge let in and that are refused",
            self.edge_reports_refused.clone(),
        );
        registry.register(
            "signing_key_failures",
            "Pools whose signing keys could not be seen to; it is tried again",
            self.signing_key_failures.clone(),
        );
        registry.register(
            "sync_repaired",
            "Keys in KV that a verification found other than they should be",
            self.repaired.clone(),
        );
        registry.register(
            "revocations",
            "Revocations of tokens, one or all of a client",
            self.revocations.clone(),
        );
        registry.register(
            "password_wait_duration_seconds",
            "Time that passwords waited to be hashed",
            self.password_wait_seconds.clone(),
        );
        registry.register(
            "password_hash_duration_seconds",
            "Time that hashing a password took",
            self.password_hash_seconds.clone(),
        );
        registry.register(
            "passwords_refused",
            "Passwords that were not hashed because too many waited",
            self.passwords_refused.clone(),
        );
        registry.register("housekeeping_runs", "Runs of housekeeping", self.housekeeping_runs.clone());
        registry.register("housekeeping_purged", "Rows that housekeeping removed", self.purged.clone());
    }
}

/// The method, or `other`: whoever sends a request may invent methods.
pub fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}

fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(metrics: &Metrics) -> String {
        metrics.render(Readings::default()).unwrap()
    }

    #[test]
    fn requests_are_counted_by_method_route_and_class_and_nothing_else() {
        let metrics = Metrics::new();
        for method in ["GET", "BREW", "get", "X\"}\n"] {
            metrics.request(method, "/healthz", 204, Duration::from_millis(3));
        }
        let text = rendered(&metrics);
        let line = "keypost_http_requests_total{method=\"other\",route=\"/healthz\",status=\"2xx\"} 3";
        assert!(text.contains(line), "{text}");
        assert_eq!(text.matches("keypost_http_requests_total{").count(), 2, "{text}");
        assert!(text.contains("keypost_http_request_duration_seconds_bucket{le=\"0.005\",method=\"GET\""));
    }

    #[test]
    fn what_could_not_be_read_is_absent_rather_than_zero() {
        let metrics = Metrics::new();
        let text = rendered(&metrics);
        assert!(!text.contains("keypost_publisher_backlog"), "{text}");
        assert!(text.contains("keypost_database_up 0"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
