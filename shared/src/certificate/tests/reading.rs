//! What is no certificate at all.

use super::builder::{Chain, Draft, bits, dotted, sequence, set, tlv, utc, utf8};
use super::*;

fn refused_as(leaf: Vec<u8>) -> Option<&'static str> {
    let chain = Chain::usual();
    let x5c = [leaf, chain.intermediate.sign()];
    refusal(&decide(&x5c, &[chain.anchor()])).map(|refusal| refusal.1)
}

#[test]
fn nothing_may_follow_or_be_missing() {
    let leaf = Chain::usual().leaf;
    let der = leaf.sign();
    assert_eq!(refused_as(der.clone()), None);
    assert_eq!(refused_as([der.clone(), vec![0]].concat()), Some("malformed"));
    for length in 0..der.len() {
        assert_eq!(refused_as(der[..length].to_vec()), Some("malformed"), "cut to {length}");
    }
    let tbs = leaf.tbs();
    let signature = bits(&[0x30, 0]);
    let algorithm = leaf.outer_algorithm.clone();
    for wrong in [
        sequence(&[&tbs, &algorithm]),
        sequence(&[&tbs, &algorithm, &signature, &signature]),
        sequence(&[&tbs, &signature, &algorithm]),
        sequence(&[&algorithm, &tbs, &signature]),
        set(&[&tbs, &algorithm, &signature]),
        sequence(&[&tbs, &algorithm, &tlv(0x04, &[0])]),
        sequence(&[&tbs, &algorithm, &tlv(0x03, &[1, 0x80])]),
        sequence(&[]),
        vec![],
    ] {
        assert_eq!(refused_as(wrong.clone()), Some("malformed"), "{wrong:02x?}");
    }
}

#[test]
fn the_fields_are_what_they_should_be() {
    let change = |change: fn(&mut Draft)| {
        let mut leaf = Chain::usual().leaf;
        change(&mut leaf);
        refused_as(leaf.sign())
    };
    let malformed = Some("malformed");
    assert_eq!(change(|leaf| leaf.serial = utf8("1")), malformed);
    assert_eq!(change(|leaf| leaf.serial = vec![]), malformed);
    assert_eq!(change(|leaf| leaf.inner_algorithm = vec![]), Some("signature_algorithms_differ"));
    assert_eq!(change(|leaf| leaf.issuer = set(&[])), malformed);
    assert_eq!(change(|leaf| leaf.subject = sequence(&[&set(&[])])), malformed);
    assert_eq!(change(|leaf| leaf.subject = sequence(&[&sequence(&[])])), malformed);
    assert_eq!(change(|leaf| leaf.subject = utf8("CN=x")), malformed);
    assert_eq!(change(|leaf| leaf.not_before = utf8("200101000000Z")), malformed);
    assert_eq!(change(|leaf| leaf.not_before = utc("2001010000Z")), malformed);
    assert_eq!(
        change(|leaf| leaf.not_after = [leaf.not_after.clone(), utc("400101000000Z")].concat()),
        malformed
    );
    assert_eq!(change(|leaf| leaf.not_after = vec![]), malformed);
    assert_eq!(change(|leaf| leaf.public_key = sequence(&[])), malformed);
    assert_eq!(change(|leaf| leaf.public_key = bits(&[4])), malformed);
    assert_eq!(change(|leaf| leaf.unique_identifiers = tlv(0xa4, &[])), malformed);
    assert_eq!(change(|leaf| leaf.unique_identifiers = tlv(0xa3, &sequence(&[]))), malformed);
}

#[test]
fn a_name_is_made_of_pairs_in_sets() {
    let cn = dotted("2.5.4.3");
    let broken = [
        sequence(&[&cn]),
        sequence(&[&utf8("x"), &cn]),
        sequence(&[&cn, &utf8("x"), &utf8("y")]),
        // Bytes that are not what their type says.
        sequence(&[&cn, &tlv(0x0c, b"\xff")]),
        sequence(&[&cn, &tlv(0x13, b"\xe9")]),
        sequence(&[&cn, &tlv(0x1e, b"\x00")]),
        // UniversalString is not read.
        sequence(&[&cn, &tlv(0x1c, b"\0\0\0x")]),
    ];
    for pair in broken {
        let mut leaf = Chain::usual().leaf;
        leaf.subject = sequence(&[&set(&[&pair])]);
        assert_eq!(refused_as(leaf.sign()), Some("malformed"), "{pair:02x?}");
    }
}

