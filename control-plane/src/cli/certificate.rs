//! `keypost certificate`

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use keypost_shared::certificate::Fingerprint;
use serde::Deserialize;
use uuid::Uuid;

use super::api::Place;
use super::body::Body;
use super::connection::ConnectionArgs;
use super::delete::DeleteArgs;
use super::error::CommandError;
use super::file::{read, read_text};
use super::list::ListArgs;
use super::output::{Column, printable, say};
use super::place::InPool;

const ROOTS: [Column; 5] = [
    ("FINGERPRINT", "fingerprint"),
    ("SUBJECT", "subject"),
    ("VALID UNTIL", "notAfter"),
    ("FILE", "filename"),
    ("REPLACES", "replaces"),
];
const DENIED: [Column; 6] = [
    ("ID", "id"),
    ("FINGERPRINT", "fingerprint"),
    ("SERIAL NUMBER", "serialNumber"),
    ("ISSUER", "issuer"),
    ("REASON", "reason"),
    ("SINCE", "createdAt"),
];
/// No PEM file has it: it has a hash in it.
const BOUNDARY: &str = "keypost-cc4f0ac76c4b5d3d0b1a6f2a4c0e9d71";
const CONTENT_TYPE: &str = "multipart/form-data; boundary=keypost-cc4f0ac76c4b5d3d0b1a6f2a4c0e9d71";

#[derive(Debug, Args)]
pub(super) struct CertificateArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the roots that devices' certificates lead to.
    List {
        #[command(flatten)]
        within: InPool,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Print a root as PEM.
    Get {
        #[command(flatten)]
        within: InPool,
        /// The root's SHA-256, with colons or without.
        fingerprint: Fingerprint,
    },
    /// Upload a root.
    Upload {
        #[command(flatten)]
        within: InPool,
        /// A PEM file with one root; - for standard input.
        file: PathBuf,
        /// The root that it takes the place of: devices that came with that one may come with this one.
        #[arg(long, value_name = "FINGERPRINT")]
        replaces: Option<Fingerprint>,
    },
    /// Remove a root: chains to it are refused from then on.
    Delete {
        #[command(flatten)]
        within: InPool,
        /// The root's SHA-256, with colons or without.
        fingerprint: Fingerprint,
        #[command(flatten)]
        delete: DeleteArgs,
    },
    /// Deny a certificate, wherever it stands in a chain.
    #[command(group(ArgGroup::new("which").required(true).args(["fingerprint", "serial"])))]
    Deny {
        #[command(flatten)]
        within: InPool,
        /// Its SHA-256, or that of its TBSCertificate.
        #[arg(long)]
        fingerprint: Option<Fingerprint>,
        /// Its serial number, in hexadecimal.
        #[arg(long, value_name = "NUMBER", requires = "issuer")]
        serial: Option<String>,
        /// Who issued it: a distinguished name.
        #[arg(long, value_name = "NAME", requires = "serial")]
        issuer: Option<String>,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// List what is denied.
    Denied {
        #[command(flatten)]
        within: InPool,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Take a denial back.
    Allow {
        #[command(flatten)]
        within: InPool,
        /// The denial's id, as `keypost certificate denied` shows it.
        id: Uuid,
        #[command(flatten)]
        delete: DeleteArgs,
    },
    /// Explain whether a device would get in, and why or why not. It issues nothing.
    #[command(group(ArgGroup::new("question").required(true).args(["chain", "assertion"])))]
    Explain {
        #[command(flatten)]
        within: InPool,
        /// A PEM file with the device's certificate and those above it, in this order; - for standard input.
        #[arg(long, value_name = "FILE")]
        chain: Option<PathBuf>,
        /// A file with an assertion; - for standard input.
        #[arg(long, value_name = "FILE")]
        assertion: Option<PathBuf>,
        /// As of when, such as 2026-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
}

fn roots(within: &InPool) -> Place {
    within.place().then("certificates")
}

fn denied(within: &InPool) -> Place {
    within.place().then("denied-certificates")
}

impl CertificateArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let (api, output) = self.connection.open()?;
        match self.verb {
            Verb::List { within, list } => list.print(&api, output, roots(&within), &ROOTS).await,
            Verb::Get { within, fingerprint } => {
                say(api.get(&roots(&within).then(&fingerprint.to_string())).await?.json())
            }
            Verb::Upload { within, file, replaces } => {
                let form = form(&file, replaces)?;
                let uploaded = api.create_by_form(&roots(&within), CONTENT_TYPE, form).await?;
                output.one(&uploaded)
            }
            Verb::Delete { within, fingerprint, delete } => {
                let place = roots(&within).then(&fingerprint.to_string());
                delete.run(&api, output, &place, &format!("the root {fingerprint}")).await
            }
            Verb::Deny { within, fingerprint, serial, issuer, reason } => {
                let body = Body::default()
                    .with_some("fingerprint", fingerprint.as_ref())?
                    .with_some("serialNumber", serial.as_ref())?
                    .with_some("issuer", issuer.as_ref())?
                    .with("reason", &reason)?;
                output.one(&api.create(&denied(&within), body.to_bytes()?).await?)
            }
            Verb::Denied { within, list } => list.print(&api, output, denied(&within), &DENIED).await,
            Verb::Allow { within, id, delete } => {
                let place = denied(&within).then(&id.hyphenated().to_string());
                delete.run(&api, output, &place, &format!("the denial {id}")).await
            }
            Verb::Explain { within, chain, assertion, at } => {
                let x5c = chain.map(|file| read(&file).and_then(|bytes| entries(&bytes))).transpose()?;
                let assertion = assertion.map(|file| read_text(&file)).transpose()?;
                let body = Body::default()
                    .with_some("x5c", x5c.as_ref())?
                    .with_some("assertion", assertion.as_ref())?
                    .with_some("at", at.as_ref())?;
                let place = roots(&within).then("explain");
                let answer = api.ask(&place, body.to_bytes()?).await?;
                let Explanation { steps } = answer.read()?;
                output.one_and(&answer, &["steps"], steps.into_iter().map(Step::line))
            }
        }
    }
}

/// What is shown of an explanation in a way of its own.
#[derive(Deserialize)]
struct Explanation {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    rule: String,
    holds: bool,
    detail: String,
}

impl Step {
    fn line(self) -> String {
        format!("  {}  {:<16}  {}", if self.holds { "yes" } else { "NO " }, self.rule, self.detail)
    }
}

/// A form with a file.
fn form(file: &Path, replaces: Option<Fingerprint>) -> Result<Vec<u8>, CommandError> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = printable(&name).replace('"', "'");
    let mut form = Vec::new();
    if let Some(fingerprint) = replaces {
        form.extend_from_slice(part("name=\"replaces\"").as_bytes());
        form.extend_from_slice(format!("{fingerprint}\r\n").as_bytes());
    }
    form.extend_from_slice(part(&format!("name=\"certificate\"; filename=\"{name}\"")).as_bytes());
    form.extend_from_slice(&read(file)?);
    form.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    Ok(form)
}

fn part(disposition: &str) -> String {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n")
}

/// The certificates of a PEM file as `x5c` has them. What is between the lines is Base64 already.
fn entries(pem: &[u8]) -> Result<Vec<String>, CommandError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let text = String::from_utf8_lossy(pem);
    let bodies = text.split(BEGIN).skip(1).filter_map(|rest| rest.split("-----END").next());
    let entries: Vec<String> = bodies.map(|body| body.split_ascii_whitespace().collect()).collect();
    if entries.is_empty() {
        return Err(CommandError::Usage("the file has no certificate in PEM"));
    }
    Ok(entries)
}
