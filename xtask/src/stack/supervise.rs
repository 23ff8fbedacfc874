//! The supervisor of one process of the stack: `xtask supervise … -- program args…`.
//!
//! It stands between us and the process because we can be killed with -9: its standard input is a pipe whose
//! other end only we hold, and when that closes, for whatever reason, it stops the process, then whatever the
//! process has left behind in its process group. It lives in a process group of its own, so a Ctrl-C at the
//! terminal does not reach it or the process; we stop things in our own order.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, BufRead as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use crate::{Error, files::FolderLock};

/// What the supervisor is told on its command line. Secrets are not among it: they travel in the environment.
#[derive(Clone, Debug, clap::Args)]
pub struct Supervise {
    /// Where the process's output goes.
    #[arg(long)]
    pub log: PathBuf,
    /// The signal that asks the process to stop.
    #[arg(long, value_enum)]
    pub stop: Stop,
    /// Seconds until the process is killed if it does not.
    #[arg(long)]
    pub grace: u64,
    /// The user and group to run it as.
    #[arg(long, requires = "gid")]
    pub uid: Option<u32>,
    #[arg(long)]
    pub gid: Option<u32>,
    /// A lock to share as long as the process lives.
    #[arg(long)]
    pub lock: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// The signal that asks a process to stop.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Stop {
    /// What most understand.
    Term,
    /// PostgreSQL's fast shutdown.
    Int,
}

/// The line that tells a supervisor to kill its process with -9.
pub const KILL: &str = "kill\n";

enum Event {
    /// The process has ended, but still holds its number.
    Ended,
    /// We are gone, or want it stopped.
    Stop,
    /// We want it dead.
    Kill,
}

/// Runs the supervisor until its process has ended.
///
/// # Errors
/// When the process cannot be started.
pub fn supervise(options: &Supervise) -> Result<ExitCode, Error> {
    let _lock = options.lock.as_deref().map(FolderLock::share).transpose()?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&options.log)
        .map_err(Error::file("open", &options.log))?;
    let errors = log.try_clone().map_err(Error::file("open", &options.log))?;
    let Some((program, args)) = options.command.split_first() else {
        return Err(Error::Refused("supervise: no command".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
    if let Some((uid, gid)) = options.uid.zip(options.gid) {
        command.uid(uid).gid(gid);
    }
    let spawn_error = |source| Error::Spawn { program: program.to_string_lossy().into_owned(), source };
    let mut child = command.spawn().map_err(spawn_error)?;
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Err(Error::Refused("supervise: the process has no number".to_owned()));
    };
    say(&format!("pid {}", child.id()));

    let (events, inbox) = mpsc::channel();
    let orders = events.clone();
    thread::spawn(move || listen(&orders));
    thread::spawn(move || {
        // It keeps its number until it is waited for below, so the group that we kill is still its group.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let _ = events.send(Event::Ended);
    });
    govern(pid, options, &inbox);
    // Whatever it has left behind goes with it.
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait().map_err(spawn_error)?;
    say(&match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    });
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns when the process has ended.
fn govern(pid: Pid, options: &Supervise, inbox: &mpsc::Receiver<Event>) {
    let mut deadline: Option<Instant> = None;
    loop {
        let event = match deadline {
            None => inbox.recv().unwrap_or(Event::Ended),
            Some(deadline) => {
                inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or(Event::Kill)
            }
        };
        match event {
            Event::Ended => return,
            Event::Stop => {
                let signal = match options.stop {
                    Stop::Term => Signal::TERM,
                    Stop::Int => Signal::INT,
                };
                let _ = kill_process(pid, signal);
                deadline.get_or_insert_with(|| Instant::now() + Duration::from_secs(options.grace));
            }
            Event::Kill => {
                let _ = kill_process_group(pid, Signal::KILL);
                deadline = None;
            }
        }
    }
}

fn listen(orders: &mpsc::Sender<Event>) {
    for line in io::stdin().lock().lines() {
        match line {
            Ok(line) if line == KILL.trim_end() => {
                let _ = orders.send(Event::Kill);
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let _ = orders.send(Event::Stop);
}

/// Nobody may be listening any more, which is no reason to stop.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
