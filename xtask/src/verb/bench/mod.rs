//! `cargo xtask bench`: how fast the Worker and the control plane are, beside yardsticks in the same run.
//!
//! Every server is a process of its own in plain `workerd serve`; the runs alternate, and what counts is the CPU time of
//! the server's process for each request, which a busy machine spoils least.

mod edge;
mod fleet;
mod kv;
mod load;
mod measure;
mod report;
mod start;
mod usage;
mod wire;
mod workerd;
mod yardsticks;

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use keypost_shared::time::UnixTime;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::{
    edge::Edge,
    fleet::Fleet,
    measure::{Measured, Pace, Subject},
    report::Row,
    workerd::Workerds,
    yardsticks::Yardsticks,
};
use crate::{
    Error,
    progress::{Step, heading},
    repo::Repo,
    setup::{
        cache::Cache,
        node::Node,
        worker::{Profile, WorkerBuild},
    },
};

/// What to measure, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchOptions {
    /// Be done within three minutes: shorter runs, smaller fleets.
    #[arg(long)]
    pub quick: bool,
    /// Write the rows to this file too, as a JSON array.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Measure only jobs and yardsticks whose name holds one of these.
    #[arg(long, value_name = "NAME")]
    pub job: Vec<String>,
}

impl BenchOptions {
    fn pace(&self) -> Pace {
        let seconds = Duration::from_secs_f64;
        if self.quick {
            Pace { rounds: 5, run: seconds(0.8), warm_up: seconds(0.8) }
        } else {
            Pace { rounds: 7, run: seconds(3.0), warm_up: seconds(3.0) }
        }
    }

    fn wants(&self, job: &str) -> bool {
        self.job.is_empty()
            || self.job.iter().any(|wanted| job.to_lowercase().contains(&wanted.to_lowercase()))
    }
}

/// Measures, prints the table, and writes the results.
///
/// # Errors
/// When something does not build or start, or a server gives a wrong answer. A missed target is no error.
pub async fn run(repo: &Repo, xtask: &Path, options: &BenchOptions) -> Result<(), Error> {
    heading("set-up");
    let at = now();
    let node = Node::ensure(repo).await?;
    let build = WorkerBuild::ensure(repo, &Cache::open()?, &node, Profile::Release).await?;
    let state = repo.scratch().join("bench");
    let workerds = Workerds::new(xtask, &node, &repo.path("wrangler.toml"), state.clone())?;

    let step = Step::quiet("the yardsticks");
    let yardsticks = Yardsticks::start(repo, &workerds, &node, xtask, &state).await?;
    step.done();
    let step = Step::quiet("a fleet, signed, and the Worker");
    let edge = Edge::start(&workerds, &build, Fleet::new(UnixTime(at.unix_timestamp()))?).await?;
    step.done();

    heading("measuring");
    let mut rows = vec![start::size(&build)];
    if options.wants(start::FIRST_TOKEN) {
        let step = Step::quiet("cold isolates");
        rows.push(start::first_token(repo, &workerds, &edge).await?);
        step.done();
    }
    rows.retain(|row| options.wants(&row.job));
    let mut subjects: Vec<Subject> = yardsticks.subjects();
    subjects.extend(edge.subjects());
    subjects.retain(|subject| options.wants(subject.job));
    let step = Step::quiet(format!("{} jobs, in turn", subjects.len()));
    let measured = measure::alternate(subjects, options.pace()).await?;
    step.done();

    let rows: Vec<Row> = plain_rows(&measured).chain(edge::rows(&measured)).chain(rows).collect();
    super::print(&report::table(&rows));
    if let Some(path) = &options.json {
        report::write_json(path, &rows)?;
    }
    let at = at.format(&Rfc3339).map_err(Error::malformed("the time"))?;
    let kept = report::keep(repo, &at, options.quick, &rows).await?;
    heading(&format!("written to {kept}"));
    Ok(())
}

/// What has no target: the yardsticks.
fn plain_rows(measured: &[Measured]) -> impl Iterator<Item = Row> + '_ {
    measured.iter().filter(|measured| measured.job.starts_with('(')).map(Row::of)
}

#[expect(clippy::disallowed_methods, reason = "documents are made as of now, and results say when they were")]
fn now() -> OffsetDateTime {
    let now: OffsetDateTime = SystemTime::now().into();
    now.replace_nanosecond(0).unwrap_or(now)
}
