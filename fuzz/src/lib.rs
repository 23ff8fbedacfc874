//! What both targets stand on: genuine chains of openssl (tests/vectors/openssl), whose roots are trusted.
//!
//! A finding is a panic, or something accepted that nobody signed.

use base64ct::{Base64, Encoding};
use keypost_shared::certificate::{CertificateDer, TrustAnchor};
use keypost_shared::device_certificate::{
    CertificateMatch, PoolTrustAnchor, ProvisioningMode, ProvisioningPolicy,
};
use keypost_shared::time::UnixTime;

/// Within the validity of the vectors.
pub const NOW: UnixTime = UnixTime(1_800_000_000);

macro_rules! pem {
    ($name:literal) => {
        der(include_str!(concat!("../../tests/vectors/openssl/", $name, ".pem")))
    };
}

/// The devices' certificates, DER.
pub fn devices() -> Vec<Vec<u8>> {
    vec![
        pem!("rsa-device"),
        pem!("p256-device"),
        pem!("p384-device"),
        pem!("mixed-device"),
        pem!("pss-device"),
    ]
}

/// The roots that are trusted, DER.
pub fn roots() -> Vec<Vec<u8>> {
    vec![pem!("rsa-root"), pem!("p256-root"), pem!("p384-root"), pem!("mixed-root"), pem!("pss-root")]
}

/// The same, read.
pub fn anchors() -> Vec<TrustAnchor> {
    roots().into_iter().map(|der| TrustAnchor::from_der(der).expect("a root of the vectors")).collect()
}

/// The same, as a pool has them.
pub fn pool_anchors() -> Vec<PoolTrustAnchor> {
    let entry = |der| PoolTrustAnchor { certificate: CertificateDer::new(der), replaces: None };
    roots().into_iter().map(entry).collect()
}

/// A policy that lets in every device.
pub fn policy() -> ProvisioningPolicy {
    ProvisioningPolicy {
        mode: ProvisioningMode::Auto,
        matching: Some(CertificateMatch::Any),
        ..ProvisioningPolicy::default()
    }
}

/// Takes bytes apart into the DER elements that they seem to be one after the other; what is left is the last one.
pub fn elements(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let length = match bytes {
            [_, short @ 0..=0x7f, ..] => 2 + usize::from(*short),
            [_, 0x82, high, low, ..] => 4 + (usize::from(*high) << 8 | usize::from(*low)),
            [_, 0x81, length, ..] => 3 + usize::from(*length),
            _ => bytes.len(),
        };
        let (one, rest) = bytes.split_at(length.min(bytes.len()));
        out.push(one.to_vec());
        bytes = rest;
    }
    out
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    Base64::decode_vec(&body).expect("a PEM file of the vectors")
}
