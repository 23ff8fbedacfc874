//! `keypost org`

use clap::{Args, Subcommand};
use keypost_shared::id::OrgId;

use super::api::Place;
use super::body::{Body, Change};
use super::connection::ConnectionArgs;
use super::delete::CascadeArgs;
use super::error::CommandError;
use super::list::ListArgs;
use super::output::Column;

const COLUMNS: [Column; 4] =
    [("ID", "id"), ("NAME", "name"), ("DESCRIPTION", "description"), ("CREATED", "createdAt")];

#[derive(Debug, Args)]
pub(super) struct OrgArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List organizations.
    List(ListArgs),
    /// Show an organization.
    Get {
        /// The organization.
        org: OrgId,
    },
    /// Create an organization.
    Create {
        /// Its id, a lower-case slug. The server makes one up where none is given.
        org: Option<OrgId>,
        /// Its name.
        #[arg(long)]
        name: String,
        /// What it is.
        #[arg(long)]
        description: Option<String>,
    },
    /// Change an organization, unless somebody else does so at the same time.
    Update {
        /// The organization.
        org: OrgId,
        #[command(flatten)]
        fields: Fields,
    },
    /// Delete an organization.
    Delete {
        /// The organization.
        org: OrgId,
        #[command(flatten)]
        delete: CascadeArgs,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Fields {
    /// Its new name.
    #[arg(long)]
    name: Option<String>,
    /// What it is.
    #[arg(long)]
    description: Option<String>,
    /// A field that is to have no value.
    #[arg(long, value_name = "FIELD", value_parser = ["description"])]
    clear: Vec<String>,
}

impl OrgArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let (api, output) = self.connection.open()?;
        let all = Place::of(["org"]);
        let one = |org: &OrgId| all.clone().then(org.as_str());
        match self.verb {
            Verb::List(list) => list.print(&api, output, all, &COLUMNS).await,
            Verb::Get { org } => output.one(&api.get(&one(&org)).await?),
            Verb::Create { org, name, description } => {
                let body = Body::default()
                    .with_some("id", org.as_ref())?
                    .with("name", &name)?
                    .with_some("description", description.as_ref())?;
                output.one(&api.create(&all, body.to_bytes()?).await?)
            }
            Verb::Update { org, fields } => {
                let set = Body::default()
                    .with_some("name", fields.name.as_ref())?
                    .with_some("description", fields.description.as_ref())?;
                let change =
                    Change { writable: &["name", "description"], set, clear: &fields.clear, pairs: None };
                output.one(&change.make(&api, &one(&org)).await?)
            }
            Verb::Delete { org, delete } => {
                delete.run(&api, output, one(&org), &format!("the organization {org}")).await
            }
        }
    }
}
