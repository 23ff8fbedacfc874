//! How fast the publisher may go: KV's rate limit, and the pauses after failures.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use rand_core::RngCore;
use time::OffsetDateTime;

use crate::store::publication::Priority;

// KV's API takes 1,200 calls in 5 minutes. In any 5 minutes this lets at most 100 + 300 s / 0.28 s = 1,171 through.
const CALL_PERIOD: Duration = Duration::from_millis(280);
const CALL_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
// Signing again leaves half of that to changes.
const RESIGN_PERIOD: Duration = Duration::from_millis(560);
const RESIGN_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);

/// The pace of all lanes together.
pub(super) struct Pace {
    calls: DefaultDirectRateLimiter,
    resigning: DefaultDirectRateLimiter,
    quiet_until: Mutex<Option<OffsetDateTime>>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            calls: RateLimiter::direct(quota(CALL_PERIOD, CALL_BURST)),
            resigning: RateLimiter::direct(quota(RESIGN_PERIOD, RESIGN_BURST)),
            quiet_until: Mutex::new(None),
        }
    }

    /// Waits until one more call may be made.
    pub(super) async fn call(&self, priority: Priority) {
        if priority == Priority::Resign {
            self.resigning.until_ready().await;
        }
        self.calls.until_ready().await;
    }

    /// No lane calls before `time`: KV has asked for a pause.
    pub(super) fn be_quiet_until(&self, time: OffsetDateTime) {
        let mut quiet_until = self.quiet_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *quiet_until = (*quiet_until).max(Some(time));
    }

    /// How long the pause that KV asked for goes on.
    pub(super) fn quiet_for(&self, now: OffsetDateTime) -> Option<Duration> {
        let quiet_until = *self.quiet_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        quiet_until.and_then(|until| Duration::try_from(until - now).ok()).filter(|pause| !pause.is_zero())
    }
}

fn quota(period: Duration, burst: NonZeroU32) -> Quota {
    Quota::with_period(period).unwrap_or(Quota::per_minute(NonZeroU32::MIN)).allow_burst(burst)
}

/// The pause after the `attempts`-th failure in a row, counted from 0: `first` doubled each time, at most `longest`, and
/// of that a random part between half and all, so that those who failed together do not come back together.
pub(super) fn backoff(first: Duration, longest: Duration, attempts: u32, rng: &mut impl RngCore) -> Duration {
    let whole = first.saturating_mul(2_u32.saturating_pow(attempts.min(16))).min(longest);
    let half = whole / 2;
    half + half.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(60));
        for attempts in 0..40 {
            let whole = first.saturating_mul(2_u32.saturating_pow(attempts)).min(longest);
            let pauses: Vec<_> = (0..50).map(|_| backoff(first, longest, attempts, &mut rng)).collect();
            assert!(pauses.iter().all(|pause| (whole / 2..=whole).contains(pause)));
            let least = pauses.iter().min().unwrap();
            assert!(pauses.iter().any(|pause| *pause > *least + whole / 10));
        }
    }

    #[test]
    fn a_pause_that_was_asked_for_holds_and_ends() {
        let pace = Pace::new();
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(pace.quiet_for(now), None);
        pace.be_quiet_until(now + Duration::from_secs(10));
        pace.be_quiet_until(now + Duration::from_secs(5));
        assert_eq!(pace.quiet_for(now), Some(Duration::from_secs(10)));
        assert_eq!(pace.quiet_for(now + Duration::from_secs(10)), None);
    }

    #[test]
    fn five_minutes_never_see_more_calls_than_kv_takes() {
        let most = u128::from(CALL_BURST.get()) + 300_000 / CALL_PERIOD.as_millis() + 1;
        assert!(most < 1200, "{most}");
    }
}
