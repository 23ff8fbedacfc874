//! `keypost client`

use clap::{Args, Subcommand};
use keypost_shared::id::ClientId;

use super::body::{Body, Change, Json};
use super::connection::ConnectionArgs;
use super::delete::DeleteArgs;
use super::error::CommandError;
use super::list::ListArgs;
use super::output::Column;
use super::place::InEnv;

const COLUMNS: [Column; 5] = [
    ("CLIENT ID", "clientId"),
    ("NAME", "name"),
    ("SCOPES", "scopes"),
    ("AUDIENCE", "audience"),
    ("CREATED", "createdAt"),
];
const WRITABLE: [&str; 4] = ["name", "scopes", "audience", "jwks"];

#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the service clients of an environment.
    List {
        #[command(flatten)]
        within: InEnv,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show a service client.
    Get {
        #[command(flatten)]
        within: InEnv,
        /// The client's id.
        client: ClientId,
    },
    /// Create a service client, which is bound to no device.
    ///
    /// Its secret stands on standard output alone, this one time; all else goes to standard error.
    Create {
        #[command(flatten)]
        within: InEnv,
        /// Its name.
        #[arg(long)]
        name: String,
        /// A scope that it may ask for. As often as needed.
        #[arg(long = "scope", required = true)]
        scopes: Vec<String>,
        /// Who its tokens are for. As often as needed.
        #[arg(long)]
        audience: Vec<String>,
        /// Public keys, for signing in with private_key_jwt: a JWK Set, or @FILE.
        #[arg(long, value_name = "JSON")]
        jwks: Option<Json>,
    },
    /// Change a service client, unless somebody else does so at the same time.
    Update {
        #[command(flatten)]
        within: InEnv,
        /// The client's id.
        client: ClientId,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Delete a service client.
    Delete {
        #[command(flatten)]
        within: InEnv,
        /// The client's id.
        client: ClientId,
        #[command(flatten)]
        delete: DeleteArgs,
    },
    /// Give a service client another secret.
    ///
    /// The secret stands on standard output alone, this one time; until when the old one is valid goes to standard error.
    RotateSecret {
        #[command(flatten)]
        within: InEnv,
        /// The client's id.
        client: ClientId,
        /// How long the old secret stays valid.
        #[arg(long, value_name = "SECONDS")]
        overlap: Option<u32>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct ChangeArgs {
    /// Its new name.
    #[arg(long)]
    name: Option<String>,
    /// All scopes that it may ask for from now on. As often as needed.
    #[arg(long = "scope")]
    scopes: Vec<String>,
    /// Who its tokens are for from now on. As often as needed.
    #[arg(long)]
    audience: Vec<String>,
    /// Public keys, for signing in with private_key_jwt: a JWK Set, or @FILE.
    #[arg(long, value_name = "JSON")]
    jwks: Option<Json>,
    /// A field that is to have no value.
    #[arg(long, value_name = "FIELD", value_parser = ["audience", "jwks"])]
    clear: Vec<String>,
}

impl ClientArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let (api, output) = self.connection.open()?;
        let all = |within: &InEnv| within.place().then("client");
        let one = |within: &InEnv, client: &ClientId| all(within).then(client.as_str());
        match self.verb {
            Verb::List { within, list } => list.print(&api, output, all(&within), &COLUMNS).await,
            Verb::Get { within, client } => output.one(&api.get(&one(&within, &client)).await?),
            Verb::Create { within, name, scopes, audience, jwks } => {
                let body = Body::default()
                    .with("name", &name)?
                    .with("scopes", &scopes)?
                    .with_list("audience", &audience)?
                    .with_json("jwks", jwks.as_ref());
                output.secret(&api.create(&all(&within), body.to_bytes()?).await?, "clientSecret")
            }
            Verb::Update { within, client, change } => {
                let set = Body::default()
                    .with_some("name", change.name.as_ref())?
                    .with_list("scopes", &change.scopes)?
                    .with_list("audience", &change.audience)?
                    .with_json("jwks", change.jwks.as_ref());
                let put = Change { writable: &WRITABLE, set, clear: &change.clear, pairs: None };
                output.one(&put.make(&api, &one(&within, &client)).await?)
            }
            Verb::Delete { within, client, delete } => {
                delete.run(&api, output, &one(&within, &client), &format!("the client {client}")).await
            }
            Verb::RotateSecret { within, client, overlap } => {
                let place = one(&within, &client).then("secret");
                let body = Body::default().with_some("overlapSeconds", overlap.as_ref())?;
                output.secret(&api.create(&place, body.to_bytes()?).await?, "clientSecret")
            }
        }
    }
}
