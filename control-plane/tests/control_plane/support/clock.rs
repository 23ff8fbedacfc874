use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use keypost::clock::{Clock, SystemClock};
use time::OffsetDateTime;

/// The machine's clock, which a test can put forward.
#[derive(Debug, Default)]
pub(crate) struct TestClock {
    ahead_milliseconds: AtomicI64,
}

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead_milliseconds.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + time::Duration::milliseconds(self.ahead_milliseconds.load(Ordering::SeqCst))
    }
}
