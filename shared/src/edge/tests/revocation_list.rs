//! The revocation list: what somebody who can write to KV, or delete from it, cannot undo.

use super::fleet::*;
use super::world::*;
use crate::document::*;
use crate::edge::*;
use crate::id::{ClientId, DeviceId};
use crate::kv_key::KvKey;
use crate::secret::SecretHash;

const UNAVAILABLE: &str = "503 temporarily_unavailable";
const REFUSED: &str = "401 invalid_client";
const DISABLED: &str = "invalid_grant: device_disabled";

/// The list where the client, and its device, stand as given.
fn list(
    client: impl Into<Option<(ClientId, Revoked)>>,
    device: impl Into<Option<(DeviceId, Revoked)>>,
) -> RevokedDocument {
    RevokedDocument {
        clients: client.into().into_iter().collect(),
        devices: device.into().into_iter().collect(),
    }
}

/// Replaces the client's secret by `new`, says so in the list, and gives back the record before.
fn rotate(world: &World) -> String {
    let old = world.get(&world.client_key());
    let mut client = world.client_document();
    client.secrets[0].sha256 = SecretHash::of(b"new");
    world.put_client(&client);
    world.revoke_client(Revoked::Least(world.last_version()));
    old
}

fn remove(world: &World, key: &KvKey) {
    world.platform.kv.borrow_mut().remove(&key.to_string());
}

#[test]
fn who_does_not_stand_in_the_list_gets_tokens() {
    let world = World::listed();
    assert_eq!(outcome(&world.token()), "200");
    assert_eq!(outcome(&world.token_with("x")), REFUSED);
}

#[test]
fn an_old_record_put_back_is_not_believed_and_nobody_is_told_that_they_are_unknown() {
    for replayed in ["a rotated secret", "more scopes", "a better status"] {
        let mut world = World::listed();
        let mut before = world.client_document();
        before.scopes = "device other admin".parse().unwrap();
        world.put_client(&before);
        let old = world.get(&world.client_key());
        let mut after = world.client_document();
        match replayed {
            "a rotated secret" => after.secrets[0].sha256 = SecretHash::of(b"new"),
            "a better status" => after.status = ClientStatus::Disabled,
            _ => {}
        }
        world.put_client(&after);
        world.revoke_client(Revoked::Least(world.last_version()));
        // Another isolate, which has never seen the newer record.
        world.restart();
        world.put(&world.client_key(), old);
        assert_eq!(outcome(&world.token()), UNAVAILABLE, "{replayed}");
        assert!(world.logged("record_behind"));
    }
}

#[test]
fn a_held_record_is_checked_against_the_list_of_now() {
    let world = World::listed();
    assert_eq!(outcome(&world.token()), "200");
    world.advance(20);
    let old = rotate(&world);
    world.put(&world.client_key(), old);
    // The record is read again after 30 s at most, the list too. Here the record was read later.
    world.advance(10);
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
}

#[test]
fn a_young_held_record_ends_with_the_list_and_the_newer_one_is_read() {
    let world = World::listed();
    let path = format!("/{}/oauth2/token", world.pool);
    let nobody = b"grant_type=client_credentials&client_id=nobody&client_secret=x";
    // The shards are read first, the record later, so that it is younger.
    for number in 0..20 {
        let body = format!("grant_type=client_credentials&client_id=nobody{number}&client_secret=x");
        assert_eq!(outcome(&world.handle(post(&path, body.as_bytes()))), REFUSED);
    }
    assert_eq!(outcome(&world.handle(post(&path, nobody))), REFUSED);
    world.advance(20);
    assert_eq!(outcome(&world.token()), "200");
    rotate(&world);
    world.advance(11);
    assert_eq!(outcome(&world.token()), REFUSED, "the held record is 11 s old, the list newer");
    assert_eq!(outcome(&world.token_with("new")), "200");
}

#[test]
fn while_kv_lags_behind_the_list_the_answer_is_try_again() {
    let world = World::listed();
    assert_eq!(outcome(&world.token()), "200");
    world.revoke_client(Revoked::Least(world.last_version() + 1_000));
    world.advance(31);
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
    assert_eq!(outcome(&world.token_with("wrong")), UNAVAILABLE);
    remove(&world, &world.client_key());
    assert_eq!(outcome(&world.token()), UNAVAILABLE, "the list knows that it exists");
    world.put(&world.client_key(), "rubbish".to_owned());
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
}

#[test]
fn a_record_of_the_least_version_counts() {
    let world = World::listed();
    world.put_client(&world.client_document());
    world.revoke_client(Revoked::Least(world.last_version()));
    assert_eq!(outcome(&world.token()), "200");
}

