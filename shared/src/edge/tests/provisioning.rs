//! Devices that nobody has registered: they come in by their certificate, and the control plane hears of it.

use serde_json::json as value;

use super::fleet::*;
use super::world::*;
use crate::certificate::tests::builder::Draft;
use crate::document::{ClientStatus, DeviceDocument};
use crate::edge::*;
use crate::edge_report::{EdgeReport, SharedSecret, SignedReport};

fn secrets() -> Vec<SharedSecret> {
    SharedSecret::parse_list(&sealing_key("S")).unwrap()
}

/// The reports that went out, as the control plane reads them.
fn reports(fleet: &Fleet) -> Vec<Delivery> {
    fleet.platform.delivered.borrow().clone()
}

/// Another device of the same fleet.
fn another(fleet: &mut Fleet, cn: &str) -> Response {
    fleet.leaf = Draft::device("the device's key", "intermediate");
    fleet.leaf.subject = subject("05243", cn);
    fleet.grant_changed(|assertion| {
        assertion.claims["iss"] = value!(cn);
        assertion.claims["sub"] = value!(cn);
    })
}

#[test]
fn an_unknown_device_gets_its_token_in_the_first_request() {
    let fleet = Fleet::auto();
    let response = fleet.grant_good();
    let (_, mut claims) = verified(&fleet, &response);
    claims.as_object_mut().unwrap().remove("jti");
    let expected = value!({
        "iss": fleet.issuer(), "sub": DEVICE, "iat": START.0, "exp": START.0 + 300,
        "client_id": fleet.new_client().as_str(), "client_app_id": "client", "scope": ["device"],
        "metadata": {}, "tags": {"business_unit_id": "05243", "state": "*"},
        "primary_server_url": "http://localhost:6140", "server_urls": ["http://localhost:6140"],
    });
    assert_eq!(claims, expected);
    assert_eq!(json(&response)["expires_in"], 300);
}

#[test]
fn a_new_device_is_reported_once_with_its_chain() {
    let fleet = Fleet::auto();
    fleet.grant_good();
    fleet.grant_good();
    let [delivery] = &reports(&fleet)[..] else { panic!("not one report") };
    assert_eq!(delivery.url.as_deref(), Some("https://control.example/api/edge/report"));
    assert_eq!(delivery.kv_key, format!("v1/edge/{}/report/{DEVICE}", fleet.pool));
    let key = delivery.kv_key.parse().unwrap();
    let report = SignedReport::verify_kv(&delivery.kv_value, &key, &secrets()).unwrap();
    let EdgeReport::Device(report) = report else { panic!("{report:?}") };
    assert_eq!((report.pool, report.device_id, report.seen_at), (fleet.pool, device_id(), START));
    let chain: Vec<Vec<u8>> = report.x5c.iter().map(|der| der.as_bytes().to_vec()).collect();
    assert_eq!(chain, [fleet.leaf.sign(), fleet.intermediate.sign()]);

    let header = |name: &str| delivery.headers.iter().find(|(own, _)| *own == name).unwrap().1.clone();
    let posted = SignedReport {
        timestamp: crate::time::UnixTime(header("keypost-timestamp").parse().unwrap()),
        signature: header("keypost-signature"),
        body: delivery.body.clone(),
    };
    assert_eq!(posted.verify(&secrets()).unwrap().kv_key(), key);
    assert!(!delivery.body.contains("jti"), "neither the assertion nor a token");
}

#[test]
fn a_device_that_stays_unknown_is_reported_again() {
    let fleet = Fleet::auto();
    fleet.grant_good();
    fleet.advance(59);
    fleet.grant_good();
    assert_eq!(reports(&fleet).len(), 1);
    fleet.advance(1);
    fleet.grant_good();
    assert_eq!(reports(&fleet).len(), 2);
}

#[test]
fn once_its_record_is_published_a_device_is_as_any_other() {
    let fleet = Fleet::auto();
    fleet.grant_good();
    fleet.put_client(&fleet.client_document());
    fleet.pin();
    fleet.advance(61);
    let response = fleet.grant_good();
    assert_eq!(json(&response)["expires_in"], 3600);
    assert_eq!(json(&response)["scope"], "device other", "the row wins over the policy");
    assert_eq!(reports(&fleet).len(), 1);
}

#[test]
fn a_registered_device_is_reported_with_its_first_certificate() {
    let fleet = Fleet::registered();
    assert_eq!(outcome(&fleet.grant_good()), "200");
    assert_eq!(reports(&fleet).len(), 1);
    fleet.pin();
    fleet.advance(61);
    assert_eq!(outcome(&fleet.grant_good()), "200");
    assert_eq!(reports(&fleet).len(), 1);
}

