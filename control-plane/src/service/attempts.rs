//! Failed attempts, counted by address: so many are free, then they must be spread out.
//!
//! An attempt counts once it has failed, so that any number of honest devices may come from one address at once. Those
//! whose outcome is open are bounded too: otherwise whoever sends all guesses at the same instant would not be counted.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use lru::LruCache;
use time::OffsetDateTime;

/// The failures that an address has free at once, and in each minute.
const PER_MINUTE: u32 = 30;
/// What one of them costs.
const COST: Duration = Duration::from_secs(60 / PER_MINUTE as u64);
/// How many attempts of an address may be open at once.
const MOST_OPEN: u32 = 256;
/// How soon to come back when too many are open.
const OPEN_RETRY: Duration = Duration::from_secs(1);
/// How many addresses are remembered: some 10 MB. The one that was seen longest ago is forgotten first.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(99_999);

/// The failed attempts of all addresses.
pub struct FailedAttempts {
    addresses: Mutex<LruCache<IpAddr, Record>>,
}

/// What is known of an address.
#[derive(Clone, Copy)]
struct Record {
    /// The time when all its failures have been worked off (the "theoretical arrival time" of the generic cell rate
    /// algorithm).
    debt: OffsetDateTime,
    /// How many of its attempts have no outcome yet.
    open: u32,
}

/// An attempt whose outcome is open. It ends when it is dropped; it has failed if [`failed`](Self::failed) was called.
#[must_use]
pub struct Attempt<'a> {
    attempts: &'a FailedAttempts,
    address: IpAddr,
}

/// An address has failed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts from this address")]
pub struct TooMany {
    /// When the next attempt is allowed.
    pub retry_after: Duration,
}

impl FailedAttempts {
    /// Nobody has failed yet.
    pub fn new() -> Self {
        Self { addresses: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Lets the address try, if it has not failed too often.
    pub fn begin(&self, address: IpAddr, now: OffsetDateTime) -> Result<Attempt<'_>, TooMany> {
        let address = network(address);
        let mut addresses = self.lock();
        let record = addresses.get_or_insert_mut(address, || Record { debt: now, open: 0 });
        let over = record.debt.max(now) + COST - (now + COST * PER_MINUTE);
        if let Ok(retry_after) = Duration::try_from(over)
            && !retry_after.is_zero()
        {
            return Err(TooMany { retry_after });
        }
        if record.open >= MOST_OPEN {
            return Err(TooMany { retry_after: OPEN_RETRY });
        }
        record.open += 1;
        Ok(Attempt { attempts: self, address })
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<IpAddr, Record>> {
        self.addresses.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Attempt<'_> {
    /// Counts the attempt as failed.
    pub fn failed(self, now: OffsetDateTime) {
        if let Some(record) = self.attempts.lock().get_mut(&self.address) {
            record.debt = record.debt.max(now) + COST;
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.attempts.lock().get_mut(&self.address) {
            record.open = record.open.saturating_sub(1);
        }
    }
}

impl Default for FailedAttempts {
    fn default() -> Self {
        Self::new()
    }
}

/// Whom an address stands for: a household has a whole /64 of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn failures(attempts: &FailedAttempts, address: &str, now: OffsetDateTime) -> u32 {
        let fail =
            || attempts.begin(address.parse().unwrap(), now).map(|attempt| attempt.failed(now)).is_ok();
        (0..1000).take_while(|_| fail()).count() as u32
    }

    #[test]
    fn an_address_has_thirty_failures_and_then_thirty_a_minute() {
        let attempts = FailedAttempts::new();
        assert_eq!(failures(&attempts, "192.0.2.1", NOW), 30);
        assert_eq!(failures(&attempts, "192.0.2.2", NOW), 30);
        let refused = attempts.begin("192.0.2.1".parse().unwrap(), NOW).err().unwrap();
        assert_eq!(refused.retry_after, Duration::from_secs(2));
        assert_eq!(failures(&attempts, "192.0.2.1", NOW + Duration::from_secs(2)), 1);
        assert_eq!(failures(&attempts, "192.0.2.1", NOW + Duration::from_secs(62)), 30);
    }

    #[test]
    fn what_succeeds_does_not_count() {
        let attempts = FailedAttempts::new();
        for _ in 0..1000 {
            drop(attempts.begin("192.0.2.1".parse().unwrap(), NOW).unwrap());
        }
        assert_eq!(failures(&attempts, "192.0.2.1", NOW), 30);
    }

    #[test]
    fn many_may_try_at_once_and_not_without_end() {
        let attempts = FailedAttempts::new();
        let begin = || attempts.begin("192.0.2.1".parse().unwrap(), NOW);
        let open: Vec<Attempt<'_>> = (0..1000).map_while(|_| begin().ok()).collect();
        assert_eq!(open.len(), MOST_OPEN as usize);
        drop(open);
        assert!(begin().is_ok());
    }

    #[test]
    fn addresses_of_one_household_count_together() {
        let attempts = FailedAttempts::new();
        assert_eq!(failures(&attempts, "2001:db8::1", NOW), 30);
        assert_eq!(failures(&attempts, "2001:db8::2", NOW), 0);
        assert_eq!(failures(&attempts, "2001:db8:0:1::2", NOW), 30);
        assert_eq!(failures(&attempts, "192.0.2.1", NOW), 30);
        assert_eq!(failures(&attempts, "::ffff:192.0.2.1", NOW), 0);
    }
}