#[test]
fn a_deleted_client_stays_deleted_whatever_stands_in_kv() {
    for revoked in [Revoked::Gone, Revoked::Refused] {
        let world = World::listed();
        assert_eq!(outcome(&world.token()), "200");
        world.revoke_client(revoked);
        world.advance(31);
        assert_eq!(outcome(&world.token()), REFUSED, "the old record is still there: {revoked:?}");
        world.put_client(&world.client_document());
        assert_eq!(outcome(&world.token()), REFUSED, "a newer one too: {revoked:?}");
    }
}

#[test]
fn who_is_gone_costs_the_work_of_one_who_is_there() {
    let world = World::listed();
    world.revoke_client(Revoked::Gone);
    let other = ClientId::of_device_app(world.pool, &"other".parse().unwrap(), &"client".parse().unwrap());
    let work = |id: &ClientId| {
        let body = format!("grant_type=client_credentials&client_id={id}&client_secret=x");
        world.post(&body);
        let before = (world.platform.kv_reads.get(), world.platform.verifications.get());
        let response = world.post(&body);
        let after = (world.platform.kv_reads.get(), world.platform.verifications.get());
        (after.0 - before.0, response.body)
    };
    assert_eq!(work(&world.client), work(&other));
}

#[test]
fn without_a_list_nothing_is_issued_and_key_sets_are_served() {
    for spoil in [
        (|world, key| remove(world, key)) as fn(&World, &KvKey),
        |world, key| world.put(key, "rubbish".to_owned()),
        |world, key| {
            let mut bytes = world.get(key).into_bytes();
            let last = bytes.len() - 4;
            bytes[last] = if bytes[last] == b'A' { b'B' } else { b'A' };
            world.put(key, String::from_utf8(bytes).unwrap());
        },
        // Another shard, rightly signed.
        |world, key| {
            let other = (0..4).map(|n| KvKey::Revoked(world.pool, n)).find(|other| other != key).unwrap();
            world.put(key, world.get(&other));
        },
    ] {
        let world = World::listed();
        spoil(&world, &world.client_shard());
        assert_eq!(outcome(&world.token()), UNAVAILABLE);
        assert_eq!(outcome(&world.token_with("x")), UNAVAILABLE);
        assert_eq!(world.get_path(&format!("/{}/.well-known/jwks.json", world.pool)).status, 200);
        let metadata = format!("/{}/.well-known/oauth-authorization-server", world.pool);
        assert_eq!(world.get_path(&metadata).status, 200);
        world.put_list(&RevokedDocument::default());
        assert_eq!(outcome(&world.token()), "200", "it comes back by itself");
    }
}

#[test]
fn past_the_lists_next_update_nothing_is_issued_though_the_pool_is_signed_again() {
    let world = World::listed();
    assert_eq!(outcome(&world.token()), "200");
    world.advance(WINDOW - 1);
    world.put_pool(&world.pool_document(), WINDOW);
    assert_eq!(outcome(&world.token()), "200");
    world.advance(1);
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
    assert!(world.logged("document_expired v1/revoked/"));
    world.put_list(&RevokedDocument::default());
    assert_eq!(outcome(&world.token()), "200");
}

#[test]
fn an_old_list_put_back_is_ignored_while_a_newer_one_is_held_and_ends_where_it_is_not() {
    let mut world = World::listed();
    let old = world.get(&world.client_shard());
    world.revoke_client(Revoked::Gone);
    assert_eq!(outcome(&world.token()), REFUSED);
    world.put(&world.client_shard(), old);
    world.advance(31);
    assert_eq!(outcome(&world.token()), REFUSED, "the isolate that holds the newer one");
    assert!(world.logged("document_older v1/revoked/"));
    world.restart();
    assert_eq!(outcome(&world.token()), "200", "within the window that is stated");
    world.advance(WINDOW - 31);
    world.put_pool(&world.pool_document(), WINDOW);
    world.restart();
    assert_eq!(outcome(&world.token()), UNAVAILABLE, "and no longer");
}

#[test]
fn an_old_pool_document_brings_back_neither_the_time_without_lists_nor_its_own() {
    let mut world = World::new();
    let old = world.get(&world.pool_key());
    world.shards.set(4);
    world.put_pool(&world.pool_document(), WINDOW);
    world.revoke_client(Revoked::Gone);
    assert_eq!(outcome(&world.token()), REFUSED);
    world.put(&world.pool_key(), old);
    world.advance(31);
    assert_eq!(outcome(&world.token()), REFUSED, "the isolate holds the newer one");
    world.restart();
    world.advance(WINDOW - 31);
    assert_eq!(outcome(&world.token()), UNAVAILABLE, "at the end of its window");
}

