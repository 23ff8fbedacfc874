//! Runs that alternate, and what they have in the middle: whatever else the machine does meets all subjects alike.

use std::{future::Future, pin::Pin, time::Duration};

use super::{
    load::{self, Load, Requests},
    usage,
};
use crate::Error;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How many runs each subject has.
    pub(super) rounds: usize,
    /// How long a run takes.
    pub(super) run: Duration,
    /// How many requests a run has whose requests must each be made for it.
    pub(super) fresh_requests: usize,
    /// How long a subject is warmed up: workerd compiles what is hot once more, in the background.
    pub(super) warm_up: Duration,
}

/// What is measured.
pub(super) struct Subject {
    /// What it does, as the table names it.
    pub(super) job: &'static str,
    /// The process that does it.
    pub(super) pid: u32,
    /// What it is asked.
    requests: Requests,
    /// What makes the requests of the next run, where none may be sent twice.
    refill: Option<Refill>,
}

/// Makes the requests of a run.
pub(super) type Refill = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = Result<Requests, Error>>>>>;

impl Subject {
    /// One that is asked the same in every run.
    pub(super) fn same(job: &'static str, pid: u32, requests: Requests) -> Self {
        Self { job, pid, requests, refill: None }
    }

    /// One whose requests are made for each run.
    pub(super) fn fresh(job: &'static str, pid: u32, refill: Refill) -> Self {
        Self { job, pid, requests: Requests::default(), refill: Some(refill) }
    }
}

/// What the runs of a subject have shown: the middle of each figure.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) job: &'static str,
    pub(super) requests_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) cpu_us_per_request: f64,
    /// The same of each run, in order: a ratio is taken between runs that were neighbours.
    pub(super) cpu_us_of_runs: Vec<f64>,
    /// What the process held after the last run, in bytes.
    pub(super) resident_bytes: u64,
}

/// Measures all subjects, in turn, again and again.
///
/// # Errors
/// When one of them gives a wrong answer, or ends.
pub(super) async fn alternate(mut subjects: Vec<Subject>, pace: Pace) -> Result<Vec<Measured>, Error> {
    for subject in &mut subjects {
        run(subject, pace.warm_up).await?;
    }
    let mut runs: Vec<Vec<Run>> = subjects.iter().map(|_| Vec::new()).collect();
    for _ in 0..pace.rounds {
        for (subject, runs) in subjects.iter_mut().zip(&mut runs) {
            runs.push(run(subject, pace.run).await?);
        }
    }
    subjects.iter().zip(&runs).map(|(subject, runs)| summary(subject, runs)).collect()
}

struct Run {
    load: Load,
    cpu: Duration,
}

async fn run(subject: &mut Subject, duration: Duration) -> Result<Run, Error> {
    if let Some(refill) = &mut subject.refill {
        subject.requests = refill().await?;
    }
    let before = usage::fine_cpu_time(subject.pid)?;
    let load = load::run(&subject.requests, load::CONNECTIONS, duration).await?;
    let cpu = usage::fine_cpu_time(subject.pid)?.saturating_sub(before);
    if load.requests == 0 {
        return Err(Error::Refused(format!("{}: nothing was asked", subject.job)));
    }
    Ok(Run { load, cpu })
}

fn summary(subject: &Subject, runs: &[Run]) -> Result<Measured, Error> {
    let of = |figure: &dyn Fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let cpu_us = |run: &Run| run.cpu.as_secs_f64() * 1e6 / run.load.requests as f64;
    Ok(Measured {
        job: subject.job,
        requests_per_second: of(&|run| run.load.requests_per_second()),
        p50_ms: of(&|run| run.load.percentile_ms(0.50)),
        p99_ms: of(&|run| run.load.percentile_ms(0.99)),
        cpu_us_per_request: of(&cpu_us),
        cpu_us_of_runs: runs.iter().map(cpu_us).collect(),
        resident_bytes: usage::resident_bytes(subject.pid)?,
    })
}

/// The middle one; 0 where there is none.
pub(super) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let half = figures.len() / 2;
    let upper = figures.get(half).copied().unwrap_or_default();
    if figures.len() % 2 == 1 {
        return upper;
    }
    let lower = half.checked_sub(1).and_then(|lower| figures.get(lower)).copied().unwrap_or_default();
    (lower + upper) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_not_moved_by_one_that_is_far_off() {
        assert_eq!(median(vec![3.0, 1.0, 1000.0]), 3.0);
        assert_eq!(median(vec![4.0, 1.0, 1000.0, 2.0]), 3.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
