//! A walk through ninety days: three pools whose keys are rotated by the schedule and on demand, a revocation, and a
//! change of the master key, with the real publisher, a database and the edge's own code. One edge reads KV two minutes
//! late, and verifiers keep key sets for ten minutes and never ask again before that.
//!
//! Time jumps while nothing happens, and goes by in small steps after each change.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost::clock::{Clock, unix};
use keypost::config::RateLimitConfig;
use keypost::crypto_at_rest::MasterKey;
use keypost::entropy::SystemEntropy;
use keypost::http::{self, App};
use keypost::publisher::PublisherSettings;
use keypost::rewrap::{Rewrapped, Rewrapping, rewrap};
use keypost::signing_keys::SigningKeys;
use keypost_shared::host;
use keypost_shared::jwk::JwkSet;
use keypost_shared::kv_key::KvKey;
use keypost_shared::time::UnixTime;
use serde_json::{Value, json};
use sqlx::Connection;
use tokio::time::{Instant, sleep};

use crate::support::{PATIENCE, TestApp, TestEdge, TestPublisher, secret};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// How late the late edge reads KV.
const LATE: u64 = 120;
/// How long a verifier keeps a key set.
const CACHED: u64 = 600;
/// The isolate's own memory of a document.
const HELD: u64 = 30;
/// The longest jump: documents are signed again in time.
const JUMP: u64 = 5 * 3600;
/// A small step, and how many follow a change: until every cache has caught up.
const STEP: u64 = 75;
const STEPS: u32 = 13;

/// What KV has held, and since when.
#[derive(Default)]
struct History(HashMap<String, Vec<(UnixTime, String)>>);

impl History {
    fn at(&self, key: &str, time: UnixTime) -> Option<String> {
        let values = self.0.get(key)?;
        values.iter().rev().find(|(since, _)| *since <= time).map(|(_, value)| value.clone())
    }
}

#[derive(Clone)]
struct Pool {
    id: String,
    client_id: String,
    client_secret: String,
}

/// A token that has been issued.
struct Token {
    pool: String,
    kid: String,
    exp: UnixTime,
    text: String,
}

/// Asks for the key set of each pool every ten minutes, at one edge, and believes that alone.
struct Verifier {
    edge: usize,
    /// When the key sets in hand were fetched.
    fetched_at: UnixTime,
    key_sets: BTreeMap<String, JwkSet>,
}

struct Walk {
    app: TestApp,
    history: Rc<RefCell<History>>,
    edges: Vec<TestEdge<'static>>,
    verifiers: Vec<Verifier>,
    pools: Vec<Pool>,
    tokens: Vec<Token>,
    /// Revoked keys, and when.
    revoked: BTreeMap<String, UnixTime>,
    /// Keys that signed before they had stood for an hour, because another was revoked, and since when.
    young: BTreeMap<String, UnixTime>,
    /// Which keys have signed, of which pool.
    signed: BTreeSet<(String, String)>,
    issued: u64,
    verified: u64,
    refused: u64,
}

fn settings() -> PublisherSettings {
    let quick = Duration::from_millis(10);
    PublisherSettings { poll: quick, sweep: quick, ..TestPublisher::settings() }
}

