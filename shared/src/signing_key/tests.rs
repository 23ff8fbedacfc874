//! A world in which the steps are taken, by two control planes whose clocks are a minute apart, and in which documents are
//! published late or not at all. It keeps a log of every document that was ever in KV, and the log is judged at the end: by
//! what any edge might have done with any of them, and any verifier have known.

use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// How late an edge may read KV, and how long a verifier keeps a key set.
const EDGE_LATE: u64 = 120;
const VERIFIER_CACHE: u64 = 600;
/// How far a verifier's clock may be behind, or how much it may forgive.
const VERIFIER_SKEW: u64 = 60;

fn policy() -> Policy {
    let Times { stand, skew, linger, overrun } = Times::default();
    Policy { stand, skew, linger, overrun, period: 30 * DAY, window: DAY, longest_token_ttl: HOUR }
}

/// A pool document.
#[derive(Clone, Debug)]
struct Published {
    /// When it was written to KV, by nobody's clock.
    at: UnixTime,
    key_set: Vec<Kid>,
    names: Option<Kid>,
    next_update: UnixTime,
    token_ttl: u64,
}

/// What is known of each key in the end.
#[derive(Clone, Debug)]
struct Biography {
    kid: Kid,
    /// When a document with it was first in KV.
    first_published: Option<UnixTime>,
    ends_at: Option<UnixTime>,
    revoked_at: Option<UnixTime>,
    /// Whether it was let sign without having stood: as a first key, or after a revocation.
    hurried: bool,
}

struct World {
    snapshot: Snapshot,
    lives: Vec<Biography>,
    log: Vec<Published>,
    policy: Policy,
    now: UnixTime,
    made: u32,
    /// Since when no revocation or lack of a key explains why none signs.
    ended: bool,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A control plane with this clock takes the steps that are due.
    Round { clock: i64 },
    /// It renders the pool's document, which reaches KV so much later; none where it is lost.
    Publish { clock: i64, delay: Option<u64> },
    /// Somebody asks for a rotation.
    Rotate { clock: i64 },
    /// Somebody revokes the key that signs, or the next one.
    Revoke { active: bool, clock: i64 },
    /// The pool's rules change.
    Rules { window: u64, token_ttl: u64, period: u64 },
}

impl World {
    /// A pool that has just been created, and whose document is in KV.
    fn new() -> Self {
        let mut world = Self {
            snapshot: Snapshot { keys: Vec::new(), hurry: true },
            lives: Vec::new(),
            log: Vec::new(),
            policy: policy(),
            now: UnixTime(1_700_000_000),
            made: 0,
            ended: false,
        };
        world.create(world.now);
        world.create(world.now);
        world.take(world.now);
        world.publish(0, Some(0));
        world
    }

    fn clock(&self, offset: i64) -> UnixTime {
        UnixTime(self.now.0 + offset)
    }

    fn create(&mut self, clock: UnixTime) {
        self.made += 1;
        let kid: Kid = format!("key-{:05}", self.made).parse().unwrap();
        let (state, fits) = (State::Next, true);
        self.snapshot.keys.push(SigningKey {
            kid: kid.clone(),
            state,
            fits,
            created_at: clock,
            published_at: None,
        });
        let hurried = false;
        self.lives.push(Biography { kid, first_published: None, ends_at: None, revoked_at: None, hurried });
    }

    fn life(&mut self, kid: &Kid) -> &mut Biography {
        self.lives.iter_mut().find(|life| life.kid == *kid).unwrap()
    }

    fn key(&mut self, kid: &Kid) -> &mut SigningKey {
        self.snapshot.keys.iter_mut().find(|key| key.kid == *kid).unwrap()
    }

