//! Requests of one isolate that overtake each other: what a slow one has read must not undo what a quicker one has learned.

use super::world::*;
use crate::kv_key::KvKey;
use crate::secret::SecretHash;

#[test]
fn a_slow_read_of_an_older_trust_does_not_bring_a_publisher_key_back() {
    let world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    world.advance(31);
    let new = key(5);
    world.slow_token(SECRET, &KvKey::Trust, || {
        world.put_trust(&[&new], WINDOW * 8);
        assert_eq!(outcome(&world.token()), "503 temporarily_unavailable");
    });
    assert_eq!(outcome(&world.token()), "503 temporarily_unavailable");
}

#[test]
fn a_slow_read_that_fails_does_not_bring_an_older_trust_back() {
    let world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    world.advance(31);
    let good = world.get(&KvKey::Trust);
    world.put(&KvKey::Trust, "rubbish".to_owned());
    let new = key(5);
    world.slow_token(SECRET, &KvKey::Trust, || {
        world.put(&KvKey::Trust, good);
        world.put_trust(&[&new], WINDOW * 8);
        assert_eq!(outcome(&world.token()), "503 temporarily_unavailable");
    });
    assert_eq!(outcome(&world.token()), "503 temporarily_unavailable");
}

#[test]
fn a_slow_read_of_an_older_pool_does_not_displace_a_newer_one() {
    let world = World::new();
    assert_eq!(outcome(&world.token()), "200");
    world.advance(31);
    let mut pool = world.pool_document();
    pool.token_ttl = 60;
    let slow = world.slow_token(SECRET, &world.pool_key(), || {
        world.put_pool(&pool, WINDOW);
        assert_eq!(json(&world.token())["expires_in"], 60);
    });
    assert_eq!(json(&slow)["expires_in"], 60, "it issues by what the isolate knows when it issues");
    assert_eq!(json(&world.token())["expires_in"], 60);
}

#[test]
fn a_slow_read_of_an_older_client_does_not_displace_a_newer_one() {
    let world = World::new();
    let mut client = world.client_document();
    client.secrets[0].sha256 = SecretHash::of(b"new");
    let slow = world.slow_token(SECRET, &world.client_key(), || {
        world.put_client(&client);
        assert_eq!(outcome(&world.token_with("new")), "200");
    });
    assert_eq!(outcome(&slow), "401 invalid_client");
    let reads = world.platform.kv_reads.get();
    assert_eq!(outcome(&world.token_with("new")), "200");
    assert_eq!(world.platform.kv_reads.get(), reads, "the newer record is still held");
}

#[test]
fn a_pool_read_slowly_does_not_count_once_its_publisher_key_has_gone() {
    let world = World::new();
    assert_eq!(world.get_path("/00000000-0000-4000-8000-000000000000/.well-known/jwks.json").status, 404);
    let slow = world.slow_token(SECRET, &world.pool_key(), || {
        world.put_trust(&[&key(5)], WINDOW * 8);
        world.advance(31);
        assert_eq!(outcome(&world.token()), "503 temporarily_unavailable");
    });
    assert_eq!(outcome(&slow), "503 temporarily_unavailable");
}
