//! Whatever is issued, revoked, disabled, rotated and left to expire, in whatever order: once the stated bound has passed,
//! introspection, status lists and issuing never contradict each other, nor what a person would say.

use std::collections::BTreeMap;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost::clock::{Clock, unix};
use keypost_shared::host;
use keypost_shared::jwk::JwkSet;
use keypost_shared::jws::{JwsHeader, UnverifiedJws};
use keypost_shared::status_list::{StatusBits, StatusIndex, StatusListClaims};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::{Value, json};

use crate::support::{TestApp, TestEdge, eventually};

const ENVIRONMENT: &str = "/api/internal/org/acme/env/prod";
/// By when a change is known everywhere, in seconds: flush interval, KV's propagation and cache, isolate memory.
const BOUND: u64 = 121;
const STEPS: usize = 120;

#[derive(Clone, Debug)]
struct Token {
    text: String,
    client: usize,
    jti: String,
    exp: i64,
    idx: u64,
    uri: String,
    revoked: bool,
}

#[derive(Debug)]
struct Client {
    id: String,
    secret: String,
    /// For the client of a device: the device.
    device: Option<String>,
    enabled: bool,
    exists: bool,
}

struct Model {
    clients: Vec<Client>,
    tokens: Vec<Token>,
}

struct World<'a> {
    app: &'a TestApp,
    edge: TestEdge<'a>,
    pool: String,
    issuer: String,
    inspector: (String, String),
    rng: ChaCha20Rng,
    model: Model,
    done: Vec<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

