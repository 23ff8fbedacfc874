//! What somebody can do who writes to KV, and what happens when nobody writes any more.

use base64ct::{Base64UrlUnpadded, Encoding};

use super::world::*;
use crate::document::{ClientDocument, ClientStatus, MAX_TOKEN_TTL, PoolDocument, Stamp};
use crate::edge::*;
use crate::kv_key::KvKey;

const UNAVAILABLE: &str = "503 temporarily_unavailable";
const REFUSED: &str = "401 invalid_client";

#[test]
fn a_document_with_one_byte_changed_issues_nothing() {
    for (expected, pick) in [
        (UNAVAILABLE, (|_| KvKey::Trust) as fn(&World) -> KvKey),
        (UNAVAILABLE, World::pool_key),
        (REFUSED, World::client_key),
    ] {
        let good = World::new();
        let length = good.get(&pick(&good)).len();
        for position in (0..length).step_by(length / 40) {
            let world = World::new();
            let key = pick(&world);
            let mut bytes = world.get(&key).into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            world.put(&key, String::from_utf8(bytes).unwrap());
            assert_eq!(outcome(&world.token()), expected, "{key}, byte {position}");
            assert!(world.logged("document_refused"), "{key}, byte {position}");
        }
    }
}

#[test]
fn a_document_moved_to_another_key_issues_nothing() {
    let world = World::new();
    // Another pool's document, and another client's, each rightly signed by the same publisher.
    let mut other = World::new();
    other.pool = crate::id::PoolId(uuid::Uuid::from_u128(0xbad));
    other.put_pool(&other.pool_document(), WINDOW);
    world.put(&world.pool_key(), other.get(&other.pool_key()));
    assert_eq!(outcome(&world.token()), UNAVAILABLE);

    let world = World::new();
    let mut other = World::new();
    other.client = "somebody-else".parse().unwrap();
    other.put_client(&other.client_document());
    world.put(&world.client_key(), other.get(&other.client_key()));
    assert_eq!(outcome(&world.token()), REFUSED);
    // The right families do not stand in for each other either.
    world.put(&world.client_key(), world.get(&world.pool_key()));
    assert_eq!(outcome(&world.token()), REFUSED);
}

#[test]
fn a_document_of_an_untrusted_signer_issues_nothing() {
    let mut world = World::new();
    world.publisher = key(66);
    world.put_client(&world.client_document());
    assert_eq!(outcome(&world.token()), REFUSED);
    world.put_pool(&world.pool_document(), WINDOW);
    world.restart();
    assert_eq!(outcome(&world.token()), UNAVAILABLE);

    let mut world = World::new();
    let root = std::mem::replace(&mut world.root, key(67));
    world.put_trust(&[&world.publisher], WINDOW * 8);
    world.root = root;
    world.restart();
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
}

#[test]
fn a_publisher_key_that_leaves_trust_takes_its_documents_with_it() {
    let world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    let new = key(5);
    world.put_trust(&[&new], WINDOW * 8);
    world.advance(31);
    assert_eq!(outcome(&world.token()), UNAVAILABLE, "although the isolate held both documents");
}

#[test]
fn copies_that_are_still_young_go_with_their_publisher_key_too() {
    // The trust is read first, so that it is the first to be read again.
    let warm = || {
        let world = World::new();
        assert_eq!(world.get_path("/00000000-0000-4000-8000-000000000000/.well-known/jwks.json").status, 404);
        world.advance(10);
        assert_eq!(outcome(&world.token()), "200");
        world
    };
    let world = warm();
    world.put_trust(&[&key(5)], WINDOW * 8);
    world.advance(21);
    assert_eq!(outcome(&world.token()), UNAVAILABLE, "a young pool");

    let mut world = warm();
    world.publisher = key(5);
    world.put_trust(&[&world.publisher], WINDOW * 8);
    world.put_pool(&world.pool_document(), WINDOW);
    world.advance(21);
    assert_eq!(outcome(&world.token()), REFUSED, "a young client");
}

#[test]
fn a_client_that_was_missing_or_spoilt_is_not_remembered_when_kv_fails() {
    for spoil in [
        (|world| drop(world.platform.kv.borrow_mut().remove(&world.client_key().to_string()))) as fn(&World),
        |world| world.put(&world.client_key(), "rubbish".to_owned()),
    ] {
        let world = World::new();
        assert_eq!(outcome(&world.token()), "200");
        spoil(&world);
        world.advance(31);
        assert_eq!(outcome(&world.token()), REFUSED);
        world.platform.kv_fails.set(true);
        assert_eq!(outcome(&world.token()), UNAVAILABLE);
    }
}

