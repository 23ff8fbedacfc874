//! Signing keys are rotated and revoked, and npm `jose` verifies tokens the whole time.

use std::collections::BTreeMap;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_tests::admin::{Credentials, Fleet};
use keypost_tests::{clients, edge, stack};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Standing for 70 s in the stack's key set, publishing, and a minute until every isolate has heard of it.
const ROTATED: Duration = Duration::from_secs(240);

/// A device that goes on getting tokens, and a resource server that goes on verifying them.
struct Traffic {
    credentials: Credentials,
    /// The last token of each key.
    tokens: BTreeMap<String, String>,
    verified: u32,
}

impl Traffic {
    /// Gets a token, and has `jose` verify it and the last ones of all other keys. Answers with the token's key.
    async fn go_on(&mut self, revoked: Option<&str>) -> String {
        let reply = edge::token(&self.credentials).await;
        assert_eq!(reply.status, 200, "{}", reply.outcome());
        let token = reply.access_token().to_owned();
        let kid = kid(&token);
        self.tokens.insert(kid.clone(), token);
        for (of, token) in &self.tokens {
            if Some(of.as_str()) != revoked {
                let verified = clients::run("jose.mjs", self.input(token)).await;
                assert_eq!(verified["header"]["kid"], **of);
                self.verified += 1;
            }
        }
        kid
    }

    fn input(&self, token: &str) -> Value {
        let Credentials { jwks_uri, issuer, .. } = &self.credentials;
        json!({"token": token, "jwksUri": jwks_uri, "issuer": issuer})
    }

    /// Goes on until a key signs.
    async fn until_signs(&mut self, wanted: &str, revoked: Option<&str>) {
        let deadline = Instant::now() + ROTATED;
        while self.go_on(revoked).await != wanted {
            assert!(Instant::now() < deadline, "{wanted} does not sign");
            sleep(Duration::from_millis(500)).await;
        }
    }
}

fn kid(token: &str) -> String {
    let header = Base64UrlUnpadded::decode_vec(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

async fn post(fleet: &Fleet, path: &str) -> Value {
    let path = format!("/internal/{}/keys/{path}", fleet.pool());
    let answer = fleet.admin.send(Method::POST, &path, Value::Null).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    answer.body
}

#[tokio::test]
async fn keys_are_rotated_and_revoked_and_no_token_is_refused_but_those_of_a_revoked_key() {
    let fleet = stack::shared().await.admin().fleet("keys").await;
    let credentials = fleet.activated("pos-1").await;
    let mut traffic = Traffic { credentials, tokens: BTreeMap::new(), verified: 0 };
    let first = traffic.go_on(None).await;

    let promise = post(&fleet, "rotate").await;
    let second = promise["kid"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    traffic.until_signs(&second, None).await;

    let answer = post(&fleet, &format!("{second}/revoke")).await;
    fleet.admin.published(&answer).await;
    let third = answer["activeKid"].as_str().unwrap().to_owned();
    traffic.until_signs(&third, Some(&second)).await;
    assert!(traffic.verified > 3);
    // The key set no longer has it, so its token is worthless; those of the first key are not.
    let refused = clients::fails("jose.mjs", traffic.input(&traffic.tokens[&second])).await;
    assert!(refused.contains("JWKSNoMatchingKey"), "{refused}");
    assert!(traffic.tokens.contains_key(&first));

    let keys = fleet.admin.get(&format!("/internal/{}/keys", fleet.pool())).await;
    let state = |kid: &str| {
        let keys = keys["items"].as_array().unwrap();
        keys.iter().find(|key| key["kid"] == kid).unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (state(&first).as_str(), state(&second).as_str(), state(&third).as_str()),
        ("retiring", "revoked", "active")
    );
}
