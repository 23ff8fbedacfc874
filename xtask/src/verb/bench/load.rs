//! The load: 16 connections that stay open, each asking again as soon as it has been answered. Every answer is looked at,
//! and one that is not as expected ends the run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

use super::wire::Incoming;
use crate::Error;

/// How many ask at once, unless a job says otherwise.
pub(super) const CONNECTIONS: usize = 16;

/// How long a single answer may take. A server that stalls fails the run instead of holding it up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to ask, again and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// `127.0.0.1:PORT`.
    pub(super) address: String,
    /// Whole requests as they go over the wire.
    pub(super) texts: Arc<Vec<Vec<u8>>>,
    /// Which one is next: a run goes on where the one before has ended.
    pub(super) next: Arc<AtomicUsize>,
    /// Whether each may be sent once only: then the run ends with the last of them.
    pub(super) once: bool,
    /// What each answer must be.
    pub(super) expected: Expected,
}

impl Requests {
    /// Requests that may be sent again and again.
    pub(super) fn of(address: String, texts: Vec<Vec<u8>>, expected: Expected) -> Self {
        Self { address, texts: Arc::new(texts), next: Arc::default(), once: false, expected }
    }
}

/// What an answer must be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected {
    /// The status.
    pub(super) status: u16,
    /// A text that the body must hold.
    pub(super) holds: &'static str,
}

/// What a run has shown.
#[derive(Debug)]
pub(super) struct Load {
    /// How many requests were answered.
    pub(super) requests: usize,
    /// How long all of it took.
    pub(super) took: Duration,
    /// How long each answer took, in order.
    pub(super) latencies: Vec<Duration>,
}

impl Load {
    pub(super) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }

    /// The latency that this share of the answers was at least as fast as, in milliseconds.
    pub(super) fn percentile_ms(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    }
}

/// A request without a body.
pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// A POST of this content type, with more header lines (each with its line end).
pub(super) fn post(path: &str, content_type: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

/// The content type of OAuth's requests.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// Asks for this long, or until there is nothing left to ask.
///
/// # Errors
/// When an answer is not as expected, or does not come.
pub(super) async fn run(requests: &Requests, connections: usize, duration: Duration) -> Result<Load, Error> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(connect(&requests.address).await?);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for stream in open {
        tasks.spawn(ask(stream, requests.clone(), started + duration));
    }
    let mut latencies = Vec::new();
    while let Some(finished) = tasks.join_next().await {
        let finished = finished.map_err(|error| Error::Refused(format!("a connection ended: {error}")))?;
        latencies.append(&mut finished?);
    }
    let took = started.elapsed();
    latencies.sort_unstable();
    Ok(Load { requests: latencies.len(), took, latencies })
}

async fn ask(mut stream: TcpStream, requests: Requests, end: Instant) -> Result<Vec<Duration>, Error> {
    let mut incoming = Incoming::default();
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let number = requests.next.fetch_add(1, Ordering::Relaxed);
        let at = if requests.once { number } else { number % requests.texts.len().max(1) };
        let Some(text) = requests.texts.get(at) else { break };
        let asked = Instant::now();
        let answered = exchange(&mut stream, &mut incoming, text, requests.expected);
        let answered = tokio::time::timeout(PATIENCE, answered).await;
        latencies.push(asked.elapsed());
        let failed = match answered {
            Ok(Ok(())) => continue,
            Ok(Err(reason)) => reason,
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        let line = String::from_utf8_lossy(text).lines().next().unwrap_or_default().to_owned();
        return Err(Error::Refused(format!("{line} at {}: {failed}", requests.address)));
    }
    Ok(latencies)
}

async fn connect(address: &str) -> Result<TcpStream, Error> {
    let failed = |error: std::io::Error| Error::Refused(format!("{address} cannot be reached: {error}"));
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// One request and its answer. The error says what was wrong with the answer.
async fn exchange(
    stream: &mut TcpStream,
    incoming: &mut Incoming,
    request: &[u8],
    expected: Expected,
) -> Result<(), String> {
    stream.write_all(request).await.map_err(|error| error.to_string())?;
    let message = incoming.message(stream).await.map_err(|error| error.to_string())?;
    let message = message.ok_or("the connection was closed")?;
    let line = incoming.first_line(&message);
    let body = incoming.body(&message);
    let holds = expected.holds.is_empty()
        || body.windows(expected.holds.len()).any(|part| part == expected.holds.as_bytes());
    if line.split(' ').nth(1) == Some(expected.status.to_string().as_str()) && holds {
        return Ok(());
    }
    let body: String = String::from_utf8_lossy(body).chars().take(300).collect();
    Err(format!("{line}: {body}"))
}

/// Asks once, and gives the answer's body.
///
/// # Errors
/// When it is not as expected, or does not come.
pub(super) async fn ask_once(address: &str, request: &[u8], expected: Expected) -> Result<String, Error> {
    let mut stream = connect(address).await?;
    let mut incoming = Incoming::default();
    let failed = |reason: String| Error::Refused(format!("{address}: {reason}"));
    stream.write_all(request).await.map_err(|error| failed(error.to_string()))?;
    let message = incoming.message(&mut stream).await.map_err(|error| failed(error.to_string()))?;
    let message = message.ok_or_else(|| failed("the connection was closed".to_owned()))?;
    let body = String::from_utf8_lossy(incoming.body(&message)).into_owned();
    let line = incoming.first_line(&message);
    if line.split(' ').nth(1) == Some(expected.status.to_string().as_str()) && body.contains(expected.holds) {
        Ok(body)
    } else {
        Err(failed(format!("{line}: {body}")))
    }
}
