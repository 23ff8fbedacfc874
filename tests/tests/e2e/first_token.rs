//! From nothing to a token, with every claim where api.md §3 puts it.

use keypost_tests::edge;
use keypost_tests::stack;
use serde_json::{Value, json};

#[tokio::test]
async fn a_device_gets_a_token_with_its_metadata_tags_and_servers() {
    let stack = stack::shared().await;
    let admin = stack.admin();
    admin.create("/internal/org", json!({"id": "first-token", "name": "Retail Corp"})).await;
    let environments = "/internal/org/first-token/env";
    let environment = admin
        .create(
            environments,
            json!({"id": "us", "name": "US stores", "tagDefaults": {"country": "US", "state": "*", "app_id": "pos"},
                "primaryServerUrl": "http://localhost:6140", "serverUrls": ["http://localhost:6140"]}),
        )
        .await;
    admin.published(&environment).await;
    let pool = environment["clientPoolId"].as_str().unwrap();
    let issuer = format!("{}/{pool}", stack.edge_url());
    assert_eq!(environment["issuer"], issuer);
    assert_eq!(environment["tokenEndpoint"], format!("{issuer}/oauth2/token"));
    assert_eq!(environment["jwksUri"], format!("{issuer}/.well-known/jwks.json"));

    let devices = format!("{environments}/us/device");
    let device = json!({
        "id": "05243-001", "name": "Till 1",
        "metadata": {"terminal_type": "kiosk", "location": "checkout-3"},
        "tags": {"state": "NY", "lane": "3"},
        "serverUrls": ["http://localhost:6140", "http://localhost:6141"],
    });
    admin.create(&devices, device).await;
    let apps = format!("{devices}/05243-001/app");
    let app = admin.create(&apps, json!({"clientAppId": "client", "scopes": ["device"]})).await;
    let otp = admin.create(&format!("{apps}/client/otp"), Value::Null).await;

    let activation = admin.activate(json!({"otp": otp["otp"], "deviceId": "05243-001"})).await.body;
    let expected = json!({
        "clientId": app["clientId"], "clientSecret": activation["clientSecret"],
        "tokenEndpoint": format!("{issuer}/oauth2/token"), "issuer": issuer,
        "jwksUri": format!("{issuer}/.well-known/jwks.json"),
        "revocationEndpoint": format!("{issuer}/oauth2/revoke"),
        "deviceId": "05243-001", "organizationId": "first-token", "environmentId": "us",
        "clientAppId": "client", "scopes": ["device"], "published": activation["published"],
    });
    assert_eq!(activation, expected);
    admin.published(&activation).await;

    let reply = edge::token(&keypost_tests::admin::Credentials::of(&activation)).await;
    assert_eq!(reply.outcome(), "200");
    assert_eq!(reply.body["token_type"], "Bearer");
    assert_eq!(reply.body["expires_in"], 3600);
    assert_eq!(reply.body["scope"], "device");
    assert_eq!(reply.header("cache-control"), Some("no-store"));

    let mut claims = edge::claims(reply.access_token());
    let object = claims.as_object_mut().unwrap();
    let issued = object.remove("iat").unwrap().as_i64().unwrap();
    assert_eq!(object.remove("exp").unwrap(), issued + 3600);
    assert!(object.remove("jti").is_some());
    let expected = json!({
        "iss": issuer, "sub": "05243-001", "client_id": app["clientId"], "client_app_id": "client",
        "scope": ["device"],
        "metadata": {"terminal_type": "kiosk", "location": "checkout-3"},
        "tags": {"country": "US", "state": "NY", "app_id": "pos", "lane": "3"},
        "primary_server_url": "http://localhost:6140",
        "server_urls": ["http://localhost:6140", "http://localhost:6141"],
        "status": {"status_list": {"idx": 0, "uri": format!("{issuer}/status/0")}},
    });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn tags_that_nobody_sets_are_stars() {
    let fleet = stack::shared().await.admin().fleet("tag-defaults").await;
    let reply = edge::token(&fleet.activated("pos-1").await).await;
    let names =
        ["country", "business_unit_id", "device_id", "device_type", "state", "store_type", "brand", "app_id"];
    let expected: serde_json::Map<String, Value> =
        names.into_iter().map(|name| (name.to_owned(), json!("*"))).collect();
    assert_eq!(edge::claims(reply.access_token())["tags"], Value::Object(expected));
    assert_eq!(edge::claims(reply.access_token())["metadata"], json!({}));
}

#[tokio::test]
async fn key_set_and_metadata_are_what_libraries_expect() {
    let fleet = stack::shared().await.admin().fleet("metadata").await;
    let (issuer, edge_url) = (fleet.issuer(), stack::shared().await.edge_url());

    let jwks = edge::get(&format!("{issuer}/.well-known/jwks.json")).await;
    assert_eq!(jwks.outcome(), "200");
    assert_eq!(jwks.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(jwks.header("access-control-allow-origin"), Some("*"));
    let keys = jwks.body["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2, "an active key, and a next one from the start");
    for key in keys {
        assert_eq!(
            (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
            (&json!("EC"), &json!("P-256"), &json!("ES256"), &json!("sig"))
        );
        assert!(key.get("d").is_none());
    }
    let etag = jwks.header("etag").unwrap();
    let request = edge::http().get(format!("{issuer}/.well-known/jwks.json")).header("if-none-match", etag);
    assert_eq!(edge::send(request).await.status, 304);

    let urls = [
        format!("{issuer}/.well-known/oauth-authorization-server"),
        format!("{edge_url}/.well-known/oauth-authorization-server/{}", fleet.pool()),
        format!("{issuer}/.well-known/openid-configuration"),
    ];
    for url in urls {
        let metadata = edge::get(&url).await;
        assert_eq!(metadata.outcome(), "200", "{url}");
        assert_eq!(metadata.body["issuer"], issuer, "{url}");
        assert_eq!(metadata.body["token_endpoint"], format!("{issuer}/oauth2/token"));
        assert_eq!(metadata.body["jwks_uri"], format!("{issuer}/.well-known/jwks.json"));
        assert_eq!(metadata.body["response_types_supported"], json!([]));
        assert_eq!(metadata.body["grant_types_supported"], json!(["client_credentials"]));
    }
}

#[tokio::test]
async fn a_pools_policy_reaches_its_tokens() {
    let fleet = stack::shared().await.admin().fleet("token-lifetime").await;
    let credentials = fleet.activated("pos-1").await;
    assert_eq!(edge::token(&credentials).await.body["expires_in"], 3600);
    let pool = fleet.admin.patch(&format!("{}/pool", fleet.path), json!({"tokenTtlSeconds": 120})).await;
    assert_eq!(pool["tokenTtlSeconds"], 120);
    // The isolate holds the pool for at most 30 s (design §6).
    keypost_tests::wait::until("the new lifetime", std::time::Duration::from_secs(90), || async {
        let expires_in = edge::token(&credentials).await.body["expires_in"].clone();
        if expires_in == 120 { Ok(()) } else { Err(format!("expires_in {expires_in}")) }
    })
    .await;
}

#[tokio::test]
async fn the_worker_tells_its_version_and_the_age_of_a_pool() {
    let stack = stack::shared().await;
    let fleet = stack.admin().fleet("edge-health").await;
    edge::token(&fleet.activated("pos-1").await).await;
    let health = edge::get(&format!("{}/healthz?pool={}", stack.edge_url(), fleet.pool())).await;
    assert_eq!(health.body["status"], "ok");
    assert!(health.body["version"].is_string());
    assert!(health.body["pool"]["ageSeconds"].is_u64(), "{}", health.body);
}
