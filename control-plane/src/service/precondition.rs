//! Optimistic concurrency: a change that is meant for one state of a thing does not hit another (RFC 9110 §13.1.1).

use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;

/// A state of a thing, told by the time of its last change, which no two states share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(i128);

/// What a change asks of the state that it finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// One of these states. Where there are none, any is wrong.
    OneOf(Vec<Version>),
}

/// The thing has been changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has been changed since")]
pub struct Outdated;

impl Version {
    /// The state since a thing was last changed, at this time.
    pub fn since(updated_at: OffsetDateTime) -> Self {
        Self(updated_at.unix_timestamp_nanos() / 1000)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        i128::from_str_radix(text, 16).map(Self)
    }
}

impl Precondition {
    /// Whether the thing, last changed at this time, is as it must be.
    pub fn check(&self, updated_at: OffsetDateTime) -> Result<(), Outdated> {
        match self {
            Precondition::None => Ok(()),
            Precondition::OneOf(versions) if versions.contains(&Version::since(updated_at)) => Ok(()),
            Precondition::OneOf(_) => Err(Outdated),
        }
    }
}
