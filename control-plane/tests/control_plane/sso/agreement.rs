//! Whatever people and apps do with sessions and tokens, in whatever order: once the stated bound has passed, introspection at
//! the edge, the status lists and the control plane never contradict each other, nor what a person would say.

use std::collections::BTreeMap;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost::clock::{Clock, unix};
use keypost::service::sso::session::{self, PairFor, TokenPair};
use keypost::store::sso::session::{Session, Which};
use keypost::store::sso::user::User;
use keypost_shared::jws::{JwsHeader, UnverifiedJws};
use keypost_shared::secret::SecretText;
use keypost_shared::status_list::{StatusBits, StatusIndex, StatusListClaims};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::{Value, json};

use super::people::{ClientApp, People, access};
use crate::support::{TestApp, TestEdge};

/// By when a change is known everywhere, in seconds: flush interval, KV's propagation and cache, isolate memory.
const BOUND: u64 = 121;
const STEPS: usize = 100;

struct Token {
    text: String,
    session: usize,
    /// Which of the apps it was issued to.
    app: usize,
    exp: i64,
    place: (String, u64),
    revoked: bool,
}

struct SignedIn {
    user: usize,
    session: Session,
    refresh: SecretText,
    live: bool,
}

struct World<'a> {
    people: People<'a>,
    edge: TestEdge<'a>,
    apps: Vec<ClientApp>,
    users: Vec<User>,
    rng: ChaCha20Rng,
    sessions: Vec<SignedIn>,
    tokens: Vec<Token>,
    done: Vec<String>,
}

