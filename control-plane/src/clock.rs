//! The time, as a parameter.

use std::time::Duration;

use keypost_shared::time::UnixTime;
use time::OffsetDateTime;

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// Now, in UTC, in whole milliseconds: what is answered, stored and read back is then the same value.
    fn now(&self) -> OffsetDateTime;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the control plane reads the clock"
        )]
        let now = OffsetDateTime::now_utc();
        now.truncate_to_millisecond()
    }
}

/// `time` in whole seconds, as documents carry it.
pub fn unix(time: OffsetDateTime) -> UnixTime {
    UnixTime(time.unix_timestamp())
}

/// `time` in whole milliseconds since 1970, as versions count it.
pub fn unix_millis(time: OffsetDateTime) -> i64 {
    // 64 bits hold the milliseconds of 292 million years.
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// `seconds` as a duration to add to a time.
pub fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// `time` as a date. A date that none can be made of becomes the nearest: certificates end with the year 9999.
pub fn from_unix(time: UnixTime) -> OffsetDateTime {
    let (first, last) =
        (time::macros::datetime!(0001-01-01 0:00 UTC), time::macros::datetime!(9999-12-31 23:59:59 UTC));
    let seconds = time.0.clamp(first.unix_timestamp(), last.unix_timestamp());
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(last)
}
