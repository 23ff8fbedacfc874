//! The `keypost` command.

use std::process::ExitCode;

use clap::Parser;
use keypost::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
