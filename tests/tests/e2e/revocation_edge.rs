//! Revocation in real workerd: by libraries that other people wrote, with the control plane there and without.

use std::time::Duration;

use keypost_shared::document::{ClientSubject, Revoked, RevokedDocument};
use keypost_shared::edge_report::{EdgeReport, RevocationReport, SignedReport};
use keypost_shared::kv_key::{EdgeKey, KvKey};
use keypost_shared::status_list::StatusBits;
use keypost_tests::edge::{self, Reply};
use keypost_tests::lone_edge::{LoneEdge, LonePool};
use keypost_tests::{clients, wait};
use serde_json::{Value, json};

const SECRET: &str = "a-secret-of-the-tests";
const CLIENT: &str = "terminal";
const ASKER: &str = "resource-server";

/// A pool with a client of block 5, and a resource server that may ask about any token.
async fn pool(edge: &LoneEdge, number: u128) -> LonePool {
    let pool = edge.pool(number);
    edge.publish_client(&pool, CLIENT, ClientSubject::Service, "device", SECRET, 5).await;
    edge.publish_client(&pool, ASKER, ClientSubject::Service, "introspect", SECRET, 6).await;
    edge.publish_pool(&pool).await;
    pool
}

async fn post(pool: &LonePool, client: &str, endpoint: &str, more: &[(&str, &str)]) -> Reply {
    let url = format!("{}/oauth2/{endpoint}", pool.document.issuer);
    let mut form = vec![("client_id", client), ("client_secret", SECRET)];
    form.extend(more);
    edge::send(edge::http().post(url).form(&form)).await
}

async fn token(pool: &LonePool) -> String {
    let reply = post(pool, CLIENT, "token", &[("grant_type", "client_credentials")]).await;
    reply.access_token().to_owned()
}

async fn revoke(pool: &LonePool, token: &str) -> u16 {
    post(pool, CLIENT, "revoke", &[("token", token)]).await.status
}

async fn is_active(pool: &LonePool, token: &str) -> bool {
    let reply = post(pool, ASKER, "introspect", &[("token", token)]).await;
    reply.body["active"].as_bool().unwrap_or_else(|| panic!("{reply:?}"))
}

fn index(token: &str) -> u64 {
    edge::claims(token)["status"]["status_list"]["idx"].as_u64().expect("an index")
}

fn kv_key(pool: &LonePool, token: &str) -> EdgeKey {
    EdgeKey::Revocation(pool.id, edge::claims(token)["jti"].as_str().unwrap().parse().unwrap())
}

/// What a resource server makes of the token's status.
async fn status(pool: &LonePool, token: &str) -> Value {
    let jwks_uri = format!("{}/.well-known/jwks.json", pool.document.issuer);
    clients::run("status-list.mjs", json!({"token": token, "jwksUri": jwks_uri})).await
}

#[tokio::test]
async fn what_standard_clients_revoke_is_inactive_in_every_answer() {
    let mut edge = LoneEdge::start("revocation").await;
    let pool = pool(&edge, 1).await;
    let issuer = &pool.document.issuer;
    let mut revoked = Vec::new();
    for (round, method) in ["basic", "post"].into_iter().enumerate() {
        let input = json!({"issuer": issuer, "clientId": CLIENT, "clientSecret": SECRET, "method": method});
        let seen = clients::run("openid-client-revocation.mjs", input).await;
        assert_eq!(seen["before"]["active"], true, "{seen}");
        assert_eq!(seen["before"]["client_id"], CLIENT);
        assert_eq!(seen["before"]["scope"], "device");
        assert_eq!(seen["after"], json!({"active": false}));
        let [one, next] = ["token", "next"].map(|name| seen[name].as_str().unwrap().to_owned());
        assert_eq!([index(&one), index(&next)], [40 + round as u64, 41 + round as u64]);
        assert!(is_active(&pool, &next).await);
        revoked.push(one);
    }
    let third = token(&pool).await;
    let credentials = |id: &str| json!({"clientId": id, "clientSecret": SECRET});
    let input = json!({
        "issuer": issuer, "token": third, "asker": credentials(ASKER), "owner": credentials(CLIENT),
    });
    let answers = clients::run("oauth4webapi-revocation.mjs", input).await;
    assert_eq!((&answers[0]["active"], &answers[1]), (&json!(true), &json!({"active": false})));
    revoked.push(third);

    // What was accepted has been told, and is kept.
    for token in &revoked {
        let jti = edge::claims(token)["jti"].as_str().unwrap().to_owned();
        let report: RevocationReport = edge
            .report(|report| match report {
                EdgeReport::Revocation(report) if report.jti.as_str() == jti => Some(report),
                _ => None,
            })
            .await;
        assert_eq!(u64::from(report.idx.unwrap()), index(token));
        let key = kv_key(&pool, token);
        let kept = edge.kv.must_get(&key.to_string()).await;
        assert!(SignedReport::verify_kv(&kept, &key, &edge.shared_secrets()).is_ok());
    }

    // Until the control plane has taken it up, a resource server that checks offline sees nothing of it.
    let seen = status(&pool, &revoked[0]).await;
    assert_eq!((&seen["idx"], &seen["status"]), (&json!(40), &json!(0)));
    assert_eq!(seen["http"]["content-type"], "application/statuslist+jwt");
    assert_eq!(seen["http"]["cache-control"], "public, max-age=60");

    // Another isolate: it knows by KV, and by the location's cache which index comes next.
    edge.restart().await;
    for token in &revoked {
        assert!(!is_active(&pool, token).await);
    }
    let fresh = token(&pool).await;
    assert_eq!(index(&fresh), 43);
    assert!(is_active(&pool, &fresh).await);

    // The control plane has taken it up.
    let mut bits = StatusBits::new();
    bits.revoke(5, 0b111);
    edge.publish_status(&pool, &bits).await;
    edge.restart().await;
    for (token, expected) in revoked.iter().map(|token| (token, 1)).chain([(&fresh, 0)]) {
        let seen = status(&pool, token).await;
        assert_eq!(seen["status"], expected, "{seen}");
        assert_eq!(is_active(&pool, token).await, expected == 0);
    }

    // A reader that has the list already gets none.
    let url = format!("{issuer}/status/0");
    let first = edge::http().get(&url).send().await.unwrap();
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(first.headers()["access-control-allow-origin"], "*");
    let again = edge::http().get(&url).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    assert_eq!(edge::get(&format!("{issuer}/status/1")).await.status, 404);
}