    /// Takes the steps that are due by this clock.
    fn take(&mut self, clock: UnixTime) {
        let hurry = self.snapshot.hurry && self.snapshot.active().is_none();
        let steps = plan(&self.snapshot, clock, &self.policy);
        for step in &steps {
            match step {
                Step::Create => self.create(clock),
                Step::Retire { kid, tokens_until } => {
                    let tokens_until = *tokens_until;
                    self.key(kid).state = State::Retiring { tokens_until };
                    self.ended = true;
                }
                Step::Activate { kid, ends_at } => {
                    let (now, stand) = (self.now, self.policy.stand);
                    let life = self.life(kid);
                    let stood = life.first_published.map(|first| now.since(first));
                    assert!(
                        hurry || stood.is_some_and(|stood| stood >= stand),
                        "{kid} had stood {stood:?} s"
                    );
                    life.hurried = hurry;
                    life.ends_at = Some(*ends_at);
                    let ends_at = *ends_at;
                    self.key(kid).state =
                        State::Active { since: clock, ends_at, tokens_until: None, rotation_asked: false };
                    self.snapshot.hurry = false;
                    self.ended = false;
                }
                Step::Remove(kid) => {
                    assert!(!matches!(self.key(kid).state, State::Active { .. }));
                    self.snapshot.keys.retain(|key| key.kid != *kid);
                }
            }
        }
        assert_eq!(plan(&self.snapshot, clock, &self.policy), [], "taken steps are done: {steps:?}");
        let due = due_at(&self.snapshot, clock, &self.policy);
        assert!(due > clock, "due at once, and nothing to do");
        // Nothing happens before: a sample of the time until then.
        for part in [1, 2, 3] {
            let at = clock + due.since(clock) * part / 4;
            assert_eq!(plan(&self.snapshot, at, &self.policy), [], "{} s before it is due", due.since(at));
        }
        assert!(due == due_at(&self.snapshot, due - 1, &self.policy) || due.since(clock) <= 60);
    }

    /// Renders and publishes, as the publisher does: what it lets sign is noted before it is sent.
    fn publish(&mut self, clock: i64, delay: Option<u64>) {
        let clock = self.clock(clock);
        let Policy { window, longest_token_ttl: token_ttl, .. } = self.policy;
        let mut next_update = clock + window;
        let mut names = None;
        for key in &mut self.snapshot.keys {
            if let State::Active { ends_at, tokens_until, .. } = &mut key.state
                && *ends_at > clock
            {
                next_update = next_update.min(*ends_at);
                let noted = next_update + token_ttl;
                *tokens_until = Some(tokens_until.map_or(noted, |before| before.max(noted)));
                names = Some(key.kid.clone());
            }
        }
        let key_set: Vec<Kid> = self.snapshot.keys.iter().map(|key| key.kid.clone()).collect();
        let Some(delay) = delay else { return };
        self.now = self.now + delay;
        let written = clock + delay;
        for key in &mut self.snapshot.keys {
            if key_set.contains(&key.kid) {
                key.published_at.get_or_insert(written);
            }
        }
        let at = self.now;
        for life in self.lives.iter_mut().filter(|life| key_set.contains(&life.kid)) {
            life.first_published.get_or_insert(at);
        }
        self.log.push(Published { at, key_set, names, next_update, token_ttl });
    }

    fn revoke(&mut self, active: bool, clock: i64) {
        let found = self.snapshot.keys.iter().find(|key| match key.state {
            State::Active { .. } => active,
            State::Next => !active,
            State::Retiring { .. } => false,
        });
        let Some(kid) = found.map(|key| key.kid.clone()) else { return };
        let now = self.now;
        self.life(&kid).revoked_at = Some(now);
        self.snapshot = std::mem::take(&mut self.snapshot).without(&kid);
        self.take(self.clock(clock));
        self.take(self.clock(clock));
        // A revocation is published at once: what happens otherwise is the publisher's matter.
        self.publish(clock, Some(1));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Round { clock } => self.take(self.clock(clock)),
            Event::Publish { clock, delay } => self.publish(clock, delay),
            Event::Revoke { active, clock } => self.revoke(active, clock),
            Event::Rotate { clock } => {
                let asked_at = self.clock(clock);
                for key in &mut self.snapshot.keys {
                    if let State::Active { rotation_asked, .. } = &mut key.state {
                        *rotation_asked = true;
                    }
                }
                let promised = signs_at(&self.snapshot, asked_at, &self.policy);
                let at_once = promised.certain && promised.at == asked_at;
                let next = promised.next.map(|key| key.kid.clone());
                self.take(asked_at);
                let signs = self.snapshot.active().map(|key| key.kid.clone());
                if signs.is_some() {
                    assert_eq!(at_once, signs == next, "it signs when it was said to: {asked_at}");
                }
            }
            Event::Rules { window, token_ttl, period } => {
                // What was longer is remembered (`longest_token_ttl` of the pool): here by the key's own note.
                self.policy = Policy { window, longest_token_ttl: token_ttl, period, ..self.policy };
            }
        }
        let active =
            self.snapshot.keys.iter().filter(|key| matches!(key.state, State::Active { .. })).count();
        assert!(active == 1 || (active == 0 && self.ended), "{active} keys sign: {:?}", self.snapshot);
    }

    /// Judges the log.
    fn judge(&self) {
        for (position, document) in self.log.iter().enumerate() {
            let Some(kid) = &document.names else { continue };
            let life = self.lives.iter().find(|life| life.kid == *kid).unwrap();
            assert!(Some(document.next_update) <= life.ends_at, "{kid} may sign past its end");
            // An edge may hold this document until its next_update, and issue tokens all that time.
            let tokens_until = document.next_update + document.token_ttl + VERIFIER_SKEW;
            // What any verifier may know while such a token is about.
            let looks_back = if life.hurried { 0 } else { EDGE_LATE + VERIFIER_CACHE };
            let earliest = document.at - looks_back;
            for (other, known) in self.log.iter().enumerate() {
                let replaced_at = self.log.get(other + 1).map_or(UnixTime(i64::MAX), |next| next.at);
                let about = replaced_at > earliest && known.at < tokens_until;
                let revoked = life.revoked_at.is_some_and(|revoked| known.at > revoked);
                let young = life.hurried && other < position;
                if about && !revoked && !young {
                    let late = i128::from(known.at.0) - i128::from(document.at.0);
                    assert!(
                        known.key_set.contains(kid),
                        "{kid} is not in a key set {late} s after it signed"
                    );
                }
                if revoked {
                    assert!(!known.key_set.contains(kid), "{kid} was revoked and is in a key set");
                    assert_ne!(known.names.as_ref(), Some(kid), "{kid} was revoked and signs");
                }
            }
        }
    }
}

