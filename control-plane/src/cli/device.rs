//! `keypost device`

use clap::{Args, Subcommand};
use keypost_shared::id::DeviceId;

use super::api::{Answer, Place};
use super::body::{Body, Json, Pair};
use super::connection::ConnectionArgs;
use super::delete::CascadeArgs;
use super::error::CommandError;
use super::import::ImportArgs;
use super::list::ListArgs;
use super::output::{Column, Output};
use super::place::InEnv;

const COLUMNS: [Column; 6] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("STATUS", "status"),
    ("TAGS", "tags"),
    ("LAST ACTIVATED", "lastActivatedAt"),
    ("UPDATED", "updatedAt"),
];

#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the devices of an environment.
    List {
        #[command(flatten)]
        within: InEnv,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show a device.
    Get {
        #[command(flatten)]
        within: InEnv,
        /// The device.
        device: DeviceId,
    },
    /// Create a device.
    Create {
        #[command(flatten)]
        within: InEnv,
        /// Its id.
        device: DeviceId,
        /// Its name.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change a device. Its next token says so.
    Update {
        #[command(flatten)]
        within: InEnv,
        /// The device.
        device: DeviceId,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Delete a device.
    Delete {
        #[command(flatten)]
        within: InEnv,
        /// The device.
        device: DeviceId,
        #[command(flatten)]
        delete: CascadeArgs,
    },
    /// Let a device have no more tokens, until it is enabled.
    Disable {
        #[command(flatten)]
        within: InEnv,
        /// The device.
        device: DeviceId,
    },
    /// Let a disabled device have tokens again.
    Enable {
        #[command(flatten)]
        within: InEnv,
        /// The device.
        device: DeviceId,
    },
    /// Create many devices from a file.
    Import {
        #[command(flatten)]
        within: InEnv,
        #[command(flatten)]
        import: ImportArgs,
    },
}

#[derive(Debug, Args)]
struct Filter {
    /// Only those with this tag. As often as needed: then with all of them.
    #[arg(long, value_name = "KEY=VALUE")]
    tag: Vec<Pair>,
    /// Only those that are so.
    #[arg(long, value_parser = ["registered", "active", "disabled"])]
    status: Option<String>,
    /// Only those with this text in their id or name.
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
}

#[derive(Debug, Args)]
struct Fields {
    /// What it is.
    #[arg(long)]
    description: Option<String>,
    /// A tag, which its tokens carry. As often as needed.
    #[arg(long, value_name = "KEY=VALUE")]
    tag: Vec<Pair>,
    /// Metadata, which its tokens carry: a JSON object, or @FILE. An update merges it into what there is (RFC 7396).
    #[arg(long, value_name = "JSON")]
    metadata: Option<Json>,
    /// The server that it turns to first.
    #[arg(long, value_name = "URL")]
    primary_server_url: Option<String>,
    /// All its servers. As often as needed.
    #[arg(long, value_name = "URL")]
    server_url: Vec<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true, args = [
    "name", "description", "tag", "remove_tag", "metadata", "primary_server_url", "server_url", "clear", "patch",
])]
struct ChangeArgs {
    /// Its new name.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// A tag that it shall no longer have.
    #[arg(long, value_name = "KEY")]
    remove_tag: Vec<String>,
    /// A field that is to have no value.
    #[arg(long, value_name = "FIELD")]
    #[arg(value_parser = ["description", "metadata", "tags", "primaryServerUrl", "serverUrls"])]
    clear: Vec<String>,
    /// Any other fields, as a JSON Merge Patch (RFC 7396): JSON, or @FILE.
    #[arg(long, value_name = "JSON")]
    patch: Option<Json>,
}

impl Filter {
    fn on(&self, place: Place) -> Place {
        let place =
            self.tag.iter().fold(place, |place, tag| place.with(&format!("tag.{}", tag.key), &tag.value));
        place.with_some("status", self.status.as_ref()).with_some("q", self.q.as_ref())
    }
}

impl Fields {
    fn body(&self, remove_tag: &[String]) -> Result<Body, CommandError> {
        Body::default()
            .with_some("description", self.description.as_ref())?
            .with_json("metadata", self.metadata.as_ref())
            .with_pairs("tags", &self.tag, remove_tag)?
            .with_some("primaryServerUrl", self.primary_server_url.as_ref())?
            .with_list("serverUrls", &self.server_url)
    }
}

impl DeviceArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        if let Verb::Import { import, .. } = &self.verb
            && import.takes_stdin()
            && self.connection.takes_stdin()
        {
            return Err(CommandError::Usage("the API key and the file cannot both come from standard input"));
        }
        let (api, output) = self.connection.open()?;
        let all = |within: &InEnv| within.place().then("device");
        let one = |within: &InEnv, device: &DeviceId| all(within).then(device.as_str());
        match self.verb {
            Verb::List { within, filter, list } => {
                list.print(&api, output, filter.on(all(&within)), &COLUMNS).await
            }
            Verb::Get { within, device } => output.one(&api.get(&one(&within, &device)).await?),
            Verb::Create { within, device, name, fields } => {
                let body = fields.body(&[])?.with("id", &device)?.with("name", &name)?;
                output.one(&api.create(&all(&within), body.to_bytes()?).await?)
            }
            Verb::Update { within, device, change } => {
                let body = change
                    .fields
                    .body(&change.remove_tag)?
                    .with_some("name", change.name.as_ref())?
                    .without(&change.clear)
                    .over(change.patch.as_ref())?;
                output.one(&api.patch(&one(&within, &device), body.to_bytes()?).await?)
            }
            Verb::Delete { within, device, delete } => {
                delete.run(&api, output, one(&within, &device), &format!("the device {device}")).await
            }
            Verb::Disable { within, device } => {
                let answer = api.settle(&one(&within, &device).then("disable")).await?;
                shown_or(output, &answer, &format!("Disabled the device {device}."))
            }
            Verb::Enable { within, device } => {
                let answer = api.settle(&one(&within, &device).then("enable")).await?;
                shown_or(output, &answer, &format!("Enabled the device {device}."))
            }
            Verb::Import { within, import } => import.run(&api, output, all(&within).then("import")).await,
        }
    }
}

/// The answer, or `done` where there is nothing in it.
fn shown_or(output: Output, answer: &Answer, done: &str) -> Result<(), CommandError> {
    if answer.is_empty() { output.done(format_args!("{done}")) } else { output.one(answer) }
}
