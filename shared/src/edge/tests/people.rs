//! The tokens of people at the edge: what their issuer says of itself, and what client apps may ask and end.

use serde_json::{Value, json as value};

use super::world::*;
use crate::document::*;
use crate::edge::*;
use crate::edge_report::{EdgeReport, SignedReport};
use crate::id::ClientId;
use crate::kv_key::{EdgeKey, KvKey};
use crate::secret::SecretHash;
use crate::status_list::*;

const APP: &str = "11111111-1111-4111-8111-111111111111";
const OTHER_APP: &str = "22222222-2222-4222-8222-222222222222";
const SESSION: &str = "33333333-3333-4333-8333-333333333333";
const UNAVAILABLE: &str = "503 temporarily_unavailable";
const CONTROL_PLANE: &str = "https://keypost.example";

/// The pool of an organization's people, with two client apps.
fn world() -> World {
    let world = World::with_status();
    world.put_pool(&document(&world), WINDOW);
    put_app(&world, APP, &[(SECRET, None)]);
    put_app(&world, OTHER_APP, &[(SECRET, None)]);
    world
}

fn document(world: &World) -> PoolDocument {
    PoolDocument {
        kind: PoolKind::Sso,
        signing_key: None,
        sign_in_url: Some(CONTROL_PLANE.to_owned()),
        ..world.pool_document()
    }
}

/// Publishes a client app with these keys, each until a time.
fn put_app(world: &World, id: &str, keys: &[(&str, Option<u64>)]) {
    let secret = |(key, seconds): &(&str, Option<u64>)| StoredSecret {
        sha256: SecretHash::of(key.as_bytes()),
        expires_at: seconds.map(|seconds| START + seconds),
    };
    let document = ClientDocument {
        status: ClientStatus::Enabled,
        secrets: keys.iter().map(secret).collect(),
        scopes: "introspect".parse().unwrap(),
        subject: ClientSubject::Service,
        jwks: None,
        audience: Vec::new(),
        status_block: None,
    };
    let key = KvKey::Client(world.pool, id.parse().unwrap());
    world.put(&key, world.publisher.sign_document(&key, world.stamp(None), &document).unwrap());
}

/// The claims of an access token of the session, with this id and index.
fn claims(world: &World, jti: &str, idx: u32) -> Value {
    value!({
        "userId": "u", "username": "ada", "userType": "CLIENT_USER", "organizationId": "acme",
        "organizationName": "Acme", "clientAppId": APP, "user_metadata": {"role": "DRIVER"}, "sid": SESSION,
        "iss": format!("https://edge.example/{}", world.pool), "sub": "u", "aud": [APP, "acme"],
        "iat": START.0, "exp": START.0 + 3600, "jti": jti,
        "status": {"status_list": {"idx": idx, "uri": world.status_url()}},
    })
}

fn sign(world: &World, claims: &Value) -> String {
    sign_status(&world.signing, "JWT", claims)
}

fn token(world: &World, jti: &str, idx: u32) -> String {
    sign(world, &claims(world, jti, idx))
}

fn introspect(world: &World, app: &str, token: &str) -> Response {
    world.ask_as(app, "introspect", &format!("token={token}"))
}

fn active(world: &World, token: &str) -> bool {
    let response = introspect(world, OTHER_APP, token);
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    let body = json(&response);
    let active = body["active"].as_bool().unwrap();
    assert!(active || body == value!({"active": false}), "{body}");
    active
}

#[test]
fn the_issuer_of_people_says_where_they_sign_in() {
    let world = world();
    let metadata = json(&world.get_path(&format!("/{}/.well-known/openid-configuration", world.pool)));
    let issuer = format!("https://edge.example/{}", world.pool);
    for (member, expected) in [
        ("issuer", value!(issuer)),
        ("authorization_endpoint", value!("https://keypost.example/api/auth/authorize")),
        ("token_endpoint", value!("https://keypost.example/api/auth/token")),
        ("userinfo_endpoint", value!("https://keypost.example/api/auth/userinfo")),
        ("jwks_uri", value!(format!("{issuer}/.well-known/jwks.json"))),
        ("introspection_endpoint", value!(format!("{issuer}/oauth2/introspect"))),
        (
            "introspection_endpoint_auth_methods_supported",
            value!(["client_secret_basic", "client_secret_post"]),
        ),
        ("revocation_endpoint", value!(format!("{issuer}/oauth2/revoke"))),
        ("revocation_endpoint_auth_methods_supported", value!(["client_secret_basic", "client_secret_post"])),
        ("response_types_supported", value!(["code"])),
        (
            "grant_types_supported",
            value!([
                "authorization_code",
                "refresh_token",
                "urn:ietf:params:oauth:grant-type:token-exchange"
            ]),
        ),
        ("code_challenge_methods_supported", value!(["S256"])),
        (
            "token_endpoint_auth_methods_supported",
            value!(["client_secret_basic", "client_secret_post", "none"]),
        ),
        ("id_token_signing_alg_values_supported", value!(["ES256"])),
        ("subject_types_supported", value!(["public"])),
        ("scopes_supported", value!(["openid", "profile", "email", "offline_access"])),
        ("authorization_response_iss_parameter_supported", value!(true)),
        ("request_uri_parameter_supported", value!(false)),
    ] {
        assert_eq!(metadata[member], expected, "{member}");
    }
    for absent in [
        "token_endpoint_auth_signing_alg_values_supported",
        "revocation_endpoint_auth_signing_alg_values_supported",
        "introspection_endpoint_auth_signing_alg_values_supported",
    ] {
        assert_eq!(metadata[absent], Value::Null, "{absent}");
    }
}

