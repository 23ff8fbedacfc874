//! `cargo xtask bench`: how fast the Worker and the control plane are, beside yardsticks in the same run.
//!
//! Every server is a process of its own in plain `workerd serve`; the runs alternate, and what counts is the CPU time of
//! the server's process for each request, which a busy machine spoils least.

mod chains;
mod control_plane;
mod devices;
mod edge;
mod fleet;
mod floors;
mod growth;
mod kv;
mod lists;
mod load;
mod measure;
mod report;
mod sign_ins;
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
    devices::Devices,
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
    /// Be done within three minutes: shorter runs, smaller fleets, no floors.
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
            Pace { rounds: 5, run: seconds(0.8), warm_up: seconds(0.8), fresh_requests: 300 }
        } else {
            Pace { rounds: 7, run: seconds(3.0), warm_up: seconds(3.0), fresh_requests: 1_000 }
        }
    }
}

/// Which jobs are wanted: those that somebody has named, with the yardsticks that their targets are held against, or all.
#[derive(Clone, Debug)]
struct Wanted {
    named: Vec<String>,
    quick: bool,
}

impl Wanted {
    fn wants(&self, job: &str) -> bool {
        let named = |job: &str| self.named.is_empty() || self.names(job);
        let floor_named =
            |own: &str| floors::FLOORS.iter().any(|(floor, job)| *job == own && self.names(floor));
        let mut held_against = edge::TARGETS.iter().filter(|(_, yardstick, _)| *yardstick == job);
        named(job) || held_against.any(|(own, ..)| named(own) || floor_named(own))
    }

    /// Floors change with workerd alone, so a quick run measures them only where they are named.
    fn wants_floor(&self, job: &str) -> bool {
        self.names(job) || (self.named.is_empty() && !self.quick)
    }

    fn names(&self, job: &str) -> bool {
        let job = job.to_lowercase();
        self.named.iter().any(|part| job.contains(&part.to_lowercase()))
    }

    fn wants_any<'a>(&self, jobs: impl IntoIterator<Item = &'a str>) -> bool {
        jobs.into_iter().any(|job| self.wants(job))
    }
}

/// Measures, prints the table, and writes the results.
///
/// # Errors
/// When something does not build or start, or a server gives a wrong answer. A missed target is no error.
pub async fn run(repo: &Repo, xtask: &Path, options: &BenchOptions) -> Result<(), Error> {
    heading("set-up");
    let (at, wanted, pace) =
        (now(), Wanted { named: options.job.clone(), quick: options.quick }, options.pace());
    let node = Node::ensure(repo).await?;
    let state = repo.scratch().join("bench");
    let workerds = Workerds::new(xtask, &node, &repo.path("wrangler.toml"), state.clone())?;
    let bench = Bench { repo, xtask, node, state, workerds, wanted, pace };

    let mut rows = bench.workers(UnixTime(at.unix_timestamp())).await?;
    if bench.wanted.wants_any(control_plane::JOBS.into_iter().chain(sign_ins::JOBS)) {
        heading("the control plane");
        rows.extend(control_plane::rows(repo, xtask, &bench.state, &bench.wanted, pace).await?);
    }
    rows.retain(|row| bench.wanted.wants(&row.job));

    super::print(&report::table(&rows));
    if let Some(path) = &options.json {
        report::write_json(path, &rows)?;
    }
    // Parts are for whoever works on one.
    if options.job.is_empty() {
        let at = at.format(&Rfc3339).map_err(Error::malformed("the time"))?;
        let kept = report::keep(repo, &at, options.quick, &rows).await?;
        heading(&format!("written to {kept}"));
    }
    Ok(())
}

/// A run of it all.
struct Bench<'a> {
    repo: &'a Repo,
    xtask: &'a Path,
    node: Node,
    state: PathBuf,
    workerds: Workerds,
    wanted: Wanted,
    pace: Pace,
}

impl Bench<'_> {
    /// Everything that runs in workerd, and yardstick (d).
    async fn workers(&self, now: UnixTime) -> Result<Vec<Row>, Error> {
        let wanted = &self.wanted;
        let certificates = wanted.wants_any([devices::SEEN, devices::NEVER_SEEN]);
        let growth = wanted.wants_any(growth::jobs());
        let alone = wanted.wants_any([start::SIZE, start::FIRST_TOKEN, lists::JOB]);

        let step = Step::quiet("the yardsticks");
        let started =
            Yardsticks::start(self.repo, &self.workerds, &self.node, self.xtask, &self.state, wanted);
        let yardsticks = started.await?;
        step.done();
        let mut subjects = yardsticks.subjects();
        let (mut rows, mut grown) = (Vec::new(), Vec::new());
        if !(certificates || growth || alone || wanted.wants_any(edge::JOBS)) {
            let measured = self.measure(subjects, self.pace).await?;
            return Ok(plain_rows(&measured).chain(floors::rows(&measured)).collect());
        }

        let build = WorkerBuild::ensure(self.repo, &Cache::open()?, &self.node, Profile::Release).await?;
        let step = Step::quiet("a fleet, signed, and the Worker");
        let fleet = Fleet::new(now)?;
        let edge = Edge::start(&self.workerds, &build, &fleet, wanted).await?;
        step.done();
        subjects.extend(edge.subjects());
        rows.push(start::size(&build));
        if wanted.wants(start::FIRST_TOKEN) {
            let step = Step::quiet("cold isolates");
            rows.push(start::first_token(self.repo, &self.workerds, &edge).await?);
            step.done();
        }
        if certificates {
            let step = Step::quiet("devices with certificates");
            let devices = Devices::make(self.repo, &self.node, &self.state, &fleet, self.pace).await?;
            subjects.extend(devices.subjects(&edge));
            step.done();
        }

        heading("measuring");
        rows.push(edge.lists.clone());
        let measured = self.measure(subjects, self.pace).await?;
        if growth {
            // Documents take longer to sign than to read.
            let pace = Pace { rounds: 3, fresh_requests: self.pace.fresh_requests / 3, ..self.pace };
            let step = Step::quiet("larger fleets");
            let subjects = growth::subjects(&fleet, &edge, pace)?;
            step.done();
            grown = self.measure(subjects, pace).await?;
        }
        let first = plain_rows(&measured).chain(floors::rows(&measured)).chain(edge::rows(&measured));
        Ok(first.chain(rows).chain(growth::rows(&grown)).collect())
    }

    async fn measure(&self, mut subjects: Vec<Subject>, pace: Pace) -> Result<Vec<Measured>, Error> {
        subjects.retain(|subject| self.wanted.wants(subject.job));
        let step = Step::quiet(format!("{} jobs, in turn", subjects.len()));
        let measured = measure::alternate(subjects, pace).await?;
        step.done();
        Ok(measured)
    }
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