fn clock() -> impl Strategy<Value = i64> {
    // Two of them are a minute apart at the most.
    prop_oneof![Just(-30_i64), Just(30), -30..30_i64]
}

fn event() -> impl Strategy<Value = Event> {
    let delay = prop_oneof![4 => Just(Some(1)), 2 => (0..600_u64).prop_map(Some), 1 => (0..2 * DAY).prop_map(Some), 1 => Just(None)];
    let rules = (
        prop_oneof![Just(900), Just(DAY), Just(7 * DAY)],
        prop_oneof![Just(60), Just(HOUR), Just(DAY)],
        prop_oneof![Just(DAY), Just(30 * DAY), Just(365 * DAY)],
    );
    prop_oneof![
        10 => clock().prop_map(|clock| Event::Round { clock }),
        10 => (clock(), delay).prop_map(|(clock, delay)| Event::Publish { clock, delay }),
        2 => clock().prop_map(|clock| Event::Rotate { clock }),
        1 => (any::<bool>(), clock()).prop_map(|(active, clock)| Event::Revoke { active, clock }),
        1 => rules.prop_map(|(window, token_ttl, period)| Event::Rules { window, token_ttl, period }),
    ]
}

/// Pauses as long as any of the times that matter, and around them.
fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![0..200_u64, 3000..4000_u64, 0..2 * DAY, 25 * DAY..35 * DAY]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens, and however late documents are: one key signs at a time; none signs that has not stood for an
    /// hour, a pool's first key and a revocation aside; none past its end; and whoever verifies a token at any time of
    /// its life, with a key set as old as key sets may be, has its key.
    #[test]
    fn every_token_is_accounted_for(events in prop::collection::vec((pause(), event()), 1..120)) {
        let mut world = World::new();
        for (pause, event) in events {
            world.now = world.now + pause;
            world.happen(event);
        }
        world.judge();
    }

    /// Where documents are published as they should be, there is a key that may sign at any time but for the hour after
    /// one was used; keys take turns when their period is over; and none stays for ever.
    #[test]
    fn rotation_goes_on(
        rounds in prop::collection::vec((0..20_000_u64, clock(), 0..20_u8), 50..400),
    ) {
        let mut world = World::new();
        world.policy.period = 5 * DAY;
        let mut last_used = world.now;
        for (pause, clock, what) in rounds {
            // The schedule looks every second: whatever is due within the pause is done when it is.
            let until = world.now + pause;
            loop {
                let due = due_at(&world.snapshot, world.now, &world.policy);
                world.now = due.min(until);
                let before = world.made;
                world.happen(Event::Round { clock });
                if world.made > before {
                    last_used = world.now;
                }
                world.publish(clock, Some(2));
                if world.now >= until {
                    break;
                }
            }
            match what {
                0 => world.happen(Event::Rotate { clock }),
                1 => world.revoke(true, clock),
                2 => world.revoke(false, clock),
                _ => {}
            }
            if what < 3 {
                last_used = world.now;
                world.publish(clock, Some(2));
            }
            let (snapshot, policy) = (&world.snapshot, &world.policy);
            prop_assert_eq!(snapshot.waiting().count(), 1, "one key is next: {:?}", snapshot);
            let settled = last_used + policy.stand + policy.skew + 120;
            if world.now >= settled {
                // By any control plane's clock.
                prop_assert!(snapshot.aged(world.now - 30, policy).is_some(), "no key may sign");
                let due = snapshot.active().unwrap().rotation_at(policy).unwrap();
                prop_assert!(due + 120 >= world.now, "rotation is {} s late", world.now.since(due));
            }
            prop_assert!(snapshot.keys.len() <= 40, "{} keys", snapshot.keys.len());
        }
        world.judge();
        // Left alone, the key set comes down to two.
        world.now = world.now + (world.policy.window + world.policy.longest_token_ttl + 2 * HOUR);
        world.take(world.now);
        world.publish(0, Some(0));
        world.now = world.now + 2 * DAY;
        world.take(world.now);
        prop_assert!(world.snapshot.keys.len() <= 3, "{:?}", world.snapshot);
    }
}

