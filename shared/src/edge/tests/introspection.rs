//! Who learns what about a token (RFC 7662).

use proptest::prelude::*;
use serde_json::{Value, json as value};

use super::fleet::*;
use super::world::*;
use crate::document::*;
use crate::edge::*;
use crate::kv_key::{EdgeKey, KvKey};
use crate::status_list::*;

const UNAVAILABLE: &str = "503 temporarily_unavailable";

/// A world with a service client that may ask about any token.
fn world() -> World {
    let world = World::with_status();
    world.put_service("asker", "introspect");
    world
}

fn introspect(world: &World, token: &str) -> Response {
    world.ask_as("asker", "introspect", &format!("token={token}"))
}

fn active(world: &World, token: &str) -> bool {
    let response = introspect(world, token);
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    let body = json(&response);
    let active = body["active"].as_bool().unwrap();
    assert!(active || body == value!({"active": false}), "{body}");
    active
}

fn claims_of(token: &str) -> Value {
    use base64ct::{Base64UrlUnpadded, Encoding};
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn whoever_may_ask_reads_what_the_token_says() {
    let world = world();
    let token = world.access_token();
    let response = introspect(&world, &token);
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    let expected = value!({
        "active": true, "scope": "device other", "client_id": world.client.as_str(), "token_type": "Bearer",
        "exp": START.0 + 3600, "iat": START.0, "sub": "05243-001",
        "iss": format!("https://edge.example/{}", world.pool), "jti": claims_of(&token)["jti"],
    });
    assert_eq!(json(&response), expected);
}

#[test]
fn profile_rfc9068_has_its_audience() {
    let world = world();
    let pool = PoolDocument {
        claims_profile: ClaimsProfile::Rfc9068,
        audience: vec!["a".to_owned(), "b".to_owned()],
        ..world.pool_document()
    };
    world.put_pool(&pool, WINDOW);
    let body = json(&introspect(&world, &world.access_token()));
    assert_eq!(body["aud"], value!(["a", "b"]));
    assert_eq!(body["scope"], "device other");
}

#[test]
fn a_client_reads_its_own_and_strangers_read_nothing() {
    let world = world();
    let token = world.access_token();
    let body = format!("token={token}");
    let own = world.ask_as(world.client.as_str(), "introspect", &body);
    assert_eq!(json(&own)["active"], true);
    let inactive = value!({"active": false});
    // A service client without the scope; a device with it, about another's.
    world.put_service("stranger", "device");
    assert_eq!(json(&world.ask_as("stranger", "introspect", &body)), inactive);
    world.put_service("asker-of-devices", "introspect");
    let service = world.ask_as("asker-of-devices", "token", "grant_type=client_credentials");
    let service = json(&service)["access_token"].as_str().unwrap().to_owned();
    assert!(active(&world, &service), "tokens of service clients too");
    world.put_client(&ClientDocument {
        scopes: "device other introspect".parse().unwrap(),
        ..world.client_document()
    });
    world.advance(31);
    let by_device = world.ask_as(world.client.as_str(), "introspect", &format!("token={service}"));
    assert_eq!(json(&by_device), inactive, "a device may ask about its own alone, whatever its scopes");
    // Not authenticated.
    let path = format!("/{}/oauth2/introspect", world.pool);
    for body in [body.clone(), format!("client_id=asker&client_secret=wrong&{body}")] {
        let response = world.handle(post(&path, body.as_bytes()));
        assert_eq!(outcome(&response), "401 invalid_client");
    }
    assert_eq!(outcome(&world.ask_as("asker", "introspect", "")), "400 invalid_request");
}

#[test]
fn what_is_no_token_of_the_pool_is_inactive() {
    let world = world();
    let token = world.access_token();
    let mut claims = claims_of(&token);
    let signed = |claims: &Value| sign_status(&world.signing, "JWT", claims);
    assert!(active(&world, &signed(&claims)));
    for (name, wrong) in [
        ("iss", value!("https://edge.example/another")),
        ("exp", value!(START.0)),
        ("nbf", value!(START.0 + 1)),
        ("client_id", value!("nobody")),
        ("client_id", Value::Null),
        ("jti", value!("no/jti")),
        ("status", value!({"status_list": {"idx": 40, "uri": "https://evil.example/status/0"}})),
        ("status", value!({})),
    ] {
        let good = claims.clone();
        claims[name] = wrong.clone();
        assert!(!active(&world, &signed(&claims)), "{name} {wrong}");
        claims = good;
    }
    assert!(!active(&world, &sign_status(&key(9), "JWT", &claims)), "a key that is not in the key set");
    assert!(!active(&world, &sign_status(&world.signing, "statuslist+jwt", &claims)));
    let status = world.get(&world.status_key());
    for text in [status.as_str(), "x", "..", &"A".repeat(100_000), &world.get(&world.pool_key())] {
        assert!(!active(&world, text));
    }
    world.advance(3600);
    assert!(!active(&world, &token), "expired");
}

#[test]
fn a_revoked_token_is_inactive_at_once_and_in_other_isolates() {
    let mut world = world();
    let (first, second) = (world.access_token(), world.access_token());
    assert!(active(&world, &first));
    let response = world.ask_as(world.client.as_str(), "revoke", &format!("token={first}"));
    assert_eq!(response.status, 200);
    assert!(!active(&world, &first), "the isolate that took it");
    assert!(!active(&world, &second), "and whatever had its index");
    let third = world.access_token();
    assert!(active(&world, &third));
    world.restart();
    assert!(!active(&world, &first), "another one of the location");
    assert!(active(&world, &third));
    world.platform.noted.borrow_mut().clear();
    world.restart();
    assert!(!active(&world, &first), "another location, by KV");
}

#[test]
fn a_token_that_is_asked_about_again_is_looked_up_every_five_seconds() {
    let world = world();
    let token = world.access_token();
    assert!(active(&world, &token));
    let reads = world.platform.kv_reads.get();
    let notes = world.platform.notes_asked.get();
    for _ in 0..5 {
        assert!(active(&world, &token));
    }
    world.advance(4);
    assert!(active(&world, &token));
    assert_eq!(world.platform.kv_reads.get(), reads);
    assert_eq!(world.platform.notes_asked.get(), notes + 1, "the pool's note, once a second");
    world.advance(1);
    assert!(active(&world, &token));
    assert_eq!(world.platform.kv_reads.get(), reads + 1);
}

#[test]
fn an_isolate_that_has_just_said_active_hears_of_a_revocation_in_another_one() {
    for (same_location, seconds) in [(true, 1), (false, 5)] {
        let mut world = world();
        let token = world.access_token();
        let mut other = world.another_isolate();
        for _ in 0..2 {
            // The second time, after something else has been revoked here.
            std::mem::swap(&mut world.edge, &mut other);
            assert!(active(&world, &token));
            std::mem::swap(&mut world.edge, &mut other);
            world.put_service("else", "device");
            let response = world.ask_as("else", "token", "grant_type=client_credentials");
            let another = json(&response)["access_token"].as_str().unwrap().to_owned();
            world.ask_as("else", "revoke", &format!("token={another}"));
            world.advance(1);
        }
        world.ask_as(world.client.as_str(), "revoke", &format!("token={token}"));
        if !same_location {
            world.platform.noted.borrow_mut().clear();
        }
        world.advance(seconds);
        std::mem::swap(&mut world.edge, &mut other);
        assert!(!active(&world, &token), "same location: {same_location}");
    }
}

#[test]
fn what_somebody_writes_to_kv_revokes_nothing() {
    let mut world = world();
    let (token, other) = (world.access_token(), world.access_token());
    let key = |token: &str| {
        EdgeKey::Revocation(world.pool, claims_of(token)["jti"].as_str().unwrap().parse().unwrap())
            .to_string()
    };
    let put = |key: &str, text: &str| world.platform.kv.borrow_mut().insert(key.to_owned(), text.to_owned());
    for rubbish in ["", "x", "1.2.3", r#"1700000000.AAAA.{"kind":"revocation"}"#] {
        put(&key(&token), rubbish);
        assert!(active(&world, &token), "{rubbish}");
    }
    assert!(world.logged("revocation_refused"));
    // A genuine one, moved to another token.
    world.ask_as(world.client.as_str(), "revoke", &format!("token={other}"));
    let genuine = world.platform.kv.borrow()[&key(&other)].clone();
    put(&key(&token), &genuine);
    world.platform.noted.borrow_mut().clear();
    world.restart();
    assert!(active(&world, &token));
}

#[test]
fn the_status_list_counts_and_must_be_there() {
    let world = world();
    let token = world.access_token();
    assert!(active(&world, &token));
    let mut bits = StatusBits::new();
    bits.revoke(BLOCK.block, 1);
    world.put_status(&bits);
    world.advance(31);
    assert!(!active(&world, &token));

    for spoil in ["rubbish", ""] {
        let mut world = self::world();
        let token = world.access_token();
        match spoil {
            "" => drop(world.platform.kv.borrow_mut().remove(&world.status_key().to_string())),
            rubbish => world.put(&world.status_key(), rubbish.to_owned()),
        }
        world.restart();
        assert_eq!(outcome(&introspect(&world, &token)), UNAVAILABLE, "{spoil:?}");
        world.put_status(&StatusBits::new());
        assert!(active(&world, &token));
    }
}

#[test]
fn a_client_that_is_disabled_deleted_or_revoked_takes_its_tokens_with_it() {
    let changed = |change: &dyn Fn(&World)| {
        let world = world();
        let token = world.access_token();
        assert!(active(&world, &token));
        change(&world);
        world.advance(31);
        world.put_service("asker", "introspect");
        outcome_of(&introspect(&world, &token))
    };
    let inactive = "inactive";
    let disable = |world: &World| {
        world.put_client(&ClientDocument { status: ClientStatus::Disabled, ..world.client_document() });
    };
    assert_eq!(changed(&|world| disable(world)), inactive);
    let remove = |world: &World| drop(world.platform.kv.borrow_mut().remove(&world.client_key().to_string()));
    assert_eq!(changed(&|world| remove(world)), inactive);
    assert_eq!(changed(&|world| world.put(&world.client_key(), "rubbish".to_owned())), inactive);
    // The list alone, whatever record stands in KV.
    for revoked in [Revoked::Gone, Revoked::Refused] {
        assert_eq!(changed(&|world| world.revoke_client(revoked)), inactive);
        let device = |world: &World| {
            let devices = [("05243-001".parse().unwrap(), revoked)].into();
            world.put_list(&RevokedDocument { devices, ..RevokedDocument::default() });
        };
        assert_eq!(changed(&device), inactive, "its device");
    }
    let lag = |world: &World| world.revoke_client(Revoked::Least(world.last_version() + 9));
    assert_eq!(changed(&lag), UNAVAILABLE, "KV is behind the list: nobody knows");
    assert_eq!(changed(&|_| {}), "active");
}

fn outcome_of(response: &Response) -> String {
    match json(response)["active"].as_bool() {
        Some(true) => "active".to_owned(),
        Some(false) => "inactive".to_owned(),
        None => outcome(response),
    }
}

#[test]
fn past_next_update_and_without_a_list_there_is_no_answer() {
    let world = world();
    world.advance(WINDOW - 60);
    let token = world.access_token();
    assert!(active(&world, &token));
    world.advance(60);
    assert_eq!(outcome(&introspect(&world, &token)), UNAVAILABLE);
    let world = self::world();
    let token = world.access_token();
    world.edge.shards.forget();
    for number in 0..4 {
        world.platform.kv.borrow_mut().remove(&KvKey::Revoked(world.pool, number).to_string());
    }
    assert_eq!(outcome(&introspect(&world, &token)), UNAVAILABLE);
}

#[test]
fn while_kv_is_unreadable_what_is_held_answers() {
    let world = world();
    let token = world.access_token();
    assert!(active(&world, &token));
    world.platform.kv_fails.set(true);
    world.advance(600);
    assert!(active(&world, &token));
}

#[test]
fn a_device_that_has_just_come_in_by_certificate_is_active_until_it_is_known() {
    let fleet = Fleet::auto().listed();
    fleet.lists.set(1);
    fleet.put_status(&StatusBits::new());
    fleet.change_pool(|pool| pool.status_lists = 1);
    fleet.put_service("asker", "introspect");
    let token = json(&fleet.grant_good())["access_token"].as_str().unwrap().to_owned();
    assert!(active(&fleet, &token));
    // Deleted since: it stands in the list.
    fleet.revoke_device(Revoked::Gone);
    fleet.advance(31);
    assert!(!active(&fleet, &token));
    fleet.put_list(&RevokedDocument::default());
    fleet.advance(31);
    assert!(active(&fleet, &token));
    fleet
        .change_pool(|pool| pool.provisioning.mode = crate::device_certificate::ProvisioningMode::Registered);
    assert!(!active(&fleet, &token));
}

#[test]
fn a_certificate_bound_token_says_what_it_is_bound_to() {
    let fleet = Fleet::registered();
    fleet.change_pool(|pool| pool.bind_to_certificate = true);
    fleet.put_service("asker", "introspect");
    let token = json(&fleet.grant_good())["access_token"].as_str().unwrap().to_owned();
    let body = json(&introspect(&fleet, &token));
    assert_eq!(body["cnf"]["x5t#S256"], fleet.thumbprint().to_base64url());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    /// Whatever token arrives: an answer below 500, never a panic, never active.
    #[test]
    fn no_text_is_an_active_token(
        endpoint in "introspect|revoke",
        token in prop_oneof![
            "[A-Za-z0-9._-]{1,200}",
            "eyJ[A-Za-z0-9_-]{0,80}\\.eyJ[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{86}",
        ],
        cut in 0..700_usize,
    ) {
        let world = world();
        let genuine = world.access_token();
        for text in [token.as_str(), genuine.get(..cut.min(genuine.len() - 1)).unwrap()] {
            let response = world.ask_as("asker", &endpoint, &format!("token={text}"));
            prop_assert!(response.status < 500);
            prop_assert!(!String::from_utf8_lossy(&response.body).contains("true"));
        }
        prop_assert!(world.platform.delivered.borrow().is_empty());
    }
}
