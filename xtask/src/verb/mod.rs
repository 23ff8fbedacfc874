//! What `cargo xtask <verb>` does, a module a verb.

pub mod bench;
pub mod chains;
pub mod db;
pub mod dev;
pub mod lists;
pub mod openapi;
pub mod sqlx;
pub mod test;

use std::time::Duration;

use crate::{Error, stack::process::Process};

/// Prints a result, for the person or the script that asked for it.
#[expect(clippy::print_stdout, reason = "it is what the verb was called for")]
pub fn print(text: &str) {
    println!("{text}");
}

/// Returns when the process has ended by itself; never, where there is none.
pub async fn until_dead(process: Option<&mut Process>) -> Error {
    let Some(process) = process else { return std::future::pending().await };
    loop {
        if let Some(death) = process.death() {
            return death;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
