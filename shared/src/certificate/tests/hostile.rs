//! Bytes that nobody meant: whatever comes in, nothing panics, and nothing that was signed can be changed.
//! `PROPTEST_CASES=100000 cargo test -p keypost-shared hostile` looks longer.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::root_upload;
use super::builder::{Chain, Draft, sequence, tlv};
use super::*;

/// What can happen to bytes on their way.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Cut(Index),
    Double(Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, to)| Change::Set(at, to)),
        4 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => (any::<Index>(), vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (any::<Index>(), 1usize..20).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (any::<Index>(), 1usize..40).prop_map(|(at, count)| Change::Double(at, count)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        let range = |at: &Index, count: usize| {
            let start = at.index(length);
            start..(start + count).min(length)
        };
        match self {
            Change::Set(at, to) => bytes[at.index(length)] = *to,
            Change::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Change::Insert(at, more) => drop(bytes.splice(range(at, 0), more.iter().copied())),
            Change::Remove(at, count) => drop(bytes.drain(range(at, *count))),
            Change::Cut(at) => bytes.truncate(at.index(length)),
            Change::Double(at, count) => {
                let again = bytes[range(at, *count)].to_vec();
                bytes.splice(range(at, 0), again);
            }
        }
    }
}

/// Chains with much in them: names of every form, constraints, policies.
fn rich() -> Chain {
    let mut chain = Chain::usual();
    let dns = tlv(0x82, b"store.example");
    let ip = tlv(0x87, &[10, 0, 0, 0, 255, 0, 0, 0]);
    let directory = tlv(0xa4, &sequence(&[]));
    let subtrees: Vec<u8> = [dns.clone(), ip, directory].iter().flat_map(|base| sequence(&[base])).collect();
    chain.root.set(&oid::NAME_CONSTRAINTS, true, sequence(&[&tlv(0xa0, &subtrees)]));
    let policy = sequence(&[&sequence(&[&super::builder::dotted("1.2.3.4")])]);
    chain.root.set(&oid::POLICY_CONSTRAINTS, true, sequence(&[&tlv(0x80, &[0])]));
    chain.intermediate.set(&oid::CERTIFICATE_POLICIES, false, policy.clone());
    chain.leaf.set(&oid::CERTIFICATE_POLICIES, false, policy);
    let names =
        sequence(&[&tlv(0x82, b"pos1.store.example"), &tlv(0x87, &[10, 1, 2, 3]), &tlv(0x86, b"urn:x")]);
    chain.leaf.set(&oid::SUBJECT_ALT_NAME, false, names);
    chain
}

fn tbs(der: &[u8]) -> Vec<u8> {
    Certificate::read(der).unwrap().tbs().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_chain_is_refused_or_says_what_was_signed(
        is_rich in any::<bool>(),
        which in 0usize..2,
        changes in vec(change(), 1..4),
    ) {
        let chain = if is_rich { rich() } else { Chain::usual() };
        let anchors = [chain.anchor()];
        let original = chain.x5c();
        let mut changed = original.clone();
        changes.iter().for_each(|change| change.apply(&mut changed[which]));
        if let Ok(valid) = decide(&changed, &anchors).verdict {
            prop_assert_eq!(valid.leaf().tbs(), tbs(&original[0]));
            prop_assert_eq!(valid.intermediates()[0].tbs(), tbs(&original[1]));
        }
    }

    #[test]
    fn a_changed_root_panics_nobody(changes in vec(change(), 1..4)) {
        let chain = rich();
        let mut root = chain.root.sign();
        changes.iter().for_each(|change| change.apply(&mut root));
        if let Ok(anchor) = TrustAnchor::from_der(root) {
            let _ = decide(&chain.x5c(), &[anchor]);
        }
    }

    #[test]
    fn whatever_stands_in_an_extension_panics_nobody(
        which in 0usize..11,
        where_to in 0usize..3,
        critical in any::<bool>(),
        changes in vec(change(), 0..4),
        bytes in vec(any::<u8>(), 0..60),
    ) {
        let known = [
            &oid::BASIC_CONSTRAINTS, &oid::KEY_USAGE, &oid::EXTENDED_KEY_USAGE, &oid::SUBJECT_ALT_NAME,
            &oid::NAME_CONSTRAINTS, &oid::CERTIFICATE_POLICIES, &oid::POLICY_MAPPINGS, &oid::POLICY_CONSTRAINTS,
            &oid::INHIBIT_ANY_POLICY, &oid::SUBJECT_KEY_IDENTIFIER, &oid::AUTHORITY_KEY_IDENTIFIER,
        ];
        let mut chain = rich();
        let draft: &mut Draft = match where_to {
            0 => &mut chain.leaf,
            1 => &mut chain.intermediate,
            _ => &mut chain.root,
        };
        // Changed from what was there, so that it is read deep down; otherwise anything.
        let id = super::builder::id(known[which]);
        let mut value = match draft.extensions.iter().find(|extension| extension.id == id) {
            Some(extension) => extension.value.clone(),
            None => sequence(&[&bytes]),
        };
        changes.iter().for_each(|change| change.apply(&mut value));
        draft.set(known[which], critical, value);
        if let Ok(anchor) = TrustAnchor::from_der(chain.root.sign()) {
            let _ = decide(&chain.x5c(), &[anchor]);
        }
    }

    #[test]
    fn bytes_are_no_certificate(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(Certificate::read(&bytes).is_err());
        prop_assert!(TrustAnchor::from_der(bytes.clone()).is_err());
        let upload = pollster::block_on(root_upload::check(&HostCrypto, &bytes, NOW));
        prop_assert!(upload.is_err());
        let _ = ecdsa_from_der(&bytes, Curve::P384);
    }

    #[test]
    fn an_ecdsa_signature_has_one_der(r in any::<[u8; 32]>(), s in any::<[u8; 32]>()) {
        let raw = [r, s].concat();
        if let Ok(signature) = p256::ecdsa::Signature::from_slice(&raw) {
            prop_assert_eq!(ecdsa_from_der(signature.to_der().as_bytes(), Curve::P256), Some(raw));
        }
    }
}

#[test]
fn the_rich_chain_is_valid() {
    let chain = rich();
    assert_eq!(refusal(&decide(&chain.x5c(), &[chain.anchor()])), None);
}
