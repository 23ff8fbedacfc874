//! `keypost audit verify`: asks the database, not a server.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::path::Path;

use keypost_shared::id::OrgId;
use sqlx::{Connection, PgConnection};

use super::error::CommandError;
use super::output::{say, tell};
use crate::config::CommonConfig;
use crate::service::audit_check::{self, NotedEnd, Told};
use crate::store::StoreError;
use crate::store::audit::ChainHead;
use crate::telemetry;

/// Checks the chains, or one organization's. Findings go to standard error, and the end of each chain to standard output.
pub(super) async fn verify(org: Option<&OrgId>, noted: Option<&Path>) -> Result<(), CommandError> {
    let noted = noted.map(read_noted).transpose()?.unwrap_or_default();
    let config = CommonConfig::read(&|name| env::var_os(name))?;
    telemetry::start(&config.log);
    let mut connection =
        PgConnection::connect_with(&config.database.options).await.map_err(StoreError::from)?;
    let mut findings = 0_u64;
    let mut ends = Vec::new();
    let tell_of = |chain: &str, told| match told {
        Told::Finding(finding) => {
            findings += 1;
            tell(&format!("{}: {finding}", if chain.is_empty() { "-" } else { chain }));
        }
        Told::End(head) => ends.push(NotedEnd { chain: chain.to_owned(), head }),
    };
    audit_check::verify(&mut connection, org.map(OrgId::as_str), &noted, tell_of).await?;
    for end in &ends {
        say(&end.to_string())?;
    }
    if findings > 0 { Err(CommandError::AuditFindings(findings)) } else { Ok(()) }
}

fn read_noted(path: &Path) -> Result<BTreeMap<String, ChainHead>, CommandError> {
    let text = std::fs::read_to_string(path)
        .map_err(|reason| CommandError::File { path: path.to_owned(), reason })?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| match line.parse::<NotedEnd>() {
            Ok(noted) => Ok((noted.chain, noted.head)),
            Err(error) => {
                let reason = io::Error::new(io::ErrorKind::InvalidData, format!("a line {error}"));
                Err(CommandError::File { path: path.to_owned(), reason })
            }
        })
        .collect()
}
