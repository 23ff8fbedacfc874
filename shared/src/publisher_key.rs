//! When which publisher key signs the documents (design §4): a key stands in `v1/trust` for a day before it signs, signs
//! for a day, and leaves `v1/trust` when nothing that it signed is left. The very first may sign as soon as it is listed.
//!
//! [`plan`] is a pure function over a snapshot; whoever runs it holds a lock while it reads, plans and writes.

use crate::id::Kid;
use crate::time::UnixTime;

/// How long keys stand and sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Seconds in a published `v1/trust` before a key signs: longer than any edge goes without reading it.
    pub stand: u64,
    /// Seconds that a key signs before the next one takes over.
    pub sign: u64,
}

impl Default for Schedule {
    /// A day each (design §4).
    fn default() -> Self {
        Self { stand: 86_400, sign: 86_400 }
    }
}

/// A publisher key that is not gone yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherKey {
    /// Its thumbprint.
    pub kid: Kid,
    /// When a `v1/trust` that lists it was first published; none while that has not happened.
    pub listed_at: Option<UnixTime>,
    /// When it began to sign; none while it waits.
    pub signs_since: Option<UnixTime>,
    /// Whether a document that it signed may still be in KV.
    pub has_documents: bool,
}

/// A step to take now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a key and list it in `v1/trust`.
    Create,
    /// Let this key sign from now on, and have everything that others signed signed again.
    TakeOver(Kid),
    /// Take this key out of `v1/trust`, and forget its private half.
    Remove(Kid),
}

/// The key that signs now: the last one that took over.
pub fn signer(keys: &[PublisherKey]) -> Option<&PublisherKey> {
    keys.iter().filter(|key| key.signs_since.is_some()).max_by_key(|key| (key.signs_since, &key.kid))
}

