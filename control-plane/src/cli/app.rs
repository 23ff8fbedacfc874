//! `keypost app`

use std::str::FromStr;

use clap::{Args, Subcommand};
use keypost_shared::id::ClientAppId;
use uuid::Uuid;

use super::body::{Body, Change, Json};
use super::connection::ConnectionArgs;
use super::delete::DeleteArgs;
use super::error::CommandError;
use super::list::ListArgs;
use super::output::Column;
use super::place::InDevice;

const COLUMNS: [Column; 6] = [
    ("CLIENT APP", "clientAppId"),
    ("ID", "id"),
    ("CLIENT ID", "clientId"),
    ("SCOPES", "scopes"),
    ("ACTIVATED", "activated"),
    ("NAME", "name"),
];
const WRITABLE: [&str; 4] = ["name", "description", "scopes", "jwks"];

/// An app of a device: its name there, such as `client`, or its id.
#[derive(Clone, Debug)]
pub(super) struct AppRef(String);

impl FromStr for AppRef {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if ClientAppId::from_str(text).is_ok() || Uuid::try_parse(text).is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be a client app's id, such as client, or a UUID")
        }
    }
}

impl AppRef {
    /// As it stands in a path.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Args)]
pub(super) struct AppArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the apps of a device.
    List {
        #[command(flatten)]
        within: InDevice,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show an app.
    Get {
        #[command(flatten)]
        within: InDevice,
        /// The app, by its id or the client app's.
        app: AppRef,
    },
    /// Create an app on a device. A one-time password then activates it.
    Create {
        #[command(flatten)]
        within: InDevice,
        /// The client app's id, such as `client`.
        client_app: ClientAppId,
        /// A scope that it may ask for. As often as needed.
        #[arg(long = "scope", default_values_t = ["device".to_owned()])]
        scopes: Vec<String>,
        /// Its name.
        #[arg(long)]
        name: Option<String>,
        /// What it is.
        #[arg(long)]
        description: Option<String>,
        /// Public keys, for signing in with private_key_jwt: a JWK Set, or @FILE.
        #[arg(long, value_name = "JSON")]
        jwks: Option<Json>,
    },
    /// Change an app, unless somebody else does so at the same time.
    Update {
        #[command(flatten)]
        within: InDevice,
        /// The app, by its id or the client app's.
        app: AppRef,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Delete an app.
    Delete {
        #[command(flatten)]
        within: InDevice,
        /// The app, by its id or the client app's.
        app: AppRef,
        #[command(flatten)]
        delete: DeleteArgs,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct ChangeArgs {
    /// All scopes that it may ask for from now on. As often as needed.
    #[arg(long = "scope")]
    scopes: Vec<String>,
    /// Its new name.
    #[arg(long)]
    name: Option<String>,
    /// What it is.
    #[arg(long)]
    description: Option<String>,
    /// Public keys, for signing in with private_key_jwt: a JWK Set, or @FILE.
    #[arg(long, value_name = "JSON")]
    jwks: Option<Json>,
    /// A field that is to have no value.
    #[arg(long, value_name = "FIELD", value_parser = ["name", "description", "jwks"])]
    clear: Vec<String>,
}

impl AppArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let (api, output) = self.connection.open()?;
        let all = |within: &InDevice| within.place().then("app");
        let one = |within: &InDevice, app: &AppRef| all(within).then(app.as_str());
        match self.verb {
            Verb::List { within, list } => list.print(&api, output, all(&within), &COLUMNS).await,
            Verb::Get { within, app } => output.one(&api.get(&one(&within, &app)).await?),
            Verb::Create { within, client_app, scopes, name, description, jwks } => {
                let body = Body::default()
                    .with("clientAppId", &client_app)?
                    .with("scopes", &scopes)?
                    .with_some("name", name.as_ref())?
                    .with_some("description", description.as_ref())?
                    .with_json("jwks", jwks.as_ref());
                output.one(&api.create(&all(&within), body.to_bytes()?).await?)
            }
            Verb::Update { within, app, change } => {
                let set = Body::default()
                    .with_list("scopes", &change.scopes)?
                    .with_some("name", change.name.as_ref())?
                    .with_some("description", change.description.as_ref())?
                    .with_json("jwks", change.jwks.as_ref());
                let put = Change { writable: &WRITABLE, set, clear: &change.clear, pairs: None };
                output.one(&put.make(&api, &one(&within, &app)).await?)
            }
            Verb::Delete { within, app, delete } => {
                delete.run(&api, output, &one(&within, &app), &format!("the app {}", app.as_str())).await
            }
        }
    }
}
