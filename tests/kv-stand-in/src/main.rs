//! The stand-in as a process: prints where it listens, and serves until it is ended.
//!
//! `POST /stand-in/faults` takes a JSON array of faults, `DELETE` forgets them, `GET /stand-in/report` says what was seen.

use std::net::SocketAddr;
use std::process::ExitCode;

use kv_stand_in::{KvStandIn, Options};

const USAGE: &str = "usage: kv-stand-in [--listen ADDRESS:PORT] [--token TOKEN] [--forget-values]";

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it talks to whoever started it")]
fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Some(options) => options,
        None => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let stand_in = KvStandIn::start(options);
    println!("{}", stand_in.api_url());
    loop {
        std::thread::park();
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--listen" => options.listen = arguments.next()?.parse::<SocketAddr>().ok()?,
            "--token" => options.token = arguments.next()?,
            "--forget-values" => {
                options.keep_values = false;
                options.keep_calls = false;
            }
            _ => return None,
        }
    }
    Some(options)
}
