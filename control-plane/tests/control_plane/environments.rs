//! Environments: lists, replacing, deleting.

use keypost_shared::document::{ClientDocument, ClientSubject};
use serde_json::{Value, json};

use crate::support::{TestApp, eventually};

const ENV: &str = "/api/internal/org/acme/env/prod";

/// The claims in KV of the one client that there is.
async fn claims(app: &TestApp) -> Option<Value> {
    let key = app.kv.keys().into_iter().find(|name| name.starts_with("v1/client"))?.parse().unwrap();
    let document = app.kv.verified::<ClientDocument>(&app.publisher.root, &key).await.ok()?.document;
    let ClientSubject::Device(claims) = document.subject else { panic!("not a device's client") };
    let tags: Value = serde_json::from_str(claims.tags.get()).unwrap();
    Some(json!({"tags": tags, "first": claims.primary_server_url, "all": claims.server_urls}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_are_listed_by_id_and_say_whether_they_are_published() {
    let app = TestApp::start().await;
    app.acme().await;
    app.create("/api/internal/org/acme/env", json!({"id": "a", "name": "A"})).await;
    app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    app.create("/api/internal/org/other/env", json!({"id": "b", "name": "B"})).await;
    let first = app.call("GET", "/api/internal/org/acme/env?limit=1", None).await.json();
    let cursor = first["nextCursor"].as_str().unwrap();
    let path = format!("/api/internal/org/acme/env?limit=1&cursor={cursor}");
    let second = app.call("GET", &path, None).await.json();
    assert_eq!(second["nextCursor"], Value::Null);
    for (page, id) in [(first, "a"), (second, "prod")] {
        let read = app.call("GET", &format!("/api/internal/org/acme/env/{id}"), None).await.json();
        assert_eq!(page["items"], json!([read]));
        assert_eq!(read["published"], true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replacing_changes_of_the_tokens_reaches_kv() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    let replaced = json!({"name": "New", "tagDefaults": {"country": "NZ"}, "primaryServerUrl": "http://a:1",
        "serverUrls": ["http://a:1", "http://b:1"]});
    let answer = app.call("PUT", ENV, Some(replaced)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(app.call("GET", ENV, None).await.json(), answer.json());
    assert_eq!((&answer.json()["name"], &answer.json()["description"]), (&json!("New"), &Value::Null));
    let expected =
        json!({"tags": {"country": "NZ"}, "first": "http://a:1", "all": ["http://a:1", "http://b:1"]});
    eventually("the claims are in KV", async || claims(&app).await.as_ref() == Some(&expected)).await;

    // What is not sent is as if it had been left out at the creation.
    let reset = app.call("PUT", ENV, Some(json!({"name": "New"}))).await.json();
    assert_eq!((reset["tagDefaults"].as_object().unwrap().len(), &reset["serverUrls"]), (8, &json!([])));
    eventually("the claims are reset", async || claims(&app).await.unwrap()["first"] == Value::Null).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_no_token_marks_no_client() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    let generations =
        "select coalesce(sum(generation), 0)::bigint from publication where key like 'v1/client/%'";
    let before = app.database.number(generations).await;
    assert_eq!(app.call("PUT", ENV, Some(json!({"name": "Another name"}))).await.status, 200);
    assert_eq!(app.database.number(generations).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_more_clients_than_one_transaction_marks() {
    let app = TestApp::start().await;
    app.acme().await;
    app.database
        .execute(
            "insert into device (org_id, env_id, id, name, metadata, tags, server_urls, status, created_at, updated_at)
             select 'acme', 'prod', 'd' || n, 'd', '{}', '{}', '{}', 'registered', now(), now()
               from generate_series(1, 5000) n;
             insert into device_app (id, org_id, env_id, device_id, client_app_id, created_at, updated_at)
             select gen_random_uuid(), 'acme', 'prod', 'd' || n, 'client', now(), now() from generate_series(1, 5000) n;
             insert into oauth_client (client_id, org_id, env_id, pool_id, device_app_id, name, scopes, status,
                                       created_at, updated_at)
             select a.id::text, 'acme', 'prod', p.id, a.id, 'n', '{device}', 'enabled', now(), now()
               from device_app a, client_pool p where p.kind = 'device'",
        )
        .await
        .unwrap();
    let replaced = app.call("PUT", ENV, Some(json!({"name": "P", "primaryServerUrl": "http://new:1"}))).await;
    assert_eq!(replaced.status, 200, "{}", replaced.text);
    let marked = "select count(*) from publication where key like 'v1/client/%'";
    eventually("all are marked", async || app.database.number(marked).await == 5000).await;
    eventually("nothing is left to be marked", async || {
        app.database.number("select count(*) from client_sweep").await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_replaced_is_refused_by_name() {
    let app = TestApp::start().await;
    app.acme().await;
    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": "n", "id": "prod"}), "id"),
        (json!({"name": "n", "clientPoolId": "x"}), "clientPoolId"),
        (json!({"name": "n", "tagDefaults": {"a": 1}}), "tagDefaults.a"),
        (json!({"name": "n", "serverUrls": ["ftp://x"]}), "serverUrls[0]"),
    ] {
        let answer = app.call("PUT", ENV, Some(body)).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), [field]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_with_devices_or_services_goes_with_them_or_not_at_all() {
    let app = TestApp::start().await;
    let environment = app.acme().await;
    let pool = environment["clientPoolId"].as_str().unwrap();
    let delete = async |query: &str| app.call("DELETE", &format!("{ENV}{query}"), None).await;
    app.device("pos-1").await;
    app.otp("/api/internal/org/acme/env/prod/device/pos-1/app/client").await;
    app.database
        .execute(&format!(
            "insert into oauth_client (client_id, org_id, env_id, pool_id, name, scopes, status, created_at, updated_at)
             values ('service', 'acme', 'prod', '{pool}', 'n', '{{introspect}}', 'enabled', now(), now())"
        ))
        .await
        .unwrap();
    let refused = delete("").await;
    refused.assert_problem(409, "has_children");
    assert!(refused.text.contains("devices and service clients"), "{}", refused.text);
    delete("?cascade=maybe").await.assert_problem(400, "invalid_request");
    eventually("the client is in KV", async || claims(&app).await.is_some()).await;

    let deleted = delete("?cascade=true").await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    app.call("GET", ENV, None).await.assert_problem(404, "not_found");
    delete("?cascade=true").await.assert_problem(404, "not_found");
    for table in ["device", "device_app", "oauth_client", "otp", "device_tag"] {
        assert_eq!(app.database.number(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    // The pool of the organization's people is still there.
    assert_eq!(app.database.number("select count(*) from client_pool where kind = 'device'").await, 0);
    assert_eq!(app.database.number("select count(*) from signing_key").await, 2);
    // What verifiers need of it stays until its last token has expired.
    let stays = [format!("v1/pool/{pool}"), format!("v1/status/{pool}/0")];
    eventually("KV has forgotten the rest", async || {
        let left: Vec<String> = app.kv.keys().into_iter().filter(|key| key.contains(pool)).collect();
        left == stays
    })
    .await;
    // The id is free again, and its pool is another one.
    let again = app.create("/api/internal/org/acme/env", json!({"id": "prod", "name": "Production"})).await;
    assert_ne!(again["clientPoolId"], environment["clientPoolId"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_is_told_with_what_went() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    app.device("pos-2").await;
    let gone = app.call("DELETE", &format!("{ENV}?cascade=true"), None).await;
    assert_eq!(gone.status, 204, "{}", gone.text);
    let events: Vec<(String, String)> = sqlx::query_as(
        "select action, changes::text from audit_event where org_id = 'acme' order by seq desc limit 2",
    )
    .fetch_all(&app.database.pool)
    .await
    .unwrap();
    let [(last, before), (batch, deleted)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((last.as_str(), batch.as_str()), ("environment.delete", "environment.delete_devices"));
    let before: Value = serde_json::from_str(before).unwrap();
    assert_eq!(before["before"]["name"], "Production");
    let deleted: Value = serde_json::from_str(deleted).unwrap();
    assert_eq!(deleted, json!({"before": {"devices": 2, "from": "pos-1", "to": "pos-2", "apps": 2}}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_not_the_one_that_was_meant_is_not_deleted() {
    let app = TestApp::start().await;
    app.acme().await;
    let etag = app.call("GET", ENV, None).await.header("etag").unwrap().to_owned();
    app.call("PUT", ENV, Some(json!({"name": "Newer"}))).await;
    let delete = async |etag: &str| {
        let request = axum::http::Request::builder()
            .method("DELETE")
            .uri(ENV)
            .header("x-api-key", &app.admin)
            .header("if-match", etag);
        app.send(request.body(axum::body::Body::empty()).unwrap()).await
    };
    delete(&etag).await.assert_problem(412, "precondition_failed");
    let newer = app.call("GET", ENV, None).await.header("etag").unwrap().to_owned();
    assert_eq!(delete(&newer).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_are_created_while_their_environment_goes_neither_survive_nor_break_it() {
    let app = TestApp::start().await;
    app.acme().await;
    let devices = format!("{ENV}/device");
    let create = async |n: u32| {
        let id = format!("pos-{n}");
        let made = app.call("POST", &devices, Some(json!({"id": id, "name": "Till"}))).await;
        let apps = format!("{devices}/{id}/app");
        let body = json!({"clientAppId": "client", "scopes": ["device"]});
        let put = app.call("POST", &apps, Some(body)).await;
        [made.status.as_u16(), put.status.as_u16()]
    };
    let creating = futures_util::future::join_all((0..40).map(create));
    let path = format!("{ENV}?cascade=true");
    let deleting = app.call("DELETE", &path, None);
    let (created, deleted) = tokio::join!(creating, deleting);
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    assert!(created.iter().flatten().all(|status| matches!(status, 201 | 404)), "{created:?}");
    for table in ["environment", "device", "device_app", "oauth_client"] {
        assert_eq!(app.database.number(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_goes_with_its_keys_and_with_its_environments_where_that_is_asked() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    app.create("/api/internal/org/acme/env", json!({"id": "test", "name": "Test"})).await;
    let own = app.key(Some("acme"), None).await;
    let path = "/api/internal/org/acme";
    app.call("DELETE", path, None).await.assert_problem(409, "has_children");
    assert_eq!(app.call_with(&own, "GET", path, None).await.status, 200);
    let cascade = format!("{path}?cascade=true");
    assert_eq!(app.call("DELETE", &cascade, None).await.status, 204);
    app.call("GET", path, None).await.assert_problem(404, "not_found");
    app.call_with(&own, "GET", path, None).await.assert_problem(401, "unauthenticated");
    assert_eq!(app.database.number("select count(*) from environment").await, 0);
    let told = "select count(*) from audit_event where org_id = 'acme'
                 and action in ('organization.delete', 'api_key.delete', 'environment.delete')";
    assert_eq!(app.database.number(told).await, 4, "what is told of it outlives it");

    // An organization without environments needs no cascade.
    app.create("/api/internal/org", json!({"id": "empty", "name": "Empty"})).await;
    assert_eq!(app.call("DELETE", "/api/internal/org/empty", None).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_in_several_batches_ends() {
    let app = TestApp::start().await;
    app.acme().await;
    app.database
        .execute(
            "insert into device (org_id, env_id, id, name, metadata, tags, server_urls, status, created_at, updated_at)
             select 'acme', 'prod', 'd' || n, 'd', '{}', '{\"a\": \"b\"}', '{}', 'registered', now(), now()
               from generate_series(1, 4500) n",
        )
        .await
        .unwrap();
    assert_eq!(app.call("DELETE", &format!("{ENV}?cascade=true"), None).await.status, 204);
    let batches = "select count(*) from audit_event where action = 'environment.delete_devices'";
    assert_eq!(app.database.number(batches).await, 3);
    assert_eq!(app.database.number("select count(*) from device_tag").await, 0);
}
