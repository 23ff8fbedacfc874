//! `keypost keys`

use clap::{Args, Subcommand};
use keypost_shared::id::{Kid, PoolId};

use super::api::Place;
use super::body::Body;
use super::connection::ConnectionArgs;
use super::delete::DeleteArgs;
use super::error::CommandError;
use super::list::ListArgs;
use super::output::Column;
use super::rewrap;

const KEYS: [Column; 7] = [
    ("KID", "kid"),
    ("STATE", "state"),
    ("BACKEND", "backend"),
    ("PUBLISHED", "publishedAt"),
    ("SIGNS FROM", "activatesAt"),
    ("SIGNS UNTIL", "retiresAt"),
    ("IN KEY SET UNTIL", "removedAt"),
];

#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// A client pool.
#[derive(Debug, Args)]
struct InPool {
    /// The client pool: `keypost pool get` shows its id.
    #[arg(long, short, value_name = "POOL", env = "KEYPOST_CLIENT_POOL_ID", hide_env_values = true)]
    pool: PoolId,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the keys of a client pool, newest first, with the times of their lives: those that are over and those to come.
    List {
        #[command(flatten)]
        within: InPool,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Let the next key sign: at once where it has been in the key set for an hour, else as soon as it has.
    Rotate {
        #[command(flatten)]
        within: InPool,
    },
    /// Revoke a key: it and all tokens that it has signed are worthless. Says by when, and which key signs now.
    Revoke {
        #[command(flatten)]
        within: InPool,
        /// The key.
        #[arg(allow_hyphen_values = true)]
        kid: Kid,
        #[command(flatten)]
        sure: DeleteArgs,
    },
    /// Encrypt all private keys in the database anew, under KEYPOST_MASTER_KEY: those that rest under
    /// KEYPOST_MASTER_KEY_PREVIOUS. Asks the database, not a server; docs/operations.md has the steps before and after.
    Rewrap,
}

impl InPool {
    /// `{clientPoolId}/keys`
    fn place(&self) -> Place {
        Place::of([self.pool.to_string().as_str(), "keys"])
    }
}

impl KeysArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        if let Verb::Rewrap = self.verb {
            return rewrap::rewrap().await;
        }
        let (api, output) = self.connection.open()?;
        match self.verb {
            Verb::List { within, list } => list.print(&api, output, within.place(), &KEYS).await,
            Verb::Rotate { within } => {
                let place = within.place().then("rotate");
                output.one(&api.create(&place, Body::default().to_bytes()?).await?)
            }
            Verb::Rewrap => Ok(()),
            Verb::Revoke { within, kid, sure } => {
                sure.confirm("Revoke", &format!("the key {kid} and all tokens that it has signed"))?;
                let place = within.place().then(kid.as_str()).then("revoke");
                output.one(&api.create(&place, Body::default().to_bytes()?).await?)
            }
        }
    }
}
