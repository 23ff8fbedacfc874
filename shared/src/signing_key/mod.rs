//! When which of a pool's keys signs its tokens (design §7): `next` → `active` → `retiring` → gone, and `revoked` from
//! anywhere.
//!
//! Verifiers all over the world keep a pool's key set for minutes. So a key stands in the key set as `next` for an hour
//! before it signs, and stays in it as `retiring` until the last token that it signed has expired. In detail:
//!
//! - a key signs once it has stood in a *published* pool document for [`Policy::stand`], counted so that clocks
//!   [`Policy::skew`] apart do not shorten it. Excepted are the first keys of a pool, and what follows a revocation
//!   ([`Snapshot::hurry`]): then the key that has stood longest signs, though it be young
//! - there is always a `next`: whenever one is used, another is made
//! - a rotation that is due before a key has stood long enough waits for it; [`signs_at`] says until when
//! - a key has an end of signing, [`Policy::overrun`] after its rotation was due. If by then no other key may sign, none
//!   does
//! - a key is `retiring` until every document that named it as the one that signs has ended, the tokens issued by the
//!   last of them have expired, and [`Policy::linger`] is over
//!
//! [`plan`] is a pure function over a snapshot. Whoever runs it holds the pool's lock while it reads, plans and writes.

#[cfg(test)]
mod tests;

use crate::id::Kid;
use crate::time::UnixTime;

/// How long keys stand, sign and stay. In seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// In a published pool document before a key signs: longer than any cache keeps a key set.
    pub stand: u64,
    /// How far the clocks of two control planes may be apart.
    pub skew: u64,
    /// In the key set after its last token has expired, for verifiers whose clocks are behind or that forgive an `exp`.
    pub linger: u64,
    /// How long a key signs before the next one takes over.
    pub period: u64,
    /// How much longer it may, where no other key can take over.
    pub overrun: u64,
    /// The pool's window: how long a document that is signed now may be believed.
    pub window: u64,
    /// The longest lifetime that a token of the pool may have.
    pub longest_token_ttl: u64,
}

/// The times of [`Policy`] that are the same for all pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// [`Policy::stand`].
    pub stand: u64,
    /// [`Policy::skew`].
    pub skew: u64,
    /// [`Policy::linger`].
    pub linger: u64,
    /// [`Policy::overrun`].
    pub overrun: u64,
}

impl Times {
    /// The longest window that a pool may have, which a key's end must not cut short as long as rotation works.
    const LONGEST_WINDOW: u64 = 7 * 86_400;

    /// For keys that stand this long. What belongs to it is in proportion: at an hour a minute of skew, and five minutes
    /// in the key set after the last token.
    pub fn standing(stand: u64) -> Self {
        Self { stand, skew: stand / 60, linger: stand / 12, overrun: 30 * 86_400 }
    }
}

const _: () = assert!(30 * 86_400 > Times::LONGEST_WINDOW);

impl Default for Times {
    /// An hour (design §7).
    fn default() -> Self {
        Self::standing(3600)
    }
}

/// A key that is in the key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// Its thumbprint.
    pub kid: Kid,
    /// What it does.
    pub state: State,
    /// Whether it is what the pool's policy asks for now: a key of another backend is not.
    pub fits: bool,
    /// When it was made.
    pub created_at: UnixTime,
    /// When a pool document with it was first known to be in KV; none while that has not happened.
    pub published_at: Option<UnixTime>,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It stands ready.
    Next,
    /// It signs.
    Active {
        /// Since when.
        since: UnixTime,
        /// When it signs no more, whatever happens.
        ends_at: UnixTime,
        /// Until when tokens may be valid that have been issued by documents so far.
        tokens_until: Option<UnixTime>,
        /// Whether somebody has asked for its successor.
        rotation_asked: bool,
    },
    /// It has signed tokens that may be valid yet.
    Retiring {
        /// Until when.
        tokens_until: UnixTime,
    },
}

