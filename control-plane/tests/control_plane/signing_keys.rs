//! The keys of a client pool: listed, rotated by schedule and on demand, revoked.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use keypost::clock::Clock;
use keypost::signing_keys::{Round, SigningKeys};
use keypost_shared::document::PoolDocument;
use keypost_shared::document::Verified;
use keypost_shared::kv_key::KvKey;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::{Answer, Fault, TestApp, UNPUBLISHED_KEYS, eventually};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// A control plane with the organization `acme`, whose one pool the test is about.
struct Acme {
    app: TestApp,
    pool: String,
}

impl Acme {
    async fn start() -> Self {
        Self::on(TestApp::start().await).await
    }

    async fn on(app: TestApp) -> Self {
        let environment = app.acme().await;
        let acme = Self { pool: environment["clientPoolId"].as_str().unwrap().to_owned(), app };
        acme.published().await;
        acme
    }

    /// The schedule, as it runs in each control plane.
    fn schedule(&self) -> SigningKeys {
        SigningKeys { context: self.app.context.clone(), interval: Duration::from_secs(1) }
    }

    /// One look by the schedule, which must succeed; and until KV has what comes of it.
    async fn round(&self) {
        assert_eq!(self.schedule().round().await.unwrap().failed, 0);
        self.published().await;
    }

    async fn published(&self) {
        let waits = format!(
            "select count(*) from publication where generation > published_generation or ({UNPUBLISHED_KEYS}) > 0"
        );
        eventually("nothing waits", async || self.app.database.number(&waits).await == 0).await;
    }

