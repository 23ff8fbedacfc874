//! What can go wrong on the way to a running stack, in words for the person at the terminal: what failed, and
//! what to do about it where that is known.

use std::{io, path::PathBuf, process::ExitStatus};

/// Every failure of a verb of `cargo xtask`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that the machine should have is not in `PATH`, or does not work.
    #[error("{tool} is missing: {remedy}")]
    MissingTool { tool: String, remedy: String },

    /// A command that we ran ended badly; `tail` is the end of what it said.
    #[error("{what} failed ({status}){}", indent(.tail))]
    Command { what: String, status: ExitStatus, tail: String },

    /// A command could not be started at all.
    #[error("cannot start {program}: {source}")]
    Spawn { program: String, source: io::Error },

    /// A command, or an answer, took longer than we are ready to wait.
    #[error("{what} took longer than {seconds} s{}", indent(.last))]
    Timeout { what: String, seconds: u64, last: String },

    /// A process of the stack ended by itself.
    #[error("{name} ended by itself ({status}); the end of {}:{}", .log.display(), indent(.tail))]
    Died { name: String, status: String, log: PathBuf, tail: String },

    /// Somebody else listens where we want to.
    #[error("port {port} on 127.0.0.1 is taken: stop what listens there, or choose other ports ({remedy})")]
    PortTaken { port: u16, remedy: &'static str },

    /// A file operation failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },

    /// A file or an answer is not what it should be.
    #[error("{what} is not as expected: {detail}")]
    Malformed { what: String, detail: String },

    /// An HTTP request got no answer.
    #[error("{request}: {source}")]
    Request { request: String, source: reqwest::Error },

    /// An HTTP request got an answer that we did not want.
    #[error("{request} answered {status}: {body}")]
    Answer { request: String, status: u16, body: String },

    /// A condition that only the person can change.
    #[error("{0}")]
    Refused(String),

    /// Ctrl-C, SIGTERM or SIGHUP.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// For `map_err` on file operations: `.map_err(Error::file("read", &path))`.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// For `map_err` on parsing: `.map_err(Error::malformed("dev.json"))`.
    pub fn malformed<E: ToString>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |detail| Self::Malformed { what, detail: detail.to_string() }
    }

    /// For `map_err` on requests: `.map_err(Error::request("GET /readyz"))`.
    pub fn request(request: impl Into<String>) -> impl FnOnce(reqwest::Error) -> Self {
        let request = request.into();
        move |source| Self::Request { request, source }
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("\n    {line}")).collect()
}
