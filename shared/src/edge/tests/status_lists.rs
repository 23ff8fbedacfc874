//! The Token Status List as everybody reads it.

use serde_json::json as value;

use super::world::*;
use crate::document::*;
use crate::edge::*;
use crate::status_list::*;

fn status(world: &World, number: &str) -> Response {
    world.get_path(&format!("/{}/status/{number}", world.pool))
}

fn served(world: &World) -> String {
    let response = status(world, "0");
    assert_eq!(response.status, 200, "{:?}", world.platform.log.borrow().last());
    String::from_utf8(response.body).unwrap()
}

fn revoked(block: u32) -> StatusBits {
    let mut bits = StatusBits::new();
    bits.revoke(block, 1);
    bits
}

#[test]
fn a_list_is_served_as_it_stands_in_kv_to_any_origin_and_to_caches() {
    let world = World::with_status();
    let response = status(&world, "0");
    assert_eq!(response.body, world.get(&world.status_key()).into_bytes());
    assert_eq!(header(&response, "content-type"), Some("application/statuslist+jwt"));
    assert_eq!(header(&response, "cache-control"), Some("public, max-age=60"));
    assert_eq!(header(&response, "access-control-allow-origin"), Some("*"));
    let etag = header(&response, "etag").unwrap().to_owned();
    let path = format!("/{}/status/0", world.pool);
    let headers = Headers { if_none_match: Some(&etag), ..Headers::default() };
    let request = Request { method: "GET", path: &path, query: "", headers, body: Body::Complete(b"") };
    let again = world.handle(request);
    assert_eq!((again.status, again.body.len()), (304, 0));
    world.put_status(&revoked(1));
    world.advance(31);
    assert_eq!(world.handle(request).status, 200, "another list, another tag");
    assert_eq!(world.handle(Request { method: "POST", ..request }).status, 405);
    let head = world.handle(Request { method: "HEAD", headers: Headers::default(), ..request });
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn lists_that_are_not_there_are_404_and_cost_no_reading() {
    let world = World::with_status();
    status(&world, "0");
    let reads = world.platform.kv_reads.get();
    for number in ["1", "4294967295", "x", "00", ""] {
        let response = status(&world, number);
        assert_eq!(response.status, 404, "{number}");
    }
    assert_eq!(world.platform.kv_reads.get(), reads);
    assert_eq!(world.get_path("/00000000-0000-4000-8000-000000000000/status/0").status, 404);
    let without = World::new();
    assert_eq!(status(&without, "0").status, 404);
}

#[test]
fn what_does_not_verify_is_not_served_and_displaces_nothing() {
    let good = World::with_status();
    let claims = |world: &World| StatusListClaims {
        sub: world.status_url(),
        iat: START,
        exp: START + WINDOW,
        ttl: STATUS_LIST_TTL,
        status_list: revoked(1).compress(),
    };
    let signed =
        |key_: &crate::host::PrivateKey, typ: &str, claims: &StatusListClaims| sign_status(key_, typ, claims);
    let base = claims(&good);
    let own = &good.signing;
    let with = |change: &dyn Fn(&mut StatusListClaims)| {
        let mut claims = base.clone();
        change(&mut claims);
        signed(own, STATUS_LIST_TYP, &claims)
    };
    let mut broken = with(&|_| {});
    broken.truncate(broken.len() - 2);
    for (what, text) in [
        ("a key that is not the pool's", signed(&key(9), STATUS_LIST_TYP, &base)),
        ("another type", signed(own, "JWT", &base)),
        ("another list", with(&|claims| claims.sub.push('0'))),
        ("another pool", with(&|claims| claims.sub = "https://edge.example/x/status/0".to_owned())),
        ("expired", with(&|claims| claims.exp = START)),
        ("an older one", with(&|claims| claims.iat = START - 1)),
        ("two bits", with(&|claims| claims.status_list.bits = 2)),
        ("not deflated", with(&|claims| claims.status_list.lst = "AAAA".to_owned())),
        ("its signature broken", broken),
        ("rubbish", "rubbish".to_owned()),
        ("megabytes", "A".repeat(1 << 20)),
    ] {
        let mut world = World::with_status();
        let before = served(&world);
        world.put(&world.status_key(), text);
        world.advance(31);
        assert_eq!(served(&world), before, "{what}");
        assert!(world.logged("document_refused v1/status/"), "{what}");
        if what != "an older one" {
            world.restart();
            assert_eq!(outcome(&status(&world, "0")), "503 temporarily_unavailable", "{what}");
        }
    }
    let world = World::with_status();
    world.put(&world.status_key(), signed(&world.signing, STATUS_LIST_TYP, &base));
    assert!(served(&world).len() > 100, "what they all were made from is good");
}

#[test]
fn a_bomb_is_not_inflated() {
    let world = World::with_status();
    let deflated = miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; 64 << 20], 9);
    use base64ct::{Base64UrlUnpadded, Encoding};
    let claims = value!({
        "sub": world.status_url(), "iat": START.0, "exp": START.0 + 60, "ttl": 60,
        "status_list": {"bits": 1, "lst": Base64UrlUnpadded::encode_string(&deflated)},
    });
    world.put(&world.status_key(), sign_status(&world.signing, STATUS_LIST_TYP, &claims));
    assert_eq!(status(&world, "0").status, 503);
}

