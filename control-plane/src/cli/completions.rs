//! `keypost completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::error::CommandError;
use super::output::say;

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

impl CompletionsArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "keypost", &mut script);
        // Written at once, so that a reader that goes away is an error like any other and no panic.
        say(String::from_utf8_lossy(&script).trim_end())
    }
}