/// What must happen now. To be asked again once the steps have been taken: one step may make the next one possible.
pub fn plan(keys: &[PublisherKey], now: UnixTime, schedule: Schedule) -> Vec<Step> {
    let mut steps = Vec::new();
    let signer = signer(keys);
    let waiting: Vec<&PublisherKey> = keys.iter().filter(|key| key.signs_since.is_none()).collect();

    match signer {
        // The very first key: nobody has cached a v1/trust without it.
        None => match waiting.iter().min_by_key(|key| &key.kid) {
            None => steps.push(Step::Create),
            Some(first) if first.listed_at.is_some() => steps.push(Step::TakeOver(first.kid.clone())),
            Some(_) => {}
        },
        Some(current) => {
            let done = current.signs_since.is_some_and(|since| since + schedule.sign <= now);
            let ready = waiting
                .iter()
                .filter(|key| key.listed_at.is_some_and(|listed| listed + schedule.stand <= now))
                .min_by_key(|key| (key.listed_at, &key.kid));
            match ready {
                Some(next) if done => steps.push(Step::TakeOver(next.kid.clone())),
                _ if waiting.is_empty() => steps.push(Step::Create),
                _ => {}
            }
            let outlived = |key: &&PublisherKey| {
                key.signs_since.is_some() && key.kid != current.kid && !key.has_documents
            };
            steps.extend(keys.iter().filter(outlived).map(|key| Step::Remove(key.kid.clone())));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEDULE: Schedule = Schedule { stand: 86_400, sign: 86_400 };

    /// A world in which the steps are taken: documents are re-signed some time after a take-over, and v1/trust is
    /// published some time after a key was made.
    struct World {
        keys: Vec<PublisherKey>,
        made: u32,
        now: UnixTime,
    }

    impl World {
        fn take(&mut self, steps: Vec<Step>, clock: UnixTime) {
            for step in steps {
                match step {
                    Step::Create => {
                        self.made += 1;
                        let kid = format!("key-{:05}", self.made).parse().unwrap();
                        self.keys.push(PublisherKey {
                            kid,
                            listed_at: None,
                            signs_since: None,
                            has_documents: false,
                        });
                    }
                    Step::TakeOver(kid) => {
                        let first = self.keys.iter().all(|key| key.signs_since.is_none());
                        let key = self.keys.iter_mut().find(|key| key.kid == kid).unwrap();
                        let stood = clock.since(key.listed_at.expect("listed before it signs"));
                        assert!(first || stood >= SCHEDULE.stand, "a key signed after {stood} s in v1/trust");
                        assert!(key.signs_since.is_none());
                        key.signs_since = Some(clock);
                        key.has_documents = true;
                    }
                    Step::Remove(kid) => {
                        let key = self.keys.iter().find(|key| key.kid == kid).unwrap();
                        assert!(!key.has_documents, "a key left while its documents were still there");
                        assert_ne!(signer(&self.keys).map(|key| &key.kid), Some(&kid));
                        self.keys.retain(|key| key.kid != kid);
                    }
                }
            }
        }
    }

    proptest! {
        /// Whatever the delays of publishing and re-signing, and with clocks a minute apart, one key signs at any time,
        /// no key signs before it has stood its day, none leaves before its documents have, and the number of keys
        /// stays bounded.
        #[test]
        fn keys_take_turns(
            events in prop::collection::vec((60_u64..20_000, 0..4_u8, -60_i64..60), 50..400),
        ) {
            let mut world = World { keys: Vec::new(), made: 0, now: UnixTime(1_700_000_000) };
            let mut signed_once = false;
            for (pause, event, skew) in events {
                world.now = world.now + pause;
                let clock = UnixTime(world.now.0 + skew);
                match event {
                    // v1/trust was published.
                    0 | 1 => {
                        for key in world.keys.iter_mut().filter(|key| key.listed_at.is_none()) {
                            key.listed_at = Some(clock);
                        }
                    }
                    // Everything was signed again by the current key.
                    2 => {
                        let current = signer(&world.keys).map(|key| key.kid.clone());
                        for key in world.keys.iter_mut().filter(|key| Some(&key.kid) != current.as_ref()) {
                            key.has_documents = false;
                        }
                    }
                    _ => {}
                }
                let steps = plan(&world.keys, clock, SCHEDULE);
                world.take(steps, clock);
                signed_once |= signer(&world.keys).is_some();
                prop_assert_eq!(signer(&world.keys).is_some(), signed_once, "there is a signer from the first on");
                let waiting = world.keys.iter().filter(|key| key.signs_since.is_none()).count();
                prop_assert!(waiting <= 1, "{} keys wait", waiting);
            }
        }
    }

    #[test]
    fn the_first_key_signs_as_soon_as_it_is_listed() {
        let now = UnixTime(1_000_000);
        let mut key = PublisherKey {
            kid: "a".parse().unwrap(),
            listed_at: None,
            signs_since: None,
            has_documents: false,
        };
        assert_eq!(plan(&[], now, SCHEDULE), [Step::Create]);
        assert_eq!(plan(std::slice::from_ref(&key), now, SCHEDULE), []);
        key.listed_at = Some(now);
        assert_eq!(plan(&[key.clone()], now, SCHEDULE), [Step::TakeOver(key.kid)]);
    }

    #[test]
    fn a_key_signs_on_while_its_successor_still_stands() {
        let now = UnixTime(1_000_000);
        let key = |kid: &str, listed_at, signs_since| PublisherKey {
            kid: kid.parse().unwrap(),
            listed_at: Some(listed_at),
            signs_since,
            has_documents: true,
        };
        let current = key("a", now - 400_000, Some(now - 300_000));
        let young = key("b", now - 86_399, None);
        let aged = key("b", now - 86_400, None);
        assert_eq!(plan(&[current.clone(), young], now, SCHEDULE), []);
        assert_eq!(plan(&[current, aged], now, SCHEDULE), [Step::TakeOver("b".parse().unwrap())]);
    }

    #[test]
    fn a_key_signs_out_its_turn_and_goes_only_after_it() {
        let now = UnixTime(1_000_000);
        let key = |kid: &str, signs_since| PublisherKey {
            kid: kid.parse().unwrap(),
            listed_at: Some(now - 400_000),
            signs_since,
            has_documents: false,
        };
        let next = key("c", None);
        let current = key("b", Some(now - 86_399));
        assert_eq!(plan(&[current.clone(), next.clone()], now, SCHEDULE), [], "neither of them goes");
        assert_eq!(
            plan(&[current.clone(), next.clone()], now + 1, SCHEDULE),
            [Step::TakeOver(next.kid.clone())]
        );
        let former = key("a", Some(now - 180_000));
        assert_eq!(plan(&[former.clone(), current, next], now, SCHEDULE), [Step::Remove(former.kid)]);
    }
}
