//! `keypost revocation`

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use keypost_shared::id::{ClientId, TokenId};

use super::api::Place;
use super::body::Body;
use super::connection::ConnectionArgs;
use super::error::CommandError;
use super::file::read_text;
use super::list::ListArgs;
use super::output::Column;
use super::place::InPool;

const REVOCATIONS: [Column; 5] = [
    ("CLIENT", "clientId"),
    ("TOKEN", "jti"),
    ("REVOKED", "revokedAt"),
    ("BY", "revokedBy"),
    ("EXPIRES", "expiresAt"),
];

#[derive(Debug, Args)]
pub(super) struct RevocationArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List what has been revoked and has not expired.
    List {
        #[command(flatten)]
        within: InPool,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Revoke a token, or all tokens that a client has had so far.
    #[command(group(ArgGroup::new("what").required(true).args(["token_file", "client"])))]
    Create {
        #[command(flatten)]
        within: InPool,
        /// A file with an access token; - for standard input.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// The client whose tokens are revoked: all, or the one that --jti names.
        #[arg(long, value_name = "CLIENT")]
        client: Option<ClientId>,
        /// The token's id, its claim `jti`.
        #[arg(long, requires_all = ["client", "exp"])]
        jti: Option<TokenId>,
        /// When that token expires, its claim `exp`, in Unix seconds.
        #[arg(long, value_name = "SECONDS", requires = "jti")]
        exp: Option<i64>,
    },
}

impl RevocationArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let (api, output) = self.connection.open()?;
        match self.verb {
            Verb::List { within, list } => list.print(&api, output, place(&within), &REVOCATIONS).await,
            Verb::Create { within, token_file, client, jti, exp } => {
                // A token is a credential: it comes from a file, not from a command line that others may see.
                let token = token_file.map(|file| read_text(&file)).transpose()?;
                let body = Body::default()
                    .with_some("token", token.as_ref())?
                    .with_some("clientId", client.as_ref())?
                    .with_some("jti", jti.as_ref())?
                    .with_some("exp", exp.as_ref())?;
                output.one(&api.create(&place(&within), body.to_bytes()?).await?)
            }
        }
    }
}

fn place(within: &InPool) -> Place {
    within.place().then("revocations")
}
