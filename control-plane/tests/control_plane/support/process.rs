use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// A `keypost serve` of its own, whose log is kept.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    child: Child,
    lines: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
}

/// What is left of one.
pub(crate) struct Stopped {
    /// All that it logged.
    pub(crate) log: String,
    /// All that it printed.
    pub(crate) shown: String,
    /// How long it took to end.
    pub(crate) took: Duration,
}

impl Serving {
    /// Starts the command, which must log JSON, and waits until it listens.
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command.env("KEYPOST_LISTEN", "127.0.0.1:0").spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let lines = Arc::new(Mutex::new(String::new()));
        let keep = |lines: &Mutex<String>, line: &str| {
            let mut lines = lines.lock().unwrap();
            lines.push_str(line);
            lines.push('\n');
        };
        let address = loop {
            let line = timeout(super::PATIENCE, stderr.next_line()).await.unwrap().unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended: {}", lines.lock().unwrap()));
            keep(&lines, &line);
            let event: Value = serde_json::from_str(&line).expect("every line is JSON");
            if event["message"] == "listening" {
                break event["address"].as_str().unwrap().parse().unwrap();
            }
        };
        let kept = lines.clone();
        let reading = tokio::spawn(async move {
            while let Some(line) = stderr.next_line().await.unwrap() {
                keep(&kept, &line);
            }
        });
        Self { address, child, lines, reading }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Ends it with SIGTERM.
    pub(crate) async fn stop(mut self) -> Stopped {
        let told = Instant::now();
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let status = timeout(super::PATIENCE, self.child.wait()).await.unwrap().unwrap();
        let took = told.elapsed();
        self.reading.await.unwrap();
        let log = self.lines.lock().unwrap().clone();
        assert!(status.success(), "{status}\n{log}");
        let mut shown = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut shown).await.unwrap();
        Stopped { log, shown, took }
    }
}
