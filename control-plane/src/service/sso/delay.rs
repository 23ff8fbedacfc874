//! How long after a failed sign-in the next may be tried. Pure: what is counted is kept by the store.
//!
//! Of each account, of each account from one network, and of each network some failures are free; each one more doubles the
//! delay. Time forgives them one by one. What is refused while it is delayed counts for nothing, so nobody can be kept out
//! for longer than the longest delay by who goes on knocking.

use time::{Duration, OffsetDateTime};

/// How strict to be.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The failures without a delay.
    pub free: u16,
    /// How long it takes until one failure is forgiven.
    pub forgiven_every: Duration,
    /// The longest delay.
    pub longest: Duration,
}

/// An account, from networks from which it has never been signed in to: some 300 guesses a day, however many machines guess.
pub const ACCOUNT: Rule =
    Rule { free: 20, forgiven_every: Duration::minutes(15), longest: Duration::minutes(5) };
/// An account from one network.
pub const ACCOUNT_FROM_NETWORK: Rule =
    Rule { free: 5, forgiven_every: Duration::minutes(30), longest: Duration::minutes(15) };
/// A network, which can be a whole company: as many guesses as it likes at one a minute.
pub const NETWORK: Rule =
    Rule { free: 100, forgiven_every: Duration::minutes(1), longest: Duration::minutes(1) };

/// The failures beyond the free ones that are remembered.
const MOST_REMEMBERED: u16 = 100;

/// What has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many, at `counted_at`.
    pub count: u16,
    /// When they were counted.
    pub counted_at: OffsetDateTime,
    /// Until when every attempt is refused.
    pub delayed_until: OffsetDateTime,
}

impl Failures {
    /// Nothing has failed.
    pub fn none(now: OffsetDateTime) -> Self {
        Self { count: 0, counted_at: now, delayed_until: OffsetDateTime::UNIX_EPOCH }
    }

    /// Lets attempts through again.
    pub fn undelayed(self) -> Self {
        Self { delayed_until: OffsetDateTime::UNIX_EPOCH, ..self }
    }

    /// How long attempts are refused still; none where they are not.
    pub fn delay(&self, now: OffsetDateTime) -> Option<Duration> {
        (self.delayed_until > now).then(|| self.delayed_until - now)
    }

    /// Whether no failure is free any more: then one attempt at a time is made.
    pub fn is_used_up(&self, rule: Rule, now: OffsetDateTime) -> bool {
        self.forgiven(rule, now).count >= rule.free
    }

    /// One more.
    pub fn failed(&self, rule: Rule, now: OffsetDateTime) -> Self {
        let Self { count, counted_at, .. } = self.forgiven(rule, now);
        let count = count.saturating_add(1).min(rule.free.saturating_add(MOST_REMEMBERED));
        let beyond = u32::from(count.saturating_sub(rule.free));
        let delayed_until = match beyond.checked_sub(1) {
            // Untouched: an attempt that began a moment before this one must not find itself delayed.
            None => self.delayed_until,
            // 2^20 seconds are longer than any rule's longest.
            Some(doublings) => {
                let delay = Duration::seconds(1 << doublings.min(20)).min(rule.longest);
                self.delayed_until.max(now + delay)
            }
        };
        Self { count, counted_at, delayed_until }
    }

    /// What time has left of them.
    fn forgiven(&self, rule: Rule, now: OffsetDateTime) -> Self {
        let period = rule.forgiven_every.whole_seconds().max(1);
        let periods = (now - self.counted_at).whole_seconds().max(0) / period;
        let count = i64::from(self.count).saturating_sub(periods).max(0);
        match u16::try_from(count) {
            Ok(count) if count > 0 => Self {
                count,
                counted_at: self.counted_at + rule.forgiven_every * periods_of(periods),
                ..*self
            },
            _ => Self { count: 0, counted_at: now, ..*self },
        }
    }
}

/// As many periods as there are failures to forgive at most, so that it fits.
fn periods_of(periods: i64) -> i32 {
    i32::try_from(periods).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    /// Fails whenever it may, every `pause`, for so long: how often is it let try?
    fn guesses(rule: Rule, pause: Duration, lasting: Duration) -> u32 {
        let (mut failures, mut now, mut guesses) = (Failures::none(NOW), NOW, 0);
        while now < NOW + lasting {
            if failures.delay(now).is_none() {
                failures = failures.failed(rule, now);
                guesses += 1;
            }
            now += pause;
        }
        guesses
    }

    #[test]
    fn the_free_ones_are_free_and_then_the_delay_doubles_up_to_its_longest() {
        let rule = ACCOUNT_FROM_NETWORK;
        let mut failures = Failures::none(NOW);
        let mut now = NOW;
        for _ in 0..rule.free {
            assert!(!failures.is_used_up(rule, now));
            failures = failures.failed(rule, now);
            assert_eq!(failures.delay(now), None);
        }
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            assert!(failures.is_used_up(rule, now));
            failures = failures.failed(rule, now);
            assert_eq!(failures.delay(now), Some(Duration::seconds(expected)));
            now += Duration::seconds(expected);
            assert_eq!(failures.delay(now), None);
        }
    }

    #[test]
    fn a_day_of_guessing_is_a_few_hundred_guesses_however_many_machines_guess() {
        let day = Duration::days(1);
        assert!((250..400).contains(&guesses(ACCOUNT, Duration::seconds(1), day)));
        assert!((90..150).contains(&guesses(ACCOUNT_FROM_NETWORK, Duration::seconds(1), day)));
        assert!((1400..1700).contains(&guesses(NETWORK, Duration::seconds(1), day)));
    }

    #[test]
    fn time_forgives_one_by_one() {
        let rule = ACCOUNT_FROM_NETWORK;
        let failures = (0..5).fold(Failures::none(NOW), |failures, _| failures.failed(rule, NOW));
        let at = |minutes| failures.forgiven(rule, NOW + Duration::minutes(minutes)).count;
        assert_eq!([at(0), at(29), at(30), at(75), at(149), at(150), at(10_000)], [5, 5, 4, 3, 1, 0, 0]);
        // What has passed of a period is not lost by a failure in between.
        let again = failures.failed(rule, NOW + Duration::minutes(59));
        assert_eq!(again.forgiven(rule, NOW + Duration::minutes(60)).count, 4);
    }

    proptest! {
        #[test]
        fn no_delay_is_longer_than_the_longest_and_none_gets_shorter(
            steps in prop::collection::vec((0_i64..100_000, any::<bool>()), 1..200),
        ) {
            for rule in [ACCOUNT, ACCOUNT_FROM_NETWORK, NETWORK] {
                let (mut failures, mut now) = (Failures::none(NOW), NOW);
                for (seconds, fails) in &steps {
                    now += Duration::seconds(*seconds);
                    if *fails && failures.delay(now).is_none() {
                        let after = failures.failed(rule, now);
                        prop_assert!(after.delayed_until >= failures.delayed_until);
                        prop_assert!(after.counted_at <= now && after.count <= rule.free + MOST_REMEMBERED);
                        failures = after;
                    }
                    prop_assert!(failures.delayed_until - now <= rule.longest);
                }
            }
        }
    }
}
