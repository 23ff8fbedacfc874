//! Devices that come to exist by their certificate: how many, and how the control plane hears of them.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use super::bounded::Bounded;
use super::platform::{LogLevel, Platform};
use super::pool::Pool;
use super::{Context, Edge};
use crate::certificate::CertificateDer;
use crate::device_certificate::DeviceIdentity;
use crate::edge_report::{DeviceReport, EdgeReport, REPORT_TTL};
use crate::id::{DeviceId, PoolId};
use crate::time::UnixTime;

/// The hour of `maxPerHour`.
const HOUR: u64 = 3600;
/// So long a device is not reported again: KV takes one write a second for a key, and the control plane needs some
/// seconds to take a report up.
const QUIET: u64 = 60;
/// The most devices that an isolate remembers to have reported.
const MAX_REPORTED: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// The most pools whose new devices it counts.
const MAX_POOLS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

struct Reported {
    at: UnixTime,
    /// When it was counted as a new device, if it was.
    counted_at: Option<UnixTime>,
}

struct Count {
    since: UnixTime,
    devices: u32,
}

/// What an isolate remembers of the devices that it has let in. It is only a brake: the control plane counts.
pub(super) struct NewDevices {
    reported: RefCell<Bounded<(PoolId, DeviceId), Reported>>,
    counts: RefCell<Bounded<PoolId, Count>>,
}

impl NewDevices {
    pub(super) fn new() -> Self {
        Self {
            reported: RefCell::new(Bounded::new(MAX_REPORTED, usize::MAX)),
            counts: RefCell::new(Bounded::new(MAX_POOLS, usize::MAX)),
        }
    }

    /// Whether one more new device may come in this hour. One that came before does not count twice.
    fn count(&self, id: &(PoolId, DeviceId), most: u32, now: UnixTime) -> bool {
        let within_hour = |then: UnixTime| then <= now && now.since(then) < HOUR;
        let mut reported = self.reported.borrow_mut();
        if reported.get(id).and_then(|one| one.counted_at).is_some_and(within_hour) {
            return true;
        }
        let mut counts = self.counts.borrow_mut();
        let (since, devices) = match counts.get(&id.0) {
            Some(count) if within_hour(count.since) => (count.since, count.devices),
            _ => (now, 0),
        };
        if devices >= most {
            return false;
        }
        counts.put(id.0, Count { since, devices: devices + 1 }, 0);
        // Long ago, so that it is reported now.
        reported.put(id.clone(), Reported { at: UnixTime(i64::MIN), counted_at: Some(now) }, 0);
        true
    }

    /// Whether the device is to be reported now.
    fn is_due(&self, id: &(PoolId, DeviceId), now: UnixTime) -> bool {
        let mut reported = self.reported.borrow_mut();
        let (due, counted_at) = match reported.get(id) {
            Some(one) => (one.at > now || now.since(one.at) >= QUIET, one.counted_at),
            None => (true, None),
        };
        if due {
            reported.put(id.clone(), Reported { at: now, counted_at }, 0);
        }
        due
    }
}

impl<P: Platform> Edge<P> {
    /// Whether one more new device may come in at this location.
    pub(super) fn may_come_in(&self, context: &Context<'_, P>, pool: &Pool<P>, device: &DeviceId) -> bool {
        let most = pool.document.provisioning.max_per_hour;
        self.new_devices.count(&(pool.id, device.clone()), most, context.now)
    }

    /// Reports a device that has just got a token: one that is new, or that was seen with its first certificate.
    pub(super) fn report(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        identity: &DeviceIdentity,
        x5c: &[String],
    ) {
        let id = (pool.id, identity.device_id.clone());
        if !self.new_devices.is_due(&id, context.now) {
            return;
        }
        let failed = |reason: &str| {
            let detail = format!("device {} of pool {}: {reason}", id.1, id.0);
            context.log(LogLevel::Error, "report_failed", &detail);
        };
        let chain = x5c.iter().cloned().map(CertificateDer::try_from).collect::<Result<Vec<_>, _>>();
        let x5c = match chain {
            Ok(x5c) => x5c,
            Err(reason) => return failed(reason),
        };
        let (pool, device_id) = id.clone();
        let report = EdgeReport::Device(DeviceReport { pool, device_id, x5c, seen_at: context.now });
        match self.delivery(context, &report, REPORT_TTL) {
            Ok(delivery) => context.platform.deliver(delivery),
            Err(error) => failed(&error.to_string()),
        }
    }
}