#[test]
fn without_the_control_planes_url_no_endpoint_is_made_up() {
    let world = world();
    world.put_pool(&PoolDocument { sign_in_url: None, ..document(&world) }, WINDOW);
    let metadata = json(&world.get_path(&format!("/{}/.well-known/openid-configuration", world.pool)));
    for absent in ["token_endpoint", "authorization_endpoint", "userinfo_endpoint", "scopes_supported"] {
        assert_eq!(metadata[absent], Value::Null, "{absent}");
    }
    assert!(metadata["jwks_uri"].is_string());
}

#[test]
fn a_device_pool_says_nothing_of_signing_in() {
    let world = World::new();
    let metadata = json(&world.get_path(&format!("/{}/.well-known/openid-configuration", world.pool)));
    for absent in ["authorization_endpoint", "userinfo_endpoint", "scopes_supported", "claims_supported"] {
        assert_eq!(metadata[absent], Value::Null, "{absent}");
    }
    assert_eq!(metadata["token_endpoint"], format!("https://edge.example/{}/oauth2/token", world.pool));
    assert_eq!(metadata["response_types_supported"], value!([]));
}

#[test]
fn nothing_is_issued_at_the_edge_and_nobody_learns_anything_by_asking() {
    let world = world();
    world.token_with(SECRET);
    let reads = world.platform.kv_reads.get();
    let mut answers = Vec::new();
    for (client, secret) in [(APP, SECRET), (APP, "wrong"), ("nobody", SECRET)] {
        for grant in ["client_credentials", "authorization_code", "refresh_token", "x"] {
            let body = format!("grant_type={grant}&client_id={client}&client_secret={secret}");
            let response = world.post(&body);
            assert_eq!(outcome(&response), "400 unsupported_grant_type", "{body}");
            answers.push(response.body);
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert_eq!(world.platform.kv_reads.get(), reads, "nothing is looked up");
    assert_eq!(outcome(&world.post("client_id=x")), "400 invalid_request");
}

#[test]
fn any_app_of_the_organization_reads_what_a_token_says() {
    let world = world();
    let token = token(&world, "j1", 80);
    let expected = value!({
        "active": true, "client_id": APP, "username": "ada", "token_type": "Bearer", "exp": START.0 + 3600,
        "iat": START.0, "sub": "u", "aud": [APP, "acme"], "jti": "j1", "sid": SESSION,
        "iss": format!("https://edge.example/{}", world.pool), "userType": "CLIENT_USER",
        "organizationId": "acme", "clientAppId": APP,
    });
    for app in [APP, OTHER_APP] {
        let response = introspect(&world, app, &token);
        assert_eq!(json(&response), expected);
        assert_eq!(header(&response, "cache-control"), Some("no-store"));
    }
    // An owner's is of no app.
    let mut owner = claims(&world, "j2", 88);
    owner.as_object_mut().unwrap().remove("clientAppId");
    owner["userType"] = value!("ORG_OWNER");
    let body = json(&introspect(&world, APP, &sign(&world, &owner)));
    assert_eq!((&body["active"], &body["userType"]), (&value!(true), &value!("ORG_OWNER")));
    assert_eq!((&body["client_id"], &body["clientAppId"]), (&Value::Null, &Value::Null));
}

#[test]
fn strangers_and_ended_keys_are_no_clients() {
    let world = world();
    let token = token(&world, "j1", 80);
    let ask = |client: &str, secret: &str| {
        let body = format!("client_id={client}&client_secret={secret}&token={token}");
        let path = format!("/{}/oauth2/introspect", world.pool);
        outcome(&world.handle(post(&path, body.as_bytes())))
    };
    assert_eq!(ask(APP, SECRET), "200");
    assert_eq!(ask(APP, "wrong"), "401 invalid_client");
    assert_eq!(ask(SESSION, SECRET), "401 invalid_client", "a session is no client");
    // Rotated: both keys until the old one ends, by the document alone.
    put_app(&world, APP, &[("new", None), (SECRET, Some(100))]);
    world.advance(31);
    assert_eq!((ask(APP, "new"), ask(APP, SECRET)), ("200".to_owned(), "200".to_owned()));
    world.advance(70);
    assert_eq!((ask(APP, "new"), ask(APP, SECRET)), ("200".to_owned(), "401 invalid_client".to_owned()));
    // Deleted: the list alone, whatever document is put back into KV.
    let clients = [(APP.parse().unwrap(), Revoked::Gone)].into();
    world.put_list(&RevokedDocument { clients, ..RevokedDocument::default() });
    world.advance(31);
    assert_eq!(ask(APP, "new"), "401 invalid_client");
}

#[test]
fn only_a_persons_access_token_of_this_pool_is_active() {
    let world = world();
    assert!(active(&world, &token(&world, "j1", 80)));
    for (name, wrong) in [
        ("iss", value!("https://edge.example/another")),
        ("exp", value!(START.0)),
        ("nbf", value!(START.0 + 1)),
        ("client_id", value!("a-device")),
        ("sid", Value::Null),
        ("sid", value!("not-a-uuid")),
        ("userType", Value::Null),
        // An ID token has none.
        ("status", Value::Null),
        ("status", value!({"status_list": {"idx": 80, "uri": "https://evil.example/status/0"}})),
    ] {
        let mut claims = claims(&world, "j1", 80);
        claims[name] = wrong.clone();
        assert!(!active(&world, &sign(&world, &claims)), "{name} {wrong}");
    }
    assert!(!active(&world, &sign_status(&key(9), "JWT", &claims(&world, "j1", 80))), "another's key");
    for text in ["x", "..", "s3cr3t-refresh-token_of-43-characters-AAAAAAA"] {
        assert!(!active(&world, text), "{text}");
    }
}

#[test]
fn a_session_that_has_ended_takes_its_tokens_with_it() {
    let world = world();
    let (mine, others) = (token(&world, "j1", 80), token(&world, "j2", 88));
    assert!(active(&world, &mine) && active(&world, &others));
    let mut bits = StatusBits::new();
    bits.revoke(10, 0xff);
    world.put_status(&bits);
    world.advance(31);
    assert!(!active(&world, &mine));
    assert!(active(&world, &others));
    world.platform.kv.borrow_mut().remove(&world.status_key().to_string());
    let mut world = world;
    world.restart();
    assert_eq!(outcome(&introspect(&world, APP, &others)), UNAVAILABLE, "without the list nobody knows");
}

#[test]
fn an_app_revokes_what_was_issued_to_it_and_nothing_else() {
    let world = world();
    let (token, other_session) = (token(&world, "j1", 81), token(&world, "j2", 88));
    let revoke = |app: &str, text: &str| {
        let response = world.ask_as(app, "revoke", &format!("token={text}"));
        (response.status, response.body)
    };
    let done = (200, Vec::new());
    assert_eq!(revoke(OTHER_APP, &token), done, "answered alike");
    assert_eq!(revoke(APP, "s3cr3t-refresh-token_of-43-characters-AAAAAAA"), done, "unknown here");
    let mut id_token = claims(&world, "j3", 81);
    id_token["status"] = Value::Null;
    assert_eq!(revoke(APP, &sign(&world, &id_token)), done, "no access token");
    assert!(world.platform.delivered.borrow().is_empty());
    assert!(active(&world, &token));

    assert_eq!(revoke(APP, &token), done);
    assert!(!active(&world, &token), "at once");
    assert!(active(&world, &other_session));
    let key = EdgeKey::Revocation(world.pool, "j1".parse().unwrap());
    let delivered = world.platform.delivered.borrow();
    assert_eq!(delivered.len(), 1);
    let report =
        SignedReport::verify_kv(&delivered[0].kv_value, &key, &config(&world.root, 0).shared_secrets)
            .unwrap();
    let EdgeReport::Revocation(report) = report else { panic!("{report:?}") };
    assert_eq!(report.client_id, SESSION.parse::<ClientId>().unwrap(), "whose place it is");
    assert_eq!((report.list, report.idx), (Some(0), Some(81)));
}
