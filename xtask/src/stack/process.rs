//! A process of the stack under its supervisor (see [`super::supervise`]). Dropping it stops it.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    future::Future,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::supervise::{KILL, Stop};
use crate::{Error, command, files, setup::postgres::User};

/// How much of a log is worth showing when its process has died.
const TAIL_LINES: usize = 25;
const TAIL_BYTES: i64 = 16 * 1024;

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(50);

/// What to run, and how to end it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What a person calls it: "PostgreSQL".
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    /// The folder that it runs in.
    pub dir: Option<PathBuf>,
    /// Where its output goes, appended.
    pub log: PathBuf,
    pub stop: Stop,
    /// How long it may take to stop before it is killed.
    pub grace: Duration,
    pub user: Option<User>,
    /// A lock file to share as long as it lives.
    pub lock: Option<PathBuf>,
}

impl Spec {
    /// A program that stops on SIGTERM within ten seconds.
    #[must_use]
    pub fn new(name: &'static str, program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name,
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            log: log.into(),
            stop: Stop::Term,
            grace: Duration::from_secs(10),
            user: None,
            lock: None,
        }
    }

    /// Arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Variables of its environment.
    #[must_use]
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(mut self, vars: impl IntoIterator<Item = (N, V)>) -> Self {
        self.env.extend(
            vars.into_iter().map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned())),
        );
        self
    }
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    log: PathBuf,
    pid: u32,
    supervisor: Child,
    orders: Option<ChildStdin>,
    words: BufReader<ChildStdout>,
    /// How it ended, once that is known.
    ended: Option<String>,
}

impl Process {
    /// Starts it under a supervisor, which is this program: `xtask`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(xtask: &Path, spec: Spec) -> Result<Self, Error> {
        if let Some(folder) = spec.log.parent() {
            files::create_folder(folder)?;
        }
        let mut supervisor = Command::new(xtask);
        supervisor
            .arg("supervise")
            .arg("--log")
            .arg(&spec.log)
            .args([
                "--stop",
                match spec.stop {
                    Stop::Term => "term",
                    Stop::Int => "int",
                },
            ])
            .args(["--grace", &spec.grace.as_secs().to_string()]);
        if let Some(user) = spec.user {
            supervisor.args(["--uid", &user.uid.to_string(), "--gid", &user.gid.to_string()]);
        }
        if let Some(lock) = &spec.lock {
            supervisor.arg("--lock").arg(lock);
        }
        if let Some(dir) = &spec.dir {
            supervisor.current_dir(dir);
        }
        supervisor
            .arg("--")
            .arg(&spec.program)
            .args(&spec.args)
            .envs(spec.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let spawn_error = |source| Error::Spawn { program: spec.program.display().to_string(), source };
        let mut supervisor = supervisor.spawn().map_err(spawn_error)?;
        let orders = supervisor.stdin.take();
        let Some(words) = supervisor.stdout.take() else {
            return Err(Error::Refused("a supervisor without a voice".to_owned()));
        };
        let mut words = BufReader::new(words);
        let mut line = String::new();
        words.read_line(&mut line).map_err(spawn_error)?;
        let Some(pid) = line.trim().strip_prefix("pid ").and_then(|pid| pid.parse().ok()) else {
            // It has said why on our own standard error.
            let _ = supervisor.wait();
            return Err(Error::Refused(format!("{} did not start", spec.name)));
        };
        Ok(Self { name: spec.name, log: spec.log, pid, supervisor, orders, words, ended: None })
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The error that says that it has ended, if it has.
    pub fn death(&mut self) -> Option<Error> {
        if self.ended.is_none() && !matches!(self.supervisor.try_wait(), Ok(None)) {
            self.end();
        }
        let status = self.ended.clone()?;
        Some(Error::Died {
            name: self.name.to_owned(),
            status,
            log: self.log.clone(),
            tail: end_of(&self.log),
        })
    }

    /// Waits until `probe` says that it is up; `Err(why)` from it means not yet.
    ///
    /// # Errors
    /// When it dies first, or is not up in time.
    pub async fn until_up<F: Future<Output = Result<(), String>>>(
        &mut self,
        limit: Duration,
        mut probe: impl FnMut() -> F,
    ) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            if let Some(death) = self.death() {
                return Err(death);
            }
            let last = match probe().await {
                Ok(()) => return Ok(()),
                Err(last) => last,
            };
            if started.elapsed() > limit {
                let last = format!("{last}\nthe end of {}:\n{}", self.log.display(), end_of(&self.log));
                return Err(Error::Timeout {
                    what: format!("starting {}", self.name),
                    seconds: limit.as_secs(),
                    last,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops it and waits until it has ended; after its grace it is killed.
    pub fn stop(mut self) {
        self.end();
    }

    /// Kills it with -9 and waits until it is gone.
    pub fn kill(mut self) {
        if let Some(orders) = &mut self.orders {
            // A supervisor that is gone has nothing left to kill.
            let _ = orders.write_all(KILL.as_bytes());
        }
        self.end();
    }

    fn end(&mut self) {
        if self.ended.is_some() {
            return;
        }
        drop(self.orders.take());
        let _ = self.supervisor.wait();
        let mut words = String::new();
        let _ = self.words.read_to_string(&mut words);
        let last = words.lines().last().map(ToOwned::to_owned);
        if last.is_none() {
            // Somebody has killed the supervisor: do its work.
            if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
        }
        self.ended = Some(last.unwrap_or_else(|| "its supervisor was killed".to_owned()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last lines of a log.
fn end_of(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = i64::try_from(fs::metadata(log)?.len()).unwrap_or(i64::MAX);
        file.seek(SeekFrom::End(-length.min(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    command::tail(&String::from_utf8_lossy(&read().unwrap_or_default()), TAIL_LINES)
}
