//! Rules that hold for the certificates of a path, one by one.

use super::builder::{
    ANY_PURPOSE, CLIENT_AUTH, CRL_SIGN, Chain, DIGITAL_SIGNATURE, Draft, KEY_CERT_SIGN, SERVER_AUTH,
    basic_constraints, dotted, key, public_key, purposes, sequence, tlv, utc,
};
use super::*;

type Change = fn(&mut Draft);

/// Applies a change to each certificate of the chain in turn and expects the same code for each, in its place.
fn everywhere(change: Change, code: Option<&'static str>) {
    at_the_root(change, code);
    at_the_intermediate(change, code);
    at_the_leaf(change, code);
}

#[track_caller]
fn at_the_root(change: Change, code: Option<&'static str>) {
    assert_eq!(changed(|chain| change(&mut chain.root)), code.map(|code| (ROOT, code)));
}

#[track_caller]
fn at_the_intermediate(change: Change, code: Option<&'static str>) {
    assert_eq!(changed(|chain| change(&mut chain.intermediate)), code.map(|code| (INTERMEDIATE, code)));
}

#[track_caller]
fn at_the_leaf(change: Change, code: Option<&'static str>) {
    assert_eq!(changed(|chain| change(&mut chain.leaf)), code.map(|code| (LEAF, code)));
}

#[test]
fn every_certificate_is_valid_now_the_root_included() {
    // 1_800_000_000 is 2027-01-15T08:00:00Z.
    everywhere(|draft| draft.not_after = utc("270115080000Z"), None);
    everywhere(|draft| draft.not_after = utc("270115075959Z"), Some("expired"));
    everywhere(|draft| draft.not_before = utc("270115080000Z"), None);
    everywhere(|draft| draft.not_before = utc("270115080001Z"), Some("not_yet_valid"));
    everywhere(|draft| draft.not_after = tlv(0x18, b"99991231235959Z"), None);
    everywhere(|draft| draft.not_after = tlv(0x18, b"20270115075959Z"), Some("expired"));
}

#[test]
fn a_critical_extension_that_is_not_known_is_refused() {
    let unknown = |draft: &mut Draft, critical| {
        let id = der::oid::ObjectIdentifier::new_unwrap("1.3.6.1.4.1.99999.1");
        draft.set(&id, critical, b"whatever".to_vec());
    };
    for at in [
        changed(|chain| unknown(&mut chain.root, true)).unwrap(),
        changed(|chain| unknown(&mut chain.intermediate, true)).unwrap(),
        changed(|chain| unknown(&mut chain.leaf, true)).unwrap(),
    ] {
        assert_eq!(at.1, "unknown_critical_extension");
    }
    for none in [
        changed(|chain| unknown(&mut chain.root, false)),
        changed(|chain| unknown(&mut chain.intermediate, false)),
        changed(|chain| unknown(&mut chain.leaf, false)),
    ] {
        assert_eq!(none, None, "nobody need understand what is not critical");
    }
    // cRLDistributionPoints and authorityInfoAccess are known, and not processed.
    for id in ["2.5.29.31", "1.3.6.1.5.5.7.1.1"] {
        let id = der::oid::ObjectIdentifier::new_unwrap(id);
        let code = changed(|chain| chain.leaf.set(&id, true, sequence(&[]))).map(|refusal| refusal.1);
        assert_eq!(code, Some("unknown_critical_extension"));
        assert_eq!(changed(|chain| chain.leaf.set(&id, false, sequence(&[]))), None);
    }
}

#[test]
fn the_refusal_names_the_extension() {
    let chain = Chain::usual();
    let id = der::oid::ObjectIdentifier::new_unwrap("1.3.6.1.4.1.99999.1");
    let x5c = [chain.leaf.with(&id, true, vec![]).sign(), chain.intermediate.sign()];
    let anchors = [chain.root.anchor()];
    let refusal = decide(&x5c, &anchors).verdict.unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the device's certificate: the critical extension 1.3.6.1.4.1.99999.1 is not understood"
    );
}

