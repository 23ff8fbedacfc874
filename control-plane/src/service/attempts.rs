//! Failed attempts, counted by address: so many are free, then they must be spread out.

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
/// How many addresses are remembered: some 10 MB. The one that was seen longest ago is forgotten first.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(99_999);

/// The failed attempts of all addresses.
pub struct FailedAttempts {
    /// For each address the time when everything that it did has been worked off (the "theoretical arrival time" of the
    /// generic cell rate algorithm).
    debts: Mutex<LruCache<IpAddr, OffsetDateTime>>,
}

/// An attempt whose outcome is open. It counts as failed unless it is forgiven.
#[must_use]
#[derive(Debug)]
pub struct Attempt(IpAddr);

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
        Self { debts: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Counts an attempt as failed in advance, if the address may have one.
    pub fn begin(&self, address: IpAddr, now: OffsetDateTime) -> Result<Attempt, TooMany> {
        let address = network(address);
        let mut debts = self.lock();
        let debt = debts.get(&address).copied().unwrap_or(now).max(now);
        let after = debt + COST;
        if let Ok(over) = Duration::try_from(after - (now + COST * PER_MINUTE))
            && !over.is_zero()
        {
            return Err(TooMany { retry_after: over });
        }
        debts.put(address, after);
        Ok(Attempt(address))
    }

    /// The attempt did not fail.
    pub fn forgive(&self, attempt: Attempt) {
        let mut debts = self.lock();
        if let Some(debt) = debts.get_mut(&attempt.0) {
            *debt -= COST;
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<IpAddr, OffsetDateTime>> {
        self.debts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Default for FailedAttempts {
    fn default() -> Self {
        Self::new()
    }
}

/// Whom an address stands for: a household has a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
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
        (0..1000).take_while(|_| attempts.begin(address.parse().unwrap(), now).is_ok()).count() as u32
    }

    #[test]
    fn an_address_has_thirty_failures_and_then_thirty_a_minute() {
        let attempts = FailedAttempts::new();
        assert_eq!(failures(&attempts, "192.0.2.1", NOW), 30);
        assert_eq!(failures(&attempts, "192.0.2.2", NOW), 30);
        let refused = attempts.begin("192.0.2.1".parse().unwrap(), NOW).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(2));
        assert_eq!(failures(&attempts, "192.0.2.1", NOW + Duration::from_secs(2)), 1);
        assert_eq!(failures(&attempts, "192.0.2.1", NOW + Duration::from_secs(62)), 30);
    }

    #[test]
    fn what_succeeds_does_not_count() {
        let attempts = FailedAttempts::new();
        for _ in 0..1000 {
            let attempt = attempts.begin("192.0.2.1".parse().unwrap(), NOW).unwrap();
            attempts.forgive(attempt);
        }
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
