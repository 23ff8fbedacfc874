//! Another organization's rows cannot be reached, and cannot be referred to.

use keypost::service::access::{Caller, OrgScope, Permission};
use keypost::service::audit::Actor;
use keypost::store;
use keypost::store::device_app::AppName;
use keypost::store::device_list::DeviceFilter;
use keypost::store::environment::EnvScope;
use serde_json::json;
use uuid::Uuid;

use crate::support::TestApp;

async fn two_organizations() -> TestApp {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    app.create("/api/internal/org/other/env", json!({"id": "prod", "name": "Production"})).await;
    app
}

fn scope(org: &str) -> OrgScope {
    let caller = Caller {
        api_key_id: Uuid::nil(),
        org: Some(org.parse().unwrap()),
        permissions: None,
        expires_at: None,
        actor: Actor::system(),
    };
    caller.enter(&org.parse().unwrap(), Permission::OrgWrite).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_limited_to_its_scope() {
    let app = two_organizations().await;
    let mut tx = app.database.pool.begin().await.unwrap();
    let env_id = "prod".parse().unwrap();
    let acmes = store::environment::find(&mut tx, &scope("acme"), &env_id).await.unwrap().unwrap();
    let device = "pos-1".parse().unwrap();
    let client_app = AppName::ClientApp("client".parse().unwrap());

    let own: EnvScope = acmes.within(&scope("acme"));
    let found = store::device_app::find(&mut tx, &own, &device, &client_app).await.unwrap().unwrap();
    assert!(store::device::find(&mut tx, &own, &device).await.unwrap().is_some());
    assert!(store::client_pool::find(&mut tx, &own).await.unwrap().is_some());

    // The same environment id exists in the other organization; and acme's environment, carried into the other's scope,
    // is not there.
    let others = store::environment::find(&mut tx, &scope("other"), &env_id).await.unwrap().unwrap();
    assert_ne!(others.pool_id, acmes.pool_id);
    for stranger in [others.within(&scope("other")), acmes.within(&scope("other"))] {
        assert!(store::device::find(&mut tx, &stranger, &device).await.unwrap().is_none());
        for name in [&client_app, &AppName::Id(found.id)] {
            assert!(store::device_app::find(&mut tx, &stranger, &device, name).await.unwrap().is_none());
        }
    }
    let carried = acmes.within(&scope("other"));
    for stranger in [&carried, &others.within(&scope("other"))] {
        for filter in [
            DeviceFilter::default(),
            DeviceFilter { text: Some("device".to_owned()), ..DeviceFilter::default() },
            DeviceFilter { tags: vec![("lane".to_owned(), "1".to_owned())], ..DeviceFilter::default() },
        ] {
            let listed = store::device_list::list(&mut tx, stranger, &filter, None, 10).await.unwrap();
            assert!(listed.is_empty(), "{filter:?}");
        }
        assert!(store::device_app::list(&mut tx, stranger, &device, None, 10).await.unwrap().is_empty());
        assert!(store::device_app::clients(&mut tx, stranger, &device).await.unwrap().is_empty());
        assert!(store::device::find_for_update(&mut tx, stranger, &device).await.unwrap().is_none());
    }
    assert_eq!(store::environment::list(&mut tx, &scope("other"), None, 10).await.unwrap().len(), 1);
    assert!(store::environment::lock_to_delete(&mut tx, &carried).await.unwrap().is_none());
    assert!(store::client_pool::find(&mut tx, &carried).await.unwrap().is_none());
    assert!(store::client_pool::find_for_update(&mut tx, &carried).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_into_another_scope_is_refused_or_changes_nothing() {
    let app = two_organizations().await;
    let mut tx = app.database.pool.begin().await.unwrap();
    let acmes =
        store::environment::find(&mut tx, &scope("acme"), &"prod".parse().unwrap()).await.unwrap().unwrap();
    let carried = acmes.within(&scope("other"));
    let own = acmes.within(&scope("acme"));
    let mut pool = store::client_pool::find(&mut tx, &own).await.unwrap().unwrap();
    pool.token_ttl_seconds = 60;
    store::client_pool::update(&mut tx, &carried, &pool).await.unwrap();
    let after = store::client_pool::find(&mut tx, &own).await.unwrap().unwrap();
    assert_eq!(after.token_ttl_seconds, 3600);

    let device = "pos-1".parse().unwrap();
    let client_app = AppName::ClientApp("client".parse().unwrap());
    let found = store::device_app::find(&mut tx, &own, &device, &client_app).await.unwrap().unwrap();
    let now = pool.created_at;

    let stranger = store::device::find(&mut tx, &own, &device).await.unwrap().unwrap();
    let stranger = store::device::Device { name: "Stolen".to_owned(), ..stranger };
    store::device::update(&mut tx, &carried, &stranger).await.unwrap();
    let renamed = store::device_app::DeviceApp { name: Some("Stolen".to_owned()), ..found.clone() };
    store::device_app::update(&mut tx, &carried, &renamed).await.unwrap();
    let environment = store::environment::Environment { name: "Stolen".to_owned(), ..acmes.clone() };
    store::environment::update(&mut tx, &carried, &environment).await.unwrap();
    let own_name = store::environment::find(&mut tx, &scope("acme"), &acmes.id).await.unwrap().unwrap().name;
    assert_eq!(own_name, "Production");
    assert!(store::device_app::delete_all(&mut tx, &carried, &[found.id]).await.unwrap().is_empty());
    assert!(store::device::delete_some(&mut tx, &carried, 10).await.unwrap().devices.is_empty());
    assert!(store::device::delete(&mut tx, &carried, &device).await.unwrap().devices.is_empty());
    assert!(store::oauth_client::delete_some_services(&mut tx, &carried, 10).await.unwrap().is_empty());
    assert_eq!(store::device::find(&mut tx, &own, &device).await.unwrap().unwrap().name, "A device");
    let still = store::device_app::find(&mut tx, &own, &device, &client_app).await.unwrap().unwrap();
    assert_eq!(still.name, None);

    let refused = store::otp::replace(&mut tx, &carried, found.id, &[7; 32], now, now).await.unwrap_err();
    assert!(refused.is_dangling(), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_otp_of_one_organization_is_not_replaced_from_another() {
    let app = two_organizations().await;
    let otp = app.otp("/api/internal/org/acme/env/prod/device/pos-1/app/client").await;
    let mut tx = app.database.pool.begin().await.unwrap();
    let acmes =
        store::environment::find(&mut tx, &scope("acme"), &"prod".parse().unwrap()).await.unwrap().unwrap();
    let app_id: Uuid = sqlx::query_scalar("select id from device_app").fetch_one(&mut *tx).await.unwrap();
    let carried = acmes.within(&scope("other"));
    let now = acmes.created_at;
    store::otp::replace(&mut tx, &carried, app_id, &[7; 32], now, now).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(app.activate(json!({"otp": otp})).await.status, 200, "it is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_refuses_references_into_another_organization() {
    let app = two_organizations().await;
    let acme_pool: Uuid =
        sqlx::query_scalar("select id from client_pool where org_id = 'acme' and kind = 'device'")
            .fetch_one(&app.database.pool)
            .await
            .unwrap();
    let acme_app: Uuid =
        sqlx::query_scalar("select id from device_app").fetch_one(&app.database.pool).await.unwrap();
    for statement in [
        "insert into client_pool (id, org_id, env_id, kind, created_at, updated_at)
         values (gen_random_uuid(), 'other', 'only-acmes', 'device', now(), now())"
            .to_owned(),
        format!(
            "insert into signing_key (kid, org_id, pool_id, alg, backend, state, public_jwk, private_sealed, created_at)
             values ('k', 'other', '{acme_pool}', 'ES256', 'local', 'next', '{{}}', '\\x00', now())"
        ),
        "insert into device (org_id, env_id, id, name, metadata, tags, server_urls, status, created_at, updated_at)
         values ('other', 'nowhere', 'd', 'n', '{}', '{}', '{}', 'registered', now(), now())"
            .to_owned(),
        "insert into device_app (id, org_id, env_id, device_id, client_app_id, created_at, updated_at)
         values (gen_random_uuid(), 'other', 'prod', 'pos-1', 'client', now(), now())"
            .to_owned(),
        format!(
            "insert into oauth_client (client_id, org_id, env_id, pool_id, name, scopes, status, created_at, updated_at)
             values ('c', 'other', 'prod', '{acme_pool}', 'n', '{{}}', 'enabled', now(), now())"
        ),
        format!(
            "insert into oauth_client (client_id, org_id, env_id, pool_id, device_app_id, name, scopes, status,
                                       created_at, updated_at)
             select 'c', 'other', 'prod', id, '{acme_app}', 'n', '{{}}', 'enabled', now(), now()
               from client_pool where org_id = 'other' and kind = 'device'"
        ),
        format!(
            "insert into otp (device_app_id, org_id, code_hmac, created_at, expires_at, wrong_tries)
             values ('{acme_app}', 'other', decode(repeat('00', 32), 'hex'), now(), now(), 0)"
        ),
    ] {
        if statement.contains(&acme_app.to_string()) {
            // Otherwise the statements would fail for another reason: there is one of these for each app.
            app.database.execute("delete from otp; delete from oauth_client").await.unwrap();
        }
        let error = app.database.execute(&statement).await.unwrap_err();
        let refused = error.as_database_error().is_some_and(|error| error.is_foreign_key_violation());
        assert!(refused, "{statement}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_referred_to_can_be_deleted_by_accident() {
    let app = two_organizations().await;
    app.otp("/api/internal/org/acme/env/prod/device/pos-1/app/client").await;
    for table in ["organization", "environment", "client_pool", "device", "device_app"] {
        let error = app.database.execute(&format!("delete from {table}")).await.unwrap_err();
        let refused = error.as_database_error().is_some_and(|error| error.is_foreign_key_violation());
        assert!(refused, "{table}: {error}");
    }
}
