//! From an organization to an app, and the documents that come of it.

use keypost_shared::crypto::Crypto;
use keypost_shared::document::{
    ClaimsProfile, ClientDocument, ClientStatus, ClientSubject, PoolDocument, PrivateHalf,
};
use keypost_shared::host::HostCrypto;
use keypost_shared::jwe::{SealingKey, SplitJwe};
use keypost_shared::kv_key::KvKey;
use serde_json::{Value, json};

use crate::support::{TestApp, eventually, secret};

fn pool_key(environment: &Value) -> KvKey {
    KvKey::Pool(environment["clientPoolId"].as_str().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_answers_once_its_signed_pool_document_is_in_kv() {
    let app = TestApp::start().await;
    let environment = app.acme().await;
    assert_eq!(environment["published"], true);
    let pool = environment["clientPoolId"].as_str().unwrap();
    assert_eq!(environment["issuer"], format!("https://edge.test/{pool}"));
    assert_eq!(environment["tokenEndpoint"], format!("https://edge.test/{pool}/oauth2/token"));
    assert_eq!(environment["jwksUri"], format!("https://edge.test/{pool}/.well-known/jwks.json"));
    assert_eq!(environment["tagDefaults"].as_object().unwrap().len(), 8);
    assert_eq!(environment["tagDefaults"]["store_type"], "*");

    let key = pool_key(&environment);
    let verified = app.kv.verified::<PoolDocument>(&app.publisher.root, &key).await.unwrap();
    let document = verified.document;
    assert_eq!(document.issuer, environment["issuer"].as_str().unwrap());
    assert_eq!((document.token_ttl, document.longest_token_ttl), (3600, 3600));
    assert_eq!(document.claims_profile, ClaimsProfile::Device);
    assert_eq!(document.jwks.keys.len(), 2, "one key that signs and one that will");
    let stamp = verified.stamp;
    assert_eq!(stamp.next_update.unwrap(), stamp.iat + 86_400);

    let sealed = document.signing_key.unwrap();
    assert!(document.jwks.keys.iter().any(|jwk| jwk.kid == sealed.kid));
    let PrivateHalf::Jwe(jwe) = &sealed.private else { panic!("it is not sealed") };
    let jwe = SplitJwe::parse(jwe).unwrap();
    assert_eq!((jwe.header.pool.to_string().as_str(), &jwe.header.signing_kid), (pool, &sealed.kid));
    let sealing_key = SealingKey::parse_list(&secret(2)).unwrap().remove(0);
    let opened = HostCrypto.open_signing_key(&sealing_key, &jwe).await.unwrap();
    assert_eq!(opened.kid(), &sealed.kid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_created_is_read_back_as_it_was_answered() {
    let app = TestApp::start().await;
    let organization =
        app.create("/api/internal/org", json!({"id": "acme", "name": "Acme", "description": "Shops"})).await;
    assert_eq!(app.call("GET", "/api/internal/org/acme", None).await.json(), organization);

    let environment = json!({"id": "prod", "name": "Production", "description": "All shops",
        "tagDefaults": {"country": "US", "brand": "*"}, "primaryServerUrl": "http://localhost:6140",
        "serverUrls": ["http://localhost:6140", "https://b.example:8443/x?y=z"]});
    let environment = app.create("/api/internal/org/acme/env", environment).await;
    assert_eq!(app.call("GET", "/api/internal/org/acme/env/prod", None).await.json(), environment);
    assert_eq!(environment["tagDefaults"], json!({"brand": "*", "country": "US"}));

    let devices = "/api/internal/org/acme/env/prod/device";
    let device = json!({"id": "pos-1", "name": "Till 1", "metadata": {"a": [1, 2.5, null, {"b": "ü"}], "n": 1e300},
        "tags": {"country": "NZ"}, "primaryServerUrl": null, "serverUrls": []});
    let device = app.create(devices, device).await;
    assert_eq!(app.call("GET", &format!("{devices}/pos-1"), None).await.json(), device);
    assert_eq!(device["metadata"]["a"], json!([1, 2.5, null, {"b": "ü"}]));
    assert_eq!((&device["status"], &device["lastActivatedAt"]), (&json!("registered"), &Value::Null));

    let apps = format!("{devices}/pos-1/app");
    let created = app.create(&apps, json!({"clientAppId": "client", "scopes": ["device", "sales"]})).await;
    for name in ["client", created["id"].as_str().unwrap()] {
        assert_eq!(app.call("GET", &format!("{apps}/{name}"), None).await.json(), created, "{name}");
    }
    assert_eq!(created["scopes"], json!(["device", "sales"]));
    assert_eq!(created["activated"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_without_an_id_gets_one() {
    let app = TestApp::start().await;
    let organization = app.create("/api/internal/org", json!({"name": "Acme"})).await;
    let path = format!("/api/internal/org/{}", organization["id"].as_str().unwrap());
    assert_eq!(app.call("GET", &path, None).await.json(), organization);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exists_already_is_a_conflict() {
    let app = TestApp::start().await;
    app.acme().await;
    app.device("pos-1").await;
    for (path, body) in [
        ("/api/internal/org", json!({"id": "acme", "name": "Acme"})),
        ("/api/internal/org/acme/env", json!({"id": "prod", "name": "Production"})),
        ("/api/internal/org/acme/env/prod/device", json!({"id": "pos-1", "name": "Till"})),
        (
            "/api/internal/org/acme/env/prod/device/pos-1/app",
            json!({"clientAppId": "client", "scopes": ["device"]}),
        ),
    ] {
        app.call("POST", path, Some(body)).await.assert_problem(409, "already_exists");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_document_has_the_claims_of_device_and_environment() {
    let app = TestApp::start().await;
    app.create("/api/internal/org", json!({"id": "acme", "name": "Acme"})).await;
    let environment = json!({"id": "prod", "name": "Production", "primaryServerUrl": "http://env:1",
        "serverUrls": ["http://env:1", "http://env:2"]});
    let environment = app.create("/api/internal/org/acme/env", environment).await;
    let devices = "/api/internal/org/acme/env/prod/device";
    let device = json!({"id": "05243-001", "name": "Kiosk", "metadata": {"terminal_type": "kiosk"},
        "tags": {"country": "US", "floor": "2"}});
    app.create(devices, device).await;
    let apps = format!("{devices}/05243-001/app");
    let created = app.create(&apps, json!({"clientAppId": "client", "scopes": ["device"]})).await;

    let KvKey::Pool(pool) = pool_key(&environment) else { unreachable!() };
    let key = KvKey::Client(pool, created["clientId"].as_str().unwrap().parse().unwrap());
    eventually("the client is in KV", async || app.kv.get(&key).is_some()).await;
    let document = app.kv.verified::<ClientDocument>(&app.publisher.root, &key).await.unwrap().document;
    assert_eq!(document.status, ClientStatus::Enabled);
    assert!(document.secrets.is_empty(), "no secret before activation");
    assert_eq!(document.scopes.to_string(), "device");
    let ClientSubject::Device(claims) = document.subject else { panic!("not a device's client") };
    assert_eq!(claims.device_id.as_str(), "05243-001");
    assert_eq!(claims.client_app_id.as_str(), "client");
    assert_eq!(claims.metadata.get(), r#"{"terminal_type":"kiosk"}"#);
    let tags: Value = serde_json::from_str(claims.tags.get()).unwrap();
    let expected = json!({"app_id": "*", "brand": "*", "business_unit_id": "*", "country": "US", "device_id": "*",
        "device_type": "*", "floor": "2", "state": "*", "store_type": "*"});
    assert_eq!(tags, expected);
    assert_eq!(claims.primary_server_url.as_deref(), Some("http://env:1"));
    assert_eq!(claims.server_urls, ["http://env:1", "http://env:2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_kept_to_the_digit_all_the_way_to_kv() {
    let app = TestApp::start().await;
    app.acme().await;
    let sent = r#"{ "z": 12345678901234567890123, "a": [ -0, 1E5, 0.1000000000000000055 ],
                    "\u0041": "two  spaces", "n": 1e300 }"#;
    let kept = r#"{"z":12345678901234567890123,"a":[-0,1E5,0.1000000000000000055],"\u0041":"two  spaces","n":1e300}"#;
    let devices = "/api/internal/org/acme/env/prod/device";
    let request = axum::http::Request::builder()
        .method("POST")
        .uri(devices)
        .header("x-api-key", &app.admin)
        .header("content-type", "application/json")
        .body(format!(r#"{{"id": "pos-1", "name": "Till", "metadata": {sent}}}"#).into());
    let created = app.send(request.unwrap()).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let read = app.call("GET", &format!("{devices}/pos-1"), None).await;
    for text in [created.text, read.text] {
        assert!(text.contains(&format!(r#""metadata":{kept},"#)), "{text}");
    }
    let app_path = format!("{devices}/pos-1/app");
    app.create(&app_path, json!({"clientAppId": "client", "scopes": ["device"]})).await;
    let client = async || app.kv.keys().into_iter().find(|name| name.starts_with("v1/client"));
    eventually("the client is in KV", async || client().await.is_some()).await;
    let key = client().await.unwrap().parse().unwrap();
    let document = app.kv.verified::<ClientDocument>(&app.publisher.root, &key).await.unwrap().document;
    let ClientSubject::Device(claims) = document.subject else { panic!("not a device's client") };
    assert_eq!(claims.metadata.get(), kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_an_app_are_kept() {
    let app = TestApp::start().await;
    app.acme().await;
    let path = app.device("pos-1").await.replace("/client", "");
    let coordinate = "A".repeat(43);
    let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": coordinate, "y": coordinate, "kid": "k1"},
        {"kty": "RSA", "n": "A".repeat(342), "e": "AQAB"}]});
    let body = json!({"clientAppId": "other", "scopes": ["device"], "jwks": jwks});
    assert_eq!(app.create(&path, body).await["jwks"], jwks);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_has_the_documented_rules_and_a_change_reaches_kv() {
    let app = TestApp::start().await;
    let environment = app.acme().await;
    let path = "/api/internal/org/acme/env/prod/pool";
    let pool = app.call("GET", path, None).await.json();
    assert_eq!(pool["clientPoolId"], environment["clientPoolId"]);
    assert_eq!(pool["tokenTtlSeconds"], 3600);
    assert_eq!(pool["maxStalenessSeconds"], 86_400);
    assert_eq!(pool["claimsProfile"], "device");
    assert_eq!((&pool["keyBackend"], &pool["keyMode"]), (&json!("local"), &Value::Null));
    assert_eq!(pool["provisioning"]["mode"], "registered");
    assert_eq!(pool["bindToCertificate"], false);

    let change = json!({"tokenTtlSeconds": 60, "maxStalenessSeconds": 10, "claimsProfile": "rfc9068",
        "audience": "https://api.example", "corsOrigins": ["https://app.example"]});
    let changed = app.call("PATCH", path, Some(change)).await.json();
    assert_eq!(changed["audience"], json!(["https://api.example"]));
    assert_eq!(app.call("GET", path, None).await.json(), changed);

    let key = pool_key(&environment);
    eventually("the change is in KV", async || {
        let verified = app.kv.verified::<PoolDocument>(&app.publisher.root, &key).await.unwrap();
        let window = verified.stamp.next_update.unwrap().since(verified.stamp.iat);
        window == 10 && verified.document.token_ttl == 60
    })
    .await;
    let document = app.kv.verified::<PoolDocument>(&app.publisher.root, &key).await.unwrap().document;
    assert_eq!(document.longest_token_ttl, 3600, "tokens of an hour are still out");
    assert_eq!(document.claims_profile, ClaimsProfile::Rfc9068);
    assert_eq!(document.audience, ["https://api.example"]);
    assert_eq!(document.cors_origins, ["https://app.example"]);

    let reset = json!({"audience": null, "corsOrigins": null, "claimsProfile": null});
    let reset = app.call("PATCH", path, Some(reset)).await.json();
    assert_eq!((&reset["audience"], &reset["claimsProfile"]), (&json!([]), &json!("device")));
    assert_eq!(reset["tokenTtlSeconds"], 60, "what a merge patch does not name stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_longer_lifetime_is_remembered_until_its_last_token_is_gone() {
    let app = TestApp::start().await;
    let key = pool_key(&app.acme().await);
    let path = "/api/internal/org/acme/env/prod/pool";
    app.call("PATCH", path, Some(json!({"tokenTtlSeconds": 60}))).await;
    let longest = async || {
        let verified = app.kv.verified::<PoolDocument>(&app.publisher.root, &key).await;
        verified.map_or(0, |verified| verified.document.longest_token_ttl)
    };
    eventually("the change is in KV", async || longest().await == 3600).await;
    // The window of a day in which an edge may go by the old document, and the hour of the last token from it.
    app.clock.advance(std::time::Duration::from_secs(86_400 + 3600 + 1));
    eventually("the document has been signed again without it", async || longest().await == 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kv_an_environment_is_created_and_says_that_it_is_not_published() {
    let app = TestApp::start_impatient().await;
    app.create("/api/internal/org", json!({"id": "acme", "name": "Acme"})).await;
    eventually("nothing waits", async || {
        app.call("GET", "/api/internal/sync", None).await.json()["pending"] == 0
    })
    .await;
    app.kv.fail_next([crate::support::Fault::RefuseEach("v1/pool".to_owned())]);
    let environment = app.create("/api/internal/org/acme/env", json!({"id": "prod", "name": "P"})).await;
    assert_eq!(environment["published"], false);
    eventually("all but the pool is published", async || {
        app.call("GET", "/api/internal/sync", None).await.json()["pending"] == 1
    })
    .await;
    let sync = app.call("GET", "/api/internal/sync", None).await.json();
    assert!(sync["oldestPendingSeconds"].as_u64().unwrap() >= 1, "{sync}");
    let told = sync["lastError"].as_str().unwrap();
    assert!(told.starts_with("KV refused with status 400: ") && told.ends_with("a value is wrong"), "{told}");

    app.kv.recover();
    let path = "/api/internal/org/acme/env/prod";
    eventually("it is published", async || app.call("GET", path, None).await.json()["published"] == true)
        .await;
    eventually("nothing waits", async || {
        app.call("GET", "/api/internal/sync", None).await.json()["pending"] == 0
    })
    .await;
    let sync = app.call("GET", "/api/internal/sync", None).await.json();
    assert_eq!((&sync["oldestPendingSeconds"], &sync["lastError"]), (&json!(0), &Value::Null));
    assert!(sync["lastPublishedAt"].is_string());
}
