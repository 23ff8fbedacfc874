//! The header of an assertion: which algorithm, and which chain. Whatever else would say where to find a key is refused,
//! because the key is found here in one way only.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::alg::AssertionAlg;
use super::problem::AssertionProblem;

/// So many entries of `x5c` are read: one more than any chain may have, so that it shows that there are too many.
const MAX_X5C: usize = 7;

/// A header (RFC 7515 §4.1), as far as it matters.
#[derive(Debug)]
pub struct Header {
    /// The algorithm.
    pub alg: AssertionAlg,
    /// The chain, the signer's certificate first: standard Base64 of DER. None where there is no chain.
    pub x5c: Option<Vec<String>>,
    /// What the signer calls its key.
    pub kid: Option<String>,
    /// The SHA-256 of the signer's certificate, in base64url.
    pub x5t_s256: Option<String>,
}

#[derive(Deserialize)]
struct Raw {
    alg: String,
    #[serde(default, deserialize_with = "bounded")]
    x5c: Option<Vec<String>>,
    kid: Option<String>,
    #[serde(rename = "x5t#S256")]
    x5t_s256: Option<String>,
    crit: Option<IgnoredAny>,
    jku: Option<IgnoredAny>,
    jwk: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
}

impl Header {
    pub(super) fn parse(json: &[u8]) -> Result<Self, AssertionProblem> {
        let raw: Raw = serde_json::from_slice(json).map_err(|_| AssertionProblem::Malformed)?;
        let alg = AssertionAlg::parse(&raw.alg).ok_or(AssertionProblem::AlgNotAllowed)?;
        for (given, problem) in [
            (raw.crit, AssertionProblem::CritNotSupported),
            (raw.jku, AssertionProblem::JkuNotAllowed),
            (raw.x5u, AssertionProblem::X5uNotAllowed),
            (raw.jwk, AssertionProblem::JwkNotAllowed),
        ] {
            if given.is_some() {
                return Err(problem);
            }
        }
        Ok(Self { alg, x5c: raw.x5c, kid: raw.kid, x5t_s256: raw.x5t_s256 })
    }
}

/// Reads `x5c`, and keeps no more entries than it takes to see that there are too many.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of certificates")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<String>, A::Error> {
            let mut x5c = Vec::new();
            while x5c.len() < MAX_X5C {
                match entries.next_element()? {
                    Some(entry) => x5c.push(entry),
                    None => return Ok(x5c),
                }
            }
            while entries.next_element::<IgnoredAny>()?.is_some() {}
            Ok(x5c)
        }
    }

    deserializer.deserialize_seq(Bounded).map(Some)
}