#[test]
fn a_new_publisher_key_is_found_without_waiting() {
    let mut world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    world.advance(1);
    let old = std::mem::replace(&mut world.publisher, key(5));
    world.put_trust(&[&old, &world.publisher], WINDOW * 8);
    let mut client = world.client_document();
    client.secrets[0].sha256 = crate::secret::SecretHash::of(b"new");
    world.put_client(&client);
    assert_eq!(outcome(&world.token_with("new")), "200");
}

#[test]
fn past_next_update_the_edge_issues_nothing_and_recovers_by_itself() {
    let world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    world.advance(WINDOW - 1);
    assert_eq!(outcome(&world.token()), "200");
    world.advance(1);
    let response = world.token();
    assert_eq!(outcome(&response), UNAVAILABLE);
    assert!(header(&response, "retry-after").is_some());
    assert!(world.logged("document_expired"));
    world.put_pool(&world.pool_document(), WINDOW);
    assert_eq!(outcome(&world.token()), "200");
}

#[test]
fn key_sets_are_served_one_token_lifetime_longer() {
    let world = World::new();
    let path = format!("/{}/.well-known/jwks.json", world.pool);
    world.advance(WINDOW + 3599);
    assert_eq!(world.get_path(&path).status, 200);
    world.advance(1);
    assert_eq!(world.get_path(&path).status, 503);
}

#[test]
fn missing_documents_issue_nothing() {
    let world = World::new();
    world.platform.kv.borrow_mut().remove("v1/trust");
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
    let world = World::new();
    world.platform.kv.borrow_mut().remove(&world.pool_key().to_string());
    assert_eq!(world.token().status, 404);
    let world = World::new();
    world.platform.kv.borrow_mut().remove(&world.client_key().to_string());
    assert_eq!(outcome(&world.token()), REFUSED);
}

#[test]
fn an_unreadable_kv_is_bridged_by_the_verified_copies_until_they_expire() {
    let world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    world.platform.kv_fails.set(true);
    world.advance(WINDOW - 1);
    assert_eq!(outcome(&world.token()), "200");
    world.advance(1);
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
    let mut cold = World::new();
    cold.platform.kv_fails.set(true);
    cold.restart();
    assert_eq!(outcome(&cold.token()), UNAVAILABLE);
}

#[test]
fn what_does_not_verify_never_displaces_a_verified_copy() {
    let world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    world.put(&KvKey::Trust, "rubbish".to_owned());
    world.put(&world.pool_key(), "rubbish".to_owned());
    world.advance(31);
    assert_eq!(outcome(&world.token()), "200");
    assert!(world.logged("document_refused v1/trust"));
    assert!(world.logged("document_refused v1/pool/"));
}

#[test]
fn a_spoilt_client_record_counts_as_absent_once_the_copy_is_due() {
    let world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    world.put(&world.client_key(), "rubbish".to_owned());
    world.advance(29);
    assert_eq!(outcome(&world.token()), "200");
    world.advance(2);
    assert_eq!(outcome(&world.token()), REFUSED);
}

#[test]
fn an_older_version_is_ignored_while_a_newer_one_is_held() {
    let world = World::new();
    let (old_pool, old_client) = (world.get(&world.pool_key()), world.get(&world.client_key()));
    let mut pool = world.pool_document();
    pool.token_ttl = 60;
    world.put_pool(&pool, WINDOW);
    let mut client = world.client_document();
    client.secrets[0].sha256 = crate::secret::SecretHash::of(b"new");
    world.put_client(&client);
    assert_eq!(json(&world.token_with("new"))["expires_in"], 60);
    world.put(&world.pool_key(), old_pool);
    world.put(&world.client_key(), old_client);
    world.advance(31);
    assert_eq!(outcome(&world.token()), REFUSED, "the old secret");
    assert_eq!(json(&world.token_with("new"))["expires_in"], 60);
}

#[test]
fn a_trust_below_min_trust_version_is_refused() {
    let mut world = World::new();
    world.edge = Edge::new(config(&world.root, 1_000));
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
    world.edge = Edge::new(config(&world.root, 101));
    assert_eq!(outcome(&world.token()), "200");
}

#[test]
fn a_changed_secret_is_accepted_at_once_and_the_old_one_goes_with_the_copy() {
    let world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    let mut client = world.client_document();
    client.secrets[0].sha256 = crate::secret::SecretHash::of(b"new");
    world.put_client(&client);
    assert_eq!(outcome(&world.token_with("new")), "200", "not told to wait for the isolate's copy");
    assert_eq!(outcome(&world.token()), REFUSED);
}