fn kid(name: &str) -> Kid {
    name.parse().unwrap()
}

const NOW: UnixTime = UnixTime(1_700_000_000);

fn next(name: &str, published_at: Option<UnixTime>) -> SigningKey {
    SigningKey { kid: kid(name), state: State::Next, fits: true, created_at: NOW - 10 * DAY, published_at }
}

fn active(name: &str, since: UnixTime) -> SigningKey {
    let Policy { period, overrun, .. } = policy();
    let state = State::Active {
        since,
        ends_at: since + period + overrun,
        tokens_until: Some(NOW + 20 * HOUR),
        rotation_asked: false,
    };
    SigningKey { state, ..next(name, Some(since)) }
}

fn keys(keys: &[SigningKey]) -> Snapshot {
    Snapshot { keys: keys.to_vec(), hurry: false }
}

fn asked(key: SigningKey) -> SigningKey {
    let State::Active { since, ends_at, tokens_until, .. } = key.state else { panic!("it does not sign") };
    SigningKey { state: State::Active { since, ends_at, tokens_until, rotation_asked: true }, ..key }
}

#[test]
fn of_the_first_keys_one_signs_at_once() {
    let first = Snapshot { keys: vec![next("a", None), next("b", None)], hurry: true };
    let ends_at = NOW + 60 * DAY;
    assert_eq!(plan(&first, NOW, &policy()), [Step::Activate { kid: kid("a"), ends_at }]);
}

#[test]
fn a_key_signs_for_its_period_to_the_second() {
    let since = NOW - 30 * DAY;
    let aged = next("b", Some(NOW - 2 * HOUR));
    assert_eq!(plan(&keys(&[active("a", since + 1), aged.clone()]), NOW, &policy()), []);
    let until = NOW + (DAY + HOUR + 60);
    assert_eq!(
        plan(&keys(&[active("a", since), aged]), NOW, &policy()),
        [
            Step::Retire { kid: kid("a"), tokens_until: until },
            Step::Activate { kid: kid("b"), ends_at: NOW + 60 * DAY },
            Step::Create,
        ]
    );
}

#[test]
fn a_rotation_waits_until_the_next_key_has_stood_its_hour_and_the_skew() {
    let current = asked(active("a", NOW - DAY));
    let young = keys(&[current.clone(), next("b", Some(NOW - HOUR - 59))]);
    assert_eq!(plan(&young, NOW, &policy()), []);
    let succession = signs_at(&young, NOW, &policy());
    assert_eq!((succession.at, succession.certain), (NOW + 1, true));
    assert_eq!(due_at(&young, NOW, &policy()), NOW + 1);
    assert_eq!(plan(&young, NOW + 1, &policy()).len(), 3);

    let unpublished = keys(&[current, next("b", None)]);
    assert_eq!(plan(&unpublished, NOW, &policy()), []);
    let succession = signs_at(&unpublished, NOW, &policy());
    assert_eq!((succession.at, succession.certain), (NOW + HOUR + 60, false));
    assert_eq!(due_at(&unpublished, NOW, &policy()), NOW + 60, "it is looked at from time to time");
}

