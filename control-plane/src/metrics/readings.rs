//! What is not counted as it happens but read when somebody asks.

use std::fmt;
use std::sync::Mutex;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// How things stand now. What is none could not be read, and is left out of the text.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// The connections that this process has open, used or not.
    pub connections: u32,
    /// Those of them that nobody uses.
    pub idle_connections: u32,
    /// How many there may be.
    pub most_connections: u32,
    /// How many keys in AWS KMS cannot do what they are needed for.
    pub kms_failing: u64,
    /// What waits to be published; none where the database did not answer.
    pub backlog: Option<Waiting>,
}

/// What waits to be published.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// How many documents.
    pub documents: u64,
    /// How many of them have failed, and are tried again.
    pub failing: u64,
    /// For how long the oldest of them has waited.
    pub oldest_seconds: u64,
    /// Whether that is longer than it should be.
    pub is_late: bool,
}

/// The readings that the next text is to contain.
#[derive(Debug, Default)]
pub(super) struct Latest(Mutex<Readings>);

impl Latest {
    pub(super) fn set(&self, readings: Readings) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = readings;
    }
}

impl Collector for Latest {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let readings = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let mut gauge = |name: &str, help: &str, value: u64| {
            // Prometheus counts in floating point anyway, and so far as that it is exact.
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        let used = readings.connections.saturating_sub(readings.idle_connections);
        gauge("database_connections_used", "Database connections at work", used.into())?;
        gauge("database_connections_idle", "Database connections waiting", readings.idle_connections.into())?;
        gauge("database_connections_max", "The most database connections", readings.most_connections.into())?;
        gauge("database_up", "Whether the database answered", readings.backlog.is_some().into())?;
        gauge(
            "kms_failing",
            "Keys in AWS KMS that cannot do what they are needed for",
            readings.kms_failing,
        )?;
        if let Some(Waiting { documents, failing, oldest_seconds, is_late }) = readings.backlog {
            gauge("publisher_backlog", "Documents that wait to be published", documents)?;
            gauge("publisher_failing", "Documents among them that have failed and are tried again", failing)?;
            gauge("publisher_oldest_mark_seconds", "How long the oldest of them has waited", oldest_seconds)?;
            gauge("publisher_late", "Whether that is longer than it should be", is_late.into())?;
        }
        if let Some(bytes) = resident_memory() {
            gauge("resident_memory_bytes", "Memory that the process holds", bytes)?;
        }
        Ok(())
    }
}

/// How many reports of the edge the search has left in KV, as far as it has got; none in a process that does not search,
/// and where the list could not be read.
#[derive(Debug, Default)]
pub(super) struct EdgeReportsWaiting(Mutex<Option<u64>>);

impl EdgeReportsWaiting {
    pub(super) fn set(&self, reports: Option<u64>) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = reports;
    }
}

impl Collector for EdgeReportsWaiting {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let reports = *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(reports) = reports else { return Ok(()) };
        let (name, help) = ("edge_reports_waiting", "Reports of the edge that wait in KV");
        let gauge = ConstGauge::new(i64::try_from(reports).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }
}

/// The memory that this process holds, where the system says so as Linux does.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}