#[test]
fn extensions_are_a_list_of_at_least_one() {
    let with = |extensions: Vec<u8>| {
        let mut leaf = Chain::usual().leaf;
        leaf.extensions.clear();
        leaf.unique_identifiers = extensions;
        refused_as(leaf.sign())
    };
    let value = tlv(0x04, &[]);
    let one = sequence(&[&dotted("1.2.3"), &value]);
    assert_eq!(with(tlv(0xa3, &sequence(&[&one]))), None);
    let explicitly_not_critical = sequence(&[&dotted("1.2.3"), &tlv(0x01, &[0]), &value]);
    assert_eq!(with(tlv(0xa3, &sequence(&[&explicitly_not_critical]))), None);
    for wrong in [
        tlv(0xa3, &[]),
        tlv(0xa3, &sequence(&[])),
        tlv(0xa3, &set(&[&one])),
        tlv(0x83, &sequence(&[&one])),
        [tlv(0xa3, &sequence(&[&one])), vec![5, 0]].concat(),
        tlv(0xa3, &[sequence(&[&one]), vec![5, 0]].concat()),
        tlv(0xa3, &sequence(&[&sequence(&[&dotted("1.2.3")])])),
        tlv(0xa3, &sequence(&[&sequence(&[&value, &dotted("1.2.3")])])),
        tlv(0xa3, &sequence(&[&sequence(&[&dotted("1.2.3"), &value, &value])])),
        tlv(0xa3, &sequence(&[&sequence(&[&dotted("1.2.3"), &utf8("x")])])),
        tlv(0xa3, &sequence(&[&sequence(&[&dotted("1.2.3"), &tlv(0x01, &[1]), &value])])),
        tlv(0xa3, &sequence(&[&sequence(&[&tlv(0x06, &[0x2a, 0x80]), &value])])),
    ] {
        assert_eq!(with(wrong.clone()), Some("malformed"), "{wrong:02x?}");
    }
}

#[test]
fn lengths_are_the_shortest() {
    // The same certificate, its outer length written with one octet more.
    let der = Chain::usual().leaf.sign();
    let [0x30, 0x82, high, low, content @ ..] = der.as_slice() else { panic!("longer than 255") };
    let longer = [&[0x30, 0x83, 0, *high, *low], content].concat();
    assert_eq!(refused_as(longer), Some("malformed"));
    let indefinite = [&[0x30, 0x80], content, &[0, 0]].concat();
    assert_eq!(refused_as(indefinite), Some("malformed"));
}

#[test]
fn there_are_limits_to_what_is_read() {
    let code = |change: &dyn Fn(&mut Draft)| {
        let mut leaf = Chain::usual().leaf;
        change(&mut leaf);
        refused_as(leaf.sign())
    };
    let too_many = Some("too_many_parts");
    let with_extensions = |count: u32| {
        code(&|leaf| {
            leaf.extensions.clear();
            for number in 0..count {
                let id = der::oid::ObjectIdentifier::new(&format!("1.2.3.{number}")).unwrap();
                leaf.set(&id, false, vec![]);
            }
        })
    };
    assert_eq!(with_extensions(64), None);
    assert_eq!(with_extensions(65), too_many);
    let with_purposes = |count: usize| {
        code(&|leaf| {
            let purposes = super::builder::purposes(&vec![super::builder::CLIENT_AUTH; count]);
            leaf.set(&oid::EXTENDED_KEY_USAGE, false, purposes);
        })
    };
    assert_eq!(with_purposes(64), None);
    assert_eq!(with_purposes(65), too_many);
    let with_attributes = |count: usize| {
        let units = vec![(oid::ORGANIZATIONAL_UNIT, utf8("x")); count];
        code(&|leaf| leaf.subject = super::builder::name(&units))
    };
    assert_eq!(with_attributes(64), None);
    assert_eq!(with_attributes(65), too_many);
    let with_length = |length: usize| {
        let unit = [(oid::ORGANIZATIONAL_UNIT, utf8(&"x".repeat(length - 21)))];
        let name = super::builder::name(&unit);
        assert_eq!(name.len(), length);
        code(&|leaf| leaf.subject = name.clone())
    };
    assert_eq!(with_length(2048), None);
    assert_eq!(with_length(2049), too_many);
}
