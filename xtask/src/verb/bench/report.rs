//! What came out: a table for people, JSON for whoever compares, and a file in `bench/results` that says of which commit
//! and which machine it is.

use std::{fmt::Write as _, fs, path::Path};

use serde::Serialize;
use serde_json::json;

use super::measure::{Measured, median};
use crate::{Error, command::Cmd, files, repo::Repo};

/// A line of the table.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) job: String,
    pub(super) requests_per_second: Option<f64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) cpu_us_per_request: Option<f64>,
    /// What the ratio is to: a yardstick, or a fixed limit.
    pub(super) ratio_to: Option<String>,
    pub(super) ratio: Option<f64>,
    pub(super) target: Option<f64>,
    pub(super) met: Option<bool>,
    /// What the process held, in bytes: for the table alone.
    #[serde(skip)]
    pub(super) resident_bytes: Option<u64>,
    /// Whether the target is the least that the ratio may be, not the most.
    #[serde(skip)]
    pub(super) at_least: bool,
}

impl Row {
    /// The figures of a subject.
    pub(super) fn of(measured: &Measured) -> Self {
        Self {
            job: measured.job.to_owned(),
            requests_per_second: Some(rounded(measured.requests_per_second, 1)),
            p50_ms: Some(rounded(measured.p50_ms, 2)),
            p99_ms: Some(rounded(measured.p99_ms, 2)),
            cpu_us_per_request: Some(rounded(measured.cpu_us_per_request, 1)),
            resident_bytes: Some(measured.resident_bytes),
            ..Self::default()
        }
    }

    /// Compared with a yardstick of the same run by CPU time: the middle of the ratios of neighbouring runs.
    #[must_use]
    pub(super) fn against(mut self, own: &Measured, yardstick: &Measured, at_most: f64) -> Self {
        let pairs = own.cpu_us_of_runs.iter().zip(&yardstick.cpu_us_of_runs);
        let ratio = median(pairs.map(|(own, yardstick)| own / yardstick).collect());
        self.ratio_to = Some(yardstick.job.to_owned());
        self.judge(ratio, at_most)
    }

    /// With these latencies, in milliseconds.
    #[must_use]
    pub(super) fn latencies(self, p50: f64, p99: f64) -> Self {
        Self { p50_ms: Some(rounded(p50, 2)), p99_ms: Some(rounded(p99, 2)), ..self }
    }

    /// Shown beside another, without a target.
    #[must_use]
    pub(super) fn beside(self, own: &Measured, other: &Measured) -> Self {
        Self { target: None, met: None, ..self.against(own, other, f64::INFINITY) }
    }

    /// A figure that has a limit of its own.
    pub(super) fn limited(job: &str, limit: &str, ratio: f64) -> Self {
        Self { job: job.to_owned(), ratio_to: Some(limit.to_owned()), ..Self::default() }.judge(ratio, 1.0)
    }

    /// Says what the ratio is, and the most that it may be.
    #[must_use]
    pub(super) fn judge(mut self, ratio: f64, at_most: f64) -> Self {
        self.ratio = Some(rounded(ratio, 3));
        self.target = Some(at_most);
        self.met = Some(ratio <= at_most);
        self
    }

    /// Says what the ratio is, and the least that it may be.
    #[must_use]
    pub(super) fn judge_least(self, ratio: f64, at_least: f64) -> Self {
        Self { met: Some(ratio >= at_least), at_least: true, ..self.judge(ratio, at_least) }
    }
}

fn rounded(figure: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (figure * scale).round() / scale
}

