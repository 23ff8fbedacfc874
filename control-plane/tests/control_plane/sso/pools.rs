//! The pools of organizations' people: one each, made and deleted with the organization.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost::service::sso;
use keypost::signing_keys::SigningKeys;
use keypost_shared::document::{PoolDocument, PoolKind};
use keypost_shared::kv_key::KvKey;
use keypost_shared::status_list::{StatusBits, StatusListClaims};
use serde_json::json;

use crate::support::{TestApp, eventually};

const ORG: &str = "/api/internal/org/acme";
const WAITS: &str = "select count(*) from publication where generation > published_generation";

/// A control plane with the organization `acme`.
async fn acme() -> (TestApp, KvKey) {
    let app = TestApp::start().await;
    app.create("/api/internal/org", json!({"id": "acme", "name": "Acme"})).await;
    let pool = pool(&app).await;
    (app, pool)
}

async fn pool(app: &TestApp) -> KvKey {
    let id: uuid::Uuid =
        sqlx::query_scalar("select id from client_pool where kind = 'sso' and org_id = 'acme'")
            .fetch_one(&app.database.pool)
            .await
            .unwrap();
    format!("v1/pool/{id}").parse().unwrap()
}

async fn document(app: &TestApp, pool: &KvKey) -> PoolDocument {
    nothing_waits(app).await;
    app.kv.verified::<PoolDocument>(&app.publisher.root, pool).await.unwrap().document
}

async fn nothing_waits(app: &TestApp) {
    eventually("nothing waits", async || app.database.number(WAITS).await == 0).await;
}

/// An app with a user, who has signed in; and the owner, who has as well. Their sessions have the first blocks.
async fn people(app: &TestApp) {
    let statement = "
        insert into client_app (id, org_id, name, created_at, updated_at)
        values ('00000000-0000-4000-8000-00000000000a', 'acme', 'A', now(), now());
        insert into sso_key (id, org_id, client_app_id, hash, created_at)
        select gen_random_uuid(), 'acme', app, sha256(convert_to(coalesce(app::text, ''), 'UTF8')), now()
          from unnest(array[null, '00000000-0000-4000-8000-00000000000a']::uuid[]) app;
        insert into sso_user (id, org_id, client_app_id, username, username_key, email, email_key, password_hash,
                              password_changed_at, user_metadata, status, created_at, updated_at)
        select id, 'acme', app, name, name, name || '@b.c', name || '@b.c', 'x', now(), '{}', 'enabled', now(), now()
          from (values ('00000000-0000-4000-8000-000000000001'::uuid, null::uuid, 'owner'),
                       ('00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-00000000000a', 'user'))
               as one (id, app, name);
        insert into org_owner (org_id, user_id, created_at)
        values ('acme', '00000000-0000-4000-8000-000000000001', now());
        insert into sso_session (id, org_id, pool_id, user_id, client_app_id, created_at, last_used_at, expires_at)
        select u.id, u.org_id, p.id, u.id, u.client_app_id, now(), now(), now() + interval '1 day'
          from sso_user u join client_pool p on p.org_id = u.org_id and p.kind = 'sso';
        insert into refresh_token (hash, org_id, session_id, client_app_id, extends_session, created_at, expires_at)
        select sha256(convert_to(id::text, 'UTF8')), org_id, id, client_app_id, true, now(), now() from sso_session;
        insert into status_allocation (pool_id, org_id, blocks)
        select id, org_id, 2 from client_pool where kind = 'sso';
        insert into status_block (org_id, pool_id, number, client_id, bits)
        select org_id, pool_id, row_number() over (order by id) - 1, id::text, 0 from sso_session";
    app.database.execute(statement).await.unwrap();
}

/// What a compact JWS says.
fn payload(jws: &str) -> String {
    let payload = Base64UrlUnpadded::decode_vec(jws.split('.').nth(1).unwrap()).unwrap();
    String::from_utf8(payload).unwrap()
}

