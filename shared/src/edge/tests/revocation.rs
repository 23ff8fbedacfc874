//! Clients that revoke their tokens (RFC 7009), and the status that tokens carry.

use base64ct::{Base64, Encoding};
use serde_json::{Value, json as value};

use super::fleet::*;
use super::world::*;
use crate::document::*;
use crate::edge::*;
use crate::edge_report::{EdgeReport, RevocationReport, SharedSecret, SignedReport};
use crate::kv_key::{EdgeKey, KvKey};
use crate::status_list::*;

fn revoke(world: &World, token: &str) -> Response {
    world.ask_as(world.client.as_str(), "revoke", &format!("token={token}"))
}

fn claims_of(token: &str) -> Value {
    use base64ct::Base64UrlUnpadded;
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// The index that a token carries.
fn index_of(token: &str) -> Option<u64> {
    claims_of(token)["status"]["status_list"]["idx"].as_u64()
}

fn revocation_key(world: &World, token: &str) -> EdgeKey {
    EdgeKey::Revocation(world.pool, claims_of(token)["jti"].as_str().unwrap().parse().unwrap())
}

fn in_kv(world: &World, key: &EdgeKey) -> Option<String> {
    world.platform.kv.borrow().get(&key.to_string()).cloned()
}

fn is_empty_200(response: &Response) -> bool {
    response.status == 200
        && response.body.is_empty()
        && header(response, "cache-control") == Some("no-store")
}

#[test]
fn a_token_says_where_its_status_is_found() {
    let world = World::with_status();
    let status = claims_of(&world.access_token())["status"].clone();
    assert_eq!(status, value!({"status_list": {"idx": 40, "uri": world.status_url()}}));
}

#[test]
fn a_record_with_bits_gives_out_the_lowest_clear_one() {
    let world = World::with_status();
    let block = |revoked| Some(StatusBlock { revoked, ..BLOCK });
    world.put_client(&ClientDocument { status_block: block(0b1011), ..world.client_document() });
    assert_eq!(index_of(&world.access_token()), Some(42));
    let next = |block| {
        world.put_client(&ClientDocument { status_block: block, ..world.client_document() });
        world.advance(31);
        let response = world.token();
        let token = json(&response)["access_token"].as_str().unwrap().to_owned();
        (index_of(&token), json(&response)["expires_in"].as_u64().unwrap())
    };
    assert_eq!(next(block(0x7f)), (Some(47), 3600));
    assert_eq!(next(block(0xff)), (None, 300), "a full block");
    assert_eq!(next(None), (None, 300), "none yet");
    assert_eq!(next(Some(StatusBlock { list: 1, ..BLOCK })), (None, 300), "a list that nobody can read yet");
    assert_eq!(next(Some(StatusBlock { block: u32::MAX, ..BLOCK })), (None, 300));
}

#[test]
fn in_a_pool_without_lists_tokens_are_as_they_were() {
    let world = World::new();
    let response = world.token();
    assert_eq!(json(&response)["expires_in"], 3600);
    assert_eq!(index_of(json(&response)["access_token"].as_str().unwrap()), None);
}

#[test]
fn a_revoked_token_is_kept_in_kv_and_told_to_the_control_plane() {
    let world = World::with_status();
    let token = world.access_token();
    world.advance(100);
    assert!(is_empty_200(&revoke(&world, &token)));
    let key = revocation_key(&world, &token);
    let secrets = SharedSecret::parse_list(&sealing_key("S")).unwrap();
    let kept = in_kv(&world, &key).expect("KV has it");
    let expected = EdgeReport::Revocation(RevocationReport {
        pool: world.pool,
        jti: claims_of(&token)["jti"].as_str().unwrap().parse().unwrap(),
        client_id: world.client.clone(),
        exp: START + 3600,
        list: Some(0),
        idx: Some(40),
        revoked_at: START + 100,
    });
    assert_eq!(SignedReport::verify_kv(&kept, &key, &secrets).unwrap(), expected);
    let delivered = world.platform.delivered.borrow();
    let [delivery] = &delivered[..] else { panic!("{delivered:?}") };
    assert_eq!(delivery.kv_ttl, 3500, "as long as the token lives");
    assert_eq!(delivery.url.as_deref(), Some("https://control.example/api/edge/report"));
    assert!(!delivery.body.contains(&token), "never the token itself");
}

#[test]
fn the_next_token_uses_the_next_bit_at_once_until_the_block_is_full() {
    let world = World::with_status();
    for index in 40..48 {
        let token = world.access_token();
        assert_eq!(index_of(&token), Some(index));
        assert!(is_empty_200(&revoke(&world, &token)));
    }
    let response = world.token();
    assert_eq!(json(&response)["expires_in"], 300);
    let token = json(&response)["access_token"].as_str().unwrap().to_owned();
    assert_eq!(index_of(&token), None);
    // That one can be revoked as well.
    assert!(is_empty_200(&revoke(&world, &token)));
    assert!(in_kv(&world, &revocation_key(&world, &token)).is_some());
    // A new block.
    let block = StatusBlock { list: 0, block: 9, revoked: 0 };
    world.put_client(&ClientDocument { status_block: Some(block), ..world.client_document() });
    world.advance(31);
    assert_eq!(index_of(&world.access_token()), Some(72));
}

#[test]
fn another_isolate_of_the_location_knows_with_the_first_token_and_asks_once_a_record() {
    let mut world = World::with_status();
    let token = world.access_token();
    revoke(&world, &token);
    let other = world.access_token();
    revoke(&world, &other);
    world.restart();
    assert_eq!(index_of(&world.access_token()), Some(42));
    let asked = world.platform.notes_asked.get();
    for _ in 0..5 {
        world.access_token();
    }
    assert_eq!(world.platform.notes_asked.get(), asked, "no question per token");
    world.advance(31);
    world.access_token();
    assert_eq!(
        world.platform.notes_asked.get(),
        asked + 2,
        "the pool's note, and one as the record is read again"
    );
}

#[test]
fn who_hangs_up_while_the_location_is_asked_keeps_nobody_from_asking() {
    let mut world = World::with_status();
    let token = world.access_token();
    revoke(&world, &token);
    world.restart();
    *world.platform.slow_note.borrow_mut() = Some("revoked-bits/".to_owned());
    let meanwhile = world.begun_token(SECRET, |_| world.access_token());
    assert_eq!(index_of(&meanwhile), Some(41), "another one at the same time");
    assert_eq!(index_of(&world.access_token()), Some(41), "and one after the first has gone");
}

#[test]
fn where_nothing_has_been_revoked_the_location_is_asked_once_a_second_for_the_pool() {
    let world = World::with_status();
    world.put_service("other", "device");
    for _ in 0..5 {
        world.access_token();
        assert_eq!(world.ask_as("other", "token", "grant_type=client_credentials").status, 200);
    }
    assert_eq!(world.platform.notes_asked.get(), 1);
    world.advance(1);
    world.access_token();
    assert_eq!(world.platform.notes_asked.get(), 2);
}

#[test]
fn an_isolate_that_holds_the_record_hears_of_a_revocation_in_another_one_here_within_a_second() {
    let mut world = World::with_status();
    let mut other = world.another_isolate();
    for index in 40..43 {
        let token = world.access_token();
        std::mem::swap(&mut world.edge, &mut other);
        assert_eq!(index_of(&world.access_token()), Some(index));
        std::mem::swap(&mut world.edge, &mut other);
        revoke(&world, &token);
        world.advance(1);
    }
}

#[test]
fn who_revokes_twice_is_answered_twice_and_written_once() {
    let world = World::with_status();
    let token = world.access_token();
    assert!(is_empty_200(&revoke(&world, &token)));
    assert!(is_empty_200(&revoke(&world, &token)));
    assert_eq!(world.platform.delivered.borrow().len(), 1);
}

#[test]
fn a_token_about_to_expire_is_kept_for_as_long_as_kv_can() {
    let world = World::with_status();
    let token = world.access_token();
    world.advance(3590);
    assert!(is_empty_200(&revoke(&world, &token)));
    assert_eq!(world.platform.delivered.borrow()[0].kv_ttl, 60);
}

#[test]
fn whatever_is_not_ones_own_is_left_alone_and_answered_the_same() {
    let world = World::with_status();
    world.put_service("other", "device");
    let others = world.ask_as("other", "token", "grant_type=client_credentials");
    let others = json(&others)["access_token"].as_str().unwrap().to_owned();
    let own = world.access_token();
    // Another pool's token, rightly signed by the same key.
    let mut claims = claims_of(&own);
    claims["iss"] = value!("https://edge.example/another");
    let foreign = sign_status(&world.signing, "JWT", &claims);
    // A text of another type by the pool's key, and a token of a key that has gone.
    let other_type = sign_status(&world.signing, "statuslist+jwt", &claims_of(&own));
    let other_key = sign_status(&key(9), "JWT", &claims_of(&own));
    let mut forged = own.clone().into_bytes();
    let last = forged.len() - 5;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let refresh = "some-refresh-token".to_owned();
    let long = "A".repeat(100_000);
    let deep = format!("{}.{}.AA", "e30", "W1tb".repeat(10_000));
    let mut kept = vec![others.clone(), foreign, other_type, other_key, forged, refresh, long, deep];
    kept.extend(["..", "a.b.c", "x", "%00"].map(str::to_owned));
    for token in kept {
        for hint in
            ["", "&token_type_hint=access_token", "&token_type_hint=refresh_token", "&token_type_hint=x"]
        {
            let body = format!("token={token}{hint}");
            let response = world.ask_as(world.client.as_str(), "revoke", &body);
            assert!(is_empty_200(&response), "{token}: {response:?}");
        }
    }
    assert!(world.platform.delivered.borrow().is_empty(), "nothing was revoked");
    world.advance(3600);
    assert!(is_empty_200(&revoke(&world, &own)), "expired");
    assert!(world.platform.delivered.borrow().is_empty());
}

#[test]
fn a_hint_changes_nothing_for_ones_own() {
    for hint in ["refresh_token", "access_token", "pigeon"] {
        let world = World::with_status();
        let token = world.access_token();
        let body = format!("token={token}&token_type_hint={hint}");
        assert!(is_empty_200(&world.ask_as(world.client.as_str(), "revoke", &body)));
        assert!(in_kv(&world, &revocation_key(&world, &token)).is_some(), "{hint}");
    }
}

#[test]
fn only_authenticated_clients_revoke_and_a_token_must_be_named() {
    let world = World::with_status();
    let token = world.access_token();
    let path = format!("/{}/oauth2/revoke", world.pool);
    let ask = |authorization: Option<&str>, body: String| {
        let mut request = post(&path, body.as_bytes());
        request.headers.authorization = authorization;
        world.handle(request)
    };
    let id = &world.client;
    for body in [
        format!("token={token}"),
        format!("client_id={id}&token={token}"),
        format!("client_id={id}&client_secret=wrong&token={token}"),
        format!("client_id=nobody&client_secret={SECRET}&token={token}"),
    ] {
        assert_eq!(outcome(&ask(None, body)), "401 invalid_client");
    }
    let basic =
        |secret: &str| format!("Basic {}", Base64::encode_string(format!("{id}:{secret}").as_bytes()));
    let refused = ask(Some(&basic("wrong")), format!("token={token}"));
    assert_eq!(outcome(&refused), "401 invalid_client");
    assert!(header(&refused, "www-authenticate").is_some_and(|value| value.starts_with("Basic")));
    for body in [String::new(), "token=".to_owned()] {
        assert_eq!(outcome(&ask(Some(&basic(SECRET)), body)), "400 invalid_request");
    }
    assert_eq!(outcome(&ask(Some(&basic(SECRET)), format!("token={token}&token=x"))), "400 invalid_request");
    assert!(world.platform.delivered.borrow().is_empty());
    assert!(is_empty_200(&ask(Some(&basic(SECRET)), format!("token={token}"))));
    assert_eq!(world.platform.delivered.borrow().len(), 1);
}

#[test]
fn a_device_revokes_by_its_certificate_too() {
    let fleet = Fleet::registered();
    let token = fleet.access_token();
    let mut own = fleet.assertion();
    own.claims["iss"] = value!(fleet.client.as_str());
    own.claims["sub"] = value!(fleet.client.as_str());
    let kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    let body = format!("client_assertion_type={kind}&client_assertion={}&token={token}", own.sign());
    let path = format!("/{}/oauth2/revoke", fleet.pool);
    assert!(is_empty_200(&fleet.handle(post(&path, body.as_bytes()))));
    assert!(in_kv(&fleet, &revocation_key(&fleet, &token)).is_some());
}

#[test]
fn it_is_accepted_once_kv_or_the_control_plane_has_it_and_else_not() {
    let world = World::with_status();
    let token = world.access_token();
    world.platform.control_plane_accepts.set(false);
    assert!(is_empty_200(&revoke(&world, &token)), "the control plane is down");

    let world = World::with_status();
    let token = world.access_token();
    world.platform.kv_fails.set(true);
    assert!(is_empty_200(&revoke(&world, &token)), "KV is down");

    let world = World::with_status();
    let token = world.access_token();
    world.platform.kv_fails.set(true);
    world.platform.control_plane_accepts.set(false);
    let response = revoke(&world, &token);
    assert_eq!(outcome(&response), "503 temporarily_unavailable");
    assert!(header(&response, "retry-after").is_some());
    assert_eq!(index_of(&world.access_token()), Some(40), "it did not happen");
    world.platform.kv_fails.set(false);
    assert!(is_empty_200(&revoke(&world, &token)), "nor does it count as done");
    assert!(in_kv(&world, &revocation_key(&world, &token)).is_some());
}

#[test]
fn revoking_goes_on_past_next_update_and_without_a_list() {
    let world = World::with_status();
    world.advance(WINDOW - 10);
    let token = world.access_token();
    world.advance(20);
    assert_eq!(outcome(&world.token()), "503 temporarily_unavailable");
    assert!(is_empty_200(&revoke(&world, &token)));
    assert_eq!(world.platform.delivered.borrow().len(), 1);
    let again = World::with_status();
    let token = again.access_token();
    for number in 0..4 {
        again.put(&KvKey::Revoked(again.pool, number), "rubbish".to_owned());
    }
    again.edge.shards.forget();
    assert_eq!(outcome(&again.token()), "503 temporarily_unavailable");
    assert!(is_empty_200(&revoke(&again, &token)));
    // One token lifetime later there is nothing left to revoke.
    world.advance(3600);
    assert_eq!(outcome(&revoke(&world, &token)), "503 temporarily_unavailable");
}

#[test]
fn who_has_been_revoked_does_not_revoke() {
    let world = World::with_status();
    let token = world.access_token();
    world.revoke_client(Revoked::Gone);
    world.advance(31);
    assert_eq!(outcome(&revoke(&world, &token)), "401 invalid_client");
}

#[test]
fn a_deleted_pool_serves_what_verifies_its_tokens_and_nothing_else() {
    let world = World::with_status();
    let token = world.access_token();
    world.put_pool(&PoolDocument { deleted: true, ..world.pool_document() }, WINDOW);
    world.put_status(&StatusBits::all_revoked());
    world.advance(31);
    for endpoint in ["token", "revoke", "introspect"] {
        let response = world.ask_as(
            world.client.as_str(),
            endpoint,
            &format!("grant_type=client_credentials&token={token}"),
        );
        assert_eq!(response.status, 404, "{endpoint}");
        let unknown = "/00000000-0000-4000-8000-000000000000/oauth2/token";
        assert_eq!(response.body, world.handle(post(unknown, b"")).body, "{endpoint}");
        let path = format!("/{}/oauth2/{endpoint}", world.pool);
        let preflight = Request { method: "OPTIONS", ..post(&path, b"") };
        assert_eq!(world.handle(preflight).status, 404);
    }
    for path in [".well-known/jwks.json", ".well-known/oauth-authorization-server", "status/0"] {
        assert_eq!(world.get_path(&format!("/{}/{path}", world.pool)).status, 200, "{path}");
    }
}

#[test]
fn cors_is_that_of_the_token_endpoint() {
    let world = World::with_status();
    let mut pool = world.pool_document();
    pool.cors_origins = vec!["https://app.example".to_owned()];
    world.put_pool(&pool, WINDOW);
    for endpoint in ["revoke", "introspect"] {
        let path = format!("/{}/oauth2/{endpoint}", world.pool);
        for (origin, allowed) in
            [("https://app.example", Some("https://app.example")), ("https://evil.example", None)]
        {
            for method in ["OPTIONS", "POST"] {
                let mut request = post(&path, b"token=x");
                request.method = method;
                request.headers.origin = Some(origin);
                let response = world.handle(request);
                assert_eq!(header(&response, "access-control-allow-origin"), allowed, "{method} {origin}");
            }
        }
        let get = world.get_path(&path);
        assert_eq!((get.status, header(&get, "allow")), (405, Some("POST, OPTIONS")));
    }
}

#[test]
fn the_metadata_names_the_endpoints_and_how_clients_authenticate_there() {
    let world = World::new();
    let metadata = json(&world.get_path(&format!("/{}/.well-known/oauth-authorization-server", world.pool)));
    let issuer = format!("https://edge.example/{}", world.pool);
    for (name, leaf) in [("revocation", "revoke"), ("introspection", "introspect")] {
        assert_eq!(metadata[format!("{name}_endpoint")], format!("{issuer}/oauth2/{leaf}"));
        for what in ["auth_methods", "auth_signing_alg_values"] {
            let own = &metadata[format!("{name}_endpoint_{what}_supported")];
            assert_eq!(own, &metadata[format!("token_endpoint_{what}_supported")]);
            assert!(own.as_array().is_some_and(|all| !all.is_empty()));
        }
    }
}
