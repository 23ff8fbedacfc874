//! `keypost env`

use clap::{Args, Subcommand};
use keypost_shared::id::EnvId;

use super::body::{Body, Change, Pair};
use super::connection::ConnectionArgs;
use super::delete::CascadeArgs;
use super::error::CommandError;
use super::list::ListArgs;
use super::output::Column;
use super::place::InOrg;

const COLUMNS: [Column; 4] =
    [("ID", "id"), ("NAME", "name"), ("CLIENT POOL", "clientPoolId"), ("CREATED", "createdAt")];
const WRITABLE: [&str; 5] = ["name", "description", "tagDefaults", "primaryServerUrl", "serverUrls"];

#[derive(Debug, Args)]
pub(super) struct EnvArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the environments of an organization.
    List {
        #[command(flatten)]
        within: InOrg,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show an environment.
    Get {
        #[command(flatten)]
        within: InOrg,
        /// The environment.
        env: EnvId,
    },
    /// Create an environment, with its client pool and the pool's first keys.
    Create {
        #[command(flatten)]
        within: InOrg,
        /// Its id, a lower-case slug.
        env: EnvId,
        /// Its name.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change an environment, unless somebody else does so at the same time.
    Update {
        #[command(flatten)]
        within: InOrg,
        /// The environment.
        env: EnvId,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Delete an environment.
    Delete {
        #[command(flatten)]
        within: InOrg,
        /// The environment.
        env: EnvId,
        #[command(flatten)]
        delete: CascadeArgs,
    },
}

#[derive(Debug, Args)]
struct Fields {
    /// What it is.
    #[arg(long)]
    description: Option<String>,
    /// A tag that every token of the environment carries, and its value where the device sets none. As often as needed.
    #[arg(long, value_name = "KEY=VALUE")]
    tag_default: Vec<Pair>,
    /// The server that devices turn to first, unless they have one of their own.
    #[arg(long, value_name = "URL")]
    primary_server_url: Option<String>,
    /// All servers, unless the device has some of its own. As often as needed.
    #[arg(long, value_name = "URL")]
    server_url: Vec<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true, args = [
    "name", "description", "tag_default", "remove_tag_default", "primary_server_url", "server_url", "clear",
])]
struct ChangeArgs {
    /// Its new name.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// A tag that tokens shall no longer carry by default.
    #[arg(long, value_name = "KEY")]
    remove_tag_default: Vec<String>,
    /// A field that is to have no value.
    #[arg(long, value_name = "FIELD", value_parser = ["description", "primaryServerUrl", "serverUrls"])]
    clear: Vec<String>,
}

impl Fields {
    fn body(&self) -> Result<Body, CommandError> {
        Body::default()
            .with_some("description", self.description.as_ref())?
            .with_some("primaryServerUrl", self.primary_server_url.as_ref())?
            .with_list("serverUrls", &self.server_url)
    }
}

impl EnvArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let (api, output) = self.connection.open()?;
        let all = |within: &InOrg| within.place().then("env");
        let one = |within: &InOrg, env: &EnvId| all(within).then(env.as_str());
        match self.verb {
            Verb::List { within, list } => list.print(&api, output, all(&within), &COLUMNS).await,
            Verb::Get { within, env } => output.one(&api.get(&one(&within, &env)).await?),
            Verb::Create { within, env, name, fields } => {
                let body = fields.body()?.with("id", &env)?.with("name", &name)?.with_pairs(
                    "tagDefaults",
                    &fields.tag_default,
                    &[],
                )?;
                output.one(&api.create(&all(&within), body.to_bytes()?).await?)
            }
            Verb::Update { within, env, change } => {
                let ChangeArgs { name, fields, remove_tag_default, clear } = change;
                let set = fields.body()?.with_some("name", name.as_ref())?;
                let tags_change = !fields.tag_default.is_empty() || !remove_tag_default.is_empty();
                let pairs =
                    tags_change.then_some(("tagDefaults", &*fields.tag_default, &*remove_tag_default));
                let change = Change { writable: &WRITABLE, set, clear: &clear, pairs };
                output.one(&change.make(&api, &one(&within, &env)).await?)
            }
            Verb::Delete { within, env, delete } => {
                delete.run(&api, output, one(&within, &env), &format!("the environment {env}")).await
            }
        }
    }
}