#[test]
fn a_warm_isolate_reads_nothing() {
    let world = World::new();
    world.token();
    let reads = world.platform.kv_reads.get();
    world.advance(29);
    assert_eq!(outcome(&world.token()), "200");
    assert_eq!(world.platform.kv_reads.get(), reads);
    world.advance(2);
    assert_eq!(outcome(&world.token()), "200");
    assert_eq!(world.platform.kv_reads.get(), reads + 3, "trust, pool and client, each once");
}

#[test]
fn short_windows_are_read_again_in_time() {
    let world = World::new();
    world.put_pool(&world.pool_document(), 10);
    for _ in 0..20 {
        assert_eq!(outcome(&world.token()), "200");
        world.put_pool(&world.pool_document(), 10);
        world.advance(5);
    }
}

#[test]
fn a_key_sealed_for_another_pool_or_under_another_key_does_not_sign() {
    let world = World::new();
    let mut other = World::new();
    other.pool = crate::id::PoolId(uuid::Uuid::from_u128(0xbad));
    let mut pool = world.pool_document();
    pool.signing_key = other.pool_document().signing_key;
    world.put_pool(&pool, WINDOW);
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
    assert!(world.logged("signing_key_refused"));
    let jwks = world.get_path(&format!("/{}/.well-known/jwks.json", world.pool));
    assert_eq!(jwks.status, 200, "the key set is served all the same");

    let mut world = World::new();
    let roots = serde_json::to_string(&[world.root.public()]).unwrap();
    world.edge = Edge::new(config_of(&roots, 0, &sealing_key("B")));
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
    let two = format!("{},{}", sealing_key("B"), sealing_key("A"));
    world.edge = Edge::new(config_of(&roots, 0, &two));
    assert_eq!(outcome(&world.token()), "200", "while sealing keys are rotated, both open");
}

#[test]
fn no_log_line_holds_a_secret_or_a_token() {
    let world = World::new();
    let token = json(&world.token())["access_token"].as_str().unwrap().to_owned();
    world.token_with("wr0ng-secret");
    world.put(&KvKey::Trust, "rubbish".to_owned());
    world.put(&world.client_key(), "rubbish".to_owned());
    world.advance(31);
    world.token();
    let log = world.platform.log.borrow().join("\n");
    for secret in [SECRET, "wr0ng-secret", &token, &sealing_key("A")] {
        assert!(!log.contains(secret));
    }
    assert!(log.contains("client_refused"));
}

#[test]
fn a_removed_publisher_key_leaves_no_version_behind() {
    let mut world = World::new();
    // Whoever has stolen a publisher key can sign the highest of versions.
    let key = world.pool_key();
    let stamp = Stamp { version: u64::MAX, ..world.stamp(Some(WINDOW)) };
    world.put(&key, world.publisher.sign_document(&key, stamp, &world.pool_document()).unwrap());
    let key = world.client_key();
    let stamp = Stamp { next_update: None, ..stamp };
    world.put(&key, world.publisher.sign_document(&key, stamp, &world.client_document()).unwrap());
    assert_eq!(outcome(&world.token()), "200");
    world.publisher = super::world::key(5);
    world.put_trust(&[&world.publisher], WINDOW * 8);
    world.put_pool(&world.pool_document(), WINDOW);
    let mut client = world.client_document();
    client.secrets[0].sha256 = crate::secret::SecretHash::of(b"new");
    world.put_client(&client);
    world.advance(31);
    assert_eq!(outcome(&world.token_with("new")), "200");
    assert_eq!(outcome(&world.token()), REFUSED);
}

#[test]
fn no_pool_document_makes_tokens_or_its_own_trust_outlive_a_day() {
    // Else a stolen publisher key would be good for longer than the trust documents that name it.
    let good = World::new().pool_document();
    let longest = MAX_TOKEN_TTL;
    for (token_ttl, longest_token_ttl, expected) in [
        (longest, longest, "200"),
        (longest + 1, longest + 1, UNAVAILABLE),
        (3600, u64::MAX, UNAVAILABLE),
        (3601, 3600, UNAVAILABLE),
    ] {
        let mut world = World::new();
        world.put_pool(&PoolDocument { token_ttl, longest_token_ttl, ..good.clone() }, WINDOW);
        world.restart();
        assert_eq!(outcome(&world.token()), expected, "{token_ttl} of {longest_token_ttl}");
    }
}

