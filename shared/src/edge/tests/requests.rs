//! What a client may send, and what it is answered.

use base64ct::{Base64, Encoding};
use proptest::prelude::*;
use serde_json::json as value;

use super::fleet::verified;
use super::world::*;
use crate::document::{ClaimsProfile, ClientStatus, ClientSubject, StoredSecret};
use crate::edge::*;

#[test]
fn a_device_gets_a_token_with_all_its_claims() {
    let world = World::new();
    let response = world.token();
    assert_eq!(outcome(&response), "200");
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    let (header, mut claims) = verified(&world, &response);
    assert_eq!(header, value!({"alg": "ES256", "typ": "JWT", "kid": world.signing.kid().as_str()}));
    let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(jti.as_str().unwrap().len(), 22);
    let expected = value!({
        "iss": format!("https://edge.example/{}", world.pool), "sub": "05243-001",
        "iat": START.0, "exp": START.0 + 3600,
        "client_id": world.client.as_str(), "client_app_id": "client", "scope": ["device", "other"],
        "metadata": {"terminal_type": "kiosk"}, "tags": {"country": "US", "state": "*"},
        "primary_server_url": "http://localhost:6140", "server_urls": ["http://localhost:6140"],
    });
    assert_eq!(claims, expected);
    let body = json(&response);
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 3600);
    assert_eq!(body["scope"], "device other");
}

#[test]
fn profile_rfc9068_has_its_own_type_scope_and_audience() {
    let world = World::new();
    let mut pool = world.pool_document();
    pool.claims_profile = ClaimsProfile::Rfc9068;
    world.put_pool(&pool, WINDOW);
    let (header, claims) = verified(&world, &world.token());
    assert_eq!(header["typ"], "at+jwt");
    assert_eq!(claims["scope"], "device other");
    assert_eq!(claims["aud"], pool.issuer);
    pool.audience = vec!["a".to_owned()];
    world.put_pool(&pool, WINDOW);
    world.advance(31);
    assert_eq!(verified(&world, &world.token()).1["aud"], "a");
    pool.audience = vec!["a".to_owned(), "b".to_owned()];
    world.put_pool(&pool, WINDOW);
    world.advance(31);
    assert_eq!(verified(&world, &world.token()).1["aud"], value!(["a", "b"]));
}

#[test]
fn a_client_may_have_an_audience_of_its_own() {
    let world = World::new();
    let mut client = world.client_document();
    client.subject = ClientSubject::Service;
    client.audience = vec!["https://api.example".to_owned()];
    world.put_client(&client);
    assert_eq!(verified(&world, &world.token()).1["aud"], "https://api.example");
    let mut pool = world.pool_document();
    pool.audience = vec!["somebody else".to_owned()];
    pool.claims_profile = ClaimsProfile::Rfc9068;
    world.put_pool(&pool, WINDOW);
    world.advance(31);
    assert_eq!(verified(&world, &world.token()).1["aud"], "https://api.example");
}

#[test]
fn a_token_lives_as_long_as_the_pool_says_now() {
    let world = World::new();
    let mut pool = world.pool_document();
    (pool.token_ttl, pool.longest_token_ttl) = (60, 3600);
    world.put_pool(&pool, WINDOW);
    let response = world.token();
    assert_eq!(json(&response)["expires_in"], 60);
    assert_eq!(verified(&world, &response).1["exp"], START.0 + 60);
}