/// A pool's keys at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Those that are in its key set.
    pub keys: Vec<SigningKey>,
    /// Whether, where no key signs, one shall at once: no key of the pool has ever signed, or the last was revoked.
    pub hurry: bool,
}

/// A step to take now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a key, as `next`.
    Create,
    /// Let this key sign no more.
    Retire {
        /// The key.
        kid: Kid,
        /// Until when tokens that it signed may be valid.
        tokens_until: UnixTime,
    },
    /// Let this key sign from now on.
    Activate {
        /// The key.
        kid: Kid,
        /// When it signs no more, whatever happens.
        ends_at: UnixTime,
    },
    /// Take this key out of the key set, and forget its private half.
    Remove(Kid),
}

impl Snapshot {
    /// The key that signs.
    pub fn active(&self) -> Option<&SigningKey> {
        self.keys.iter().find(|key| matches!(key.state, State::Active { .. }))
    }

    /// What is left when `kid` is revoked: it is out of use at once, and its successor does not wait.
    pub fn without(mut self, kid: &Kid) -> Self {
        let signed = self.active().is_some_and(|active| active.kid == *kid);
        self.keys.retain(|key| key.kid != *kid);
        self.hurry |= signed;
        self
    }

    fn waiting(&self) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter().filter(|key| key.state == State::Next)
    }

    /// The key that has stood longest of those that have stood long enough.
    fn aged(&self, now: UnixTime, policy: &Policy) -> Option<&SigningKey> {
        let aged = self.waiting().filter(|key| key.has_stood(now, policy));
        aged.min_by_key(|key| (key.published_at, &key.kid))
    }

    /// The same, of those that the pool's policy asks for.
    fn aged_and_fitting(&self, now: UnixTime, policy: &Policy) -> Option<&SigningKey> {
        let aged = self.waiting().filter(|key| key.fits && key.has_stood(now, policy));
        aged.min_by_key(|key| (key.published_at, &key.kid))
    }

    /// The key that has stood longest, however young.
    fn oldest(&self) -> Option<&SigningKey> {
        // None comes before any time: what has not been published is tried last.
        self.waiting()
            .min_by_key(|key| (key.published_at.is_none(), key.published_at, key.created_at, &key.kid))
    }
}

impl SigningKey {
    /// From when on it may sign; none as long as it has not been published.
    pub fn may_sign_at(&self, policy: &Policy) -> Option<UnixTime> {
        self.published_at.map(|published| published + policy.stand + policy.skew)
    }

    /// Whether it has stood in the key set for long enough to sign.
    pub fn has_stood(&self, now: UnixTime, policy: &Policy) -> bool {
        self.may_sign_at(policy).is_some_and(|may_sign| may_sign <= now)
    }

    /// For the key that signs: when its successor shall.
    pub fn rotation_at(&self, policy: &Policy) -> Option<UnixTime> {
        match self.state {
            // A longer period is for the keys to come: this one's end has been promised.
            State::Active { since, ends_at, rotation_asked, .. } => {
                let due = (since + policy.period).min(ends_at - policy.overrun);
                Some(if rotation_asked || !self.fits { since } else { due })
            }
            State::Next | State::Retiring { .. } => None,
        }
    }

    /// For a key that has signed: when it leaves the key set.
    pub fn removed_at(&self, policy: &Policy) -> Option<UnixTime> {
        match self.state {
            State::Retiring { tokens_until } => Some(tokens_until + policy.linger),
            State::Next | State::Active { .. } => None,
        }
    }
}

