//! Time as the protocols count it: seconds since 1970-01-01T00:00:00Z, without leap seconds (RFC 7519 §2, NumericDate).

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// An instant, in whole Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// Seconds from `earlier` to `self`; zero where `earlier` is the later one.
    pub fn since(self, earlier: UnixTime) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl Add<u64> for UnixTime {
    type Output = UnixTime;

    fn add(self, seconds: u64) -> UnixTime {
        UnixTime(self.0.saturating_add_unsigned(seconds))
    }
}

impl Sub<u64> for UnixTime {
    type Output = UnixTime;

    fn sub(self, seconds: u64) -> UnixTime {
        UnixTime(self.0.saturating_sub_unsigned(seconds))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