#[test]
fn key_identifiers_may_be_missing_or_wrong_but_not_critical() {
    let identifier = |draft: &mut Draft, critical| {
        draft.set(&oid::SUBJECT_KEY_IDENTIFIER, critical, tlv(0x04, b"wrong"));
    };
    assert_eq!(changed(|chain| identifier(&mut chain.intermediate, false)), None);
    let critical = changed(|chain| identifier(&mut chain.intermediate, true));
    assert_eq!(critical, Some((INTERMEDIATE, "key_identifier_critical")));
    everywhere(
        |draft| draft.set(&oid::AUTHORITY_KEY_IDENTIFIER, true, sequence(&[])),
        Some("key_identifier_critical"),
    );
    everywhere(|draft| draft.set(&oid::AUTHORITY_KEY_IDENTIFIER, false, sequence(&[])), None);
}

#[test]
fn who_issues_is_a_ca() {
    for at in [at_the_root, at_the_intermediate] {
        at(|draft| draft.remove(&oid::BASIC_CONSTRAINTS), Some("not_a_ca"));
        at(
            |draft| draft.set(&oid::BASIC_CONSTRAINTS, true, basic_constraints(false, None)),
            Some("not_a_ca"),
        );
        at(|draft| draft.set(&oid::BASIC_CONSTRAINTS, false, basic_constraints(true, None)), None);
        at(|draft| *draft = draft.clone().version_1(), Some("version_not_accepted"));
        at(
            |draft| draft.set(&oid::KEY_USAGE, true, DIGITAL_SIGNATURE.to_vec()),
            Some("may_not_sign_certificates"),
        );
        at(|draft| draft.set(&oid::KEY_USAGE, false, CRL_SIGN.to_vec()), Some("may_not_sign_certificates"));
        at(|draft| draft.remove(&oid::KEY_USAGE), None);
    }
}

#[test]
fn every_certificate_has_an_issuer() {
    at_the_leaf(|draft| draft.issuer = sequence(&[]), Some("issuer_empty"));
    at_the_intermediate(|draft| draft.issuer = sequence(&[]), Some("issuer_empty"));
    let mut root = Chain::usual().root;
    root.issuer = sequence(&[]);
    assert_eq!(TrustAnchor::from_der(root.sign()).unwrap_err(), Problem::IssuerEmpty);
    // So a CA without a name can issue nothing.
    let mut chain = Chain::usual();
    chain.intermediate.subject = sequence(&[]);
    chain.leaf.issuer = sequence(&[]);
    assert_eq!(refusal(&decide(&chain.x5c(), &[chain.anchor()])), Some((LEAF, "issuer_empty")));
}

#[test]
fn an_extended_key_usage_must_include_client_authentication_wherever_it_is() {
    let set = |purpose: &[&str]| purposes(purpose);
    for at in [at_the_root, at_the_intermediate, at_the_leaf] {
        at(
            |draft| draft.set(&oid::EXTENDED_KEY_USAGE, false, purposes(&[SERVER_AUTH])),
            Some("not_for_client_authentication"),
        );
        at(
            |draft| draft.set(&oid::EXTENDED_KEY_USAGE, true, purposes(&[SERVER_AUTH])),
            Some("not_for_client_authentication"),
        );
        at(|draft| draft.set(&oid::EXTENDED_KEY_USAGE, true, purposes(&[SERVER_AUTH, CLIENT_AUTH])), None);
        at(|draft| draft.remove(&oid::EXTENDED_KEY_USAGE), None);
    }
    // A CA may leave it open, a device may not.
    at_the_root(|draft| draft.set(&oid::EXTENDED_KEY_USAGE, false, purposes(&[ANY_PURPOSE])), None);
    at_the_intermediate(|draft| draft.set(&oid::EXTENDED_KEY_USAGE, false, purposes(&[ANY_PURPOSE])), None);
    at_the_leaf(
        |draft| draft.set(&oid::EXTENDED_KEY_USAGE, false, purposes(&[ANY_PURPOSE])),
        Some("not_for_client_authentication"),
    );
    // The rule can be switched off, and the extension must still be one.
    let chain = Chain::usual();
    let rules = Rules { client_auth: false, ..Rules::for_device(NOW) };
    let anchors = [chain.anchor()];
    let leaf = |value| chain.leaf.clone().with(&oid::EXTENDED_KEY_USAGE, false, value).sign();
    let x5c = [leaf(set(&[SERVER_AUTH])), chain.intermediate.sign()];
    assert_eq!(refusal(&decide_by(&x5c, &anchors, &rules)), None);
    let x5c = [leaf(sequence(&[])), chain.intermediate.sign()];
    assert_eq!(refusal(&decide_by(&x5c, &anchors, &rules)), Some((LEAF, "malformed")));
}

