//! The claims of an assertion (RFC 7523 §3).

use serde::Deserialize;

use super::problem::AssertionProblem;
use crate::time::UnixTime;

/// How far ahead an assertion may expire, in seconds.
pub const MAX_LIFETIME: u64 = 600;
/// By how much a device's clock may be ahead, in seconds.
pub const SKEW: u64 = 60;
/// The most characters of a `jti`.
const MAX_JTI: usize = 256;

/// The claims, read and not checked.
#[derive(Debug)]
pub struct Claims {
    /// Who signed.
    pub iss: String,
    /// Who it is for.
    pub sub: String,
    /// What makes this assertion different from any other of the same issuer.
    pub jti: String,
    /// From when on it counts no longer.
    pub exp: UnixTime,
    /// Whom it is meant for: one.
    aud: String,
    iat: Option<UnixTime>,
    nbf: Option<UnixTime>,
}

#[derive(Deserialize)]
struct Raw {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audience>,
    exp: Option<NumericDate>,
    iat: Option<NumericDate>,
    nbf: Option<NumericDate>,
    jti: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    /// One in an array is one (RFC 7519 §4.1.3). Several would let one server use the assertion at another.
    Array([String; 1]),
}

/// A JSON number of seconds, which may have a fraction (RFC 7519 §2).
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum NumericDate {
    Whole(i64),
    Fraction(f64),
}

impl From<NumericDate> for UnixTime {
    fn from(date: NumericDate) -> Self {
        UnixTime(match date {
            NumericDate::Whole(seconds) => seconds,
            // A cast from a float ends at the bounds of the integer.
            NumericDate::Fraction(seconds) => seconds.floor() as i64,
        })
    }
}

impl Claims {
    pub(super) fn parse(json: &[u8]) -> Result<Self, AssertionProblem> {
        let raw: Raw = serde_json::from_slice(json).map_err(|_| AssertionProblem::ClaimsMalformed)?;
        Ok(Self {
            iss: raw.iss.ok_or(AssertionProblem::IssMissing)?,
            sub: raw.sub.ok_or(AssertionProblem::SubMissing)?,
            aud: match raw.aud.ok_or(AssertionProblem::AudMismatch)? {
                Audience::One(one) | Audience::Array([one]) => one,
            },
            exp: raw.exp.ok_or(AssertionProblem::ExpMissing)?.into(),
            iat: raw.iat.map(UnixTime::from),
            nbf: raw.nbf.map(UnixTime::from),
            jti: match raw.jti {
                Some(jti) if jti.is_empty() => return Err(AssertionProblem::JtiMissing),
                Some(jti) if jti.len() > MAX_JTI => return Err(AssertionProblem::JtiTooLong),
                Some(jti) => jti,
                None => return Err(AssertionProblem::JtiMissing),
            },
        })
    }

    /// Checks times and audience: `audiences` are the names, to the letter, that the assertion may be meant for.
    pub fn check(&self, audiences: &[&str], now: UnixTime) -> Result<(), AssertionProblem> {
        if !audiences.contains(&self.aud.as_str()) {
            return Err(AssertionProblem::AudMismatch);
        }
        if now >= self.exp {
            return Err(AssertionProblem::Expired);
        }
        if self.exp > now + MAX_LIFETIME {
            return Err(AssertionProblem::TooLongLived);
        }
        if self.iat.is_some_and(|iat| iat > now + SKEW) {
            return Err(AssertionProblem::IatInFuture);
        }
        if self.nbf.is_some_and(|nbf| nbf > now + SKEW) {
            return Err(AssertionProblem::NotYetValid);
        }
        Ok(())
    }
}
