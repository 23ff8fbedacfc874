//! `keypost sync`

use clap::{Args, Subcommand};

use super::api::Place;
use super::connection::ConnectionArgs;
use super::error::CommandError;

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what has yet to be published to the edge, and since when.
    Status,
}

impl SyncArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let (api, output) = self.connection.open()?;
        match self.verb {
            Verb::Status => output.one(&api.get(&Place::of(["sync"])).await?),
        }
    }
}