#[test]
fn serial_numbers_are_positive_and_of_at_most_20_octets() {
    for at in [at_the_intermediate, at_the_leaf] {
        at(|draft| draft.serial = tlv(0x02, &[0]), Some("serial_number"));
        at(|draft| draft.serial = tlv(0x02, &[0xff]), Some("serial_number"));
        at(|draft| draft.serial = tlv(0x02, &[0x7f; 20]), None);
        at(|draft| draft.serial = tlv(0x02, &[&[0], &[0x80; 20][..]].concat()), None);
        at(|draft| draft.serial = tlv(0x02, &[0x7f; 21]), Some("serial_number"));
        at(|draft| draft.serial = tlv(0x02, &[&[0], &[0x80; 21][..]].concat()), Some("serial_number"));
        at(|draft| draft.serial = tlv(0x02, &[0, 1]), Some("malformed"));
        at(|draft| draft.serial = tlv(0x02, &[]), Some("malformed"));
    }
    at_the_root(|draft| draft.serial = tlv(0x02, &[0]), None);
}

#[test]
fn the_signature_is_the_issuers() {
    let forged = changed(|chain| chain.leaf.signer = key("forger"));
    assert_eq!(forged, Some((LEAF, "bad_signature")));
    let forged = changed(|chain| chain.intermediate.signer = key("forger"));
    assert_eq!(forged, Some((INTERMEDIATE, "bad_signature")));
    // A root is trusted because it was uploaded: its own signature was checked then.
    assert_eq!(changed(|chain| chain.root.signer = key("forger")), None);
}

#[test]
fn the_algorithm_outside_is_the_one_inside() {
    let other = |draft: &mut Draft| draft.outer_algorithm = sequence(&[&dotted("1.2.840.10045.4.3.3")]);
    let code = "signature_algorithms_differ";
    assert_eq!(changed(|chain| other(&mut chain.leaf)), Some((LEAF, code)));
    assert_eq!(changed(|chain| other(&mut chain.intermediate)), Some((INTERMEDIATE, code)));
    let chain = Chain::usual();
    let mut root = chain.root;
    other(&mut root);
    assert_eq!(TrustAnchor::from_der(root.sign()).unwrap_err(), Problem::SignatureAlgorithmsDiffer);
}

fn both_algorithms(draft: &mut Draft, algorithm: Vec<u8>) {
    draft.inner_algorithm = algorithm.clone();
    draft.outer_algorithm = algorithm;
}

