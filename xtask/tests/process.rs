//! Nothing that the stack starts outlives it.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands, its helpers too")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, test_kill_process};
use xtask::{
    Error,
    stack::process::{Process, Spec},
};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// A shell script under a supervisor, with a log of its own.
fn start(test: &str, script: &str, grace: Duration) -> Process {
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.log"));
    let _ = fs::remove_file(&log);
    let mut spec = Spec::new("the script", "sh", log).args(["-c", script]);
    spec.grace = grace;
    Process::start(Path::new(XTASK), spec).unwrap()
}

/// Waits for the condition.
fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

fn lives(pid: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    test_kill_process(pid).is_ok()
}

/// The number that the script has written to its log.
fn logged_pid(process: &Process) -> u32 {
    let read = || fs::read_to_string(process.log()).unwrap().trim().parse().ok();
    until("the script logs a number", || read().is_some());
    read().unwrap()
}

#[test]
fn dropping_a_process_ends_it_and_what_it_has_left_behind() {
    // The shell goes away on SIGTERM without a thought for its child.
    let process = start("left-behind", "sleep 1000 & echo $!; wait", Duration::from_secs(10));
    let (parent, child) = (process.pid(), logged_pid(&process));
    assert!(lives(parent) && lives(child));
    drop(process);
    until("both are gone", || !lives(parent) && !lives(child));
}

#[test]
fn a_process_that_does_not_stop_is_killed_when_its_grace_is_over() {
    let process =
        start("stubborn", "trap '' TERM; echo $$; while :; do sleep 1000; done", Duration::from_secs(1));
    let pid = logged_pid(&process);
    let started = Instant::now();
    process.stop();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(!lives(pid));
}

#[test]
fn kill_does_not_ask() {
    let process = start(
        "asked",
        "trap 'echo asked' TERM; echo $$; while :; do sleep 0.1; done",
        Duration::from_secs(10),
    );
    let (pid, log) = (logged_pid(&process), process.log().to_path_buf());
    process.kill();
    assert!(!lives(pid));
    assert!(!fs::read_to_string(log).unwrap().contains("asked"));
}

#[test]
fn a_process_that_ends_by_itself_is_reported_with_the_end_of_its_log() {
    let mut process = start("ends", "echo why it ended; exit 7", Duration::from_secs(10));
    let started = Instant::now();
    let death = loop {
        if let Some(death) = process.death() {
            break death;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "it ends");
        std::thread::yield_now();
    };
    let Error::Died { status, tail, .. } = &death else { panic!("{death}") };
    assert_eq!((status.as_str(), tail.as_str()), ("exit code 7", "why it ended"));
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("absent.log");
    assert!(Process::start(Path::new(XTASK), Spec::new("nothing", "/no/such/program", log)).is_err());
}
