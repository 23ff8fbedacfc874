//! Devices: replacing, patching, disabling, deleting.

use axum::body::Body;
use axum::http::Request;
use keypost_shared::document::{ClientDocument, ClientStatus, ClientSubject};
use keypost_shared::kv_key::KvKey;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp, eventually};

const DEVICES: &str = "/api/internal/org/acme/env/prod/device";
const DEVICE: &str = "/api/internal/org/acme/env/prod/device/pos-1";

async fn started() -> TestApp {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    app
}

async fn patch_text(app: &TestApp, path: &str, body: &str) -> Answer {
    let request = Request::builder()
        .method("PATCH")
        .uri(path)
        .header("x-api-key", &app.admin)
        .header("content-type", "application/merge-patch+json")
        .body(Body::from(body.to_owned()));
    app.send(request.unwrap()).await
}

/// The document of the one client that there is.
async fn document(app: &TestApp) -> Option<ClientDocument> {
    let key: KvKey = app.kv.keys().into_iter().find(|name| name.starts_with("v1/client"))?.parse().unwrap();
    Some(app.kv.verified::<ClientDocument>(&app.publisher.root, &key).await.ok()?.document)
}

async fn metadata_in_kv(app: &TestApp) -> Option<String> {
    match document(app).await?.subject {
        ClientSubject::Device(claims) => Some(claims.metadata.get().to_owned()),
        ClientSubject::Service => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_leaves_nothing_of_before_and_reaches_kv() {
    let app = started().await;
    let full = json!({"name": "Till", "description": "By the door", "metadata": {"a": 1}, "tags": {"country": "NZ"},
        "primaryServerUrl": "http://a:1", "serverUrls": ["http://a:1"]});
    let answer = app.call("PUT", DEVICE, Some(full.clone())).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    for (name, value) in full.as_object().unwrap() {
        assert_eq!(&answer.json()[name], value, "{name}");
    }
    assert_eq!(app.call("GET", DEVICE, None).await.json(), answer.json());
    eventually("the metadata is in KV", async || metadata_in_kv(&app).await.as_deref() == Some(r#"{"a":1}"#))
        .await;
    let bare = app.call("PUT", DEVICE, Some(json!({"name": "Till"}))).await.json();
    assert_eq!((&bare["metadata"], &bare["tags"], &bare["serverUrls"]), (&json!({}), &json!({}), &json!([])));
    assert_eq!((&bare["description"], &bare["primaryServerUrl"]), (&Value::Null, &Value::Null));
    assert_eq!(bare["status"], "registered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patch_changes_what_it_names_and_keeps_the_rest_to_the_digit() {
    let app = started().await;
    let first = r#"{"metadata":{"n":12345678901234567890123,"deep":{"x":1e300,"y":-0},"gone":1},
                    "tags":{"country":"NZ","state":"x"},"description":"d","serverUrls":["http://a:1"]}"#;
    assert_eq!(patch_text(&app, DEVICE, first).await.status, 200);
    let second = r#"{"metadata":{"gone":null,"deep":{"y":0.10,"z":{"empty":null}}},"tags":{"state":null,"lane":"3"},
                     "description":null}"#;
    let answer = patch_text(&app, DEVICE, second).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let kept = r#"{"n":12345678901234567890123,"deep":{"x":1e300,"y":0.10,"z":{}}}"#;
    assert!(answer.text.contains(&format!(r#""metadata":{kept},"#)), "{}", answer.text);
    let device = answer.json();
    assert_eq!(
        (&device["tags"], &device["name"]),
        (&json!({"country": "NZ", "lane": "3"}), &json!("A device"))
    );
    assert_eq!((&device["description"], &device["serverUrls"]), (&Value::Null, &json!(["http://a:1"])));
    eventually("it is in KV", async || metadata_in_kv(&app).await.as_deref() == Some(kept)).await;

    let reset = patch_text(&app, DEVICE, r#"{"metadata":null,"tags":null,"serverUrls":null}"#).await.json();
    assert_eq!(
        (&reset["metadata"], &reset["tags"], &reset["serverUrls"]),
        (&json!({}), &json!({}), &json!([]))
    );
    assert_eq!(patch_text(&app, DEVICE, "{}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patch_that_is_wrong_is_refused_by_name() {
    let app = started().await;
    let deep = format!(r#"{{"metadata":{}1{}}}"#, r#"{"a":"#.repeat(40), "}".repeat(40));
    let very_deep = format!(r#"{{"metadata":{}1{}}}"#, r#"{"a":"#.repeat(5000), "}".repeat(5000));
    let long = format!(r#"{{"metadata":{{"a":"{}"}}}}"#, "x".repeat(17_000));
    let many = (0..65).map(|n| format!(r#""t{n}":"v""#)).collect::<Vec<_>>().join(",");
    let many = format!(r#"{{"tags":{{{many}}}}}"#);
    for (body, field) in [
        (r#"{"name":null}"#, "name"),
        (r#"{"status":"active"}"#, "status"),
        (r#"{"id":"pos-2"}"#, "id"),
        (r#"{"metadata":[1]}"#, "metadata"),
        (r#"{"metadata":{"a":"\u0000"}}"#, "metadata"),
        (r#"{"metadata":{"a":1,"a":2}}"#, "metadata"),
        (&deep, "metadata"),
        (&very_deep, "metadata"),
        (&long, "metadata"),
        (r#"{"tags":{"a":1}}"#, "tags.a"),
        (r#"{"tags":{"a b":"c"}}"#, "tags.a b"),
        (&many, "tags"),
        (r#"{"serverUrls":[null]}"#, "serverUrls"),
        (r#"{"colour":"red"}"#, "colour"),
    ] {
        let answer = patch_text(&app, DEVICE, body).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), [field], "{}", answer.text);
    }
    assert_eq!(app.call("GET", DEVICE, None).await.json()["metadata"], json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_patches_at_once_none_is_lost() {
    let app = started().await;
    let patch = async |n: u32| {
        let body = json!({"metadata": {format!("m{n}"): n}, "tags": {format!("t{n}"): "v"}});
        app.call("PATCH", DEVICE, Some(body)).await.status.as_u16()
    };
    let answers = futures_util::future::join_all((0..20).map(patch)).await;
    assert_eq!(answers, vec![200; 20]);
    let device = app.call("GET", DEVICE, None).await.json();
    assert_eq!(device["metadata"].as_object().unwrap().len(), 20);
    assert_eq!(device["tags"].as_object().unwrap().len(), 20);
    assert_eq!(app.database.number("select count(*) from device_tag").await, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_device_is_disabled_in_kv_until_it_is_enabled() {
    let app = started().await;
    let call = async |verb: &str, body| app.call("POST", &format!("{DEVICE}/{verb}"), body).await;
    let status_in_kv = async || document(&app).await.map(|document| document.status);
    let disabled = call("disable", None).await;
    assert_eq!((disabled.status.as_u16(), &disabled.json()["status"]), (200, &json!("disabled")));
    let again = call("disable", Some(json!({}))).await;
    assert_eq!(again.text, disabled.text, "a second time changes nothing");
    eventually("it is disabled", async || status_in_kv().await == Some(ClientStatus::Disabled)).await;
    call("disable", Some(json!({"why": "because"}))).await.assert_problem(400, "invalid_request");

    let otp = app.otp(&format!("{DEVICE}/app/client")).await;
    app.activate(json!({"otp": otp})).await.assert_problem(400, "invalid_otp");
    assert_eq!(call("enable", None).await.json()["status"], "registered");
    assert_eq!(app.activate(json!({"otp": otp})).await.status, 200);
    assert_eq!(call("enable", None).await.json()["status"], "active", "nothing changes");
    call("disable", None).await;
    assert_eq!(call("enable", None).await.json()["status"], "active", "it has been activated");
    eventually("it is enabled", async || status_in_kv().await == Some(ClientStatus::Enabled)).await;

    let actions: Vec<String> = sqlx::query_scalar(
        "select action from audit_event where target_id = 'pos-1' and action ~ 'able$' order by seq",
    )
    .fetch_all(&app.database.pool)
    .await
    .unwrap();
    assert_eq!(actions, ["device.disable", "device.enable", "device.disable", "device.enable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_away_goes_first() {
    let app = TestApp::start().await;
    app.acme().await;
    app.kv.fail_next([crate::support::Fault::RefuseEach("v1/client".to_owned())]);
    app.device("pos-1").await;
    let priority = "select priority::bigint from publication where key like 'v1/client/%'";
    assert_eq!(app.database.number(priority).await, 1);
    app.call("POST", &format!("{DEVICE}/disable"), None).await;
    assert_eq!(app.database.number(priority).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_with_apps_goes_with_them_or_not_at_all() {
    let app = started().await;
    app.otp(&format!("{DEVICE}/app/client")).await;
    eventually("the client is in KV", async || document(&app).await.is_some()).await;
    app.call("DELETE", DEVICE, None).await.assert_problem(409, "has_children");
    assert_eq!(app.call("DELETE", &format!("{DEVICE}?cascade=true"), None).await.status, 204);
    app.call("GET", DEVICE, None).await.assert_problem(404, "not_found");
    app.call("PATCH", DEVICE, Some(json!({"name": "x"}))).await.assert_problem(404, "not_found");
    eventually("KV has forgotten the client", async || document(&app).await.is_none()).await;
    for table in ["device_app", "oauth_client", "otp"] {
        assert_eq!(app.database.number(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    app.create(DEVICES, json!({"id": "pos-1", "name": "Again"})).await;
    assert_eq!(app.call("DELETE", DEVICE, None).await.status, 204, "without apps no cascade is needed");
    let deleted: Vec<String> =
        sqlx::query_scalar("select action from audit_event where action ~ 'delete$' order by seq")
            .fetch_all(&app.database.pool)
            .await
            .unwrap();
    assert_eq!(deleted, ["app.delete", "device.delete", "device.delete"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_and_adding_at_once_never_fails_inside() {
    let app = started().await;
    for round in 0..5 {
        let (otp_path, apps) = (format!("{DEVICE}/app/client/otp"), format!("{DEVICE}/app"));
        let otp = app.otp(&format!("{DEVICE}/app/client")).await;
        let other = json!({"clientAppId": "other", "scopes": ["device"]});
        let cascade = format!("{DEVICE}?cascade=true");
        let (deleted, activated, made, added, patched) = tokio::join!(
            app.call("DELETE", &cascade, None),
            app.activate(json!({"otp": otp})),
            app.call("POST", &otp_path, None),
            app.call("POST", &apps, Some(other)),
            app.call("PATCH", DEVICE, Some(json!({"metadata": {"a": 1}}))),
        );
        assert_eq!(deleted.status, 204, "{round}: {}", deleted.text);
        assert!(matches!(activated.status.as_u16(), 200 | 400), "{round}: {}", activated.text);
        assert!(matches!(made.status.as_u16(), 201 | 404), "{round}: {}", made.text);
        assert!(matches!(added.status.as_u16(), 201 | 404), "{round}: {}", added.text);
        assert!(matches!(patched.status.as_u16(), 200 | 404), "{round}: {}", patched.text);
        assert_eq!(app.database.number("select count(*) from oauth_client").await, 0, "{round}");
        app.device("pos-1").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apps_are_listed_replaced_and_deleted() {
    let app = started().await;
    let apps = format!("{DEVICE}/app");
    let other = app.create(&apps, json!({"clientAppId": "another", "scopes": ["device", "sales"]})).await;
    let listed = app.call("GET", &format!("{apps}?limit=1"), None).await.json();
    assert_eq!(listed["items"], json!([other]));
    let rest = format!("{apps}?cursor={}", listed["nextCursor"].as_str().unwrap());
    assert_eq!(app.call("GET", &rest, None).await.json()["items"][0]["clientAppId"], "client");

    let path = format!("{apps}/{}", other["id"].as_str().unwrap());
    let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]});
    let body = json!({"clientAppId": "another", "name": "Sales", "scopes": ["sales"], "jwks": jwks});
    let replaced = app.call("PUT", &path, Some(body)).await;
    assert_eq!(replaced.status, 200, "{}", replaced.text);
    assert_eq!(app.call("GET", &path, None).await.json(), replaced.json());
    assert_eq!((&replaced.json()["name"], &replaced.json()["jwks"]), (&json!("Sales"), &jwks));
    let client = other["clientId"].as_str().unwrap();
    let found = || app.kv.keys().into_iter().find(|key| key.ends_with(client));
    eventually("the client is in KV", async || found().is_some()).await;
    let key: KvKey = found().unwrap().parse().unwrap();
    let in_kv = async || {
        app.kv
            .verified::<ClientDocument>(&app.publisher.root, &key)
            .await
            .ok()
            .map(|verified| verified.document)
    };
    eventually("scopes and keys are in KV", async || {
        let document = in_kv().await.unwrap();
        document.scopes.to_string() == "sales" && document.jwks.is_some_and(|jwks| jwks.keys.len() == 1)
    })
    .await;
    for (body, field) in [
        (json!({"clientAppId": "third", "scopes": ["sales"]}), "clientAppId"),
        (json!({"scopes": []}), "scopes"),
        (json!({"name": "x"}), "scopes"),
        (json!({"scopes": ["a"], "clientId": client}), "clientId"),
    ] {
        let answer = app.call("PUT", &path, Some(body)).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), [field], "{}", answer.text);
    }
    let by_name = format!("{apps}/another");
    assert_eq!(app.call("DELETE", &by_name, None).await.status, 204);
    app.call("DELETE", &by_name, None).await.assert_problem(404, "not_found");
    eventually("KV has forgotten it", async || in_kv().await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activation_gives_device_and_app_new_etags() {
    let app = started().await;
    let path = format!("{DEVICE}/app/client");
    let etags = async || {
        let app_etag = app.call("GET", &path, None).await.header("etag").unwrap().to_owned();
        (app.call("GET", DEVICE, None).await.header("etag").unwrap().to_owned(), app_etag)
    };
    let before = etags().await;
    let otp = app.otp(&path).await;
    assert_eq!(app.activate(json!({"otp": otp})).await.status, 200);
    let after = etags().await;
    assert!(before.0 != after.0 && before.1 != after.1, "{before:?} {after:?}");
}