    async fn keys(&self) -> Vec<Value> {
        let path = format!("/api/internal/{}/keys", self.pool);
        let answer = self.app.call("GET", &path, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["items"].as_array().unwrap().clone()
    }

    /// The one key in this state.
    async fn key(&self, state: &str) -> Value {
        let keys = self.keys().await;
        let found: Vec<&Value> = keys.iter().filter(|key| key["state"] == state).collect();
        assert_eq!(found.len(), 1, "{state}: {keys:?}");
        found[0].clone()
    }

    async fn kid(&self, state: &str) -> String {
        self.key(state).await["kid"].as_str().unwrap().to_owned()
    }

    async fn post(&self, path: &str) -> Answer {
        self.app.call("POST", &format!("/api/internal/{}/keys/{path}", self.pool), None).await
    }

    async fn done(&self, path: &str) -> Value {
        let answer = self.post(path).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    async fn document(&self) -> Verified<PoolDocument> {
        let key = KvKey::Pool(self.pool.parse().unwrap());
        self.app.kv.verified::<PoolDocument>(&self.app.publisher.root, &key).await.unwrap()
    }

    /// Which key the document in KV lets sign, and which are in its key set.
    async fn in_kv(&self) -> (String, Vec<String>) {
        let document = self.document().await.document;
        let mut key_set: Vec<String> = document.jwks.keys.iter().map(|key| key.kid.to_string()).collect();
        key_set.sort();
        (document.signing_key.unwrap().kid.to_string(), key_set)
    }

    /// Whether the private half of a key is still there.
    async fn is_kept(&self, kid: &str) -> bool {
        let query =
            format!("select count(*) from signing_key where kid = '{kid}' and private_sealed is not null");
        self.app.database.number(&query).await == 1
    }
}

fn time(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap_or_else(|| panic!("{value} is no time")), &Rfc3339).unwrap()
}

fn sorted(kids: &[&str]) -> Vec<String> {
    let mut kids: Vec<String> = kids.iter().map(|kid| (*kid).to_owned()).collect();
    kids.sort();
    kids
}

/// Whether two times are the same but for what a busy machine takes.
fn near(a: OffsetDateTime, b: OffsetDateTime) -> bool {
    (a - b).abs() < time::Duration::seconds(60)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_new_pool_are_listed_with_what_becomes_of_them() {
    let acme = Acme::start().await;
    let now = acme.app.clock.now();
    let (active, next) = (acme.key("active").await, acme.key("next").await);
    assert_eq!(acme.keys().await.len(), 2);
    for key in [&active, &next] {
        assert_eq!(
            (&key["alg"], &key["backend"], &key["mode"]),
            (&json!("ES256"), &json!("local"), &Value::Null)
        );
        assert!(near(time(&key["publishedAt"]), now), "{key}");
        assert_eq!(key["removedAt"], Value::Null);
    }
    let rotation = now + DAY * 30;
    assert!(
        near(time(&active["activatesAt"]), now) && near(time(&active["retiresAt"]), rotation),
        "{active}"
    );
    assert!(near(time(&next["activatesAt"]), rotation) && next["retiresAt"].is_null(), "{next}");
    assert_eq!(
        acme.in_kv().await,
        (acme.kid("active").await, sorted(&[&acme.kid("active").await, &acme.kid("next").await]))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_asked_for_early_comes_when_it_was_said_to_and_the_old_key_stays_until_its_tokens_are_gone()
 {
    let acme = Acme::start().await;
    let (old, new) = (acme.kid("active").await, acme.kid("next").await);
    let promise = acme.done("rotate").await;
    assert_eq!(
        (&promise["kid"], &promise["signs"], &promise["certain"]),
        (&json!(new), &json!(false), &json!(true))
    );
    let signs_at = time(&promise["signsAt"]);
    assert!(near(signs_at, acme.app.clock.now() + MINUTE * 61), "{promise}");
    assert_eq!(acme.done("rotate").await["signsAt"], promise["signsAt"], "asking again changes nothing");

    // Not a moment sooner.
    acme.app.clock.advance(Duration::try_from(signs_at - acme.app.clock.now()).unwrap() - MINUTE / 2);
    acme.round().await;
    assert_eq!(acme.kid("active").await, old);
    acme.app.clock.advance(MINUTE);
    acme.round().await;
    assert_eq!((acme.kid("active").await, acme.kid("retiring").await), (new.clone(), old.clone()));
    let next = acme.kid("next").await;
    let all = sorted(&[&old, &new, &next]);
    assert_eq!(acme.in_kv().await, (new.clone(), all));

    // The window, the longest lifetime of a token, a minute for clocks, five for verifiers.
    let retiring = acme.key("retiring").await;
    let gone_at = time(&retiring["removedAt"]);
    assert!(near(time(&retiring["retiresAt"]), acme.app.clock.now()));
    assert!(near(gone_at, acme.app.clock.now() + DAY + MINUTE * 66), "{retiring}");
    acme.app.clock.advance(Duration::try_from(gone_at - acme.app.clock.now()).unwrap() - MINUTE / 2);
    acme.round().await;
    assert!(acme.in_kv().await.1.contains(&old) && acme.is_kept(&old).await);
    acme.app.clock.advance(MINUTE);
    acme.round().await;
    assert_eq!(acme.in_kv().await, (new.clone(), sorted(&[&new, &next])));
    assert!(!acme.is_kept(&old).await, "the private half of a key that is gone is forgotten");
    assert!(near(time(&acme.key("gone").await["removedAt"]), gone_at));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_key_that_has_stood_its_hour_a_rotation_is_at_once_and_the_schedule_makes_the_next_key() {
    let acme = Acme::start().await;
    let (old, new) = (acme.kid("active").await, acme.kid("next").await);
    acme.app.clock.advance(MINUTE * 62);
    let path = format!("/api/internal/{}/keys/rotate", acme.pool);
    let request = || {
        let request = Request::builder().method("POST").uri(&path).header("x-api-key", &acme.app.admin);
        acme.app.send(request.header("idempotency-key", "once").body(Body::empty()).unwrap())
    };
    let done = request().await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!((&done.json()["kid"], &done.json()["signs"]), (&json!(new), &json!(true)));
    assert_eq!(request().await.text, done.text, "the same request is the same rotation");
    assert_eq!((acme.kid("active").await, acme.kid("retiring").await), (new.clone(), old.clone()));
    eventually("KV names the new key", async || acme.in_kv().await.0 == new).await;

    acme.round().await;
    let next = acme.kid("next").await;
    assert_eq!(acme.in_kv().await.1, sorted(&[&old, &new, &next]));
    // There is none that may sign now, for an hour.
    let promise = acme.done("rotate").await;
    assert_eq!((&promise["kid"], &promise["signs"]), (&json!(next), &json!(false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_take_turns_by_the_schedule_and_every_step_is_told_of() {
    let acme = Acme::start().await;
    let path = "/api/internal/org/acme/env/prod/pool";
    let changed = acme.app.call("PATCH", path, Some(json!({"rotationPeriodSeconds": 7 * 86_400}))).await;
    assert_eq!(changed.json()["rotationPeriodSeconds"], 7 * 86_400, "{}", changed.text);
    let never = acme.app.call("PATCH", path, Some(json!({"rotationPeriodSeconds": 0}))).await;
    assert_eq!(
        (never.status.as_u16(), never.wrong_fields()),
        (400, vec!["rotationPeriodSeconds".to_owned()])
    );
    acme.round().await;
    let mut signed = Vec::new();
    for _ in 0..3 {
        signed.push(acme.kid("active").await);
        let retires_at = time(&acme.key("active").await["retiresAt"]);
        acme.app.clock.advance(Duration::try_from(retires_at - acme.app.clock.now()).unwrap() + MINUTE);
        acme.round().await;
    }
    signed.push(acme.kid("active").await);
    let mut different = signed.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 4, "{signed:?}");
    let all = acme.app.call("GET", "/api/internal/audit?orgId=acme&limit=100", None).await.json();
    let actions: Vec<&str> =
        all["items"].as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    for (action, times) in [("activate", 3), ("retire", 3), ("create", 3), ("remove", 2)] {
        let action = format!("signing_key.{action}");
        assert_eq!(actions.iter().filter(|found| **found == action).count(), times, "{action}: {actions:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_out_of_use_at_once_and_the_answer_says_by_when_everywhere() {
    let acme = Acme::start().await;
    let (bad, next) = (acme.kid("active").await, acme.kid("next").await);
    let before = acme.document().await;
    let answer = acme.done(&format!("{bad}/revoke")).await;
    assert_eq!(
        (&answer["kid"], &answer["state"], &answer["published"]),
        (&json!(bad), &json!("revoked"), &json!(true))
    );
    assert_eq!((&answer["activeKid"], &answer["activeIsYoung"]), (&json!(next), &json!(true)));
    let now = acme.app.clock.now();
    assert!(near(time(&answer["outOfUseBy"]), now + MINUTE * 2), "{answer}");
    assert!(near(time(&answer["outOfCachesBy"]), now + MINUTE * 7), "{answer}");
    let latest = time(&answer["atTheLatest"]).unix_timestamp();
    assert_eq!(latest, before.stamp.next_update.unwrap().0 + 3600, "what was published names it until then");
    assert_eq!(acme.in_kv().await, (next.clone(), vec![next.clone()]));
    assert!(!acme.is_kept(&bad).await, "its private half is forgotten");
    let again = acme.done(&format!("{bad}/revoke")).await;
    assert_eq!((&again["activeKid"], &again["revokedAt"]), (&json!(next), &answer["revokedAt"]));

    // The schedule makes another. With one that has stood its hour, nobody is young.
    acme.round().await;
    let third = acme.kid("next").await;
    acme.app.clock.advance(MINUTE * 62);
    let answer = acme.done(&format!("{next}/revoke")).await;
    assert_eq!((&answer["activeKid"], &answer["activeIsYoung"]), (&json!(third), &json!(false)));
    // One that does not sign is replaced, and nothing else changes.
    acme.round().await;
    let fourth = acme.kid("next").await;
    let answer = acme.done(&format!("{fourth}/revoke")).await;
    assert_eq!((&answer["activeKid"], &answer["atTheLatest"]), (&json!(third), &Value::Null));
    assert_eq!(acme.in_kv().await, (third.clone(), vec![third]));
    acme.post("AAAA/revoke").await.assert_problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_pool_has_no_other_key_one_is_made_for_a_revocation() {
    let acme = Acme::start().await;
    let (active, next) = (acme.kid("active").await, acme.kid("next").await);
    acme.done(&format!("{next}/revoke")).await;
    let answer = acme.done(&format!("{active}/revoke")).await;
    let signs = acme.kid("active").await;
    assert_eq!((&answer["activeKid"], &answer["activeIsYoung"]), (&json!(signs), &json!(true)));
    assert!(signs != active && signs != next);
    assert_eq!(acme.in_kv().await, (signs.clone(), vec![signs]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kv_a_revocation_says_that_it_is_not_published_and_gets_there_later() {
    let acme = Acme::on(TestApp::start_impatient().await).await;
    let (bad, next) = (acme.kid("active").await, acme.kid("next").await);
    acme.app.kv.fail_next(std::iter::repeat_n(Fault::Hang, 200));
    let answer = acme.done(&format!("{bad}/revoke")).await;
    assert_eq!((&answer["published"], &answer["activeKid"]), (&json!(false), &json!(next)));
    acme.app.kv.recover();
    eventually("KV has heard of it", async || acme.in_kv().await == (next.clone(), vec![next.clone()])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_document_outlasts_the_key_that_it_names_and_past_its_end_a_key_signs_nothing() {
    let acme = Acme::start().await;
    let ends_at = acme.app.clock.now() + MINUTE * 90;
    acme.app
        .database
        .execute(&format!(
            "update signing_key set ends_at = to_timestamp({}) where state = 'active' and pool_id = '{}'",
            ends_at.unix_timestamp(),
            acme.pool
        ))
        .await
        .unwrap();
    let period = json!({"rotationPeriodSeconds": 5 * 86_400});
    acme.app.call("PATCH", "/api/internal/org/acme/env/prod/pool", Some(period)).await;
    eventually("the document ends with the key", async || {
        acme.document().await.stamp.next_update.unwrap().0 == ends_at.unix_timestamp()
    })
    .await;
    // Nobody made a key in time.
    let next = acme.kid("next").await;
    acme.app
        .database
        .execute(&format!(
            "update signing_key set published_at = null where state = 'next' and pool_id = '{}'",
            acme.pool
        ))
        .await
        .unwrap();
    acme.app.clock.advance(MINUTE * 91);
    acme.schedule().round().await.unwrap();
    eventually("nothing signs", async || acme.document().await.document.signing_key.is_none()).await;
    let document = acme.document().await;
    assert_eq!(document.stamp.next_update.unwrap(), document.stamp.iat + 86_400, "verifiers get their keys");
    assert_eq!(document.document.jwks.keys.len(), 2);
    acme.published().await;
    // The one that was late signs once it has stood its hour.
    acme.app.clock.advance(MINUTE * 62);
    acme.round().await;
    assert_eq!(acme.kid("active").await, next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_control_planes_one_takes_the_steps() {
    let acme = Acme::start().await;
    for turn in 0..5 {
        acme.app.clock.advance(MINUTE * 62);
        acme.done("rotate").await;
        let rounds: Vec<_> = (0..6)
            .map(|_| {
                let schedule = acme.schedule();
                tokio::spawn(async move { schedule.round().await })
            })
            .collect();
        for round in rounds {
            round.await.unwrap().unwrap();
        }
        acme.published().await;
        assert_eq!(acme.keys().await.len(), 3 + turn, "one key was made");
        acme.key("next").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_whose_keys_cannot_be_made_does_not_stop_the_others() {
    let acme = Acme::start().await;
    let other = json!({"id": "staging", "name": "Staging"});
    let other = acme.app.create("/api/internal/org/acme/env", other).await;
    acme.app
        .database
        .execute(&format!(
            "update client_pool set key_backend = 'aws_kms', key_mode = 'envelope', kms_key_id = 'nowhere'
              where id = '{}'",
            acme.pool
        ))
        .await
        .unwrap();
    acme.app.clock.advance(DAY * 31);
    assert_eq!(acme.schedule().round().await.unwrap(), Round { due: 3, failed: 1 });
    assert_eq!(acme.app.database.number("select count(*) from signing_key").await, 8);
    let states = |pool: &str| {
        format!("select count(*) from signing_key where pool_id = '{pool}' and state = 'retiring'")
    };
    let staging = other["clientPoolId"].as_str().unwrap();
    assert_eq!(acme.app.database.number(&states(staging)).await, 1, "the other pool has rotated");
    assert_eq!(acme.schedule().round().await.unwrap(), Round::default(), "it waits before it is tried again");
    acme.app.clock.advance(MINUTE * 2);
    assert_eq!(acme.schedule().round().await.unwrap(), Round { due: 1, failed: 1 });
    assert_eq!(acme.kid("active").await.len(), 43, "and the old key goes on signing");
}
