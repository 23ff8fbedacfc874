//! What an isolate costs before it has done anything: the Worker's size, and its first token.

use std::time::Duration;

use super::{
    edge::Edge,
    load::{self, Expected},
    measure::median,
    report::Row,
    usage,
    workerd::{Script, Workerds},
    yardsticks::{self, TOKEN},
};
use crate::{Error, repo::Repo, setup::worker::WorkerBuild};

pub(super) const SIZE: &str = "Worker size";
pub(super) const FIRST_TOKEN: &str = "first token in a cold isolate";

const MAX_SIZE: f64 = 400.0 * 1024.0;
const MAX_CPU: Duration = Duration::from_millis(25);

/// How often a process is started anew.
const STARTS: usize = 11;

/// The wasm, gzipped.
pub(super) fn size(build: &WorkerBuild) -> Row {
    Row::limited(SIZE, "400 KiB gzipped", build.gzipped as f64 / MAX_SIZE)
}

/// The CPU time of a new process until it has answered its first token request, less what yardstick (a) needs until its
/// first answer: so workerd's own start is not counted, and compiling WebAssembly, reading and verifying documents and
/// importing keys are.
///
/// # Errors
/// When a Worker does not start or answer.
pub(super) async fn first_token(repo: &Repo, workerds: &Workerds, edge: &Edge) -> Result<Row, Error> {
    let constant = Script { name: "constant-cold", ..yardsticks::constant(repo) };
    let (keypost, token) = edge.cold();
    let keypost = Script { name: "keypost-cold", ..keypost.clone() };
    let (asked, answered) = (load::get("/"), Expected { status: 200, holds: "" });
    let mut differences = Vec::new();
    for _ in 0..STARTS {
        let least = until_answered(workerds, &constant, &asked, answered).await?;
        let own = until_answered(workerds, &keypost, &token, TOKEN).await?;
        differences.push(own.saturating_sub(least).as_secs_f64() * 1e6);
    }
    let cpu_us = median(differences);
    let row = Row::limited(FIRST_TOKEN, "25 ms of CPU", cpu_us / (MAX_CPU.as_secs_f64() * 1e6));
    Ok(Row { cpu_us_per_request: Some(cpu_us.round()), ..row })
}

async fn until_answered(
    workerds: &Workerds,
    script: &Script,
    request: &[u8],
    expected: Expected,
) -> Result<Duration, Error> {
    let worker = workerds.start(script).await?;
    load::ask_once(&worker.address(), request, expected).await?;
    usage::fine_cpu_time(worker.pid())
}