#[test]
fn a_list_of_a_publisher_key_that_has_gone_does_not_count() {
    let mut world = World::listed();
    assert_eq!(outcome(&world.token()), "200");
    world.publisher = key(5);
    world.put_trust(&[&world.publisher], WINDOW * 8);
    world.put_pool(&world.pool_document(), WINDOW);
    world.put_client(&world.client_document());
    world.advance(31);
    assert_eq!(outcome(&world.token()), UNAVAILABLE, "the list is by the old key still");
    world.put_list(&RevokedDocument::default());
    assert_eq!(outcome(&world.token()), "200");
}

#[test]
fn while_kv_is_unreadable_the_held_list_counts_until_its_end() {
    let world = World::listed();
    assert_eq!(outcome(&world.token()), "200");
    world.platform.kv_fails.set(true);
    world.advance(WINDOW - 1);
    assert_eq!(outcome(&world.token()), "200");
    world.advance(1);
    assert_eq!(outcome(&world.token()), UNAVAILABLE);
    let mut cold = World::listed();
    assert_eq!(cold.get_path(&format!("/{}/.well-known/jwks.json", cold.pool)).status, 200);
    cold.platform.kv_fails.set(true);
    assert_eq!(outcome(&cold.token()), UNAVAILABLE);
    cold.restart();
    assert_eq!(outcome(&cold.token()), UNAVAILABLE);
}

#[test]
fn a_warm_isolate_reads_no_list_and_what_is_due_and_unchanged_is_not_verified_again() {
    let world = World::listed();
    world.token();
    let reads = world.platform.kv_reads.get();
    world.advance(29);
    assert_eq!(outcome(&world.token()), "200");
    assert_eq!(world.platform.kv_reads.get(), reads);
    world.advance(2);
    let verifications = world.platform.verifications.get();
    assert_eq!(outcome(&world.token()), "200");
    assert!(world.platform.kv_reads.get() <= reads + 5, "trust, pool, client and two shards at most");
    assert_eq!(world.platform.verifications.get(), verifications + 2, "trust and pool");
}

#[test]
fn a_slow_read_of_an_older_list_does_not_displace_a_newer_one() {
    let world = World::listed();
    let slow = world.slow_token(SECRET, &world.client_shard(), || {
        world.revoke_client(Revoked::Gone);
        assert_eq!(outcome(&world.token()), REFUSED);
    });
    assert_eq!(outcome(&slow), REFUSED);
    assert_eq!(outcome(&world.token()), REFUSED);
}

#[test]
fn a_device_that_is_refused_gets_nothing_by_any_way() {
    let fleet = Fleet::registered().listed();
    assert_eq!(outcome(&fleet.grant_good()), "200");
    assert_eq!(outcome(&fleet.token()), "200");
    fleet.revoke_device(Revoked::Refused);
    fleet.advance(31);
    assert_eq!(refusal(&fleet.grant_good()), DISABLED);
    assert_eq!(outcome(&fleet.token()), REFUSED, "its client's secret, though the record is there");
    // Whatever records are put back, or deleted.
    fleet.put_device(&fleet.device_document());
    fleet.put_client(&fleet.client_document());
    assert_eq!(refusal(&fleet.grant_good()), DISABLED);
    assert_eq!(outcome(&fleet.token()), REFUSED);
    fleet.change_pool(|pool| pool.provisioning.mode = crate::device_certificate::ProvisioningMode::Auto);
    remove(&fleet, &fleet.device_key());
    remove(&fleet, &fleet.client_key());
    assert_eq!(refusal(&fleet.grant_good()), DISABLED, "it does not come in anew");
}

#[test]
fn a_disabled_device_does_not_come_back_when_its_records_are_deleted() {
    // Under `auto`, whoever can delete from KV could make a disabled device unknown, and so new.
    let fleet = Fleet::auto().listed();
    fleet.put_client(&ClientDocument { status: ClientStatus::Disabled, ..fleet.client_document() });
    let client = (fleet.client.clone(), Revoked::Least(fleet.last_version()));
    fleet.put_device(&DeviceDocument { status: ClientStatus::Disabled, ..fleet.device_document() });
    let device = (device_id(), Revoked::Least(fleet.last_version()));
    fleet.put_list(&list(client.clone(), device.clone()));
    assert_eq!(refusal(&fleet.grant_good()), DISABLED);
    remove(&fleet, &fleet.device_key());
    assert_eq!(outcome(&fleet.grant_good()), UNAVAILABLE, "the list knows that it exists");
    remove(&fleet, &fleet.client_key());
    assert_eq!(outcome(&fleet.grant_good()), UNAVAILABLE);
    // Its client alone is enough.
    fleet.put_list(&list(client, None));
    fleet.advance(31);
    assert_eq!(outcome(&fleet.grant_good()), UNAVAILABLE);
    assert!(fleet.platform.delivered.borrow().is_empty());
}

