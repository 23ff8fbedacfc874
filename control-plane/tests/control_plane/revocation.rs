//! Revocation: what no longer counts of records, which tokens were revoked, and what the lists in KV say of both.

use std::collections::BTreeSet;
use std::time::Duration;

use keypost::clock::{Clock, unix};
use keypost::service::access::Permission;
use keypost::store::status_block;
use keypost_shared::crypto::Crypto;
use keypost_shared::document::{
    ClientDocument, DeviceDocument, PoolDocument, Revoked, RevokedDocument, Verified,
};
use keypost_shared::edge_report::{EdgeReport, RevocationReport};
use keypost_shared::host::{self, HostCrypto, PrivateKey};
use keypost_shared::id::{ClientId, DeviceId, PoolId};
use keypost_shared::jwe::{SealingKey, SplitJwe};
use keypost_shared::jws::{self, JwsHeader, UnverifiedJws};
use keypost_shared::kv_key::{EdgeKey, KvKey};
use keypost_shared::status_list::{StatusBits, StatusBlock, StatusIndex, StatusListClaims};
use serde_json::{Value, json};

use crate::housekeeping;
use crate::support::{Answer, TestApp, eventually, secret};

const CLIENTS: &str = "/api/internal/org/acme/env/prod/client";
const DEVICES: &str = "/api/internal/org/acme/env/prod/device";
const SHARDS: u32 = 8;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// `acme`'s environment, and what stands in KV of it.
struct Pool {
    app: TestApp,
    pool: PoolId,
    issuer: String,
}

impl Pool {
    async fn new() -> Self {
        let app = TestApp::start().await;
        let environment = app.acme().await;
        let pool = text(&environment["clientPoolId"]).parse().unwrap();
        Self { app, pool, issuer: text(&environment["issuer"]).to_owned() }
    }

    async fn verified<T: keypost_shared::document::Document>(&self, key: &KvKey) -> Option<Verified<T>> {
        self.app.kv.get(key)?;
        Some(self.app.kv.verified::<T>(&self.app.publisher.root, key).await.unwrap())
    }

    /// A service client: its id and its path.
    async fn service(&self) -> (ClientId, String) {
        let made = self.app.create(CLIENTS, json!({"name": "Reports", "scopes": ["a", "b"]})).await;
        let path = format!("{CLIENTS}/{}", text(&made["clientId"]));
        (text(&made["clientId"]).parse().unwrap(), path)
    }

    /// What the revocation list says of a client.
    async fn client(&self, client: &ClientId) -> Option<Revoked> {
        let shard = RevokedDocument::shard_of(client.as_str(), SHARDS).unwrap();
        let shard = self.verified::<RevokedDocument>(&KvKey::Revoked(self.pool, shard)).await.unwrap();
        shard.document.clients.get(client).copied()
    }

    /// What it says of a device.
    async fn device(&self, device: &str) -> Option<Revoked> {
        let shard = RevokedDocument::shard_of(device, SHARDS).unwrap();
        let shard = self.verified::<RevokedDocument>(&KvKey::Revoked(self.pool, shard)).await.unwrap();
        shard.document.devices.get(&device.parse::<DeviceId>().unwrap()).copied()
    }

    async fn client_version(&self, client: &ClientId) -> u64 {
        let key = KvKey::Client(self.pool, client.clone());
        self.verified::<ClientDocument>(&key).await.unwrap().stamp.version
    }

    async fn device_version(&self, device: &str) -> u64 {
        let key = KvKey::Device(self.pool, device.parse().unwrap());
        self.verified::<DeviceDocument>(&key).await.unwrap().stamp.version
    }

    async fn block(&self, client: &ClientId) -> Option<StatusBlock> {
        let key = KvKey::Client(self.pool, client.clone());
        self.verified::<ClientDocument>(&key).await?.document.status_block
    }

    /// A status list, verified as a resource server would.
    async fn status_list(&self, list: u32) -> (StatusListClaims, StatusBits) {
        let stored = self.app.kv.get(&KvKey::Status(self.pool, list)).expect("the list is in KV");
        let jws = UnverifiedJws::<JwsHeader>::parse(&stored.value).unwrap();
        assert_eq!(jws.header.typ, "statuslist+jwt");
        let pool = self.verified::<PoolDocument>(&KvKey::Pool(self.pool)).await.unwrap().document;
        let key =
            pool.jwks.keys.iter().find(|key| key.kid == jws.header.kid).expect("its key is in the key set");
        assert!(host::verify(&key.key, jws.signing_input(), jws.signature()).unwrap());
        let claims: StatusListClaims = jws.payload().unwrap();
        let bits = StatusBits::decompress(&claims.status_list).unwrap();
        (claims, bits)
    }