impl Walk {
    async fn start() -> Self {
        let mut app = TestApp::start().await;
        app.create("/api/internal/org", json!({"id": "acme", "name": "Acme"})).await;
        let mut pools = Vec::new();
        for (env, period, window, ttl) in
            [("a", 30, 86_400, 3600), ("b", 14, 2 * 86_400, 600), ("c", 18, 7 * 86_400, 86_400)]
        {
            let made = app.create("/api/internal/org/acme/env", json!({"id": env, "name": env})).await;
            let rules = json!({"rotationPeriodSeconds": period * 86_400, "maxStalenessSeconds": window,
                "tokenTtlSeconds": ttl});
            let path = format!("/api/internal/org/acme/env/{env}");
            assert_eq!(app.call("PATCH", &format!("{path}/pool"), Some(rules)).await.status, 200);
            let client =
                app.create(&format!("{path}/client"), json!({"name": "reports", "scopes": ["read"]})).await;
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            pools.push(Pool {
                id: text(&made["clientPoolId"]),
                client_id: text(&client["clientId"]),
                client_secret: text(&client["clientSecret"]),
            });
        }
        let quick = TestPublisher::start_with(&app.database, &app.kv, &app.clock, settings()).await;
        std::mem::replace(&mut app.publisher, quick).stop().await;
        app.context.publications = app.publisher.publications.clone();

        let history = Rc::new(RefCell::new(History::default()));
        let edges = [0, LATE].map(|late| {
            let history = history.clone();
            let read = move |key: &str, now: UnixTime| history.borrow().at(key, now - late);
            TestEdge::with(&app.publisher.root, &app.clock, read, |_, _| {})
        });
        let verifiers =
            (0..4).map(|n| Verifier { edge: n % 2, fetched_at: UnixTime(0), key_sets: BTreeMap::new() });
        Self {
            history,
            edges: edges.into_iter().collect(),
            verifiers: verifiers.collect(),
            pools,
            tokens: Vec::new(),
            revoked: BTreeMap::new(),
            young: BTreeMap::new(),
            signed: BTreeSet::new(),
            issued: 0,
            verified: 0,
            refused: 0,
            app,
        }
    }

    fn now(&self) -> UnixTime {
        unix(self.app.clock.now())
    }

    async fn call(&self, method: &str, path: &str) -> Value {
        let answer = self.app.call(method, path, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// Lets the schedule and the publisher do what is due, and notes what KV has then.
    async fn settle(&self) {
        let schedule = SigningKeys { context: self.app.context.clone(), interval: HOUR };
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert_eq!(schedule.round().await.unwrap().failed, 0);
            let now = self.now().0;
            let waits = format!(
                "select count(*) from publication
                  where generation > published_generation or resign_at <= to_timestamp({now})
                     or (key <> 'v1/trust' and key not like 'v1/status/%'
                         and publisher_kid <> (select kid from publisher_key where signs_since is not null
                                                order by signs_since desc, kid desc limit 1))"
            );
            if self.app.database.number(&waits).await == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "something waits in vain");
            // One write a second for each key.
            self.app.clock.advance(Duration::from_millis(300));
            sleep(Duration::from_millis(10)).await;
        }
        let now = self.now();
        let mut history = self.history.borrow_mut();
        for key in self.app.kv.keys() {
            let parsed: KvKey = key.parse().unwrap();
            let value = self.app.kv.get(&parsed).unwrap().value;
            let values = history.0.entry(key).or_default();
            if values.last().is_none_or(|(_, last)| *last != value) {
                values.push((now, value));
            }
        }
    }

    /// Every edge issues a token for each pool, and every verifier is asked about every token.
    async fn look(&mut self) {
        let now = self.now();
        for verifier in &mut self.verifiers {
            if now.since(verifier.fetched_at) < CACHED {
                continue;
            }
            for pool in &self.pools {
                let path = format!("/{}/.well-known/jwks.json", pool.id);
                let answer = self.edges[verifier.edge].get(&path).await;
                assert_eq!(answer.status, 200, "a key set is always to be had");
                verifier.key_sets.insert(pool.id.clone(), serde_json::from_slice(&answer.body).unwrap());
            }
            verifier.fetched_at = now;
        }
        for edge in &self.edges {
            for pool in &self.pools {
                let form = [
                    ("grant_type", "client_credentials"),
                    ("client_id", pool.client_id.as_str()),
                    ("client_secret", pool.client_secret.as_str()),
                ];
                let (status, answer) = edge.post(&format!("/{}/oauth2/token", pool.id), &form).await;
                assert_eq!(status, 200, "a token is always to be had: {answer}; {}", edge.log());
                let text = answer["access_token"].as_str().unwrap().to_owned();
                let token = Token::read(&pool.id, text);
                if let Some(revoked) = self.revoked.get(&token.kid) {
                    let bound = *revoked + (LATE + HELD);
                    assert!(now < bound, "{} s after its revocation a key signs", now.since(*revoked));
                }
                self.signed.insert((pool.id.clone(), token.kid.clone()));
                self.issued += 1;
                self.tokens.push(token);
            }
        }
        self.tokens.retain(|token| now < token.exp);
        let (mut verified, mut refused) = (0, 0);
        for token in &self.tokens {
            for verifier in &self.verifiers {
                let accepted = verifier.accepts(token);
                match (self.revoked.get(&token.kid), self.young.get(&token.kid)) {
                    // Once its cache has lapsed, none takes it.
                    (Some(revoked), _) => {
                        let bound = *revoked + (LATE + HELD + CACHED);
                        assert!(
                            !accepted || now < bound,
                            "{} s after its key's revocation",
                            now.since(*revoked)
                        );
                        refused += u64::from(!accepted);
                    }
                    // The answer to the revocation said so.
                    (None, Some(since)) if now < *since + (LATE + HELD + CACHED) => {}
                    (None, _) => {
                        assert!(accepted, "a token is refused: {} of pool {}", token.kid, token.pool)
                    }
                }
                verified += u64::from(accepted);
            }
        }
        self.verified += verified;
        self.refused += refused;
    }