#[test]
fn weak_and_unknown_algorithms_are_refused() {
    for at in [at_the_leaf, at_the_intermediate] {
        // ecdsa-with-SHA1, ecdsa-with-SHA224, sha1WithRSAEncryption, md5WithRSAEncryption
        at(|draft| both_algorithms(draft, sequence(&[&dotted("1.2.840.10045.4.1")])), Some("weak_hash"));
        at(|draft| both_algorithms(draft, sequence(&[&dotted("1.2.840.10045.4.3.1")])), Some("weak_hash"));
        at(
            |draft| both_algorithms(draft, sequence(&[&dotted("1.2.840.113549.1.1.5"), &[5, 0]])),
            Some("weak_hash"),
        );
        at(
            |draft| both_algorithms(draft, sequence(&[&dotted("1.2.840.113549.1.1.4"), &[5, 0]])),
            Some("weak_hash"),
        );
        // Ed25519, dsa-with-sha256
        let unsupported = Some("unsupported_signature_algorithm");
        at(|draft| both_algorithms(draft, sequence(&[&dotted("1.3.101.112")])), unsupported);
        at(|draft| both_algorithms(draft, sequence(&[&dotted("2.16.840.1.101.3.4.3.2")])), unsupported);
        // ECDSA has no parameters.
        at(
            |draft| both_algorithms(draft, sequence(&[&dotted("1.2.840.10045.4.3.2"), &[5, 0]])),
            Some("malformed"),
        );
        // RSA's signature with a key that is not RSA's.
        at(
            |draft| both_algorithms(draft, sequence(&[&dotted("1.2.840.113549.1.1.11"), &[5, 0]])),
            Some("signature_of_other_kind"),
        );
        // The right kind, and another hash than was signed.
        at(
            |draft| both_algorithms(draft, sequence(&[&dotted("1.2.840.10045.4.3.3")])),
            Some("bad_signature"),
        );
    }
    // A root's own signature is no part of the path: roots from the days of SHA-1 are still roots here.
    at_the_root(|draft| both_algorithms(draft, sequence(&[&dotted("1.2.840.10045.4.1")])), None);
}

fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = sequence(&[&tlv(0x02, modulus), &tlv(0x02, exponent)]);
    sequence(&[&sequence(&[&dotted("1.2.840.113549.1.1.1"), &[5, 0]]), &super::builder::bits(&key)])
}

/// A modulus of so many bits, odd.
fn modulus(bits: usize) -> Vec<u8> {
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    modulus[0] >>= (8 - bits % 8) % 8;
    if modulus[0] >= 0x80 {
        modulus.insert(0, 0);
    }
    modulus
}

fn ec_key(curve: &str, point: &[u8]) -> Vec<u8> {
    let algorithm = sequence(&[&dotted("1.2.840.10045.2.1"), &dotted(curve)]);
    sequence(&[&algorithm, &super::builder::bits(point)])
}

const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";

