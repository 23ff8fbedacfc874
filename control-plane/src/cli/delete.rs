//! Deleting, which asks first where there is somebody to ask.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;

use super::api::{Api, Place};
use super::error::CommandError;
use super::output::{Output, printable};

/// How to delete.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

/// How to delete what may have something below it.
#[derive(Debug, Args)]
pub(super) struct CascadeArgs {
    /// Delete all that is below it too. Without this, nothing is deleted that has something below it.
    #[arg(long)]
    cascade: bool,
    #[command(flatten)]
    delete: DeleteArgs,
}

impl DeleteArgs {
    /// Deletes `what`, which is at `place`.
    pub(super) async fn run(
        &self,
        api: &Api,
        output: Output,
        place: &Place,
        what: &str,
    ) -> Result<(), CommandError> {
        self.confirm("Delete", what)?;
        api.delete(place).await?;
        output.done(format_args!("Deleted {}.", printable(what)))
    }

    /// Asks before something is done that cannot be undone.
    pub(super) fn confirm(&self, verb: &str, what: &str) -> Result<(), CommandError> {
        if self.yes || !io::stdin().is_terminal() {
            return Ok(());
        }
        let mut terminal = io::stderr().lock();
        write!(terminal, "{verb} {}? [y/N] ", printable(what))?;
        terminal.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(CommandError::NotConfirmed),
        }
    }
}

impl CascadeArgs {
    /// Deletes `what`, which is at `place`.
    pub(super) async fn run(
        &self,
        api: &Api,
        output: Output,
        place: Place,
        what: &str,
    ) -> Result<(), CommandError> {
        if self.cascade {
            let place = place.with("cascade", true);
            return self.delete.run(api, output, &place, &format!("{what} and all that is below it")).await;
        }
        self.delete.run(api, output, &place, what).await
    }
}