impl World<'_> {
    fn below(&mut self, bound: usize) -> usize {
        self.rng.next_u32() as usize % bound.max(1)
    }

    fn now(&self) -> i64 {
        unix(self.app.clock.now()).0
    }

    async fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.app.call(method, path, body).await;
        assert!(answer.status.is_success(), "{method} {path}: {} after {:?}", answer.text, self.done);
        if answer.text.is_empty() { Value::Null } else { answer.json() }
    }

    async fn add_client(&mut self) {
        let number = self.model.clients.len();
        let client = if number.is_multiple_of(2) {
            let made = self
                .call("POST", &format!("{ENVIRONMENT}/client"), Some(json!({"name": "c", "scopes": ["a"]})))
                .await;
            Client {
                id: text(&made["clientId"]),
                secret: text(&made["clientSecret"]),
                device: None,
                enabled: true,
                exists: true,
            }
        } else {
            let device = format!("pos-{number}");
            let path = self.app.device(&device).await;
            let otp = self.app.otp(&path).await;
            let activated = self.app.activate(json!({"otp": otp})).await.json();
            Client {
                id: text(&activated["clientId"]),
                secret: text(&activated["clientSecret"]),
                device: Some(device),
                enabled: true,
                exists: true,
            }
        };
        self.model.clients.push(client);
    }

    /// Asks the edge for a token, which must answer as the model would.
    async fn issue(&mut self, client: usize) {
        let Client { id, secret, enabled, exists, .. } = &self.model.clients[client];
        let path = format!("/{}/oauth2/token", self.pool);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", id.as_str()),
            ("client_secret", secret.as_str()),
        ];
        let (status, answer) = self.edge.post(&path, &form).await;
        let may = *enabled && *exists;
        assert_eq!(
            status == 200,
            may,
            "{answer} for {:?} after {:?}; {}",
            self.model.clients[client],
            self.done,
            self.edge.log()
        );
        if !may {
            assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")), "after {:?}", self.done);
            return;
        }
        let token = text(&answer["access_token"]);
        let payload = Base64UrlUnpadded::decode_vec(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        let status = &claims["status"]["status_list"];
        assert!(status["idx"].is_u64(), "a token of a published client has a status: {claims}");
        self.model.tokens.push(Token {
            text: token,
            client,
            jti: text(&claims["jti"]),
            exp: claims["exp"].as_i64().unwrap(),
            idx: status["idx"].as_u64().unwrap(),
            uri: text(&status["uri"]),
            revoked: false,
        });
    }

    fn forget_all_of(&mut self, client: usize) {
        self.model
            .tokens
            .iter_mut()
            .filter(|token| token.client == client)
            .for_each(|token| token.revoked = true);
    }

    /// Revoking a token ends all that share its place.
    fn forget(&mut self, index: usize) {
        let Token { idx, uri, .. } = self.model.tokens[index].clone();
        let shares = |token: &&mut Token| token.idx == idx && token.uri == uri;
        self.model.tokens.iter_mut().filter(shares).for_each(|token| token.revoked = true);
    }

    fn live_token(&mut self) -> Option<usize> {
        let now = self.now() + 5;
        let live: Vec<usize> = (0..self.model.tokens.len())
            .filter(|index| {
                let token = &self.model.tokens[*index];
                let client = &self.model.clients[token.client];
                !token.revoked && token.exp > now && client.exists && client.enabled
            })
            .collect();
        if live.is_empty() { None } else { Some(live[self.below(live.len())]) }
    }

    async fn step(&mut self) {
        let client = self.below(self.model.clients.len());
        let Client { id, secret, device, enabled, exists } = &self.model.clients[client];
        let (id, secret, device, enabled, exists) =
            (id.clone(), secret.clone(), device.clone(), *enabled, *exists);
        let revocations = format!("/api/internal/{}/revocations", self.pool);
        let what = match self.below(14) {
            0..=4 => {
                self.issue(client).await;
                format!("issue {client}")
            }
            5 | 6 => {
                let Some(index) = self.live_token() else { return };
                let Token { text: token, client, .. } = self.model.tokens[index].clone();
                let Client { id, secret, .. } = &self.model.clients[client];
                let form = [
                    ("client_id", id.as_str()),
                    ("client_secret", secret.as_str()),
                    ("token", token.as_str()),
                ];
                let path = format!("/{}/oauth2/revoke", self.pool);
                let (status, answer) = self.edge.post(&path, &form).await;
                assert_eq!(status, 200, "{answer} after {:?}", self.done);
                self.forget(index);
                // At once, where it was accepted.
                assert!(!self.is_active(index).await, "just revoked, after {:?}", self.done);
                format!("revoke at the edge {index}")
            }
            7 => {
                let Some(index) = self.live_token() else { return };
                let token = self.model.tokens[index].text.clone();
                self.call("POST", &revocations, Some(json!({"token": token}))).await;
                self.forget(index);
                format!("revoke {index}")
            }
            8 => {
                let Some(index) = self.live_token() else { return };
                let Token { jti, exp, client, .. } = self.model.tokens[index].clone();
                let client = self.model.clients[client].id.clone();
                // Its bit is the lowest clear one only where what has been revoked at the edge is known.
                self.settle(0).await;
                self.call("POST", &revocations, Some(json!({"jti": jti, "exp": exp, "clientId": client})))
                    .await;
                self.forget(index);
                format!("revoke by id {index}")
            }
            9 if exists => {
                self.call("POST", &revocations, Some(json!({"clientId": id}))).await;
                self.forget_all_of(client);
                format!("revoke all of {client}")
            }
            10 | 11 if exists => match device {
                Some(device) => {
                    let verb = if enabled { "disable" } else { "enable" };
                    self.call("POST", &format!("{ENVIRONMENT}/device/{device}/{verb}"), None).await;
                    self.model.clients[client].enabled = !enabled;
                    if enabled {
                        self.forget_all_of(client);
                    }
                    format!("{verb} {client}")
                }
                None => {
                    let path = format!("{ENVIRONMENT}/client/{id}/secret");
                    let rotated = self.call("POST", &path, Some(json!({"overlapSeconds": 0}))).await;
                    self.model.clients[client].secret = text(&rotated["clientSecret"]);
                    let before = [
                        ("grant_type", "client_credentials"),
                        ("client_id", id.as_str()),
                        ("client_secret", secret.as_str()),
                    ];
                    self.settle(BOUND).await;
                    let (status, _) = self.edge.post(&format!("/{}/oauth2/token", self.pool), &before).await;
                    assert_eq!(status, 401, "the secret before, after {:?}", self.done);
                    format!("rotate {client}")
                }
            },
            12 if exists && self.model.clients.len() > 3 => {
                let path = match device {
                    Some(device) => format!("{ENVIRONMENT}/device/{device}?cascade=true"),
                    None => format!("{ENVIRONMENT}/client/{id}"),
                };
                self.call("DELETE", &path, None).await;
                self.model.clients[client].exists = false;
                self.forget_all_of(client);
                self.add_client().await;
                format!("delete {client}")
            }
            _ => {
                let seconds = 60 + self.below(1_500) as u64;
                self.app.clock.advance(Duration::from_secs(seconds));
                format!("{seconds} s pass")
            }
        };
        self.done.push(what);
        self.settle(BOUND).await;
    }

    /// Lets the control plane take up and publish everything, and `seconds` pass.
    async fn settle(&mut self, seconds: u64) {
        self.app.edge_reports().search().await.unwrap();
        eventually("everything is published", async || {
            let waiting = "select count(*) from publication where generation > published_generation
                           and (not_before is null or not_before <= now() + interval '1 hour')";
            self.app.database.number(waiting).await == 0
        })
        .await;
        self.app.clock.advance(Duration::from_secs(seconds));
    }

    /// What introspection says of a token.
    async fn is_active(&self, token: usize) -> bool {
        let (id, secret) = &self.inspector;
        let token = &self.model.tokens[token].text;
        let form =
            [("client_id", id.as_str()), ("client_secret", secret.as_str()), ("token", token.as_str())];
        let (status, answer) = self.edge.post(&format!("/{}/oauth2/introspect", self.pool), &form).await;
        assert_eq!(status, 200, "{answer} after {:?}; {}", self.done, self.edge.log());
        answer["active"].as_bool().unwrap()
    }

    /// What a resource server finds that verifies offline.
    async fn status_lists(&self) -> BTreeMap<String, StatusBits> {
        let jwks = self.edge.get(&format!("/{}/.well-known/jwks.json", self.pool)).await;
        let jwks: JwkSet = serde_json::from_slice(&jwks.body).unwrap();
        let mut lists = BTreeMap::new();
        for token in &self.model.tokens {
            if lists.contains_key(&token.uri) {
                continue;
            }
            let path = token.uri.strip_prefix("https://edge.test").unwrap();
            let response = self.edge.get(path).await;
            assert_eq!(response.status, 200, "{path} after {:?}; {}", self.done, self.edge.log());
            let list = String::from_utf8(response.body).unwrap();
            let jws = UnverifiedJws::<JwsHeader>::parse(&list).unwrap();
            let key = jwks.keys.iter().find(|key| key.kid == jws.header.kid).expect("its key is served");
            assert!(host::verify(&key.key, jws.signing_input(), jws.signature()).unwrap());
            let claims: StatusListClaims = jws.payload().unwrap();
            assert_eq!(claims.sub, token.uri);
            assert!(claims.exp.0 > self.now());
            lists.insert(token.uri.clone(), StatusBits::decompress(&claims.status_list).unwrap());
        }
        lists
    }

    /// Everybody says the same of every token that has not expired.
    async fn check(&mut self) {
        let lists = self.status_lists().await;
        let now = self.now() + 2;
        for index in 0..self.model.tokens.len() {
            let token = &self.model.tokens[index];
            if token.exp <= now {
                continue;
            }
            let list = token.uri.rsplit('/').next().unwrap().parse().unwrap();
            let place = StatusIndex { list, idx: u32::try_from(token.idx).unwrap() };
            let offline = !lists[&token.uri].is_revoked(place);
            let client = &self.model.clients[token.client];
            let expected = !token.revoked && client.exists && client.enabled;
            let online = self.is_active(index).await;
            assert_eq!(
                (online, offline),
                (expected, expected),
                "introspection, status list; token {index} of {client:?} after {:?}; {}",
                self.done,
                self.edge.log()
            );
        }
    }
}

async fn live_a_while(seed: u64) {
    let app = TestApp::start().await;
    let environment = app.acme().await;
    let inspector = app
        .create(&format!("{ENVIRONMENT}/client"), json!({"name": "inspector", "scopes": ["introspect"]}))
        .await;
    let mut world = World {
        edge: TestEdge::new(&app),
        app: &app,
        pool: text(&environment["clientPoolId"]),
        issuer: text(&environment["issuer"]),
        inspector: (text(&inspector["clientId"]), text(&inspector["clientSecret"])),
        rng: ChaCha20Rng::seed_from_u64(seed),
        model: Model { clients: Vec::new(), tokens: Vec::new() },
        done: vec![format!("seed {seed}")],
    };
    assert!(world.issuer.ends_with(&world.pool));
    for _ in 0..4 {
        world.add_client().await;
    }
    world.settle(BOUND).await;
    for _ in 0..STEPS {
        world.step().await;
        world.check().await;
    }
    assert!(world.model.tokens.len() > 20, "it must have come to something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn introspection_status_lists_and_issuing_agree() {
    for seed in 0..2 {
        live_a_while(seed).await;
    }
}