#[test]
fn keys_are_rsa_from_2048_to_4096_bits_or_on_two_curves() {
    let f4 = [1, 0, 1];
    let cases: Vec<(Vec<u8>, Option<&str>)> = vec![
        (rsa_key(&modulus(2048), &f4), None),
        (rsa_key(&modulus(3072), &[3]), None),
        (rsa_key(&modulus(4096), &f4), None),
        (rsa_key(&modulus(2040), &f4), Some("key_size")),
        (rsa_key(&modulus(1024), &f4), Some("key_size")),
        (rsa_key(&modulus(2047), &f4), Some("key_size")),
        (rsa_key(&modulus(2049), &f4), Some("key_size")),
        (rsa_key(&modulus(4104), &f4), Some("key_size")),
        (rsa_key(&modulus(8192), &f4), Some("key_size")),
        (rsa_key(&modulus(2048), &[1]), Some("bad_key")),
        (rsa_key(&modulus(2048), &[4]), Some("bad_key")),
        (rsa_key(&modulus(2048), &[0]), Some("malformed")),
        (rsa_key(&modulus(2048), &[0x81]), Some("malformed")),
        (rsa_key(&modulus(2048), &[0x00, 0xff, 0xff, 0xff, 0xff]), None),
        (rsa_key(&modulus(2048), &[0x01, 0, 0, 0, 0x01]), Some("bad_key")),
        (rsa_key(&[&modulus(2048)[..256], &[0xfe]].concat(), &f4), Some("bad_key")),
        (rsa_key(&modulus(2048)[1..], &f4), Some("malformed")),
        (public_key(&key("device")), None),
        (ec_key(P256, &[&[4], &[1; 64][..]].concat()), None),
        (ec_key(P384, &[&[4], &[1; 96][..]].concat()), None),
        (ec_key(P384, &[&[4], &[1; 64][..]].concat()), Some("bad_key")),
        (ec_key(P256, &[&[4], &[1; 63][..]].concat()), Some("bad_key")),
        (ec_key(P256, &[&[5], &[1; 64][..]].concat()), Some("bad_key")),
        (ec_key(P256, &[]), Some("bad_key")),
        (ec_key(P256, &[&[2], &[1; 32][..]].concat()), Some("unsupported_key")),
        (ec_key("1.3.132.0.35", &[&[4], &[1; 132][..]].concat()), Some("unsupported_key")),
        (ec_key("1.2.840.10045.3.1.1", &[&[4], &[1; 48][..]].concat()), Some("unsupported_key")),
        // Explicit parameters, DSA, Ed25519.
        (
            sequence(&[
                &sequence(&[&dotted("1.2.840.10045.2.1"), &sequence(&[])]),
                &super::builder::bits(&[4]),
            ]),
            Some("unsupported_key"),
        ),
        (
            sequence(&[&sequence(&[&dotted("1.2.840.10040.4.1")]), &super::builder::bits(&[4])]),
            Some("unsupported_key"),
        ),
        (
            sequence(&[&sequence(&[&dotted("1.3.101.112")]), &super::builder::bits(&[4; 32])]),
            Some("unsupported_key"),
        ),
        // rsaEncryption without NULL.
        (
            sequence(&[
                &sequence(&[&dotted("1.2.840.113549.1.1.1")]),
                &super::builder::bits(&sequence(&[&tlv(0x02, &modulus(2048)), &tlv(0x02, &f4)])),
            ]),
            Some("malformed"),
        ),
    ];
    for (key, code) in cases {
        let verdict = changed(|chain| chain.leaf.public_key = key.clone());
        assert_eq!(verdict, code.map(|code| (LEAF, code)), "{key:02x?}");
    }
}

#[test]
fn the_keys_of_cas_are_held_to_the_same() {
    for at in [at_the_root, at_the_intermediate] {
        at(|draft| draft.public_key = rsa_key(&modulus(1024), &[1, 0, 1]), Some("key_size"));
        at(
            |draft| draft.public_key = ec_key("1.3.132.0.35", &[&[4], &[1; 132][..]].concat()),
            Some("unsupported_key"),
        );
    }
}

#[test]
fn a_point_off_the_curve_is_the_signers_problem() {
    let off = || ec_key(P256, &[&[4], &[1; 64][..]].concat());
    assert_eq!(changed(|chain| chain.intermediate.public_key = off()), Some((INTERMEDIATE, "bad_key")));
    assert_eq!(changed(|chain| chain.root.public_key = off()), Some((ROOT, "bad_key")));
}

#[test]
fn a_signature_is_the_der_of_two_positive_numbers() {
    let chain = Chain::usual();
    let anchors = [chain.anchor()];
    let with_signature = |signature: &[u8]| {
        let leaf =
            sequence(&[&chain.leaf.tbs(), &chain.leaf.outer_algorithm, &super::builder::bits(signature)]);
        let x5c = [leaf, chain.intermediate.sign()];
        refusal(&decide(&x5c, &anchors)).map(|refusal| refusal.1)
    };
    let integers = |r: &[u8], s: &[u8]| sequence(&[&tlv(0x02, r), &tlv(0x02, s)]);
    assert_eq!(with_signature(&integers(&[1], &[1])), Some("bad_signature"));
    for wrong in [
        integers(&[0], &[1]),
        integers(&[1], &[0]),
        integers(&[0x80], &[1]),
        integers(&[0, 1], &[1]),
        integers(&[1; 33], &[1]),
        integers(&[], &[1]),
        sequence(&[&tlv(0x02, &[1])]),
        sequence(&[&tlv(0x02, &[1]), &tlv(0x02, &[1]), &tlv(0x02, &[1])]),
        [integers(&[1], &[1]), vec![0]].concat(),
        tlv(0x31, &[2, 1, 1, 2, 1, 1]),
        vec![1; 64],
        vec![],
    ] {
        assert_eq!(with_signature(&wrong), Some("signature_encoding"), "{wrong:02x?}");
    }
}

