//! Commands that set-up runs and waits for. Each is its own process group, so that a command that is given up
//! (Ctrl-C, a time limit) takes its children with it.

use std::{
    ffi::OsStr,
    future::Future,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{io::AsyncReadExt as _, process::Child};

use crate::Error;

/// How much of a failed command's output is worth showing.
const TAIL_LINES: usize = 30;

/// A command to run to its end.
#[derive(Debug)]
pub struct Cmd {
    what: String,
    limit: Option<Duration>,
    inner: tokio::process::Command,
}

impl Cmd {
    /// `what` names the command in errors: "cargo install wasm-bindgen-cli".
    pub fn new(what: impl Into<String>, program: impl AsRef<OsStr>) -> Self {
        let mut inner = tokio::process::Command::new(program);
        inner.stdin(Stdio::null()).process_group(0);
        for name in std::env::vars_os().map(|(name, _)| name).filter(|name| is_about_xtask(name)) {
            inner.env_remove(name);
        }
        Self { what: what.into(), limit: None, inner }
    }

    /// One argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    /// Several arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.inner.args(args);
        self
    }

    /// A variable of the command's environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Several variables.
    #[must_use]
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(mut self, vars: impl IntoIterator<Item = (N, V)>) -> Self {
        self.inner.envs(vars);
        self
    }

    /// Takes a variable away.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.inner.env_remove(name);
        self
    }

    /// The folder that the command runs in.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.inner.current_dir(dir);
        self
    }

    /// The user and group that the command runs as; only root can ask for others than its own.
    #[must_use]
    pub fn user(mut self, ids: Option<(u32, u32)>) -> Self {
        if let Some((uid, gid)) = ids {
            self.inner.uid(uid).gid(gid);
        }
        self
    }

    /// For a command that runs cargo: shows its progress to a person, and a log file only what goes wrong.
    #[must_use]
    pub fn cargo_progress(mut self) -> Self {
        if !std::io::stderr().is_terminal() {
            self.inner.env("CARGO_TERM_QUIET", "true");
        }
        self
    }

    /// Gives up after this long.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Runs it silently; its output is shown only if it fails.
    ///
    /// # Errors
    /// When it cannot be started, fails, or takes longer than its limit.
    pub async fn run(self) -> Result<(), Error> {
        self.output().await.map(drop)
    }

    /// Runs it silently and returns what it wrote to its standard output.
    ///
    /// # Errors
    /// As [`Cmd::run`].
    pub async fn output(mut self) -> Result<String, Error> {
        self.inner.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, group) = self.start()?;
        let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let (status, _, _) = tokio::join!(
                child.wait(),
                async {
                    match &mut stdout {
                        Some(pipe) => pipe.read_to_end(&mut out).await,
                        None => Ok(0),
                    }
                },
                async {
                    match &mut stderr {
                        Some(pipe) => pipe.read_to_end(&mut err).await,
                        None => Ok(0),
                    }
                },
            );
            let status = status.map_err(|source| Error::Spawn { program: self.what.clone(), source })?;
            let out = String::from_utf8_lossy(&out).into_owned();
            if status.success() {
                return Ok(out);
            }
            let said = format!("{out}\n{}", String::from_utf8_lossy(&err));
            Err(Error::Command { what: self.what.clone(), status, tail: tail(&said, TAIL_LINES) })
        };
        let result = within(self.limit, &self.what, work).await;
        group.finished(&result);
        result
    }

    /// Runs it with its output shown as it comes, and returns how it ended.
    ///
    /// # Errors
    /// When it cannot be started or takes longer than its limit.
    pub async fn status_shown(mut self) -> Result<ExitStatus, Error> {
        let (mut child, group) = self.start()?;
        let work = async {
            child.wait().await.map_err(|source| Error::Spawn { program: self.what.clone(), source })
        };
        let result = within(self.limit, &self.what, work).await;
        group.finished(&result);
        result
    }

    /// Runs it with its output shown as it comes.
    ///
    /// # Errors
    /// As [`Cmd::run`].
    pub async fn run_shown(self) -> Result<(), Error> {
        let what = self.what.clone();
        let status = self.status_shown().await?;
        if status.success() { Ok(()) } else { Err(Error::Command { what, status, tail: String::new() }) }
    }

    fn start(&mut self) -> Result<(Child, Group), Error> {
        let program = self.inner.as_std().get_program().to_string_lossy().into_owned();
        let child = self.inner.spawn().map_err(|source| Error::Spawn { program, source })?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok((child, Group { pid }))
    }
}

/// Ends a command's process group if the command is given up.
struct Group {
    pid: Option<Pid>,
}

impl Group {
    fn finished<T>(mut self, result: &Result<T, Error>) {
        if !matches!(result, Err(Error::Timeout { .. })) {
            self.pid = None;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            // It may have ended in this very moment.
            let _ = kill_process_group(pid, Signal::TERM);
        }
    }
}

async fn within<T>(
    limit: Option<Duration>,
    what: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(limit) = limit else { return work.await };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Error::Timeout { what: what.to_owned(), seconds: limit.as_secs(), last: String::new() })
    })
}

/// Whether cargo has set this variable for us, about us. Passed on to another cargo it would be taken for a change:
/// build scripts watch some of these.
fn is_about_xtask(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        name.starts_with("CARGO_PKG_")
            || matches!(name, "CARGO_MANIFEST_DIR" | "CARGO_MANIFEST_PATH" | "CARGO_PRIMARY_PACKAGE")
    })
}

/// Where a program is in `PATH`.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The program, or an error that says what to do about its absence.
///
/// # Errors
/// [`Error::MissingTool`].
pub fn need_program(name: &str, remedy: &str) -> Result<PathBuf, Error> {
    find_program(name).ok_or_else(|| Error::MissingTool { tool: name.to_owned(), remedy: remedy.to_owned() })
}

/// `PATH` with this folder before all others.
#[must_use]
pub fn path_with(first: &Path) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(first.to_path_buf()).chain(std::env::split_paths(&rest)))
        .unwrap_or(rest)
}

/// The last lines of a text.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_command_shows_the_end_of_what_it_said() {
        let error = Cmd::new("the script", "sh")
            .args(["-c", "echo first; echo last >&2; exit 3"])
            .run()
            .await
            .unwrap_err();
        let shown = error.to_string();
        assert!(
            shown.contains("the script failed") && shown.contains("first") && shown.contains("last"),
            "{shown}"
        );
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_given_up() {
        let slow = Cmd::new("the script", "sleep").arg("1000").limit(Duration::from_millis(50));
        assert!(matches!(slow.run().await, Err(Error::Timeout { .. })));
    }

    #[test]
    fn the_tail_is_the_last_lines_that_say_something() {
        assert_eq!(tail("a\n\nb\nc\n\n", 2), "b\nc");
        assert_eq!(tail("", 2), "");
    }
}
