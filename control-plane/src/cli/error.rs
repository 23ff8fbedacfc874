//! Why a command failed, what a person reads of it, and what a script does (the exit code).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use reqwest::StatusCode;
use sqlx::migrate::MigrateError;

use super::output::printable;
use crate::config::ConfigErrors;
use crate::kv::KvSetupError;
use crate::root::RootError;
use crate::store::StoreError;
use crate::telemetry::traces::TracesError;

/// What every `--help` of the top level says about exit codes.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    not done: the server refused what was sent, or something failed here
  2    the command itself is wrong
  3    no API key, a wrong one, or one that may not do this
  4    there is no such thing
  5    it exists already, has something below it, or was changed in the meantime
  6    the server cannot be reached, is busy or failed: later it may work
  7    the import is done, but some of its rows were refused
  8    the record of who did what was altered
  130  interrupted
  141  whoever read the output went away";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error("the database that DATABASE_URL names cannot be brought up to date: {0}")]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Kv(#[from] KvSetupError),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error("{address} cannot be listened on: {reason}")]
    Listen { address: SocketAddr, reason: io::Error },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Given together, they mean nothing.
    #[error("{0}")]
    Usage(&'static str),
    #[error("{} cannot be read: {reason}", path.display())]
    File { path: PathBuf, reason: io::Error },
    #[error("no API key: set KEYPOST_API_KEY, or name a file that holds it with --api-key-file")]
    NoApiKey,
    #[error("{0} holds no API key, or not all of one: its checksum is wrong")]
    NotAnApiKey(String),
    #[error("the HTTP client cannot be made: {0}")]
    HttpClient(String),
    /// No answer came.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An answer that no Keypost gives.
    #[error("the server's answer is not what a Keypost answers: {0}")]
    Answer(String),
    /// Without a version there is no telling whether somebody else's change would be lost.
    #[error("the server named no version of it (ETag), so nothing was changed")]
    NoVersion,
    #[error("not confirmed; nothing was deleted")]
    NotConfirmed,
    #[error("{refused} of the rows were refused")]
    RowsRefused { refused: u64 },
    /// It began, and did not come to its end.
    #[error("the import did not come to its end: {detail}{}", each_field(fields))]
    ImportFailed { code: String, detail: String, fields: Vec<(String, String)> },
    #[error("the job has failed")]
    JobFailed,
    #[error("{0} findings: the record of who did what was altered")]
    AuditFindings(u64),
    #[error("there is no owner of that username or address")]
    NoSuchOwner,
    #[error("{0} private keys rest under another master key, or are damaged")]
    KeysLeft(u64),
    #[error("interrupted{0}")]
    Interrupted(&'static str),
}

/// A request that the server did not carry out, and what it said.
#[derive(Debug, thiserror::Error)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) detail: String,
    /// What is wrong with which field.
    pub(super) fields: Vec<(String, String)>,
    pub(super) request_id: Option<String>,
    /// In seconds.
    pub(super) retry_after: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status == StatusCode::PRECONDITION_FAILED {
            f.write_str(
                "somebody else changed it in the meantime, so nothing was changed: look at it, and try again",
            )?;
        } else {
            f.write_str(&printable(&self.detail))?;
        }
        f.write_str(&each_field(&self.fields))?;
        if let Some(seconds) = self.retry_after {
            write!(f, "\n  it asks to wait for {seconds} s")?;
        }
        // What is wrong with the caller's own input needs no look into the server's log.
        match &self.request_id {
            Some(id) if self.status.is_server_error() => write!(f, "\n  request {}", printable(id)),
            _ => Ok(()),
        }
    }
}

/// What is wrong with each field, a line for each.
fn each_field(fields: &[(String, String)]) -> String {
    fields.iter().map(|(field, detail)| format!("\n  {}: {}", printable(field), printable(detail))).collect()
}

impl CommandError {
    /// The exit code, as [`EXIT_CODES`] says.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::NoApiKey | Self::NotAnApiKey(_) => 3,
            Self::Unreachable { .. } => 6,
            Self::ImportFailed { code, .. }
                if matches!(code.as_str(), "unavailable" | "timeout" | "internal") =>
            {
                6
            }
            Self::RowsRefused { .. } => 7,
            Self::NoSuchOwner => 4,
            Self::AuditFindings(_) => 8,
            Self::Interrupted(_) => 130,
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => 141,
            Self::Refused(refusal) => match refusal.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => 3,
                StatusCode::NOT_FOUND => 4,
                StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => 5,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => 6,
                status if status.is_server_error() => 6,
                _ => 1,
            },
            _ => 1,
        })
    }

    /// Whether there is anybody to tell.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