#[test]
fn an_older_list_put_back_counts_neither_in_memory_nor_past_its_end() {
    let mut world = World::with_status();
    let old = world.get(&world.status_key());
    world.advance(10);
    world.put_status(&revoked(5));
    let new = served(&world);
    world.put(&world.status_key(), old.clone());
    world.advance(31);
    assert_eq!(served(&world), new);
    world.restart();
    assert_eq!(served(&world), old, "for who does not hold the newer one");
    world.advance(WINDOW - 41);
    world.restart();
    assert_eq!(status(&world, "0").status, 503, "and no longer than its exp");
}

#[test]
fn a_list_of_a_key_that_has_been_revoked_counts_no_longer() {
    let mut world = World::with_status();
    served(&world);
    world.signing = key(4);
    world.put_pool(&world.pool_document(), WINDOW);
    world.advance(31);
    assert_eq!(status(&world, "0").status, 503);
    world.put_status(&StatusBits::new());
    served(&world);
}

#[test]
fn while_kv_is_unreadable_the_held_list_is_served_until_its_exp() {
    let world = World::with_status();
    let before = served(&world);
    world.platform.kv_fails.set(true);
    world.advance(WINDOW - 20);
    assert_eq!(served(&world), before);
    assert_eq!(header(&status(&world, "0"), "cache-control"), Some("public, max-age=20"));
    world.advance(20);
    assert_eq!(status(&world, "0").status, 503);
}

#[test]
fn past_the_pools_next_update_its_own_exp_decides_for_one_token_lifetime() {
    let world = World::with_status();
    world.put_status_until(&StatusBits::new(), START + WINDOW + 7_200);
    world.advance(WINDOW + 3_599);
    served(&world);
    world.advance(1);
    assert_eq!(status(&world, "0").status, 503);
}

#[test]
fn a_warm_isolate_reads_and_verifies_nothing() {
    let world = World::with_status();
    served(&world);
    let work = || (world.platform.kv_reads.get(), world.platform.verifications.get());
    let before = work();
    world.advance(29);
    served(&world);
    assert_eq!(work(), before);
    world.advance(2);
    served(&world);
    let after = work();
    assert_eq!(
        (after.0 - before.0, after.1 - before.1),
        (3, 2),
        "trust, pool, and the list, which is as it was"
    );
}

#[test]
fn a_list_of_random_bits_fits() {
    let world = World::with_status();
    let mut bits = StatusBits::new();
    let mut state = 1_u32;
    for block in 0..LIST_BLOCKS {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bits.revoke(block, (state >> 24) as u8);
    }
    world.put_status(&bits);
    assert!(served(&world).len() > 200_000);
}

#[test]
fn the_edge_serves_what_the_pool_of_now_says() {
    let world = World::with_status();
    served(&world);
    world.put_pool(&PoolDocument { status_lists: 0, ..world.pool_document() }, WINDOW);
    world.advance(31);
    assert_eq!(status(&world, "0").status, 404);
}