    /// Goes on until `until`, and looks after each change as closely as caches are long.
    async fn until(&mut self, until: UnixTime) {
        while self.now() < until {
            let next: i64 = self
                .app
                .database
                .number("select extract(epoch from min(keys_due_at))::bigint from client_pool")
                .await;
            let now = self.now();
            let due = UnixTime(next + 1);
            let jump = now + JUMP;
            let there = if due > now { due.min(jump).min(until) } else { (now + 60).min(until) };
            self.app.clock.advance(Duration::from_secs(there.since(now).max(1)));
            self.settle().await;
            self.look().await;
            if there == due {
                self.closely().await;
            }
        }
    }

    async fn closely(&mut self) {
        for _ in 0..STEPS {
            self.app.clock.advance(Duration::from_secs(STEP));
            self.settle().await;
            self.look().await;
        }
    }

    /// Goes on under other master keys: every process is started anew.
    async fn under(&mut self, master_key: MasterKey) {
        let publisher = TestPublisher::start_under(
            master_key.clone(),
            &self.app.database,
            &self.app.kv,
            &self.app.clock,
            settings(),
        )
        .await;
        assert_eq!(publisher.root, self.app.publisher.root, "it is the same root");
        std::mem::replace(&mut self.app.publisher, publisher).stop().await;
        let context = &mut self.app.context;
        context.publications = self.app.publisher.publications.clone();
        context.key_maker.master_key = master_key.clone();
        context.master_key = master_key;
        self.app.router = http::router(App::new(context.clone(), Vec::new(), RateLimitConfig::default()));
    }

    async fn day(&mut self, start: UnixTime, day: u64) {
        self.until(start + day * DAY.as_secs()).await;
    }
}

impl Token {
    fn read(pool: &str, text: String) -> Self {
        let part = |n: usize| -> Value {
            let part = text.split('.').nth(n).unwrap();
            serde_json::from_slice(&Base64UrlUnpadded::decode_vec(part).unwrap()).unwrap()
        };
        Self {
            pool: pool.to_owned(),
            kid: part(0)["kid"].as_str().unwrap().to_owned(),
            exp: UnixTime(part(1)["exp"].as_i64().unwrap()),
            text: text.clone(),
        }
    }
}

