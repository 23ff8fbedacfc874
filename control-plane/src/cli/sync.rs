//! `keypost sync`

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use keypost_shared::id::Kid;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::{Api, Place};
use super::connection::ConnectionArgs;
use super::delete::DeleteArgs;
use super::error::CommandError;
use super::output::{Column, Output, printable, tell};

/// How often a job is looked at.
const LOOK: Duration = Duration::from_millis(500);

const KEYS: [Column; 6] = [
    ("KID", "kid"),
    ("STATE", "state"),
    ("DOCUMENTS", "documents"),
    ("LISTED", "listedAt"),
    ("SIGNS SINCE", "signsSince"),
    ("REMOVED", "removedAt"),
];

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what has yet to be published to the edge, since when, and how far the jobs are.
    Status,
    /// Write every document to KV anew, in the background.
    Rebuild(JobArgs),
    /// Compare what stands in KV with what should, in the background, and mend what differs.
    Verify(JobArgs),
    /// List the keys that sign what stands in KV.
    PublisherKeys,
    /// Remove a publisher key now, because it may have been stolen: what it signed counts no more, and is signed anew.
    RemovePublisherKey {
        /// The key: `keypost sync publisher-keys` shows it.
        kid: Kid,
        #[command(flatten)]
        delete: DeleteArgs,
    },
}

#[derive(Debug, Args)]
struct JobArgs {
    /// Wait until it has ended and all that it marked has been written.
    #[arg(long)]
    wait: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    items: Vec<Box<RawValue>>,
    trust_version: Option<u64>,
}

/// What is read of the state of publishing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    pending: u64,
    last_error: Option<String>,
    jobs: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Job {
    job_id: String,
    state: String,
    published: bool,
    checked: u64,
    marked: u64,
    last_error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    job_id: String,
}

impl SyncArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let (api, output) = self.connection.open()?;
        match self.verb {
            Verb::Status => output.one(&api.get(&Place::of(["sync"])).await?),
            Verb::Rebuild(args) => args.run(&api, output, "rebuild").await,
            Verb::Verify(args) => args.run(&api, output, "verify").await,
            Verb::PublisherKeys => {
                let answer = api.get(&Place::of(["sync", "publisher-keys"])).await?;
                let keys: Keys = answer.read()?;
                if output.json {
                    return output.one(&answer);
                }
                output.page(&keys.items, &KEYS, &mut Vec::new())?;
                output.done(format_args!("v1/trust has version {}.", keys.trust_version.unwrap_or_default()))
            }
            Verb::RemovePublisherKey { kid, delete } => {
                delete.confirm("Remove", &format!("publisher key {kid}"))?;
                let place = Place::of(["sync", "publisher-keys", kid.as_str()]);
                output.one(&api.delete(&place).await?)
            }
        }
    }
}

impl JobArgs {
    async fn run(&self, api: &Api, output: Output, kind: &'static str) -> Result<(), CommandError> {
        let started = api.settle(&Place::of(["sync", kind])).await?;
        if !self.wait {
            return output.one(&started);
        }
        let Started { job_id } = started.read()?;
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let mut told = None;
        loop {
            let answer = api.get(&Place::of(["sync"])).await?;
            let state: State = answer.read()?;
            let (job, raw) = job_of(state.jobs, &job_id)?;
            bar.set_message(format!(
                "{kind}: {} checked, {} marked, {} wait to be published",
                job.checked, job.marked, state.pending
            ));
            bar.tick();
            let failure = job.last_error.or(state.last_error);
            if failure.is_some() && failure != told {
                bar.suspend(|| tell(&printable(failure.as_deref().unwrap_or_default())));
                told = failure;
            }
            if job.state == "failed" || job.published {
                bar.finish_and_clear();
                output.object(&raw)?;
                return if job.published { Ok(()) } else { Err(CommandError::JobFailed) };
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The job of this id.
fn job_of(jobs: Vec<Box<RawValue>>, id: &str) -> Result<(Job, Box<RawValue>), CommandError> {
    for raw in jobs {
        let job: Job =
            serde_json::from_str(raw.get()).map_err(|error| CommandError::Answer(error.to_string()))?;
        if job.job_id == id {
            return Ok((job, raw));
        }
    }
    Err(CommandError::Answer("the job has made way for another of its kind".to_owned()))
}
