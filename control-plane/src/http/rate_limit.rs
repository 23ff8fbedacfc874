//! Rate limits: so many requests a minute from an address and with a key, told in every answer in the fields of
//! draft-ietf-httpapi-ratelimit-headers-10.
//!
//! Time is the machine's own, which nobody puts back: a wall clock that jumps would shut everybody out.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use lru::LruCache;
use uuid::Uuid;

use crate::config::RateLimitConfig;
use crate::service::attempts::network;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The window of every policy, in seconds.
const WINDOW: u32 = 60;
/// How many addresses and keys are remembered, each: some 10 MB. The one that was seen longest ago is forgotten first,
/// and starts again with a full quota.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(99_999);

/// The limits of all addresses and all keys.
pub(super) struct RateLimits {
    addresses: Limit<IpAddr, DefaultClock>,
    keys: Limit<Uuid, DefaultClock>,
}

/// How a request stands with the limits that it has met so far. It travels with the request.
#[derive(Clone, Default)]
pub(super) struct Standings(Arc<Mutex<Vec<Standing>>>);

/// How one limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    policy: &'static str,
    quota: u32,
    remaining: u32,
    /// Until the quota is whole again; where the request is refused, until the next one is not.
    seconds: u32,
}

/// A limit is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsedUp {
    /// Which.
    pub(super) policy: &'static str,
    /// When the next request is answered.
    pub(super) retry_after: Duration,
}

impl RateLimits {
    pub(super) fn new(config: RateLimitConfig) -> Self {
        Self {
            addresses: Limit::new("address", config.per_address, DefaultClock::default()),
            keys: Limit::new("key", config.per_key, DefaultClock::default()),
        }
    }

    /// Counts a request from this address.
    pub(super) fn count_address(&self, address: IpAddr, standings: &Standings) -> Result<(), UsedUp> {
        self.addresses.count(&network(address), standings)
    }

    /// Counts a request with this key, once, however often it is asked about. Only keys that are good are counted: whoever
    /// invents keys uses up its address.
    pub(super) fn count_key(&self, key: Uuid, standings: &Standings) -> Result<(), UsedUp> {
        if standings.knows(self.keys.policy) {
            return Ok(());
        }
        self.keys.count(&key, standings)
    }
}

impl Standings {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Standing>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn knows(&self, policy: &str) -> bool {
        self.lock().iter().any(|standing| standing.policy == policy)
    }

    /// Tells the client how it stands: both fields are lists, with a member for each policy.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let standings = self.lock();
        let list = |member: &dyn Fn(&Standing) -> String| {
            let members: Vec<String> = standings.iter().map(member).collect();
            HeaderValue::try_from(members.join(", ")).ok().filter(|_| !standings.is_empty())
        };
        let policies = list(&|one| format!("\"{}\";q={};w={WINDOW}", one.policy, one.quota));
        let left = list(&|one| format!("\"{}\";r={};t={}", one.policy, one.remaining, one.seconds));
        if let (Some(policies), Some(left)) = (policies, left) {
            headers.insert(RATE_LIMIT_POLICY, policies);
            headers.insert(RATE_LIMIT, left);
        }
    }
}

/// One policy: a quota a minute for each key.
struct Limit<K: Hash + Eq + Clone, C: Clock> {
    policy: &'static str,
    quota: u32,
    clock: C,
    limiter: RateLimiter<K, Recent<K>, C, StateInformationMiddleware>,
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Limit<K, C> {
    fn new(policy: &'static str, a_minute: NonZeroU32, clock: C) -> Self {
        let limiter = RateLimiter::new(Quota::per_minute(a_minute), Recent::new(REMEMBERED), clock.clone());
        Self { policy, quota: a_minute.get(), clock, limiter }
    }

    fn count(&self, key: &K, standings: &Standings) -> Result<(), UsedUp> {
        let (remaining, seconds, done) = match self.limiter.check_key(key) {
            Ok(snapshot) => {
                let remaining = snapshot.remaining_burst_capacity().min(self.quota);
                let used = u64::from(self.quota - remaining);
                let seconds = (used * u64::from(WINDOW)).div_ceil(u64::from(self.quota));
                (remaining, u32::try_from(seconds).unwrap_or(WINDOW), Ok(()))
            }
            Err(refused) => {
                let retry_after = refused.wait_time_from(self.clock.now());
                let seconds = retry_after.as_secs().saturating_add(1);
                let used_up = UsedUp { policy: self.policy, retry_after };
                (0, u32::try_from(seconds).unwrap_or(WINDOW), Err(used_up))
            }
        };
        standings.lock().push(Standing { policy: self.policy, quota: self.quota, remaining, seconds });
        done
    }
}

/// What the limiter knows of each key, in bounded memory.
struct Recent<K: Hash + Eq>(Mutex<LruCache<K, Nanos>>);

impl<K: Hash + Eq> Recent<K> {
    fn new(most: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::new(most)))
    }
}

impl<K: Hash + Eq + Clone> StateStore for Recent<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut recent = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (answer, state) = f(recent.get(key).copied())?;
        recent.put(key.clone(), state);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limit(a_minute: u32) -> (Limit<u32, FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limit::new("key", NonZeroU32::new(a_minute).unwrap(), clock.clone()), clock)
    }

    fn fields(standings: &Standings) -> (String, String) {
        let mut headers = HeaderMap::new();
        standings.write(&mut headers);
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        (text("ratelimit-policy"), text("ratelimit"))
    }

    #[test]
    fn a_key_has_its_quota_and_gets_it_back_bit_by_bit() {
        let (limit, clock) = limit(30);
        let answered =
            |key| (0..100).take_while(|_| limit.count(&key, &Standings::default()).is_ok()).count();
        assert_eq!((answered(1), answered(2)), (30, 30));
        let refused = limit.count(&1, &Standings::default()).unwrap_err();
        assert_eq!(refused, UsedUp { policy: "key", retry_after: Duration::from_secs(2) });
        clock.advance(Duration::from_secs(2));
        assert_eq!(answered(1), 1);
        clock.advance(Duration::from_secs(60));
        assert_eq!(answered(1), 30);
    }

    #[test]
    fn answers_tell_the_quota_and_what_is_left_of_it() {
        let (limit, _) = limit(30);
        let standings = Standings::default();
        limit.count(&1, &standings).unwrap();
        assert_eq!(fields(&standings), ("\"key\";q=30;w=60".to_owned(), "\"key\";r=29;t=2".to_owned()));
        while limit.count(&1, &Standings::default()).is_ok() {}
        let standings = Standings::default();
        assert!(limit.count(&1, &standings).is_err());
        assert_eq!(fields(&standings).1, "\"key\";r=0;t=3");
    }

    #[test]
    fn what_was_seen_longest_ago_is_forgotten_first() {
        let recent = Recent::new(NonZeroUsize::new(2).unwrap());
        let put = |key: u32| {
            recent.measure_and_replace(&key, |before| Ok::<_, ()>((before.is_some(), Nanos::new(1)))).unwrap()
        };
        assert_eq!(
            [put(1), put(2), put(1), put(3), put(1), put(2)],
            [false, false, true, false, true, false]
        );
        assert_eq!(recent.0.lock().unwrap().len(), 2);
    }
}