    /// The bits of a block as they stand in KV.
    async fn bits(&self, block: StatusBlock) -> u8 {
        self.status_list(block.list).await.1.block(block.block)
    }

    /// Waits until nothing is left to be published.
    async fn settled(&self) {
        eventually("nothing waits to be published", async || {
            let waiting = "select count(*) from publication where generation > published_generation
                           and (not_before is null or not_before <= now() + interval '1 minute')";
            self.app.database.number(waiting).await == 0
        })
        .await;
    }

    /// The key that signs the pool's tokens.
    async fn signing_key(&self) -> PrivateKey {
        let pool = self.verified::<PoolDocument>(&KvKey::Pool(self.pool)).await.unwrap().document;
        let sealed = serde_json::to_value(pool.signing_key.unwrap()).unwrap();
        let sealing_key = SealingKey::parse_list(&secret(2)).unwrap().remove(0);
        let jwe = text(&sealed["jwe"]).to_owned();
        HostCrypto.open_signing_key(&sealing_key, &SplitJwe::parse(&jwe).unwrap()).await.unwrap()
    }

    /// A token as the edge would sign it.
    async fn token(&self, client: &ClientId, jti: &str, index: Option<StatusIndex>) -> String {
        let now = unix(self.app.clock.now());
        let mut claims = json!({
            "iss": self.issuer, "sub": client, "iat": now, "exp": now + 3600, "jti": jti, "client_id": client,
        });
        if let Some(index) = index {
            let reference = json!({"idx": index.idx, "uri": index.uri(&self.issuer)});
            claims["status"] = json!({"status_list": reference});
        }
        self.signed(&claims).await
    }

    async fn signed(&self, claims: &Value) -> String {
        let key = self.signing_key().await;
        let alg = keypost_shared::jwk::SigningAlg::ES256;
        let header = JwsHeader { alg, typ: "JWT".to_owned(), kid: key.kid().clone() };
        let input = jws::signing_input(&header, claims).unwrap();
        let signature = key.sign(input.as_bytes());
        jws::append_signature(input, &signature)
    }

    fn path(&self) -> String {
        format!("/api/internal/{}/revocations", self.pool)
    }

    async fn revoke(&self, body: Value) -> Answer {
        self.app.call("POST", &self.path(), Some(body)).await
    }

