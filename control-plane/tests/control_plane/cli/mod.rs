//! The commands that ask a running control plane: the real binary, over real sockets.

mod certificates;
mod faults;
mod import;
mod sync;
mod verbs;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Output, Stdio};
use std::time::Duration;

use axum::Router;
use keypost::server::{self, ServerLimits};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::TestApp;

/// A server on the loopback address, and a key that it takes.
struct Server {
    address: SocketAddr,
    key: String,
    stop: CancellationToken,
}

impl Server {
    async fn start(router: Router, key: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let limits = ServerLimits {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            drain: Duration::from_secs(1),
            send: Duration::from_secs(30),
        };
        tokio::spawn(server::serve(listener, router, stop.clone(), limits));
        Self { address, key: key.to_owned(), stop }
    }

    async fn of(app: &TestApp) -> Self {
        Self::start(app.router.clone(), &app.admin).await
    }

    /// The command, with an environment of its own: where the server is, and the key.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = keypost(arguments);
        command.env("KEYPOST_URL", format!("http://{}", self.address)).env("KEYPOST_API_KEY", &self.key);
        command
    }

    /// Runs a command to its end.
    async fn run(&self, arguments: &[&str]) -> Done {
        finish(&mut self.command(arguments)).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The built command, which knows nothing.
fn keypost(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypost"));
    command
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A command that has ended.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    /// Fails the test unless the command did what it was told. Answers what it printed.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The JSON objects that it printed, one a line.
    #[track_caller]
    fn json(self) -> Vec<Value> {
        self.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Fails the test unless the command failed with this code, told why, and printed nothing else.
    #[track_caller]
    fn failed(self, code: i32, because: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(because), "{self:?}");
        assert_eq!(self.stdout, "");
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

async fn finish(command: &mut Command) -> Done {
    timeout(Duration::from_secs(60), command.output()).await.expect("it ends in time").unwrap().into()
}

/// The same with something to read.
async fn finish_with(command: &mut Command, input: &str) -> Done {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It need not read it all.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    timeout(Duration::from_secs(60), child.wait_with_output()).await.expect("it ends in time").unwrap().into()
}

/// A terminal of 24 lines by 80 columns.
struct Terminal {
    /// The end at which the person sits.
    person: OwnedFd,
    /// Where the other end is.
    name: String,
}

impl Terminal {
    fn open() -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
        tcsetwinsize(&person, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        Self { person, name }
    }

    /// The end for a command.
    fn end(&self) -> OwnedFd {
        std::fs::OpenOptions::new().read(true).write(true).open(&self.name).unwrap().into()
    }
}