#[test]
fn a_revocation_prefers_a_key_that_has_stood_and_takes_a_young_one_where_there_is_none() {
    let current = active("a", NOW - DAY);
    let (aged, young) = (next("c", Some(NOW - 2 * HOUR)), next("b", Some(NOW - 60)));
    let after = |left: &[SigningKey]| {
        let snapshot = keys(&[std::slice::from_ref(&current), left].concat()).without(&kid("a"));
        plan(&snapshot, NOW, &policy())
    };
    let activate = |name| Step::Activate { kid: kid(name), ends_at: NOW + 60 * DAY };
    assert_eq!(after(&[young.clone(), aged]), [activate("c")]);
    assert_eq!(after(&[next("0", None), young]), [activate("b")], "what has been published comes first");
    assert_eq!(after(&[next("0", None)]), [activate("0"), Step::Create]);
    assert_eq!(after(&[]), [Step::Create]);
}

#[test]
fn revoking_a_key_that_does_not_sign_hurries_nobody() {
    let snapshot = keys(&[active("a", NOW - DAY), next("b", Some(NOW - 60))]);
    assert_eq!(plan(&snapshot.clone().without(&kid("b")), NOW, &policy()), [Step::Create]);
    assert!(!snapshot.without(&kid("b")).hurry);
}

#[test]
fn at_its_end_a_key_stops_even_where_no_other_may_sign() {
    let since = NOW - 60 * DAY;
    let young = next("b", Some(NOW - 60));
    let snapshot = keys(&[active("a", since), young.clone()]);
    assert_eq!(plan(&snapshot, NOW - 1, &policy()), []);
    assert_eq!(due_at(&snapshot, NOW - 1, &policy()), NOW);
    let steps = plan(&snapshot, NOW, &policy());
    assert!(matches!(steps.as_slice(), [Step::Retire { .. }]), "{steps:?}");
    // Then the next one signs as soon as it has stood.
    let vacant = keys(&[young]);
    assert_eq!(plan(&vacant, NOW, &policy()), []);
    assert_eq!(due_at(&vacant, NOW, &policy()), NOW + HOUR);
    assert!(matches!(plan(&vacant, NOW + HOUR, &policy()).first(), Some(Step::Activate { .. })));
}

#[test]
fn a_longer_period_is_for_the_keys_to_come() {
    let policy = Policy { period: 365 * DAY, ..policy() };
    let current = active("a", NOW - 30 * DAY);
    assert_eq!(current.rotation_at(&policy), Some(NOW));
}

#[test]
fn a_retiring_key_stays_until_its_last_token_has_expired() {
    let retiring =
        |tokens_until| SigningKey { state: State::Retiring { tokens_until }, ..next("z", Some(NOW - DAY)) };
    let others = [active("a", NOW - DAY), next("b", Some(NOW - DAY))];
    let with = |key| keys(&[&others[..], &[key]].concat());
    assert_eq!(plan(&with(retiring(NOW - 299)), NOW, &policy()), []);
    assert_eq!(plan(&with(retiring(NOW - 300)), NOW, &policy()), [Step::Remove(kid("z"))]);
}

#[test]
fn keys_of_another_backend_are_replaced_and_kept_until_then() {
    let unfit = |key: SigningKey| SigningKey { fits: false, ..key };
    let current = unfit(active("a", NOW - DAY));
    let spare = unfit(next("b", Some(NOW - 2 * DAY)));
    assert_eq!(plan(&keys(&[current.clone(), spare.clone()]), NOW, &policy()), [Step::Create]);
    let young = next("c", Some(NOW - 60));
    assert_eq!(plan(&keys(&[current.clone(), spare.clone(), young]), NOW, &policy()), []);
    let aged = next("c", Some(NOW - 2 * HOUR));
    let steps = plan(&keys(&[current, spare.clone(), aged]), NOW, &policy());
    assert!(
        matches!(steps.as_slice(), [Step::Retire { .. }, Step::Activate { kid, .. }, Step::Create] if kid.as_str() == "c"),
        "{steps:?}"
    );
    let fits = [active("a", NOW - DAY), next("c", Some(NOW - 2 * HOUR)), spare];
    assert_eq!(plan(&keys(&fits), NOW, &policy()), [Step::Remove(kid("b"))]);
}

#[test]
fn shorter_times_stay_in_proportion() {
    assert_eq!(Times::standing(HOUR), Times { stand: HOUR, skew: 60, linger: 300, overrun: 30 * DAY });
    assert_eq!(Times::standing(3), Times { stand: 3, skew: 0, linger: 0, overrun: 30 * DAY });
}
