//! How fast the publishers may go: KV's rate limit, and the pauses after failures.

use std::time::Duration;

use rand_core::RngCore;
use sqlx::PgPool;
use tokio::time::sleep;

use crate::store::StoreError;
use crate::store::kv_pace::{self, Spacing};

/// KV's API takes 1,200 calls in 5 minutes of the whole account, which are four a second. This leaves some to others.
pub(crate) const CALL_PERIOD: Duration = Duration::from_millis(280);
/// What can wait takes every second place at most.
const RESIGN_PERIODS: u32 = 2;
/// How soon a call that an answer waits for may follow the one before it.
const AWAITED_GAP: Duration = Duration::from_millis(50);
/// How far such calls may be ahead of their places, all together: 53 of them, after which they are as far apart as others. What
/// has been used up comes back while nobody calls.
const ALLOWANCE: Duration = Duration::from_secs(15);

/// How much hurry there is for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Somebody waits for the answer to a request, which waits for the call.
    Awaited,
    /// It should be made soon.
    Usual,
    /// It can wait: what is signed again, and comparisons.
    CanWait,
}

/// The pace of all lanes of all control planes together.
pub(crate) struct Pace {
    db: PgPool,
    period: Duration,
}

impl Pace {
    pub(crate) fn new(db: PgPool, period: Duration) -> Self {
        Self { db, period }
    }

    /// Waits until there is a place, and takes none: somebody else may.
    pub(super) async fn wait(&self, haste: Haste) -> Result<(), StoreError> {
        let (all, resign) = {
            let mut connection = self.db.acquire().await?;
            kv_pace::next_places(&mut connection, self.spacing(haste)).await?
        };
        sleep(if haste == Haste::CanWait { all.max(resign) } else { all }).await;
        Ok(())
    }

    /// Takes the next place, and waits for it. The call is to be made at once then.
    pub(crate) async fn call(&self, haste: Haste) -> Result<(), StoreError> {
        if haste == Haste::CanWait {
            // Waited for before the other place is taken, so that nobody waits for a place that is not used yet.
            let mut connection = self.db.acquire().await?;
            let pause = kv_pace::take_resign_place(&mut connection, self.period * RESIGN_PERIODS).await?;
            drop(connection);
            sleep(pause).await;
        }
        let mut connection = self.db.acquire().await?;
        let pause = kv_pace::take_place(&mut connection, self.spacing(haste)).await?;
        drop(connection);
        sleep(pause).await;
        Ok(())
    }

    fn spacing(&self, haste: Haste) -> Spacing {
        let gap = if haste == Haste::Awaited { self.period.min(AWAITED_GAP) } else { self.period };
        Spacing { period: self.period, gap, allowance: ALLOWANCE }
    }

    /// No lane calls for so long: KV has asked for a pause.
    pub(super) async fn be_quiet_for(&self, pause: Duration) -> Result<(), StoreError> {
        let mut connection = self.db.acquire().await?;
        kv_pace::be_quiet_for(&mut connection, pause).await
    }

    /// How long the pause that KV asked for goes on.
    pub(super) async fn quiet_for(&self) -> Result<Option<Duration>, StoreError> {
        let mut connection = self.db.acquire().await?;
        kv_pace::quiet_for(&mut connection).await
    }
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
    fn five_minutes_never_see_more_calls_than_kv_takes_nor_a_second_more_than_four_that_nobody_waits_for() {
        let five_minutes = Duration::from_secs(300) + ALLOWANCE;
        assert!(five_minutes.as_millis() / CALL_PERIOD.as_millis() + 1 < 1_150);
        assert!(CALL_PERIOD * 4 > Duration::from_secs(1));
    }
}