#[test]
fn key_usage_says_something() {
    for empty in [vec![0x03, 0x01, 0x00], vec![0x03, 0x02, 0x07, 0x00], vec![0x03, 0x02, 0x00, 0x00]] {
        let refused = changed(|chain| chain.leaf.set(&oid::KEY_USAGE, true, empty.clone()));
        assert_eq!(refused, Some((LEAF, "malformed")));
    }
    // decipherOnly is the ninth bit.
    at_the_leaf(|draft| draft.set(&oid::KEY_USAGE, true, vec![0x03, 0x03, 0x07, 0x00, 0x80]), None);
    at_the_leaf(|draft| draft.set(&oid::KEY_USAGE, true, vec![0x03, 0x02, 0x01, 0x81]), Some("malformed"));
    at_the_leaf(|draft| draft.set(&oid::KEY_USAGE, true, KEY_CERT_SIGN[..3].to_vec()), Some("malformed"));
}

#[test]
fn basic_constraints_are_the_der_of_a_ca_flag_and_a_length() {
    for wrong in [
        vec![],
        sequence(&[&tlv(0x01, &[0x01])]),
        sequence(&[&tlv(0x01, &[0xff, 0xff])]),
        sequence(&[&tlv(0x01, &[])]),
        sequence(&[&tlv(0x01, &[0xff]), &tlv(0x02, &[0xff])]),
        sequence(&[&tlv(0x01, &[0xff]), &tlv(0x02, &[0x00, 0x01])]),
        sequence(&[&tlv(0x01, &[0xff]), &tlv(0x02, &[0x01]), &tlv(0x02, &[0x01])]),
        sequence(&[&tlv(0x02, &[0x01]), &tlv(0x01, &[0xff])]),
        [basic_constraints(true, None), vec![0]].concat(),
        tlv(0x31, &[0x01, 0x01, 0xff]),
    ] {
        let refused = changed(|chain| chain.intermediate.set(&oid::BASIC_CONSTRAINTS, true, wrong.clone()));
        assert_eq!(refused, Some((INTERMEDIATE, "malformed")), "{wrong:02x?}");
    }
    // What is written although it goes without saying changes nothing.
    let explicitly_none = sequence(&[&tlv(0x01, &[0x00])]);
    assert_eq!(changed(|chain| chain.leaf.set(&oid::BASIC_CONSTRAINTS, true, explicitly_none)), None);
    // A length beyond any number is no limit.
    let endless = sequence(&[&tlv(0x01, &[0xff]), &tlv(0x02, &[0x7f; 40])]);
    assert_eq!(changed(|chain| chain.root.set(&oid::BASIC_CONSTRAINTS, true, endless)), None);
}

#[test]
fn an_extension_occurs_once() {
    for id in [&oid::KEY_USAGE, &oid::SUBJECT_ALT_NAME, &der::oid::ObjectIdentifier::new_unwrap("1.2.3.4.5")]
    {
        let twice = |draft: &mut Draft| {
            let value = match draft.extensions.iter().find(|extension| extension.id == super::builder::id(id))
            {
                Some(extension) => extension.value.clone(),
                None => sequence(&[&tlv(0x82, b"a.example")]),
            };
            for _ in 0..2 {
                let id = super::builder::id(id);
                draft.extensions.push(super::builder::Extension {
                    id,
                    critical: false,
                    value: value.clone(),
                });
            }
        };
        assert_eq!(changed(|chain| twice(&mut chain.leaf)), Some((LEAF, "duplicate_extension")));
        assert_eq!(
            changed(|chain| twice(&mut chain.intermediate)),
            Some((INTERMEDIATE, "duplicate_extension"))
        );
    }
}