#[test]
fn a_key_that_is_not_in_its_key_set_does_not_sign() {
    let world = World::new();
    let mut pool = world.pool_document();
    pool.jwks.keys = vec![crate::jwk::Jwk::es256(key(9).public().clone())];
    world.put_pool(&pool, WINDOW);
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
    assert!(world.logged("signing_key_refused"));
    // Nor does one under the name of another.
    let world = World::new();
    let mut pool = world.pool_document();
    pool.jwks.keys.push(crate::jwk::Jwk::es256(key(9).public().clone()));
    pool.signing_key.as_mut().unwrap().kid = key(9).kid().clone();
    world.put_pool(&pool, WINDOW);
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
    assert!(world.logged("signing_key_refused"));
}

#[test]
fn while_kv_is_unreadable_nobody_is_refused_for_good() {
    let world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    world.platform.kv_fails.set(true);
    assert_eq!(outcome(&world.token()), "200");
    // A device that has just been activated again must not be told that its secret is wrong, and no answer may tell
    // a client that exists from one that does not.
    assert_eq!(outcome(&world.token_with("new")), UNAVAILABLE);
    let nobody = world.post("grant_type=client_credentials&client_id=nobody&client_secret=new");
    assert_eq!(outcome(&nobody), UNAVAILABLE);
}

#[test]
fn a_clock_that_goes_back_does_not_keep_a_copy_young() {
    let gone_back = || {
        let world = World::new();
        world.advance(3_000);
        assert_eq!(outcome(&world.token()), "200");
        world.platform.now.set(START);
        world
    };
    let world = gone_back();
    world.put_client(&ClientDocument { status: ClientStatus::Disabled, ..world.client_document() });
    assert_eq!(outcome(&world.token()), REFUSED);
    let world = gone_back();
    world.put_pool(&PoolDocument { token_ttl: 60, ..world.pool_document() }, WINDOW);
    assert_eq!(json(&world.token())["expires_in"], 60);
    let world = gone_back();
    world.put_trust(&[&key(5)], WINDOW * 8);
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
}

#[test]
fn what_stands_in_kv_cannot_flood_the_log() {
    let world = World::new();
    let header = format!(r#"{{"alg":"{}é","typ":"t","kid":"k"}}"#, "x".repeat(100_000));
    world.put(&world.client_key(), format!("{}.e30.AA", Base64UrlUnpadded::encode_string(header.as_bytes())));
    assert_eq!(outcome(&world.token()), REFUSED);
    assert!(world.logged("document_refused"));
    assert!(world.platform.log.borrow().iter().all(|line| line.len() < 2_000));
}

#[test]
fn while_the_root_is_replaced_both_count_and_no_third() {
    let mut world = World::new();
    let roots = serde_json::to_string(&[key(68).public(), world.root.public()]).unwrap();
    let config = config_of(&roots, 0, &sealing_key("A"));
    world.edge = Edge::new(config.clone());
    assert_eq!(outcome(&world.token()), "200", "by the second");
    world.root = key(68);
    world.put_trust(&[&world.publisher], WINDOW * 8);
    world.edge = Edge::new(config.clone());
    assert_eq!(outcome(&world.token()), "200", "by the first");
    world.root = key(69);
    world.put_trust(&[&world.publisher], WINDOW * 8);
    world.edge = Edge::new(config);
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
}

#[test]
fn past_the_end_of_trust_the_edge_issues_nothing_and_recovers_by_itself() {
    let world = World::new();
    world.put_trust(&[&world.publisher], 40);
    world.advance(30);
    assert_eq!(outcome(&world.token()), "200");
    world.advance(10);
    assert_eq!(outcome(&world.token()), UNAVAILABLE, "although the isolate read everything a moment ago");
    let jwks = format!("/{}/.well-known/jwks.json", world.pool);
    assert_eq!(world.get_path(&jwks).status, 200, "for one token lifetime");
    world.put_trust(&[&world.publisher], WINDOW);
    assert_eq!(outcome(&world.token()), "200");
}

#[test]
fn a_change_of_a_pool_with_a_short_window_is_seen_in_a_quarter_of_it() {
    let world = World::new();
    world.put_pool(&world.pool_document(), 20);
    assert_eq!(outcome(&world.token()), "200");
    world.put_pool(&PoolDocument { token_ttl: 60, ..world.pool_document() }, 20);
    world.advance(4);
    assert_eq!(json(&world.token())["expires_in"], 3600);
    world.advance(1);
    assert_eq!(json(&world.token())["expires_in"], 60);
}
