//! Chains that openssl made (tests/vectors/openssl), as people make them.

use std::path::Path;

use super::super::root_upload::{self, RootUploadError};
use super::*;

fn pem(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/openssl");
    std::fs::read(folder.join(format!("{name}.pem"))).unwrap()
}

fn der(name: &str) -> Vec<u8> {
    use base64ct::{Base64, Encoding};
    let pem = String::from_utf8(pem(name)).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    Base64::decode_vec(&body).unwrap()
}

fn code(name: &str) -> Option<(Place, &'static str)> {
    let x5c = ["device", "intermediate", "root"].map(|part| der(&format!("{name}-{part}")));
    let anchors = [TrustAnchor::from_der(x5c[2].clone()).unwrap()];
    let without_root = refusal(&decide(&x5c[..2], &anchors));
    assert_eq!(refusal(&decide(&x5c, &anchors)), without_root);
    without_root
}

#[test]
fn what_openssl_makes_by_default_is_accepted() {
    for name in ["rsa", "p256", "p384", "mixed", "pss", "pss-max"] {
        assert_eq!(code(name), None, "{name}");
    }
}

#[test]
fn what_is_too_weak_is_not() {
    assert_eq!(code("sha1"), Some((INTERMEDIATE, "weak_hash")));
    assert_eq!(code("rsa1024"), Some((ROOT, "key_size")));
    assert_eq!(code("p521"), Some((ROOT, "unsupported_key")));
}

#[test]
fn chains_of_one_root_lead_to_no_other() {
    let anchors = [TrustAnchor::from_der(der("p256-root")).unwrap()];
    let x5c = [der("rsa-device"), der("rsa-intermediate")];
    assert_eq!(refusal(&decide(&x5c, &anchors)), Some((INTERMEDIATE, "unknown_issuer")));
    let mixed = [der("rsa-device"), der("p256-intermediate")];
    assert_eq!(refusal(&decide(&mixed, &anchors)), Some((INTERMEDIATE, "not_in_order")));
}

#[test]
fn the_device_is_who_its_subject_says() {
    let x5c = [der("rsa-device"), der("rsa-intermediate")];
    let anchors = [TrustAnchor::from_der(der("rsa-root")).unwrap()];
    let valid = decide(&x5c, &anchors).verdict.unwrap();
    let subject = valid.subject().unwrap();
    assert_eq!(subject.organization.as_deref(), Some("05243"));
    assert_eq!(subject.common_name.as_deref(), Some("pos-terminal-001"));
    assert_eq!(valid.leaf().subject().to_string(), "CN=pos-terminal-001,O=05243,L=City,ST=State,C=US");
    assert_eq!(valid.leaf().issuer().to_string(), "CN=rsa intermediate,O=Retail Corp,C=US");
}

/// Every octet of a device's certificate is signed, encoded in one way, or the signature itself.
#[test]
fn no_bit_of_a_certificate_can_be_changed() {
    let (device, intermediate) = (der("p256-device"), der("p256-intermediate"));
    let anchors = [TrustAnchor::from_der(der("p256-root")).unwrap()];
    for position in 0..device.len() {
        for bit in [0, 3, 7] {
            let mut changed = device.clone();
            changed[position] ^= 1 << bit;
            let x5c = [changed, intermediate.clone()];
            assert!(decide(&x5c, &anchors).verdict.is_err(), "octet {position}, bit {bit}");
        }
    }
}

#[test]
fn roots_of_openssl_can_be_uploaded() {
    let upload = |name: &str| pollster::block_on(root_upload::check(&HostCrypto, &pem(name), NOW));
    for name in ["rsa-root", "p256-root", "p384-root", "mixed-root", "pss-root"] {
        assert_eq!(upload(name).unwrap().der(), der(name), "{name}");
    }
    assert_eq!(upload("rsa-intermediate").unwrap_err(), RootUploadError::NotSelfSigned);
    let device = RootUploadError::NotACa(Problem::Version(1));
    assert_eq!(upload("rsa-device").unwrap_err(), device);
    assert_eq!(upload("sha1-root").unwrap_err(), RootUploadError::WeakHash(Problem::WeakHash));
    let weak = RootUploadError::WeakKey(Problem::KeySize { bits: 1024 });
    assert_eq!(upload("rsa1024-root").unwrap_err(), weak);
    assert_eq!(upload("p521-root").unwrap_err(), RootUploadError::WeakKey(Problem::UnsupportedKey));
}