/// The table. What has no figure shows a dash.
pub(super) fn table(rows: &[Row]) -> String {
    let mut cells = vec![
        ["job", "req/s", "p50 ms", "p99 ms", "CPU µs", "MiB", "ratio", "of", "target", ""].map(str::to_owned),
    ];
    for row in rows {
        let sign = if row.at_least { "≥" } else { "≤" };
        cells.push([
            row.job.clone(),
            shown(row.requests_per_second, 0),
            shown(row.p50_ms, 2),
            shown(row.p99_ms, 2),
            shown(row.cpu_us_per_request, 0),
            shown(row.resident_bytes.map(|bytes| bytes as f64 / 1_048_576.0), 0),
            shown(row.ratio, 2),
            row.ratio_to.clone().unwrap_or_else(|| "–".to_owned()),
            row.target.map_or_else(|| "–".to_owned(), |target| format!("{sign} {target}")),
            match row.met {
                Some(true) => "met".to_owned(),
                Some(false) => "MISSED".to_owned(),
                None => String::new(),
            },
        ]);
    }
    aligned(&cells)
}

fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.digits$}"))
}

/// Columns of one width each, the first and the texts to the left, figures to the right.
fn aligned<const N: usize>(cells: &[[String; N]]) -> String {
    /// The columns that hold text.
    const TEXTS: [usize; 3] = [0, 7, 9];
    let mut text = String::new();
    for line in cells {
        let mut out = String::new();
        for (column, cell) in line.iter().enumerate() {
            let widths = cells.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count());
            let width = widths.max().unwrap_or_default();
            if TEXTS.contains(&column) {
                let _ = write!(out, "{cell:<width$}  ");
            } else {
                let _ = write!(out, "{cell:>width$}  ");
            }
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    text
}

/// Writes the rows, and nothing else, to a file that somebody has asked for.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_json(path: &Path, rows: &[Row]) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(rows).map_err(Error::malformed("the rows"))?;
    fs::write(path, text + "\n").map_err(Error::file("write", path))
}

/// Writes the rows with where they are from to `bench/results`, and says where that is.
///
/// # Errors
/// When it cannot be written.
pub(super) async fn keep(repo: &Repo, at: &str, quick: bool, rows: &[Row]) -> Result<String, Error> {
    let git = async |arguments: &[&str]| -> Option<String> {
        let printed = Cmd::new("git", "git").args(arguments).dir(repo.root()).output().await.ok()?;
        Some(printed.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).await;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).await.map(|changes| !changes.is_empty());
    let whole = json!({
        "at": at,
        "commit": commit,
        "changedSinceCommit": changed,
        "quick": quick,
        "machine": machine(),
        "rows": rows,
    });
    let folder = repo.path("bench/results");
    files::create_folder(&folder)?;
    let name = format!("{}-{}.json", at.replace(':', ""), commit.as_deref().unwrap_or("unknown"));
    let path = folder.join(&name);
    let text = serde_json::to_string_pretty(&whole).map_err(Error::malformed("the results"))?;
    fs::write(&path, text + "\n").map_err(Error::file("write", &path))?;
    Ok(format!("bench/results/{name}"))
}

/// The machine, without its name.
fn machine() -> serde_json::Value {
    let first = |path: &str, name: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    json!({
        "processor": first("/proc/cpuinfo", "model name"),
        "processors": std::thread::available_parallelism().ok().map(usize::from),
        "memory": first("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
        "load": fs::read_to_string("/proc/loadavg").ok().map(|text| text.trim().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_members_that_whoever_compares_expects() {
        let row = serde_json::to_value(Row::limited("Worker size", "400 KiB gzipped", 0.95)).unwrap();
        let mut names: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "cpuUsPerRequest",
                "job",
                "met",
                "p50Ms",
                "p99Ms",
                "ratio",
                "ratioTo",
                "requestsPerSecond",
                "target"
            ]
        );
        assert_eq!((row["met"].clone(), row["ratio"].clone()), (json!(true), json!(0.95)));
        assert!(row["p50Ms"].is_null());
    }

    #[test]
    fn a_missed_target_is_shown_as_missed() {
        let rows = [Row::limited("memory", "40 MiB", 1.2), Row::limited("memory", "40 MiB", 0.9)];
        let table = table(&rows);
        assert!(table.lines().nth(1).unwrap().ends_with("MISSED"), "{table}");
        assert!(table.lines().nth(2).unwrap().ends_with("met"), "{table}");
    }
}
