//! Which keys cannot do what they are needed for: what an alarm looks at.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// How long a failure counts. What is needed is tried again far sooner; what is not needed any more is not, and falls
/// silent.
const COUNTS_FOR: Duration = Duration::from_secs(600);

/// The last failures, by operation and key.
#[derive(Default)]
pub(super) struct Failing(Mutex<HashMap<(&'static str, String), Instant>>);

impl Failing {
    /// A call has been made.
    pub(super) fn note(&self, operation: &'static str, key: &str, failed: bool, now: Instant) {
        let mut failures = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let call = (operation, key.to_owned());
        if failed {
            failures.insert(call, now);
        } else {
            failures.remove(&call);
        }
    }

    /// How many fail now.
    pub(super) fn count(&self, now: Instant) -> u64 {
        let mut failures = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failures.retain(|_, at| now.duration_since(*at) < COUNTS_FOR);
        failures.len().try_into().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fails_until_it_works_or_nobody_needs_it_any_more() {
        let (failing, start) = (Failing::default(), Instant::now());
        failing.note("Sign", "a", true, start);
        failing.note("Decrypt", "a", true, start);
        failing.note("Sign", "b", true, start + COUNTS_FOR / 2);
        failing.note("Sign", "b", true, start + COUNTS_FOR / 2);
        assert_eq!(failing.count(start + COUNTS_FOR / 2), 3);
        failing.note("Sign", "a", false, start + COUNTS_FOR / 2);
        assert_eq!(failing.count(start + COUNTS_FOR / 2), 2);
        assert_eq!(failing.count(start + COUNTS_FOR), 1);
        assert_eq!(failing.count(start + COUNTS_FOR * 2), 0);
    }
}
