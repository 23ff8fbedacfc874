//! `keypost device import`: a file of any size, streamed in both directions.
//!
//! The file is read on a thread of its own, a few pieces ahead of the network, and the answer is read line by line while
//! the rest is still on its way. So the memory it takes does not depend on the file.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::stream;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keypost_shared::id::ClientAppId;
use reqwest::{Body, Response};
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::api::{Api, Place};
use super::error::CommandError;
use super::output::{Output, counts, printable, say};

/// How much is read from the file at once.
const PIECE_BYTES: usize = 64 << 10;
/// How many pieces wait for the network.
const PIECES_AHEAD: usize = 4;
/// How long the server has for its first word, before it is sent any of the file.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// How often the bar moves where nothing else does.
const TICK: Duration = Duration::from_millis(250);
/// The longest line that an answer may have.
const MAX_LINE_BYTES: usize = 1 << 20;

/// What to import, and how.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file, `-` for standard input: a JSON object a line, or CSV with the columns id, name, description, tags.KEY,
    /// metadata.KEY, primaryServerUrl and serverUrls (several URLs parted by |).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the file holds, where its name does not say so.
    #[arg(long)]
    format: Option<Format>,
    /// Also see to it that each device has this app, and what activates it. That goes to standard output, a JSON object a
    /// line. Devices that are there already and have not been activated get something new.
    #[arg(long, value_name = "CLIENT_APP")]
    app: Option<ClientAppId>,
    /// A scope that the app may ask for. As often as needed; `device` where none is given.
    #[arg(long = "scope", requires = "app")]
    scopes: Vec<String>,
    /// What each device gets.
    #[arg(long, requires = "app")]
    issue: Option<Issue>,
    /// How long one-time passwords are valid.
    #[arg(long, value_name = "SECONDS", requires = "app")]
    otp_ttl: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Issue {
    /// A one-time password, with which the device gets a secret.
    Otp,
    /// A client secret, which the device can use as it is.
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object a line.
    Ndjson,
    /// Comma-separated values, with a heading.
    Csv,
}

/// A line of the answer, as far as it matters here. The summary is the one that belongs to no line of the file.
#[derive(Debug, Deserialize)]
struct Line {
    line: Option<u64>,
    id: Option<String>,
    status: Option<String>,
    #[serde(default)]
    errors: Vec<FieldError>,
    /// In the summary: why the import did not come to its end.
    error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

#[derive(Debug, Deserialize)]
struct FieldError {
    field: String,
    detail: String,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }
}

impl Issue {
    fn name(self) -> &'static str {
        match self {
            Self::Otp => "otp",
            Self::Client => "client",
        }
    }
}

impl ImportArgs {
    /// Whether standard input is what to import.
    pub(super) fn takes_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    /// Imports into the environment whose import is at `place`.
    pub(super) async fn run(&self, api: &Api, output: Output, place: Place) -> Result<(), CommandError> {
        let format = self.format.or_else(|| Format::of(&self.file)).ok_or(CommandError::Usage(
            "the file's name says not what it holds (.ndjson, .jsonl or .csv): say --format ndjson or --format csv",
        ))?;
        let (source, length): (Box<dyn Read + Send>, Option<u64>) = if self.takes_stdin() {
            (Box::new(io::stdin()), None)
        } else {
            let opened = File::open(&self.file).and_then(|file| Ok((file.metadata()?, file)));
            let (metadata, file) =
                opened.map_err(|reason| CommandError::File { path: self.file.clone(), reason })?;
            (Box::new(file), metadata.is_file().then_some(metadata.len()))
        };
        let progress = progress_bar(length);
        let heard = Arc::new(Notify::new());
        let body = Body::wrap_stream(pieces(source, progress.clone(), heard.clone()));
        let scopes = (!self.scopes.is_empty()).then(|| self.scopes.join(","));
        let place = place
            .with_some("app", self.app.as_ref())
            .with_some("scopes", scopes)
            .with_some("issue", self.issue.map(Issue::name))
            .with_some("ttlSeconds", self.otp_ttl);
        let importing = async {
            let response = api.upload(&place, format.content_type(), body).await?;
            heard.notify_one();
            Report { output, progress: &progress, refused: 0 }.read(api, response).await
        };
        let done = tokio::select! {
            done = importing => done,
            _ = tokio::signal::ctrl_c() => Err(CommandError::Interrupted(
                "; what was imported until then stays, and importing the same file again does the rest",
            )),
        };
        progress.finish_and_clear();
        done
    }
}