#[tokio::test]
async fn without_the_control_plane_revocations_are_accepted_and_kept() {
    let edge = LoneEdge::without_control_plane("revocation-alone").await;
    let pool = pool(&edge, 1).await;
    let one = token(&pool).await;
    assert_eq!(revoke(&pool, &one).await, 200);
    assert!(!is_active(&pool, &one).await);
    let key = kv_key(&pool, &one);
    let kept = edge.kv.must_get(&key.to_string()).await;
    assert!(SignedReport::verify_kv(&kept, &key, &edge.shared_secrets()).is_ok());
    assert_eq!(revoke(&pool, &one).await, 200, "twice");
    assert_eq!(revoke(&pool, "no token at all").await, 200);
}

#[tokio::test]
async fn the_revocation_list_binds_workerd_and_without_it_nothing_is_issued() {
    let mut edge = LoneEdge::start("revocation-list").await;
    let pool = pool(&edge, 1).await;
    let held = token(&pool).await;
    let entry = |revoked| {
        let clients = [(CLIENT.parse().unwrap(), revoked)].into();
        RevokedDocument { clients, ..RevokedDocument::default() }
    };
    // The record stands in KV as it did.
    edge.publish_revoked(&pool, &entry(Revoked::Gone)).await;
    let ask = async || post(&pool, CLIENT, "token", &[("grant_type", "client_credentials")]).await.outcome();
    let limit = Duration::from_secs(60);
    wait::until("the isolate that holds the record", limit, || async {
        let outcome = ask().await;
        if outcome == "401 invalid_client" { Ok(()) } else { Err(outcome) }
    })
    .await;
    assert!(!is_active(&pool, &held).await);
    edge.publish_revoked(&pool, &entry(Revoked::Least(u64::MAX))).await;
    edge.restart().await;
    assert_eq!(ask().await, "503 temporarily_unavailable", "KV is behind the list");

    edge.publish_revoked(&pool, &RevokedDocument::default()).await;
    for number in 0..4 {
        edge.kv.delete(&KvKey::Revoked(pool.id, number).to_string()).await;
    }
    edge.restart().await;
    assert_eq!(ask().await, "503 temporarily_unavailable");
    let reply = post(&pool, ASKER, "introspect", &[("token", &held)]).await;
    assert_eq!(reply.outcome(), "503 temporarily_unavailable");
    assert_eq!(revoke(&pool, &held).await, 200, "revoking goes on");
    let jwks = format!("{}/.well-known/jwks.json", pool.document.issuer);
    assert_eq!(edge::get(&jwks).await.status, 200);
    edge.publish_revoked(&pool, &RevokedDocument::default()).await;
    wait::until("it comes back by itself", limit, || async {
        let outcome = ask().await;
        if outcome == "200" { Ok(()) } else { Err(outcome) }
    })
    .await;
    assert!(!is_active(&pool, &held).await);
}