#[test]
fn a_service_client_speaks_for_itself() {
    let world = World::new();
    let mut client = world.client_document();
    client.subject = ClientSubject::Service;
    world.put_client(&client);
    let (_, claims) = verified(&world, &world.token());
    assert_eq!(claims["sub"], world.client.as_str());
    for absent in ["client_app_id", "metadata", "tags", "server_urls", "primary_server_url"] {
        assert!(claims.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn a_scope_parameter_narrows_and_never_widens() {
    let world = World::new();
    let ask = |scope: &str| {
        let body = format!(
            "grant_type=client_credentials&client_id={}&client_secret={SECRET}&scope={scope}",
            world.client
        );
        world.post(&body)
    };
    let narrowed = ask("other");
    assert_eq!(json(&narrowed)["scope"], "other");
    assert_eq!(verified(&world, &narrowed).1["scope"], value!(["other"]));
    assert_eq!(json(&ask(""))["scope"], "device other", "an empty parameter is an absent one");
    for refused in ["admin", "device+admin", "%22", "a%5Cb", "%C3%A9"] {
        assert_eq!(outcome(&ask(refused)), "400 invalid_scope", "{refused}");
    }
}

#[test]
fn every_error_of_rfc_6749_has_its_status_and_headers() {
    let world = World::new();
    let id = world.client.as_str();
    let good = format!("grant_type=client_credentials&client_id={id}&client_secret={SECRET}");
    let cases = [
        ("", "400 invalid_request"),
        ("grant_type=", "400 invalid_request"),
        ("grant_type=password", "400 unsupported_grant_type"),
        ("grant_type=client_credentials", "401 invalid_client"),
        (&format!("grant_type=client_credentials&client_id={id}"), "401 invalid_client"),
        (&format!("grant_type=client_credentials&client_id={id}&client_secret=x"), "401 invalid_client"),
        ("grant_type=client_credentials&client_id=nobody&client_secret=x", "401 invalid_client"),
        ("grant_type=client_credentials&client_id=..%2F..&client_secret=x", "401 invalid_client"),
        ("grant_type=client_credentials&client_secret=x", "400 invalid_request"),
        (&format!("{good}&scope=device&scope=device"), "400 invalid_request"),
        (&format!("{good}&x=1&x=2"), "400 invalid_request"),
        (&format!("{good}&x=%zz"), "400 invalid_request"),
        (&format!("{good}&x=%ff"), "400 invalid_request"),
        (&format!("{good}&unknown=ignored"), "200"),
    ];
    for (body, expected) in cases {
        let response = world.post(body);
        assert_eq!(outcome(&response), expected, "{body}");
        assert_eq!(header(&response, "cache-control"), Some("no-store"), "{body}");
        assert_eq!(header(&response, "www-authenticate"), None, "{body}");
        assert!(header(&response, "x-request-id").is_some());
    }
}

#[test]
fn failed_basic_is_challenged() {
    let world = World::new();
    let ask = |authorization: &str, body: &str| {
        let path = format!("/{}/oauth2/token", world.pool);
        let mut request = post(&path, body.as_bytes());
        request.headers.authorization = Some(authorization);
        world.handle(request)
    };
    let basic = |text: &str| format!("Basic {}", Base64::encode_string(text.as_bytes()));
    let good = basic(&format!("{}:{SECRET}", world.client));
    let body = "grant_type=client_credentials";
    assert_eq!(outcome(&ask(&good, body)), "200");
    for bad in [&basic(&format!("{}:wrong", world.client)), "Basic %%%", "Basic", "Bearer x", &basic("%zz:x")]
    {
        let response = ask(bad, body);
        assert_eq!(outcome(&response), "401 invalid_client", "{bad}");
        assert!(
            header(&response, "www-authenticate").is_some_and(|value| value.starts_with("Basic ")),
            "{bad}"
        );
    }
    let twice = format!("{body}&client_id={}&client_secret={SECRET}", world.client);
    assert_eq!(outcome(&ask(&good, &twice)), "400 invalid_request");
    let beside = format!("{body}&client_id={}", world.client);
    assert_eq!(outcome(&ask(&good, &beside)), "200");
}

#[test]
fn wrong_methods_types_and_sizes_are_refused() {
    let world = World::new();
    let path = format!("/{}/oauth2/token", world.pool);
    let good = post(&path, b"grant_type=client_credentials");
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "BREW"] {
        let response = world.handle(Request { method, ..good });
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(header(&response, "allow"), Some("POST, OPTIONS"));
    }
    for content_type in
        [None, Some("application/json"), Some("text/plain"), Some("multipart/form-data; boundary=x")]
    {
        let headers = Headers { content_type, ..good.headers };
        assert_eq!(outcome(&world.handle(Request { headers, ..good })), "400 invalid_request");
    }
    let headers =
        Headers { content_type: Some("Application/X-WWW-Form-Urlencoded; charset=UTF-8"), ..good.headers };
    assert_eq!(outcome(&world.handle(Request { headers, ..good })), "401 invalid_client");
    assert_eq!(outcome(&world.handle(Request { body: Body::TooLarge, ..good })), "413 invalid_request");
    let jwks = format!("/{}/.well-known/jwks.json", world.pool);
    let response = world.handle(post(&jwks, b""));
    assert_eq!((response.status, header(&response, "allow")), (405, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn unknown_pools_and_paths_are_404() {
    let world = World::new();
    let other = "00000000-0000-4000-8000-000000000000";
    for path in
        ["/", "/nowhere", &format!("/{other}/.well-known/jwks.json"), &format!("/{}/oauth2", world.pool)]
    {
        assert_eq!(world.get_path(path).status, 404, "{path}");
    }
    let path = format!("/{other}/oauth2/token");
    assert_eq!(world.handle(post(&path, b"grant_type=client_credentials")).status, 404);
}

#[test]
fn a_warm_isolate_signs_with_the_key_that_takes_over() {
    let mut world = World::new();
    let (header, _) = verified(&world, &world.token());
    assert_eq!(header["kid"], key(3).kid().as_str());
    world.signing = key(4);
    world.put_pool(&world.pool_document(), WINDOW);
    world.advance(31);
    let (header, _) = verified(&world, &world.token());
    assert_eq!(header["kid"], key(4).kid().as_str());
}

#[test]
fn every_secret_of_a_client_counts_until_its_end() {
    let world = World::new();
    let mut client = world.client_document();
    let [old, new] = [b"old", b"new"].map(|secret| crate::secret::SecretHash::of(secret));
    client.secrets = vec![
        StoredSecret { sha256: new, expires_at: None },
        StoredSecret { sha256: old, expires_at: Some(START + 600) },
    ];
    world.put_client(&client);
    assert_eq!(outcome(&world.token_with("new")), "200");
    assert_eq!(outcome(&world.token_with("old")), "200");
    world.advance(600);
    assert_eq!(outcome(&world.token_with("old")), "401 invalid_client");
    assert_eq!(outcome(&world.token_with("new")), "200");
}

#[test]
fn a_disabled_client_and_an_expired_secret_get_nothing() {
    let world = World::new();
    let mut client = world.client_document();
    client.secrets[0].expires_at = Some(START + 10);
    world.put_client(&client);
    assert_eq!(outcome(&world.token()), "200");
    world.advance(10);
    assert_eq!(outcome(&world.token()), "401 invalid_client");

    let mut client = world.client_document();
    client.status = ClientStatus::Disabled;
    world.put_client(&client);
    world.advance(31);
    assert_eq!(outcome(&world.token()), "401 invalid_client");
}

#[test]
fn an_unknown_client_costs_the_work_of_a_known_one() {
    let world = World::new();
    world.token();
    let work = |id: &str| {
        let before = (world.platform.kv_reads.get(), world.platform.verifications.get());
        let body = format!("grant_type=client_credentials&client_id={id}&client_secret=x");
        let response = world.post(&body);
        assert_eq!(outcome(&response), "401 invalid_client");
        (
            world.platform.kv_reads.get() - before.0,
            world.platform.verifications.get() - before.1,
            response.body,
        )
    };
    assert_eq!(work("nobody"), work(world.client.as_str()));
}

#[test]
fn key_set_and_metadata_are_public_and_cacheable() {
    let world = World::new();
    let response = world.get_path(&format!("/{}/.well-known/jwks.json", world.pool));
    assert_eq!(json(&response)["keys"][0]["kid"], world.signing.kid().as_str());
    assert_eq!(header(&response, "cache-control"), Some("public, max-age=300"));
    assert_eq!(header(&response, "access-control-allow-origin"), Some("*"));
    let etag = header(&response, "etag").unwrap().to_owned();
    let path = format!("/{}/.well-known/jwks.json", world.pool);
    for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
        let headers = Headers { if_none_match: Some(&known), ..Headers::default() };
        let request = Request { method: "GET", path: &path, query: "", headers, body: Body::Complete(b"") };
        let again = world.handle(request);
        assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
        assert_eq!(header(&again, "etag"), Some(etag.as_str()));
    }
    let documents = [
        format!("/{}/.well-known/oauth-authorization-server", world.pool),
        format!("/.well-known/oauth-authorization-server/{}", world.pool),
        format!("/{}/.well-known/openid-configuration", world.pool),
    ];
    let [first, rest @ ..] = documents.map(|path| json(&world.get_path(&path)));
    let issuer = format!("https://edge.example/{}", world.pool);
    assert_eq!(first["issuer"], issuer);
    assert_eq!(first["token_endpoint"], format!("{issuer}/oauth2/token"));
    assert_eq!(first["response_types_supported"], value!([]));
    assert!(rest.iter().all(|other| *other == first));
}

#[test]
fn only_origins_that_the_pool_lists_may_post() {
    let world = World::new();
    let mut pool = world.pool_document();
    pool.cors_origins = vec!["https://app.example".to_owned()];
    world.put_pool(&pool, WINDOW);
    let path = format!("/{}/oauth2/token", world.pool);
    for (origin, allowed) in
        [("https://app.example", Some("https://app.example")), ("https://evil.example", None)]
    {
        for method in ["OPTIONS", "POST"] {
            let mut request = post(&path, b"grant_type=client_credentials");
            request.method = method;
            request.headers.origin = Some(origin);
            let response = world.handle(request);
            assert_eq!(header(&response, "access-control-allow-origin"), allowed, "{method} {origin}");
            assert_eq!(header(&response, "vary"), Some("Origin"), "{method} {origin}");
        }
    }
}

#[test]
fn whatever_a_get_is_answered_any_origin_may_read() {
    let world = World::new();
    let other = "00000000-0000-4000-8000-000000000000";
    let missing = world.get_path(&format!("/{other}/.well-known/jwks.json"));
    assert_eq!(missing.status, 404);
    assert_eq!(header(&missing, "access-control-allow-origin"), Some("*"));
    let world = World::new();
    world.platform.kv.borrow_mut().clear();
    let unavailable = world.get_path(&format!("/{}/.well-known/openid-configuration", world.pool));
    assert_eq!(unavailable.status, 503);
    assert_eq!(header(&unavailable, "access-control-allow-origin"), Some("*"));
}

#[test]
fn a_request_keeps_its_own_id_where_that_is_harmless() {
    let world = World::new();
    for (given, kept) in [("abc-1.2_3", true), ("a\r\nx-evil: 1", false), (&"x".repeat(65), false)] {
        let headers = Headers { request_id: Some(given), ..Headers::default() };
        let request =
            Request { method: "GET", path: "/healthz", query: "", headers, body: Body::Complete(b"") };
        assert_eq!(header(&world.handle(request), "x-request-id") == Some(given), kept, "{given:?}");
    }
}

#[test]
fn an_answer_to_head_has_no_body() {
    let world = World::new();
    let jwks = format!("/{}/.well-known/jwks.json", world.pool);
    for (path, status) in [("/healthz", 200), (jwks.as_str(), 200), ("/nowhere", 404)] {
        let headers = Headers::default();
        let request = Request { method: "HEAD", path, query: "", headers, body: Body::Complete(b"") };
        let response = world.handle(request);
        assert_eq!((response.status, response.body.len()), (status, 0), "{path}");
    }
}

#[test]
fn a_client_without_scopes_gets_a_token_without_scope() {
    // RFC 6749 §3.3 has no empty scope, and oauth4webapi refuses one.
    let world = World::new();
    let mut client = world.client_document();
    client.scopes = crate::scope::Scopes::default();
    world.put_client(&client);
    let response = world.token();
    assert!(json(&response).get("scope").is_none());
    assert_eq!(verified(&world, &response).1["scope"], value!([]));

    let mut pool = world.pool_document();
    pool.claims_profile = ClaimsProfile::Rfc9068;
    world.put_pool(&pool, WINDOW);
    world.advance(31);
    assert!(verified(&world, &world.token()).1.get("scope").is_none());
}

#[test]
fn healthz_needs_nothing_and_tells_the_age_of_a_pool() {
    let world = World::new();
    world.platform.kv_fails.set(true);
    assert_eq!(json(&world.get_path("/healthz"))["status"], "ok");
    world.platform.kv_fails.set(false);
    world.token();
    world.advance(5);
    let query = format!("pool={}", world.pool);
    let headers = Headers::default();
    let request =
        Request { method: "GET", path: "/healthz", query: &query, headers, body: Body::Complete(b"") };
    assert_eq!(json(&world.handle(request))["pool"]["ageSeconds"], 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever arrives: an answer below 500, never a panic.
    #[test]
    fn no_request_breaks_the_edge(
        method in "GET|POST|HEAD|OPTIONS|[A-Z]{1,8}",
        leaf in "oauth2/token|oauth2/token|.well-known/jwks.json|\\PC{0,20}",
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "grant_type=client_credentials&[a-z_%=&+]{0,60}".prop_map(String::into_bytes),
        ],
        authorization in prop::option::of("Basic [A-Za-z0-9+/=]{0,40}|\\PC{0,40}"),
        content_type in prop::option::of("application/x-www-form-urlencoded|\\PC{0,30}"),
    ) {
        let world = World::new();
        let path = format!("/{}/{leaf}", world.pool);
        let headers = Headers {
            authorization: authorization.as_deref(),
            content_type: content_type.as_deref(),
            ..Headers::default()
        };
        let request = Request { method: &method, path: &path, query: "", headers, body: Body::Complete(&body) };
        let response = world.handle(request);
        prop_assert!(response.status < 500, "{}", response.status);
    }
}