impl World<'_> {
    fn below(&mut self, bound: usize) -> usize {
        self.rng.next_u32() as usize % bound.max(1)
    }

    fn now(&self) -> i64 {
        unix(self.people.app.clock.now()).0
    }

    fn keep(&mut self, session: usize, app: usize, pair: &TokenPair) {
        let text = access(pair).to_owned();
        let payload = Base64UrlUnpadded::decode_vec(text.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        let status = &claims["status"]["status_list"];
        let place = (status["uri"].as_str().unwrap().to_owned(), status["idx"].as_u64().unwrap());
        let exp = claims["exp"].as_i64().unwrap();
        self.tokens.push(Token { text, session, app, exp, place, revoked: false });
    }

    async fn sign_in(&mut self) {
        let user = self.below(self.users.len());
        let pair = self.people.sign_in(&self.users[user]).await;
        let (session, refresh) = (pair.session.clone(), pair.refresh_token.clone());
        self.sessions.push(SignedIn { user, session, refresh, live: true });
        self.keep(self.sessions.len() - 1, user % 2, &pair);
    }

    /// A pair for the other app in the same session, as exchange makes it.
    async fn exchange(&mut self, session: usize) {
        let SignedIn { user, session: row, .. } = &self.sessions[session];
        let (user, app) = (&self.users[*user], 1 - user % 2);
        let mut change = self.people.change().await;
        let pool = keypost::store::sso::pool::find(change.tx(), &self.people.org).await.unwrap().unwrap();
        let row =
            keypost::store::sso::session::lock(change.tx(), &self.people.org, row.id).await.unwrap().unwrap();
        let pair =
            PairFor { app: Some(self.apps[app].id), extends_session: false, scope: None, narrowed: None };
        let pair = session::issue(&mut change, &pool, &row, user, pair).await.unwrap();
        change.commit().await.unwrap();
        self.keep(session, app, &pair);
    }

    fn live_session(&mut self) -> Option<usize> {
        let live: Vec<usize> = (0..self.sessions.len()).filter(|index| self.sessions[*index].live).collect();
        if live.is_empty() { None } else { Some(live[self.below(live.len())]) }
    }

    fn live_token(&mut self) -> Option<usize> {
        let now = self.now() + 5;
        let counts = |index: &usize| {
            let token = &self.tokens[*index];
            !token.revoked && token.exp > now
        };
        let live: Vec<usize> = (0..self.tokens.len()).filter(counts).collect();
        if live.is_empty() { None } else { Some(live[self.below(live.len())]) }
    }

    fn forget_sessions(&mut self, ended: impl Fn(usize, &SignedIn) -> bool) {
        for (index, session) in self.sessions.iter_mut().enumerate() {
            if ended(index, session) {
                session.live = false;
                self.tokens
                    .iter_mut()
                    .filter(|token| token.session == index)
                    .for_each(|token| token.revoked = true);
            }
        }
    }

    /// Revoking a token ends all that share its place.
    fn forget_token(&mut self, index: usize) {
        let place = self.tokens[index].place.clone();
        self.tokens.iter_mut().filter(|token| token.place == place).for_each(|token| token.revoked = true);
    }

    async fn revoke(&self, body: Value) {
        let path = format!("/api/internal/{}/revocations", self.people.pool);
        let answer = self.people.app.call("POST", &path, Some(body)).await;
        assert_eq!(answer.status, 201, "{} after {:?}", answer.text, self.done);
    }

    async fn step(&mut self) {
        let what = match self.below(12) {
            0 | 1 => {
                self.sign_in().await;
                "sign in".to_owned()
            }
            2 | 3 => {
                let Some(index) = self.live_session() else { return };
                let pair = self.people.refresh(&self.sessions[index].refresh).await.unwrap();
                self.sessions[index].refresh = pair.refresh_token.clone();
                self.keep(index, self.sessions[index].user % 2, &pair);
                format!("refresh {index}")
            }
            4 => {
                let Some(index) = self.live_session() else { return };
                self.exchange(index).await;
                format!("exchange in {index}")
            }
            5 | 6 => {
                let Some(index) = self.live_token() else { return };
                let token = &self.tokens[index];
                let app = &self.apps[token.app];
                let (status, answer) = self.people.post(&self.edge, app, "revoke", &token.text).await;
                assert_eq!(status, 200, "{answer} after {:?}", self.done);
                assert!(!self.is_active(index).await, "just revoked, after {:?}", self.done);
                self.forget_token(index);
                format!("revoke at the edge {index}")
            }
            7 => {
                let Some(index) = self.live_token() else { return };
                self.revoke(json!({"token": self.tokens[index].text})).await;
                self.forget_token(index);
                format!("revoke {index}")
            }
            8 => {
                let Some(index) = self.live_session() else { return };
                self.people.log_out(self.sessions[index].session.id).await;
                self.forget_sessions(|other, _| other == index);
                format!("log out {index}")
            }
            9 => {
                let Some(index) = self.live_session() else { return };
                // Used a second time, and too late for a retry.
                let used = self.sessions[index].refresh.clone();
                self.people.refresh(&used).await.unwrap();
                self.people.app.clock.advance(Duration::from_secs(11));
                assert!(self.people.refresh(&used).await.is_err());
                self.forget_sessions(|other, _| other == index);
                format!("reuse in {index}")
            }
            10 => {
                let user = self.below(self.users.len());
                let id = self.users[user].id;
                self.people.end(Which::OfUser(id)).await;
                self.forget_sessions(|_, session| session.user == user);
                format!("end all of user {user}")
            }
            _ => {
                let seconds = 60 + self.below(1_500) as u64;
                self.people.app.clock.advance(Duration::from_secs(seconds));
                format!("{seconds} s pass")
            }
        };
        self.done.push(what);
        self.people.settle(BOUND).await;
    }

    async fn is_active(&self, token: usize) -> bool {
        self.people.is_active(&self.edge, &self.apps[2], &self.tokens[token].text).await
    }

    /// What a resource server finds that verifies offline.
    async fn status_lists(&self) -> BTreeMap<String, StatusBits> {
        let mut lists = BTreeMap::new();
        for Token { place: (uri, _), .. } in &self.tokens {
            if lists.contains_key(uri) {
                continue;
            }
            let response = self.edge.get(uri.strip_prefix("https://edge.test").unwrap()).await;
            assert_eq!(response.status, 200, "{uri} after {:?}; {}", self.done, self.edge.log());
            let list = String::from_utf8(response.body).unwrap();
            let claims: StatusListClaims =
                UnverifiedJws::<JwsHeader>::parse(&list).unwrap().payload().unwrap();
            lists.insert(uri.clone(), StatusBits::decompress(&claims.status_list).unwrap());
        }
        lists
    }

    /// Everybody says the same of every token that has not expired.
    async fn check(&self) {
        let lists = self.status_lists().await;
        let now = self.now() + 2;
        for (index, token) in self.tokens.iter().enumerate().filter(|(_, token)| token.exp > now) {
            let (uri, idx) = &token.place;
            let list = uri.rsplit('/').next().unwrap().parse().unwrap();
            let place = StatusIndex { list, idx: u32::try_from(*idx).unwrap() };
            let offline = !lists[uri].is_revoked(place);
            let online = self.is_active(index).await;
            let central = self.people.counts(&token.text).await;
            assert_eq!(
                (online, offline, central),
                (!token.revoked, !token.revoked, !token.revoked),
                "introspection, status list, control plane; token {index} after {:?}; {}",
                self.done,
                self.edge.log()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn introspection_status_lists_and_the_control_plane_agree_on_people() {
    let app = TestApp::start().await;
    for seed in [7] {
        let people = People::of_acme(&app).await;
        let mut apps = Vec::new();
        for name in ["A", "B", "inspector"] {
            apps.push(people.client_app(name).await);
        }
        let mut users = Vec::new();
        for (number, name) in ["ada", "bo", "cy", "di"].into_iter().enumerate() {
            users.push(people.user(Some(&apps[number % 2]), name).await);
        }
        let mut world = World {
            edge: TestEdge::new(&app),
            people,
            apps,
            users,
            rng: ChaCha20Rng::seed_from_u64(seed),
            sessions: Vec::new(),
            tokens: Vec::new(),
            done: vec![format!("seed {seed}")],
        };
        world.sign_in().await;
        world.people.settle(BOUND).await;
        for _ in 0..STEPS {
            world.step().await;
            world.check().await;
        }
        assert!(world.tokens.len() > 20, "it must have come to something");
    }
}
