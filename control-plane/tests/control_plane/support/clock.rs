use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use keypost::clock::{Clock, SystemClock};
use time::OffsetDateTime;

/// The machine's clock, which a test can put forward and stop.
#[derive(Debug, Default)]
pub(crate) struct TestClock {
    ahead_milliseconds: AtomicI64,
    stopped_at: OnceLock<OffsetDateTime>,
}

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead_milliseconds.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }

    /// From now on no time goes by but what [`advance`](Self::advance) puts it forward: for what is counted by the minute,
    /// however long the machine takes.
    pub(crate) fn stop(&self) {
        self.stopped_at.get_or_init(|| SystemClock.now());
    }
}

impl Clock for TestClock {
    fn now(&self) -> OffsetDateTime {
        let now = self.stopped_at.get().copied().unwrap_or_else(|| SystemClock.now());
        now + time::Duration::milliseconds(self.ahead_milliseconds.load(Ordering::SeqCst))
    }
}