    fn report(&self, client: &ClientId, jti: &str, index: Option<StatusIndex>) -> EdgeReport {
        let now = unix(self.app.clock.now());
        EdgeReport::Revocation(RevocationReport {
            pool: self.pool,
            jti: jti.parse().unwrap(),
            client_id: client.clone(),
            exp: now + 3600,
            list: index.map(|index| index.list),
            idx: index.map(|index| index.idx),
            revoked_at: now,
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_pool_has_its_lists_from_the_start() {
    let pool = Pool::new().await;
    let document = pool.verified::<PoolDocument>(&KvKey::Pool(pool.pool)).await.unwrap().document;
    assert_eq!((document.revocation_shards, document.status_lists, document.deleted), (SHARDS, 1, false));
    for shard in 0..SHARDS {
        let list = pool.verified::<RevokedDocument>(&KvKey::Revoked(pool.pool, shard)).await;
        let list = list.expect("published with the pool");
        assert_eq!(list.document, RevokedDocument::default());
        let window = list.stamp.next_update.unwrap().since(list.stamp.iat);
        assert_eq!(window, 86_400, "the pool's");
    }
    let (claims, bits) = pool.status_list(0).await;
    assert_eq!(claims.sub, format!("{}/status/0", pool.issuer));
    assert_eq!((claims.ttl, claims.exp.since(claims.iat)), (60, 86_400));
    assert_eq!(bits, StatusBits::new());

    let (client, _) = pool.service().await;
    let (other, _) = pool.service().await;
    let blocks = [pool.block(&client).await.unwrap(), pool.block(&other).await.unwrap()];
    assert_eq!(blocks.map(|block| (block.list, block.revoked)), [(0, 0); 2]);
    assert_ne!(blocks[0].block, blocks[1].block);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_from_before_a_loss_counts_no_longer() {
    let pool = Pool::new().await;
    let (client, path) = pool.service().await;
    let first = pool.client_version(&client).await;
    let change = async |name: &str, scopes: Value| {
        let answer = pool.app.call("PUT", &path, Some(json!({"name": name, "scopes": scopes}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        pool.settled().await;
    };
    change("Another", json!(["a", "b", "c"])).await;
    assert_eq!(pool.client(&client).await, None, "nothing was lost");
    let second = pool.client_version(&client).await;
    assert!(second > first);

    change("Another", json!(["a"])).await;
    let third = pool.client_version(&client).await;
    let Some(Revoked::Least(least)) = pool.client(&client).await else { panic!("no least version") };
    assert!(second < least && least <= third, "{second} < {least} <= {third}");

    // With an overlap, the record before goes on counting until the overlap ends.
    let answer = pool.app.call("POST", &format!("{path}/secret"), Some(json!({"overlapSeconds": 600}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    pool.settled().await;
    let fourth = pool.client_version(&client).await;
    assert_eq!(pool.client(&client).await, Some(Revoked::Least(least)), "not yet");
    pool.app.clock.advance(Duration::from_secs(601));
    eventually("the overlap's end stands in the list", async || {
        pool.client(&client).await.is_some_and(
            |revoked| matches!(revoked, Revoked::Least(least) if third < least && least <= fourth),
        )
    })
    .await;

    // Without one, it counts no longer at once.
    pool.app.call("POST", &format!("{path}/secret"), Some(json!({"overlapSeconds": 0}))).await;
    pool.settled().await;
    let Some(Revoked::Least(least)) = pool.client(&client).await else { panic!("no least version") };
    assert!(fourth < least && least <= pool.client_version(&client).await);

    assert_eq!(pool.app.call("DELETE", &path, None).await.status, 204);
    pool.settled().await;
    assert_eq!(pool.client(&client).await, Some(Revoked::Gone));
    assert!(pool.app.kv.get(&KvKey::Client(pool.pool, client)).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_disabled_is_refused_until_it_is_enabled() {
    let pool = Pool::new().await;
    let app_path = pool.app.device("pos-1").await;
    let otp = pool.app.otp(&app_path).await;
    let activated = pool.app.activate(json!({"otp": otp})).await.json();
    let client: ClientId = text(&activated["clientId"]).parse().unwrap();
    pool.settled().await;
    assert_eq!((pool.device("pos-1").await, pool.client(&client).await), (None, None));
    let block = pool.block(&client).await.expect("a client that may have tokens has a block");
    let before = pool.client_version(&client).await;

    let path = format!("{DEVICES}/pos-1");
    assert_eq!(pool.app.call("POST", &format!("{path}/disable"), None).await.status, 200);
    pool.settled().await;
    assert_eq!(pool.device("pos-1").await, Some(Revoked::Refused));
    let Some(Revoked::Least(least)) = pool.client(&client).await else { panic!("no least version") };
    assert!(before < least);
    assert_eq!(pool.bits(block).await, 0xff, "all its tokens are revoked");
    assert_eq!(pool.block(&client).await, None, "it may have none");

    assert_eq!(pool.app.call("POST", &format!("{path}/enable"), None).await.status, 200);
    pool.settled().await;
    let Some(Revoked::Least(least)) = pool.device("pos-1").await else { panic!("no least version") };
    assert!(least <= pool.device_version("pos-1").await);
    let anew = pool.block(&client).await.expect("it may have tokens again");
    assert_ne!((anew.list, anew.block), (block.list, block.block));

    assert_eq!(pool.app.call("DELETE", &format!("{path}?cascade=true"), None).await.status, 204);
    pool.settled().await;
    assert_eq!(
        (pool.device("pos-1").await, pool.client(&client).await),
        (Some(Revoked::Gone), Some(Revoked::Gone))
    );
    assert_eq!(pool.bits(anew).await, 0xff);

    // The same id once more: what was put into KV before the deletion still does not count.
    pool.app.device("pos-1").await;
    pool.settled().await;
    let Some(Revoked::Least(least)) = pool.device("pos-1").await else { panic!("no least version") };
    assert!(least <= pool.device_version("pos-1").await);
    let Some(Revoked::Least(least)) = pool.client(&client).await else { panic!("no least version") };
    assert!(least <= pool.client_version(&client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_has_its_bit_set_and_the_next_one_gets_the_next() {
    let pool = Pool::new().await;
    let (client, _) = pool.service().await;
    let first = pool.block(&client).await.unwrap();
    for bit in 0..8_u32 {
        let block = pool.block(&client).await.unwrap();
        assert_eq!(
            (block.list, block.block, u32::from(block.revoked)),
            (first.list, first.block, (1 << bit) - 1)
        );
        let jti = format!("token-{bit}");
        let token = pool.token(&client, &jti, block.next_index(0)).await;
        let answer = pool.revoke(json!({"token": token})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let revoked = answer.json();
        assert_eq!((text(&revoked["jti"]), text(&revoked["clientId"])), (jti.as_str(), client.as_str()));
        assert_eq!(text(&revoked["revokedBy"]), "administrator");
        // Once more it changes nothing.
        let again = pool.revoke(json!({"token": token})).await;
        assert_eq!((again.status.as_u16(), again.json()), (201, revoked));
        pool.settled().await;
        assert_eq!(u32::from(pool.bits(first).await), (1 << (bit + 1)) - 1);
    }
    let next = pool.block(&client).await.unwrap();
    assert_ne!((next.list, next.block), (first.list, first.block), "a full block is replaced");
    assert_eq!(next.revoked, 0);

    let list = pool.app.call("GET", &pool.path(), None).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_revoked_by_id_or_all_at_once() {
    let pool = Pool::new().await;
    let (client, path) = pool.service().await;
    let block = pool.block(&client).await.unwrap();
    let exp = unix(pool.app.clock.now()).0 + 3000;
    let by_id = json!({"jti": "some-token", "exp": exp, "clientId": client});
    assert_eq!(pool.revoke(by_id).await.status, 201);
    pool.settled().await;
    assert_eq!(pool.bits(block).await, 1);

    let answer = pool.revoke(json!({"clientId": client})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.json()["jti"], Value::Null);
    pool.settled().await;
    assert_eq!(pool.bits(block).await, 0xff);
    let anew = pool.block(&client).await.expect("it may have new tokens");
    assert_ne!((anew.list, anew.block), (block.list, block.block));

    assert_eq!(pool.app.call("DELETE", &path, None).await.status, 204);
    pool.settled().await;
    assert_eq!(pool.bits(anew).await, 0xff, "its tokens went with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_revoked_is_refused_by_its_field() {
    let pool = Pool::new().await;
    let (client, _) = pool.service().await;
    let now = unix(pool.app.clock.now());
    let good = json!({
        "iss": pool.issuer, "sub": client, "iat": now, "exp": now + 60, "jti": "x", "client_id": client,
    });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let expired = pool.signed(&with("exp", json!(now.0 - 1))).await;
    let of_another = pool.signed(&with("iss", json!("https://edge.test/another"))).await;
    let of_nobody = pool.signed(&with("client_id", json!("nobody"))).await;
    let mut forged = pool.signed(&good).await.into_bytes();
    let last = forged.len() - 10;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let exp = now.0 + 60;
    for (body, field) in [
        (json!({}), "token"),
        (json!({"token": ""}), "token"),
        (json!({"token": "a.b.c"}), "token"),
        (json!({"token": "x".repeat(200_000)}), "token"),
        (json!({"token": expired}), "token"),
        (json!({"token": of_another}), "token"),
        (json!({"token": forged}), "token"),
        (json!({"token": of_nobody}), "clientId"),
        (json!({"token": "x", "clientId": client}), "token"),
        (json!({"clientId": "nobody"}), "clientId"),
        (json!({"clientId": "no/body"}), "clientId"),
        (json!({"jti": "x", "exp": exp}), "clientId"),
        (json!({"jti": "x", "clientId": client}), "exp"),
        (json!({"exp": exp, "clientId": client}), "jti"),
        (json!({"jti": "x", "exp": now.0, "clientId": client}), "exp"),
        (json!({"jti": "x", "exp": now.0 + 90_000, "clientId": client}), "exp"),
        (json!({"jti": "x", "exp": "soon", "clientId": client}), "exp"),
        (json!({"jti": "x", "exp": i64::MAX, "clientId": client}), "exp"),
        (json!({"jti": "a b", "exp": exp, "clientId": client}), "jti"),
        (json!({"other": 1}), "other"),
    ] {
        let shown = body.to_string().chars().take(100).collect::<String>();
        let answer = pool.revoke(body).await;
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text);
        assert!(answer.wrong_fields().iter().any(|wrong| wrong == field), "{shown}: {}", answer.text);
    }
    assert_eq!(pool.app.database.number("select count(*) from revoked_token").await, 0);

    // Another organization's key, and one without the permission.
    pool.app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    let stranger = pool.app.key(Some("other"), None).await;
    let answer = pool.app.call_with(&stranger, "POST", &pool.path(), Some(json!({"clientId": client}))).await;
    assert_eq!(answer.status, 404, "{}", answer.text);
    let narrow = pool.app.key(Some("acme"), Some(&[Permission::DeviceWrite])).await;
    let answer = pool.app.call_with(&narrow, "POST", &pool.path(), Some(json!({"clientId": client}))).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_many_revoke_at_once_costs_one_bit() {
    let pool = Pool::new().await;
    let (client, _) = pool.service().await;
    let block = pool.block(&client).await.unwrap();
    let token = pool.token(&client, "once", block.next_index(0)).await;
    let report = pool.app.sign_report(&pool.report(&client, "once", block.next_index(0)));
    let (a, b, c, d, e) = tokio::join!(
        pool.revoke(json!({"token": token})),
        pool.app.post_report(&report),
        pool.revoke(json!({"token": token})),
        pool.app.post_report(&report),
        pool.revoke(json!({"token": token})),
    );
    for answer in [&a, &b, &c, &d, &e] {
        assert!(answer.status.is_success(), "{}", answer.text);
    }
    let ids: BTreeSet<String> = [&a, &c, &e].map(|answer| text(&answer.json()["id"]).to_owned()).into();
    assert_eq!(ids.len(), 1, "all are told of the same revocation");
    pool.settled().await;
    assert_eq!(pool.bits(block).await, 1);
    assert_eq!(pool.app.database.number("select count(*) from revoked_token").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_revoked_at_the_edge_is_taken_up_once() {
    let pool = Pool::new().await;
    let (client, _) = pool.service().await;
    let block = pool.block(&client).await.unwrap();
    let report = pool.report(&client, "by-post", block.next_index(0));
    let answer = pool.app.post_report(&pool.app.sign_report(&report)).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"outcome": "revoked"})));
    assert_eq!(
        pool.app.post_report(&pool.app.sign_report(&report)).await.json(),
        json!({"outcome": "known"})
    );
    pool.settled().await;
    assert_eq!(pool.bits(block).await, 1);
    let listed = pool.app.call("GET", &pool.path(), None).await.json();
    assert_eq!(listed["items"][0]["revokedBy"], "client");

    // The control plane was down: it lies in KV, is taken up from there, and stays there for the edge.
    let block = pool.block(&client).await.unwrap();
    let report = pool.report(&client, "by-kv", block.next_index(0));
    let key = report.kv_key().to_string();
    pool.app.kv.write(&key, &pool.app.sign_report(&report).to_kv());
    let of_another = EdgeKey::Revocation(pool.pool, "moved".parse().unwrap()).to_string();
    pool.app.kv.write(&of_another, &pool.app.sign_report(&report).to_kv());
    let found = pool.app.edge_reports().search().await.unwrap();
    assert_eq!((found.taken_up, found.junk), (1, 1));
    pool.settled().await;
    assert_eq!(pool.bits(block).await, 0b11);
    let keys = pool.app.kv.keys();
    assert!(keys.contains(&key) && !keys.contains(&of_another), "{keys:?}");
    let found = pool.app.edge_reports().search().await.unwrap();
    assert_eq!((found.taken_up, found.junk), (0, 0));

    // Without a place in a list, the edge's own entry is all there is.
    let report = pool.report(&client, "without", None);
    assert_eq!(
        pool.app.post_report(&pool.app.sign_report(&report)).await.json(),
        json!({"outcome": "revoked"})
    );
    pool.settled().await;
    assert_eq!(pool.bits(block).await, 0b11);

    // Of a pool that nobody has, and of a token that has expired.
    let EdgeReport::Revocation(mut gone) = report else { panic!() };
    gone.pool = PoolId(uuid::Uuid::from_u128(1));
    let answer = pool.app.post_report(&pool.app.sign_report(&EdgeReport::Revocation(gone.clone()))).await;
    assert_eq!(answer.json(), json!({"outcome": "void"}));
    gone.pool = pool.pool;
    gone.jti = "late".parse().unwrap();
    gone.exp = unix(pool.app.clock.now());
    let answer = pool.app.post_report(&pool.app.sign_report(&EdgeReport::Revocation(gone))).await;
    assert_eq!(answer.json(), json!({"outcome": "void"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bits_are_cleared_and_blocks_given_out_again_once_nobody_remembers() {
    let pool = Pool::new().await;
    let (client, _) = pool.service().await;
    let block = pool.block(&client).await.unwrap();
    assert_eq!(pool.revoke(json!({"clientId": client})).await.status, 201);
    pool.settled().await;

    // The window of the records, the life of a token, and the skew.
    pool.app.clock.advance(Duration::from_secs(86_400 + 3600 + 60));
    housekeeping::run(&pool.app, None).await;
    pool.settled().await;
    assert_eq!(pool.bits(block).await, 0xff, "a token may still be about");
    pool.app.clock.advance(Duration::from_secs(300));
    let done = housekeeping::run(&pool.app, None).await;
    assert!(done.contains(&("status_blocks", 1)), "{done:?}");
    pool.settled().await;
    assert_eq!(pool.bits(block).await, 0);

    let (other, _) = pool.service().await;
    let taken = pool.block(&other).await.unwrap();
    assert_ne!((taken.list, taken.block), (block.list, block.block), "verifiers may still know its bits");
    pool.app.clock.advance(Duration::from_secs(86_400));
    let (third, _) = pool.service().await;
    let reused = pool.block(&third).await.unwrap();
    assert_eq!((reused.list, reused.block, reused.revoked), (block.list, block.block, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_stays_until_no_trusted_key_has_signed_a_record_from_before() {
    let pool = Pool::new().await;
    let (client, path) = pool.service().await;
    pool.app.device("pos-1").await;
    pool.app.call("POST", &format!("{DEVICES}/pos-1/disable"), None).await;
    assert_eq!(pool.app.call("DELETE", &path, None).await.status, 204);
    pool.settled().await;
    assert_eq!(pool.client(&client).await, Some(Revoked::Gone));
    let entries = "select count(*) from revoked_record";
    let before = pool.app.database.number(entries).await;

    // Publisher keys take over from each other, and the one that has signed the old record leaves `v1/trust`.
    let keys =
        "select count(*) from publisher_key where signs_since < (select min(noted_at) from revoked_record)";
    while pool.app.database.number(keys).await > 0 {
        housekeeping::run(&pool.app, None).await;
        assert_eq!(pool.app.database.number(entries).await, before, "its key is trusted");
        pool.app.clock.advance(Duration::from_secs(43_200));
        eventually("a publisher key that has been made is listed", async || {
            pool.app.database.number("select count(*) from publisher_key where listed_at is null").await == 0
        })
        .await;
        pool.settled().await;
    }
    // The old `v1/trust` may still be put back, until it ends: 8 days after housekeeping has seen that the key is gone.
    housekeeping::run(&pool.app, None).await;
    let now = unix(pool.app.clock.now()).0;
    let seen = "select floor(extract(epoch from min(unsigned_since)))::bigint from revoked_record";
    let since = u64::try_from(now - pool.app.database.number(seen).await).unwrap();
    pool.app.clock.advance(Duration::from_secs(8 * 86_400 - 600 - since));
    housekeeping::run(&pool.app, None).await;
    assert_eq!(pool.app.database.number(entries).await, before, "its v1/trust may count");
    pool.app.clock.advance(Duration::from_secs(1200));
    housekeeping::run(&pool.app, None).await;
    eventually("the list is made anew", async || pool.client(&client).await.is_none()).await;
    assert_eq!(pool.device("pos-1").await, Some(Revoked::Refused), "what is kept out stays out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifiers_find_what_they_need_of_a_deleted_pool_until_its_last_token_has_expired() {
    let pool = Pool::new().await;
    let (client, _) = pool.service().await;
    let key = KvKey::Pool(pool.pool);
    let before = pool.verified::<PoolDocument>(&key).await.unwrap().document;
    let deleted = pool.app.call("DELETE", "/api/internal/org/acme/env/prod?cascade=true", None).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    pool.settled().await;

    let left = pool.verified::<PoolDocument>(&key).await.expect("it stays");
    assert!(left.document.deleted && left.document.signing_key.is_none(), "it issues nothing");
    assert_eq!((&left.document.issuer, &left.document.jwks), (&before.issuer, &before.jwks));
    let (claims, bits) = pool.status_list(0).await;
    assert_eq!(bits, StatusBits::all_revoked());
    assert_eq!(Some(claims.exp), left.stamp.next_update);
    let life = claims.exp.since(claims.iat);
    assert!((3600..3600 + 900).contains(&life), "the longest token lifetime and a little: {life}");
    let keys = pool.app.kv.keys().join(" ");
    for gone in [KvKey::Client(pool.pool, client), KvKey::Revoked(pool.pool, 0)] {
        assert!(!keys.contains(&gone.to_string()), "{keys}");
    }
    let answer = pool.revoke(json!({"clientId": "x"})).await;
    assert_eq!(answer.status, 404, "{}", answer.text);

    pool.app.clock.advance(Duration::from_secs(life + 60));
    eventually("nothing is left of it", async || {
        !pool.app.kv.keys().iter().any(|key| key.contains(&pool.pool.to_string()))
    })
    .await;
    pool.app.clock.advance(Duration::from_secs(7200));
    housekeeping::run(&pool.app, None).await;
    let rows = "select count(*) from deleted_pool";
    assert_eq!(pool.app.database.number(rows).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_deletes_a_pool_and_whoever_gives_out_its_blocks_never_wait_for_each_other_in_a_circle() {
    let pool = Pool::new().await;
    let (client, _) = pool.service().await;
    pool.settled().await;
    let Pool { app: TestApp { publisher, database, clock, .. }, pool, .. } = pool;
    publisher.stop().await;
    database.execute("delete from status_block").await.unwrap();

    // Half of a deletion, which has the pool's row.
    let mut deletion = database.pool.begin().await.unwrap();
    sqlx::query("select from client_pool where id = $1 for update")
        .bind(pool.0)
        .execute(&mut *deletion)
        .await
        .unwrap();
    let (db, now) = (database.pool.clone(), clock.now());
    let giving = tokio::spawn(async move {
        let mut tx = db.begin().await.unwrap();
        status_block::allocate(&mut tx, pool, &[client], now).await.unwrap();
        tx.commit().await.unwrap();
    });
    let waiting = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock'";
    eventually("the publisher waits", async || database.number(waiting).await == 1).await;
    sqlx::query("delete from status_allocation where pool_id = $1")
        .bind(pool.0)
        .execute(&mut *deletion)
        .await
        .expect("nobody has it");
    deletion.rollback().await.unwrap();
    giving.await.unwrap();
    assert_eq!(database.number("select count(*) from status_block").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_in_a_pool_that_is_just_being_deleted_finds_no_such_thing() {
    let pool = Pool::new().await;
    let (client, _) = pool.service().await;
    pool.settled().await;
    let mut deletion = pool.app.database.pool.begin().await.unwrap();
    for table in ["status_block", "status_allocation", "signing_key", "oauth_client", "client_pool"] {
        let column = if table == "client_pool" { "id" } else { "pool_id" };
        let statement = format!("delete from {table} where {column} = '{}'", pool.pool);
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *deletion).await.unwrap();
    }
    let waiting = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock'
                      and query like '%insert into revoked_token%'";
    let (answer, ()) = tokio::join!(pool.revoke(json!({"clientId": client})), async {
        eventually("the revocation waits", async || pool.app.database.number(waiting).await == 1).await;
        deletion.commit().await.unwrap();
    });
    answer.assert_problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_changes_a_pool_and_whoever_takes_something_away_in_it_never_wait_for_each_other_in_a_circle()
{
    let pool = Pool::new().await;
    pool.app.device("pos-1").await;
    pool.settled().await;
    // A change of the environment: it has the pool's row, and is about to mark all clients.
    let mut change = pool.app.database.pool.begin().await.unwrap();
    let lock = format!("select from client_pool where id = '{}' for update", pool.pool);
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *change).await.unwrap();
    let path = format!("{DEVICES}/pos-1/disable");
    let waiting = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock'";
    let (disabled, ()) = tokio::join!(pool.app.call("POST", &path, None), async {
        eventually("the other waits", async || pool.app.database.number(waiting).await == 1).await;
        sqlx::query("update publication set marked_at = marked_at where key like 'v1/client/%'")
            .execute(&mut *change)
            .await
            .expect("nobody has them");
        change.rollback().await.unwrap();
    });
    assert_eq!(disabled.status, 200, "{}", disabled.text);
}
