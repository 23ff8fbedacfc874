//! `cargo xtask chains`: certificate chains with known verdicts through the validator that the Worker uses
//! (tests/vectors/README.md has the format). A case that cannot be read is a failure like any other.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::SystemTime,
};

use base64ct::{Base64, Encoding};
use flate2::read::GzDecoder;
use keypost_shared::{
    certificate::{DEFAULT_MAX_INTERMEDIATES, Rules, TrustAnchor, decode_x5c, validate},
    host::HostCrypto,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::Error;

/// Which file, and which rules.
#[derive(Debug, clap::Args)]
pub struct ChainsOptions {
    /// A JSON array of cases, or the same compressed with gzip.
    file: PathBuf,
    /// Ask for client authentication where a certificate has an extended key usage, as the Worker does.
    #[arg(long)]
    check_eku: bool,
}

/// What of a case decides. Names, tags and the like are for people.
#[derive(Deserialize)]
struct Case {
    roots: Vec<String>,
    x5c: Option<Vec<String>>,
    time: Option<String>,
    max_depth: Option<usize>,
}

/// What is printed of it.
#[derive(Serialize)]
struct Line {
    id: Value,
    verdict: &'static str,
    code: Option<&'static str>,
}

/// The code of a case that is none: no chain in it, or fields of another kind.
const MALFORMED_CASE: &str = "malformed_case";

/// Prints a line of JSON for each case: `{"id", "verdict", "code"}`, the code being null for SUCCESS.
///
/// # Errors
/// When the file cannot be read or is no JSON array. What is wrong with a case is in its line.
pub async fn run(options: &ChainsOptions) -> Result<(), Error> {
    let cases: Vec<Value> = serde_json::from_slice(&read(&options.file)?).map_err(|error| {
        Error::Malformed { what: options.file.display().to_string(), detail: error.to_string() }
    })?;
    for case in cases {
        let id = case.get("id").cloned().unwrap_or(Value::Null);
        let code = decide(case, options.check_eku).await.err();
        let verdict = if code.is_none() { "SUCCESS" } else { "FAILURE" };
        let line = serde_json::to_string(&Line { id, verdict, code }).map_err(|error| Error::Malformed {
            what: "the verdict".to_owned(),
            detail: error.to_string(),
        })?;
        super::print(&line);
    }
    Ok(())
}

/// The code of the refusal.
async fn decide(case: Value, check_eku: bool) -> Result<(), &'static str> {
    let case: Case = serde_json::from_value(case).map_err(|_| MALFORMED_CASE)?;
    let at = match &case.time {
        Some(time) => OffsetDateTime::parse(time, &Rfc3339).map_err(|_| MALFORMED_CASE)?,
        None => now(),
    };
    let rules = Rules {
        at: UnixTime(at.unix_timestamp()),
        max_intermediates: case.max_depth.unwrap_or(DEFAULT_MAX_INTERMEDIATES),
        client_auth: check_eku,
    };
    let chain = decode_x5c(&case.x5c.ok_or(MALFORMED_CASE)?, &rules).map_err(|refusal| refusal.code())?;
    // A root that cannot be read would never have been taken in. There may be others.
    let anchors: Vec<_> = case
        .roots
        .iter()
        .filter_map(|root| TrustAnchor::from_der(Base64::decode_vec(root).ok()?).ok())
        .collect();
    let decision = validate(&HostCrypto, &chain, &anchors, &rules).await.map_err(|_| "crypto_failed")?;
    decision.verdict.map(|_| ()).map_err(|refusal| refusal.code())
}

#[expect(clippy::disallowed_methods, reason = "a case without a time is to be decided as of now")]
fn now() -> OffsetDateTime {
    SystemTime::now().into()
}

/// The first bytes of what gzip writes (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(path).map_err(Error::file("read", path))?;
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let mut json = Vec::new();
    GzDecoder::new(bytes.as_slice()).read_to_end(&mut json).map_err(Error::file("decompress", path))?;
    Ok(json)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_no_case_is_a_failure() {
        for case in [
            json!(null),
            json!("x"),
            json!([]),
            json!({}),
            json!({"roots": [], "x5c": null}),
            json!({"roots": [], "x5c": "AAAA"}),
            json!({"roots": [], "x5c": [1]}),
            json!({"roots": null, "x5c": ["AAAA"]}),
            json!({"roots": [], "x5c": ["AAAA"], "time": "yesterday"}),
            json!({"roots": [], "x5c": ["AAAA"], "time": 1}),
            json!({"roots": [], "x5c": ["AAAA"], "max_depth": -1}),
        ] {
            assert_eq!(decide(case.clone(), false).await, Err(MALFORMED_CASE), "{case}");
        }
    }

    #[tokio::test]
    async fn what_is_no_chain_is_refused_by_the_validator() {
        let chain =
            |x5c: &[&str]| json!({"id": "x", "roots": ["%", "AAAA"], "x5c": x5c, "max_depth": u64::MAX});
        assert_eq!(decide(chain(&[]), false).await, Err("chain_empty"));
        assert_eq!(decide(chain(&["%"]), false).await, Err("not_base64"));
        assert_eq!(decide(chain(&["AAAA"]), true).await, Err("malformed"));
    }
}