/// The bits of a block, as resource servers see them.
fn bits(app: &TestApp, pool: &KvKey, block: u32) -> u8 {
    let list = app.kv.value(&format!("v1/status/{}/0", pool.pool().unwrap())).unwrap();
    let claims: StatusListClaims = serde_json::from_str(&payload(&list)).unwrap();
    StatusBits::decompress(&claims.status_list).unwrap().block(block)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_has_a_pool_for_its_people_whose_document_holds_no_private_key() {
    let (app, pool) = acme().await;
    let document = document(&app, &pool).await;
    assert_eq!((document.kind, &document.signing_key), (PoolKind::Sso, &None));
    assert_eq!((document.jwks.keys.len(), document.status_lists, document.revocation_shards), (2, 1, 8));
    assert_eq!(document.issuer, format!("https://edge.test/{}", pool.pool().unwrap()));
    let states =
        "select count(*) from signing_key where (state, backend) in (('active', 'local'), ('next', 'local'))";
    assert_eq!(app.database.number(states).await, 2);
    // Trust, the pool, eight shards of its revocation list and its status list.
    assert_eq!(app.kv.keys().len(), 11);
    let stored = app.kv.get(&pool).unwrap().value;
    let text = payload(&stored);
    assert!(!text.contains("signing_key") && !text.contains("jwe"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schedule_rotates_the_keys_of_people_too() {
    let (app, pool) = acme().await;
    let kids = async || {
        let document = document(&app, &pool).await;
        document.jwks.keys.iter().map(|key| key.kid.to_string()).collect::<Vec<_>>()
    };
    let first = kids().await;
    let published = "select count(*) from signing_key where published_at is null";
    eventually("both are published", async || app.database.number(published).await == 0).await;
    app.clock.advance(Duration::from_secs(40 * 86_400));
    let schedule = SigningKeys { context: app.context.clone(), interval: Duration::from_secs(1) };
    let round = schedule.round().await.unwrap();
    assert_eq!((round.due, round.failed), (1, 0));
    let active = "select count(*) from signing_key where state = 'active' and activated_at > now() + interval '30 days'";
    assert_eq!(app.database.number(active).await, 1);
    let second = kids().await;
    assert_eq!((second.len(), first.iter().filter(|kid| second.contains(kid)).count()), (3, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_from_before_gets_its_pool_once_however_many_look() {
    let app = TestApp::start().await;
    app.database
        .execute("insert into organization (id, name, created_at, updated_at) values ('acme', 'Acme', now(), now())")
        .await
        .unwrap();
    let (one, other) =
        tokio::join!(sso::pool::add_missing(&app.context), sso::pool::add_missing(&app.context));
    assert_eq!(one.unwrap() + other.unwrap(), 1);
    assert_eq!(app.database.number("select count(*) from client_pool").await, 1);
    let pool = pool(&app).await;
    assert_eq!(document(&app, &pool).await.kind, PoolKind::Sso);
    assert_eq!(sso::pool::add_missing(&app.context).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_that_has_nobody_goes_and_its_key_set_stays_for_a_while() {
    let (app, pool) = acme().await;
    document(&app, &pool).await;
    assert_eq!(app.call("DELETE", ORG, None).await.status, 204);
    for table in ["organization", "client_pool", "signing_key", "status_allocation"] {
        assert_eq!(app.database.number(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    let left = document(&app, &pool).await;
    assert_eq!((left.deleted, left.kind, left.jwks.keys.len()), (true, PoolKind::Sso, 2));
    assert_eq!(bits(&app, &pool, 7), 255);
    app.clock.advance(Duration::from_secs(2 * 3600));
    eventually("nothing is left", async || app.kv.keys() == ["v1/trust"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_with_people_goes_with_them_or_not_at_all() {
    let (app, pool) = acme().await;
    people(&app).await;
    let refused = app.call("DELETE", ORG, None).await;
    refused.assert_problem(409, "has_children");
    assert!(refused.text.contains("client apps and users"), "{}", refused.text);
    assert_eq!(app.database.number("select count(*) from sso_session").await, 2);

    let deleted = app.call("DELETE", &format!("{ORG}?cascade=true"), None).await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    for table in [
        "organization",
        "client_pool",
        "client_app",
        "sso_key",
        "sso_user",
        "org_owner",
        "sso_session",
        "refresh_token",
    ] {
        assert_eq!(app.database.number(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    assert!(document(&app, &pool).await.deleted);
    assert_eq!((bits(&app, &pool, 0), bits(&app, &pool, 1)), (255, 255));
    let events = app.call("GET", "/api/internal/audit?limit=20", None).await.json();
    let actions: Vec<&str> =
        events["items"].as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    for action in [
        "client_app.delete_users",
        "client_app.delete",
        "sso_user.delete",
        "sso_key.delete",
        "organization.delete",
    ] {
        assert!(actions.contains(&action), "{action}: {actions:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_of_two_organizations_stays_the_owner_of_the_other() {
    let (app, _) = acme().await;
    people(&app).await;
    app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    app.database
        .execute(
            "insert into org_owner (org_id, user_id, created_at)
             values ('other', '00000000-0000-4000-8000-000000000001', now())",
        )
        .await
        .unwrap();
    assert_eq!(app.call("DELETE", &format!("{ORG}?cascade=true"), None).await.status, 204);
    assert_eq!(app.database.number("select count(*) from sso_user where org_id = 'other'").await, 1);
    assert_eq!(app.database.number("select count(*) from sso_session").await, 0);
}