/// What must happen now, in this order. Once it has been done, nothing more is to be done at the same moment, but for
/// what a new key changes.
pub fn plan(snapshot: &Snapshot, now: UnixTime, policy: &Policy) -> Vec<Step> {
    let mut steps = Vec::new();
    let successor = match snapshot.active() {
        Some(active) => {
            let due = active.rotation_at(policy).is_some_and(|due| due <= now);
            let ended = matches!(active.state, State::Active { ends_at, .. } if ends_at <= now);
            let successor = due.then(|| snapshot.aged_and_fitting(now, policy)).flatten();
            let successor = successor.or_else(|| ended.then(|| snapshot.aged(now, policy)).flatten());
            if successor.is_some() || ended {
                steps.extend(retire(active, now, policy));
            }
            successor
        }
        None => {
            let aged = snapshot.aged_and_fitting(now, policy).or_else(|| snapshot.aged(now, policy));
            aged.or_else(|| snapshot.hurry.then(|| snapshot.oldest()).flatten())
        }
    };
    if let Some(key) = successor {
        let ends_at = now + policy.period + policy.overrun;
        steps.push(Step::Activate { kid: key.kid.clone(), ends_at });
    }
    let left = || snapshot.waiting().filter(|key| successor.is_none_or(|taken| taken.kid != key.kid));
    if !left().any(|key| key.fits) {
        steps.push(Step::Create);
    }
    // What the pool does not ask for any more is kept until something better can take its place.
    let replaced = left().any(|key| key.fits && key.has_stood(now, policy));
    let unwanted = left().filter(|key| replaced && !key.fits);
    let done = snapshot.keys.iter().filter(|key| key.removed_at(policy).is_some_and(|at| at <= now));
    steps.extend(unwanted.chain(done).map(|key| Step::Remove(key.kid.clone())));
    steps
}

fn retire(active: &SigningKey, now: UnixTime, policy: &Policy) -> Option<Step> {
    let State::Active { tokens_until, .. } = active.state else { return None };
    // Beyond the documents that were counted: what else it has signed for no longer than the pool's window, and what a
    // version published that did not count.
    let at_most = now + policy.skew + policy.window + policy.longest_token_ttl;
    let tokens_until = tokens_until.map_or(at_most, |until| until.max(at_most));
    Some(Step::Retire { kid: active.kid.clone(), tokens_until })
}

/// When the next key will sign, as far as that can be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Succession<'a> {
    /// The key; none where it has yet to be made.
    pub next: Option<&'a SigningKey>,
    /// When it will. Earlier than that it will not; where it has not been published yet, later.
    pub at: UnixTime,
    /// Whether the key has been published, so that the time is certain.
    pub certain: bool,
}

/// When the next key would sign if a rotation were asked for now.
pub fn signs_at<'a>(snapshot: &'a Snapshot, now: UnixTime, policy: &Policy) -> Succession<'a> {
    let waiting = snapshot.waiting().filter(|key| key.fits);
    let next = waiting.min_by_key(|key| (key.published_at.is_none(), key.published_at, &key.kid));
    let may_sign = next.and_then(|key| key.may_sign_at(policy));
    Succession {
        next,
        at: may_sign.unwrap_or(now + policy.stand + policy.skew).max(now),
        certain: may_sign.is_some(),
    }
}

/// When [`plan`] is to be asked again, where nothing happens before.
pub fn due_at(snapshot: &Snapshot, now: UnixTime, policy: &Policy) -> UnixTime {
    let mut due = Vec::new();
    // When the next key becomes fit to sign matters only while something waits for it.
    let waits = match snapshot.active() {
        None => true,
        Some(active) => {
            let rotation = active.rotation_at(policy);
            due.extend(rotation.filter(|at| *at > now));
            if let State::Active { ends_at, .. } = active.state {
                due.push(ends_at);
            }
            rotation.is_some_and(|at| at <= now)
        }
    };
    if waits || snapshot.waiting().any(|key| !key.fits) {
        for key in snapshot.waiting() {
            // What has not been published is looked at from time to time.
            let soon = now + (policy.stand / 60).max(1);
            due.push(key.may_sign_at(policy).filter(|at| *at > now).unwrap_or(soon));
        }
    }
    due.extend(snapshot.keys.iter().filter_map(|key| key.removed_at(policy)));
    due.into_iter().min().unwrap_or(now + policy.period).max(now)
}