/// The pieces of a source, counted as they leave, once the server has been heard: one that refuses closes the connection
/// then, and what it said is lost to whoever is still writing.
/// A thread reads them, because a read from a terminal cannot be given up:
/// a process may end beside such a thread, but a runtime waits for its own.
fn pieces(
    mut source: Box<dyn Read + Send>,
    progress: ProgressBar,
    heard: Arc<Notify>,
) -> impl stream::Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = match source.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => {
                    piece.truncate(read);
                    Ok(piece)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    stream::unfold((receiver, progress, Some(heard)), async |(mut receiver, progress, heard)| {
        if let Some(heard) = heard {
            // A server may as well want to see something first.
            let _ = timeout(FIRST_WORD, heard.notified()).await;
        }
        let piece: io::Result<Vec<u8>> = receiver.recv().await?;
        if let Ok(piece) = &piece {
            progress.inc(piece.len() as u64);
        }
        Some((piece, (receiver, progress, None)))
    })
}

/// A bar on standard error; nothing where that is no terminal.
fn progress_bar(length: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
        ),
        None => (ProgressBar::no_length(), "{spinner} {bytes}  {bytes_per_sec}  {elapsed}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// The answer, told as it comes.
struct Report<'a> {
    output: Output,
    progress: &'a ProgressBar,
    refused: u64,
}

/// How the import ended.
struct Ended {
    /// The summary, for people.
    counts: String,
    failure: Option<Failure>,
}

impl Report<'_> {
    async fn read(mut self, api: &Api, mut response: Response) -> Result<(), CommandError> {
        let mut held: Vec<u8> = Vec::new();
        let mut ended = None;
        while let Some(chunk) = response.chunk().await.map_err(|error| api.unreachable(error))? {
            held.extend_from_slice(&chunk);
            let mut rest = held.as_slice();
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (line, after) = rest.split_at(end);
                ended = self.line(line)?.or(ended);
                rest = after.get(1..).unwrap_or_default();
            }
            let left = rest.len();
            if left > MAX_LINE_BYTES {
                return Err(CommandError::Answer(format!("a line has more than {MAX_LINE_BYTES} bytes")));
            }
            held.drain(..held.len() - left);
        }
        let last = self.line(&held)?.or(ended);
        let Some(Ended { counts, failure }) = last else {
            return Err(CommandError::Answer("it ends without a summary, so rows may be missing".to_owned()));
        };
        self.aside(&counts);
        match (failure, self.refused) {
            (Some(Failure { code, detail, errors }), _) => {
                let detail = printable(&detail);
                let fields = errors.into_iter().map(|error| (error.field, error.detail)).collect();
                Err(CommandError::ImportFailed { code, detail, fields })
            }
            (None, 0) => Ok(()),
            (None, refused) => Err(CommandError::RowsRefused { refused }),
        }
    }

    /// Tells a line, and answers what it says if it is the summary.
    fn line(&mut self, bytes: &[u8]) -> Result<Option<Ended>, CommandError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let garbled = |error: &dyn std::fmt::Display| CommandError::Answer(error.to_string());
        let text = str::from_utf8(bytes).map_err(|error| garbled(&error))?;
        let line: Line = serde_json::from_str(text).map_err(|error| garbled(&error))?;
        let Some(number) = line.line else {
            if self.output.json {
                self.progress.suspend(|| say(text))?;
            }
            return Ok(Some(Ended { counts: counts(text)?, failure: line.error }));
        };
        let status = line.status.as_deref().unwrap_or_default();
        let is_refused = matches!(status, "conflict" | "invalid");
        self.refused += u64::from(is_refused);
        if self.output.json || !(is_refused || status == "unchanged") {
            self.progress.suspend(|| say(text))?;
        } else if is_refused {
            self.aside(&refused_row(number, &line, status));
        }
        Ok(None)
    }

    /// A line for the person, above the bar.
    fn aside(&self, line: &str) {
        self.progress.suspend(|| {
            // There is nobody else to tell.
            let _ = writeln!(io::stderr().lock(), "{line}");
        });
    }
}

fn refused_row(number: u64, line: &Line, status: &str) -> String {
    let id = line.id.as_deref().map(|id| format!(" ({})", printable(id))).unwrap_or_default();
    let reasons: Vec<String> =
        line.errors.iter().map(|error| printable(&format!("{} {}", error.field, error.detail))).collect();
    format!("line {number}{id}: {status}: {}", reasons.join("; "))
}