impl Verifier {
    /// Whether its key set has the token's key, and the signature is that key's: checked once in a while, because it
    /// takes a thousand times as long as looking for the key, whose id is its hash.
    fn accepts(&self, token: &Token) -> bool {
        let keys = &self.key_sets[&token.pool];
        let Some(jwk) = keys.keys.iter().find(|jwk| jwk.kid.as_str() == token.kid) else { return false };
        if token.text.ends_with(['A', 'Q']) {
            let (message, signature) = token.text.rsplit_once('.').unwrap();
            let signature = Base64UrlUnpadded::decode_vec(signature).unwrap();
            return host::verify(&jwk.key, message.as_bytes(), &signature) == Ok(true);
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_ninety_days_no_token_is_refused_that_should_verify_and_none_accepted_that_should_not() {
    let mut walk = Walk::start().await;
    walk.settle().await;
    // The late edge has heard of it too.
    walk.app.clock.advance(Duration::from_secs(LATE + 1));
    let start = walk.now();
    let (pool_b, pool_c) = (walk.pools[1].id.clone(), walk.pools[2].id.clone());

    walk.day(start, 20).await;
    let rotated = walk.call("POST", &format!("/api/internal/{pool_c}/keys/rotate")).await;
    assert_eq!(rotated["signs"], true, "a key that may sign was there");
    walk.settle().await;
    walk.closely().await;
    // And again within the hour: that one waits, and comes.
    let scheduled = walk.call("POST", &format!("/api/internal/{pool_c}/keys/rotate")).await;
    assert_eq!((&scheduled["signs"], &scheduled["certain"]), (&json!(false), &json!(true)));

    walk.day(start, 40).await;
    assert!(walk.signed.contains(&(pool_c, scheduled["kid"].as_str().unwrap().to_owned())));
    // The key that signs is revoked, and at once the one that took its place: that one is young.
    for young in [false, true] {
        let keys = walk.call("GET", &format!("/api/internal/{pool_b}/keys")).await;
        let active = keys["items"].as_array().unwrap().iter().find(|key| key["state"] == "active").unwrap();
        let kid = active["kid"].as_str().unwrap().to_owned();
        let revoked = walk.call("POST", &format!("/api/internal/{pool_b}/keys/{kid}/revoke")).await;
        assert_eq!((&revoked["published"], &revoked["activeIsYoung"]), (&json!(true), &json!(young)));
        walk.revoked.insert(kid, walk.now());
        if young {
            walk.young.insert(revoked["activeKid"].as_str().unwrap().to_owned(), walk.now());
        }
        walk.settle().await;
        walk.look().await;
    }
    walk.closely().await;
    assert!(walk.refused > 0, "tokens of the revoked key were about");

    // The master key is changed: each control plane accepts both, then encrypts under the new one, then all is rewrapped.
    walk.day(start, 60).await;
    let (old, new) = (MasterKey::parse(&secret(1)).unwrap(), MasterKey::parse(&secret(9)).unwrap());
    walk.under(old.clone().accepting(&new)).await;
    walk.day(start, 61).await;
    walk.under(new.clone().accepting(&old)).await;
    walk.day(start, 62).await;
    let mut connection = sqlx::PgConnection::connect_with(&walk.app.database.config.options).await.unwrap();
    let both = new.clone().accepting(&old);
    let with = Rewrapping { master_key: &both, entropy: &SystemEntropy, clock: &*walk.app.clock };
    let done = rewrap(&mut connection, &with, |_| {}).await.unwrap();
    assert!(done.keys > 3 && done.left == 0, "{done:?}");
    let again = rewrap(&mut connection, &with, |_| {}).await.unwrap();
    assert_eq!(again, Rewrapped { keys: 0, left: 0 });
    connection.close().await.unwrap();
    walk.under(new).await;

    walk.day(start, 90).await;
    let signed: Vec<usize> =
        (walk.pools.iter()).map(|pool| walk.signed.iter().filter(|(of, _)| *of == pool.id).count()).collect();
    assert!(signed[0] >= 3 && signed[1] >= 7 && signed[2] >= 6, "keys that have signed: {signed:?}");
    assert!(
        walk.issued > 2000 && walk.verified > walk.issued,
        "{} issued, {} verified",
        walk.issued,
        walk.verified
    );
    let kept =
        "select count(*) from signing_key where state in ('gone', 'revoked') and private_sealed is not null";
    assert_eq!(walk.app.database.number(kept).await, 0);
    let in_key_sets = "select count(*) from signing_key k join client_pool p on p.id = k.pool_id
                       where p.kind = 'device' and k.state in ('next', 'active', 'retiring')";
    assert!(walk.app.database.number(in_key_sets).await <= 9);
}