#[test]
fn an_old_device_record_put_back_is_not_believed() {
    let mut fleet = Fleet::registered().listed();
    let old = fleet.get(&fleet.device_key());
    fleet.put_device(&DeviceDocument { status: ClientStatus::Disabled, ..fleet.device_document() });
    fleet.revoke_device(Revoked::Least(fleet.last_version()));
    assert_eq!(refusal(&fleet.grant_good()), DISABLED);
    fleet.world.restart();
    fleet.put(&fleet.device_key(), old);
    assert_eq!(outcome(&fleet.grant_good()), UNAVAILABLE);
}

#[test]
fn a_deleted_device_may_come_anew_under_auto_and_with_nothing_of_what_it_was() {
    let fleet = Fleet::auto().listed();
    let mut client = fleet.client_document();
    client.scopes = "device admin".parse().unwrap();
    fleet.put_client(&client);
    fleet.put_device(&fleet.device_document());
    assert_eq!(json(&fleet.grant_good())["scope"], "device admin");
    // Its records are still there, or have been put back: none of them counts, nor does a secret.
    fleet.put_list(&list((fleet.client.clone(), Revoked::Gone), (device_id(), Revoked::Gone)));
    fleet.advance(31);
    let anew = fleet.grant_good();
    assert_eq!(json(&anew)["scope"], "device");
    assert_eq!(json(&anew)["expires_in"], 300);
    assert_eq!(outcome(&fleet.token()), REFUSED);
    // Where only the device is listed, its clients have gone with it.
    fleet.put_list(&list(None, (device_id(), Revoked::Gone)));
    fleet.advance(31);
    assert_eq!(json(&fleet.grant_good())["scope"], "device");
    assert_eq!(outcome(&fleet.token()), REFUSED);
    // Once it is published anew, it is as any other.
    fleet.put_client(&client);
    let client = (fleet.client.clone(), Revoked::Least(fleet.last_version()));
    fleet.put_device(&fleet.device_document());
    fleet.put_list(&list(client, (device_id(), Revoked::Least(fleet.last_version()))));
    fleet.advance(31);
    assert_eq!(json(&fleet.grant_good())["expires_in"], 3600);
    assert_eq!(outcome(&fleet.token()), "200");
}

#[test]
fn a_deleted_device_is_unknown_where_devices_are_registered() {
    let fleet = Fleet::registered().listed();
    assert_eq!(outcome(&fleet.grant_good()), "200");
    fleet.revoke_device(Revoked::Gone);
    fleet.advance(31);
    assert_eq!(refusal(&fleet.grant_good()), "invalid_grant: device_unknown");
}

#[test]
fn a_client_that_is_refused_keeps_its_device_out_by_certificate_too() {
    let fleet = Fleet::auto().listed();
    fleet.revoke_client(Revoked::Refused);
    assert_eq!(refusal(&fleet.grant_good()), DISABLED);
}

#[test]
fn healthz_tells_the_age_of_the_list() {
    let world = World::listed();
    world.token();
    world.advance(7);
    let query = format!("pool={}", world.pool);
    let headers = Headers::default();
    let request =
        Request { method: "GET", path: "/healthz", query: &query, headers, body: Body::Complete(b"") };
    assert_eq!(json(&world.handle(request))["pool"]["revocationListAgeSeconds"], 7);
}

#[test]
fn each_of_thousands_is_found_and_nobody_else() {
    let world = World::listed();
    let id = |n: u32| {
        ClientId::of_device_app(world.pool, &format!("pos-{n}").parse().unwrap(), &"client".parse().unwrap())
    };
    let mut document = RevokedDocument::default();
    for n in 0..5_000 {
        document
            .clients
            .insert(id(n), if n % 2 == 0 { Revoked::Gone } else { Revoked::Least(u64::from(n) << 20) });
        // A device may be called as a client is.
        document.devices.insert(id(n + 2_500).as_str().parse().unwrap(), Revoked::Refused);
    }
    world.put_list(&document);
    let ask = |n: u32| {
        let id = id(n);
        outcome(&world.post(&format!("grant_type=client_credentials&client_id={id}&client_secret=x")))
    };
    for n in [0, 2, 2_498, 4_998, 5_000, 7_000, 10_000] {
        assert_eq!(ask(n), REFUSED, "{n}");
    }
    for n in [1, 3, 2_499, 4_999] {
        assert_eq!(ask(n), UNAVAILABLE, "{n}: the list knows it");
    }
    assert_eq!(outcome(&world.token()), "200");
}