#[test]
fn where_only_the_client_is_known_its_row_wins() {
    let fleet = Fleet::auto();
    let mut client = fleet.client_document();
    fleet.put_client(&client);
    assert_eq!(fleet.new_client(), fleet.client);
    let response = fleet.grant_good();
    assert_eq!(json(&response)["scope"], "device other");
    assert_eq!(json(&response)["expires_in"], 300, "until the device's own record is there");
    client.status = ClientStatus::Disabled;
    fleet.put_client(&client);
    fleet.advance(31);
    assert_eq!(refusal(&fleet.grant_good()), "invalid_grant: device_disabled");
}

#[test]
fn only_matching_certificates_bring_a_device_in() {
    let mut fleet = Fleet::auto();
    let rule = |json| serde_json::from_value(json).unwrap();
    fleet.change_pool(|pool| pool.provisioning.matching = Some(rule(value!({"o": "05244"}))));
    assert_eq!(refusal(&fleet.grant_good()), "invalid_grant: device_not_matched");
    fleet.leaf.subject = subject("05244", DEVICE);
    assert_eq!(outcome(&fleet.grant_good()), "200");
    fleet.change_pool(|pool| pool.provisioning.matching = None);
    assert_eq!(refusal(&fleet.grant_good()), "invalid_grant: device_not_matched");
}

#[test]
fn at_most_so_many_new_devices_come_in_within_an_hour() {
    let mut fleet = Fleet::auto();
    fleet.change_pool(|pool| pool.provisioning.max_per_hour = 2);
    let too_many = "invalid_grant: too_many_new_devices";
    assert_eq!(outcome(&another(&mut fleet, "a")), "200");
    assert_eq!(outcome(&another(&mut fleet, "a")), "200", "the same one does not count twice");
    assert_eq!(outcome(&another(&mut fleet, "b")), "200");
    assert_eq!(refusal(&another(&mut fleet, "c")), too_many);
    assert_eq!(outcome(&another(&mut fleet, "a")), "200");
    assert_eq!(reports(&fleet).len(), 2);
    fleet.advance(3600);
    assert_eq!(outcome(&another(&mut fleet, "c")), "200");
    fleet.change_pool(|pool| pool.provisioning.max_per_hour = 0);
    assert_eq!(refusal(&another(&mut fleet, "d")), too_many);
}

#[test]
fn a_known_device_does_not_count_as_new() {
    let fleet = Fleet::registered();
    fleet.change_pool(|pool| {
        pool.provisioning.mode = crate::device_certificate::ProvisioningMode::Auto;
        pool.provisioning.max_per_hour = 0;
    });
    assert_eq!(outcome(&fleet.grant_good()), "200");
}

#[test]
fn a_thousand_devices_are_a_thousand_reports() {
    let mut fleet = Fleet::auto();
    for number in 0..1_000 {
        assert_eq!(outcome(&another(&mut fleet, &format!("pos-{number}"))), "200");
    }
    let mut keys: Vec<String> = reports(&fleet).into_iter().map(|delivery| delivery.kv_key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 1_000);
}

#[test]
fn a_pool_that_cannot_sign_reports_nothing() {
    let fleet = Fleet::auto();
    fleet.change_pool(|pool| pool.signing_key = None);
    assert_eq!(outcome(&fleet.grant_good()), "503 temporarily_unavailable");
    assert!(reports(&fleet).is_empty());
}

#[test]
fn while_kv_cannot_be_read_known_devices_go_on_and_unknown_ones_wait() {
    let fleet = Fleet::registered();
    assert_eq!(outcome(&fleet.grant_good()), "200");
    fleet.advance(31);
    fleet.platform.kv_fails.set(true);
    assert_eq!(outcome(&fleet.grant_good()), "200");

    let mut fleet = Fleet::auto();
    assert_eq!(outcome(&another(&mut fleet, "a")), "200");
    fleet.platform.kv_fails.set(true);
    assert_eq!(outcome(&another(&mut fleet, "b")), "503 temporarily_unavailable");
}

#[test]
fn a_device_that_was_deleted_may_come_back_by_auto() {
    let fleet = Fleet::auto();
    fleet.put_client(&fleet.client_document());
    fleet.put_device(&DeviceDocument { clients: vec![fleet.client.clone()], ..fleet.device_document() });
    assert_eq!(json(&fleet.grant_good())["expires_in"], 3600);
    for key in [fleet.device_key(), fleet.client_key()] {
        fleet.platform.kv.borrow_mut().remove(&key.to_string());
    }
    fleet.advance(31);
    assert_eq!(json(&fleet.grant_good())["expires_in"], 300);
}
