//! What the device's certificate may and may not be.

use super::builder::{
    Chain, DIGITAL_SIGNATURE, Draft, KEY_CERT_SIGN, basic_constraints, name, printable, sequence, set, tlv,
    utf8,
};
use super::*;

#[test]
fn version_1_is_for_devices_only() {
    assert_eq!(changed(|chain| chain.leaf = chain.leaf.clone().version_1()), None);
    let refused = changed(|chain| chain.intermediate = chain.intermediate.clone().version_1());
    assert_eq!(refused, Some((INTERMEDIATE, "version_not_accepted")));
    let refused = changed(|chain| chain.root = chain.root.clone().version_1());
    assert_eq!(refused, Some((ROOT, "version_not_accepted")));
}

#[test]
fn version_1_has_no_extensions_and_no_unique_identifiers() {
    let refused = changed(|chain| chain.leaf.version.clear());
    assert_eq!(refused, Some((LEAF, "fields_of_version_3")));
    let refused = changed(|chain| {
        chain.leaf = chain.leaf.clone().version_1();
        chain.leaf.unique_identifiers = tlv(0x81, &[0, 1]);
    });
    assert_eq!(refused, Some((LEAF, "fields_of_version_3")));
}

#[test]
fn other_versions_are_refused() {
    let version = |number: u8| tlv(0xa0, &[0x02, 0x01, number]);
    for (number, code) in [(0, "malformed"), (1, "version_not_accepted"), (3, "version_not_accepted")] {
        let refused = changed(|chain| {
            chain.leaf.extensions.clear();
            chain.leaf.version = version(number);
        });
        assert_eq!(refused, Some((LEAF, code)), "{number}");
    }
    let refused = changed(|chain| chain.leaf.version = version(1));
    assert_eq!(refused, Some((LEAF, "fields_of_version_3")));
    let refused = changed(|chain| chain.leaf.version = tlv(0xa0, &[0x04, 0x01, 0x02]));
    assert_eq!(refused, Some((LEAF, "malformed")));
}

#[test]
fn version_3_needs_no_extensions_and_may_have_unique_identifiers() {
    assert_eq!(changed(|chain| chain.leaf.extensions.clear()), None);
    let identifiers = [tlv(0x81, &[0, 1]), tlv(0x82, &[0, 2])].concat();
    assert_eq!(changed(|chain| chain.leaf.unique_identifiers = identifiers), None);
    let swapped = [tlv(0x82, &[0, 1]), tlv(0x81, &[0, 2])].concat();
    assert_eq!(changed(|chain| chain.leaf.unique_identifiers = swapped), Some((LEAF, "malformed")));
}

#[test]
fn a_ca_is_no_device() {
    let ca = |path_length| basic_constraints(true, path_length);
    let as_device = Some((LEAF, "ca_as_device"));
    assert_eq!(changed(|chain| chain.leaf.set(&oid::BASIC_CONSTRAINTS, true, ca(None))), as_device);
    assert_eq!(changed(|chain| chain.leaf.set(&oid::BASIC_CONSTRAINTS, false, ca(Some(0)))), as_device);
    let chain = Chain::usual();
    let x5c = [chain.intermediate.sign()];
    assert_eq!(refusal(&decide(&x5c, &[chain.anchor()])), as_device);
    let x5c = [chain.root.sign()];
    assert_eq!(refusal(&decide(&x5c, &[chain.anchor()])), as_device, "not even the root itself");
}

#[test]
fn a_device_has_no_rights_of_a_ca() {
    let without_ca = Some((LEAF, "ca_rights_without_ca"));
    let not_a_ca = |path_length| basic_constraints(false, path_length);
    assert_eq!(changed(|chain| chain.leaf.set(&oid::BASIC_CONSTRAINTS, true, not_a_ca(None))), None);
    assert_eq!(changed(|chain| chain.leaf.set(&oid::BASIC_CONSTRAINTS, true, not_a_ca(Some(0)))), without_ca);
    assert_eq!(changed(|chain| chain.leaf.set(&oid::KEY_USAGE, true, KEY_CERT_SIGN.to_vec())), without_ca);
    let both = vec![0x03, 0x02, 0x02, 0x84];
    assert_eq!(changed(|chain| chain.leaf.set(&oid::KEY_USAGE, false, both)), without_ca);
    let constraints = sequence(&[&tlv(0xa0, &sequence(&[&tlv(0x82, b"example.com")]))]);
    let refused = changed(|chain| chain.leaf.set(&oid::NAME_CONSTRAINTS, true, constraints));
    assert_eq!(refused, Some((LEAF, "name_constraints_without_ca")));
}

#[test]
fn a_device_without_a_subject_has_a_critical_alternative_name() {
    let names = || sequence(&[&tlv(0x82, b"device.example")]);
    let refused = changed(|chain| chain.leaf.subject = sequence(&[]));
    assert_eq!(refused, Some((LEAF, "subject_empty")));
    let with = |critical| {
        changed(|chain| {
            chain.leaf.subject = sequence(&[]);
            chain.leaf.set(&oid::SUBJECT_ALT_NAME, critical, names());
        })
    };
    assert_eq!(with(false), Some((LEAF, "subject_empty")));
    assert_eq!(with(true), None);
    // With a subject it is as one likes.
    for critical in [false, true] {
        assert_eq!(changed(|chain| chain.leaf.set(&oid::SUBJECT_ALT_NAME, critical, names())), None);
    }
}

#[test]
fn alternative_names_are_read() {
    let names = sequence(&[
        &tlv(0x81, b"ops@example.com"),
        &tlv(0x82, b"device.example"),
        &tlv(0xa4, &super::builder::common_name("x")),
        &tlv(0x86, b"urn:uuid:1"),
        &tlv(0x87, &[192, 0, 2, 1]),
        &tlv(0x87, &[0x20; 16]),
        &tlv(0x88, &[0x2a]),
    ]);
    let chain = Chain::usual();
    let x5c =
        [chain.leaf.clone().with(&oid::SUBJECT_ALT_NAME, false, names).sign(), chain.intermediate.sign()];
    let anchors = [chain.anchor()];
    let valid = decide(&x5c, &anchors).verdict.unwrap();
    let forms: Vec<_> = valid.alternative_names().iter().map(GeneralName::form).collect();
    use NameForm::*;
    assert_eq!(forms, [Rfc822Name, DnsName, DirectoryName, Uri, IpAddress, IpAddress, RegisteredId]);
    assert_eq!(valid.alternative_names()[1], GeneralName::Dns("device.example"));
}

#[test]
fn malformed_alternative_names_are_refused() {
    for wrong in [
        b"example.com".to_vec(),
        vec![],
        sequence(&[]),
        tlv(0x31, &tlv(0x82, b"a")),
        sequence(&[&tlv(0x87, &[192, 0, 2])]),
        sequence(&[&tlv(0x87, &[192, 0, 2, 0, 255, 255, 255, 0])]),
        sequence(&[&tlv(0x82, "é".as_bytes())]),
        sequence(&[&tlv(0xa2, b"a")]),
        sequence(&[&tlv(0x89, b"a")]),
        sequence(&[&tlv(0x84, &super::builder::common_name("x"))]),
        sequence(&[&tlv(0xa4, b"x")]),
        sequence(&[&utf8("x")]),
        [sequence(&[&tlv(0x82, b"a")]), vec![0]].concat(),
    ] {
        let refused = changed(|chain| chain.leaf.set(&oid::SUBJECT_ALT_NAME, false, wrong.clone()));
        assert_eq!(refused, Some((LEAF, "malformed")), "{wrong:02x?}");
    }
}

fn subject_of(name: Vec<u8>) -> Result<Subject, SubjectError> {
    let mut draft = Draft::device("device", "ca");
    draft.subject = name;
    Subject::of(Certificate::read(&draft.sign()).unwrap().subject())
}

#[test]
fn the_subject_names_the_device_as_it_stands() {
    let subject = subject_of(name(&[
        (oid::COUNTRY, printable("US")),
        (oid::ORGANIZATION, printable("05243")),
        (oid::ORGANIZATIONAL_UNIT, utf8("Kasse")),
        (oid::ORGANIZATIONAL_UNIT, utf8("Süd")),
        (oid::COMMON_NAME, utf8(" POS-Terminal-001 ")),
    ]));
    let subject = subject.unwrap();
    assert_eq!(subject.organization.as_deref(), Some("05243"));
    assert_eq!(subject.organizational_units, ["Kasse", "Süd"]);
    assert_eq!(subject.common_name.as_deref(), Some(" POS-Terminal-001 "));
    assert_eq!(subject_of(sequence(&[])), Ok(Subject::default()));
}

#[test]
fn an_ambiguous_subject_names_nobody() {
    let cn = |text| (oid::COMMON_NAME, utf8(text));
    let o = |text| (oid::ORGANIZATION, utf8(text));
    assert_eq!(subject_of(name(&[cn("a"), cn("b")])), Err(SubjectError::Several("CN")));
    assert_eq!(subject_of(name(&[cn("a"), cn("a")])), Err(SubjectError::Several("CN")));
    assert_eq!(subject_of(name(&[o("a"), o("b"), cn("a")])), Err(SubjectError::Several("O")));
    // In one RDN as in two.
    let attribute = |text| sequence(&[&super::builder::id(&oid::COMMON_NAME), &utf8(text)]);
    let one_set = sequence(&[&set(&[&attribute("a"), &attribute("b")])]);
    assert_eq!(subject_of(one_set), Err(SubjectError::Several("CN")));
}

#[test]
fn what_cannot_be_seen_names_nobody() {
    for unseen in ["", "a\0b", "a\nb", "a\u{7f}", "a\u{200b}b", "\u{202e}a", "a\u{feff}", "a\u{e0041}"] {
        let subject = subject_of(name(&[(oid::COMMON_NAME, utf8(unseen))]));
        assert_eq!(subject, Err(SubjectError::NotPrintable("CN")), "{unseen:?}");
    }
    let octets = subject_of(name(&[(oid::COMMON_NAME, tlv(0x04, b"abc"))]));
    assert_eq!(octets, Err(SubjectError::NotPrintable("CN")));
    assert_eq!(octets.unwrap_err().code(), "subject_not_printable");
    let unit = subject_of(name(&[(oid::ORGANIZATIONAL_UNIT, utf8("a\0"))]));
    assert_eq!(unit, Err(SubjectError::NotPrintable("OU")));
}

#[test]
fn a_name_prints_by_rfc_4514() {
    let mut draft = Draft::device("device", "ca");
    draft.subject = name(&[
        (oid::COUNTRY, printable("US")),
        (oid::ORGANIZATION, utf8("Retail, Inc. \"R\"")),
        (oid::ORGANIZATIONAL_UNIT, utf8(" #a ")),
        (oid::COMMON_NAME, utf8("é\u{202e}\n")),
        (der::oid::ObjectIdentifier::new_unwrap("1.2.3.4"), tlv(0x04, b"x")),
    ]);
    let der = draft.sign();
    let text = Certificate::read(&der).unwrap().subject().to_string();
    assert_eq!(text, r#"1.2.3.4=#040178,CN=é\E2\80\AE\0A,OU=\ #a\ ,O=Retail\, Inc. \"R\",C=US"#);
    draft.subject = sequence(&[&set(&[
        &sequence(&[&super::builder::id(&oid::ORGANIZATION), &utf8("o")]),
        &sequence(&[&super::builder::id(&oid::COMMON_NAME), &utf8("c")]),
    ])]);
    let der = draft.sign();
    assert_eq!(Certificate::read(&der).unwrap().subject().to_string(), "O=o+CN=c");
}

#[test]
fn whether_the_key_may_sign_is_for_the_caller_to_ask() {
    let may_sign = |usage: Option<&[u8]>| {
        let mut draft = Draft::device("device", "ca");
        draft.remove(&oid::KEY_USAGE);
        if let Some(usage) = usage {
            draft.set(&oid::KEY_USAGE, true, usage.to_vec());
        }
        let der = draft.sign();
        Certificate::read(&der).unwrap().may_sign()
    };
    assert!(may_sign(None));
    assert!(may_sign(Some(&DIGITAL_SIGNATURE)));
    assert!(!may_sign(Some(&[0x03, 0x02, 0x05, 0x20])), "keyEncipherment alone");
}

#[test]
fn the_purpose_of_a_version_1_device_is_not_known_and_not_asked() {
    let chain = Chain::usual();
    let leaf = chain.leaf.clone().version_1();
    let x5c = [leaf.sign(), chain.intermediate.sign()];
    let anchors = [chain.anchor()];
    let valid = decide(&x5c, &anchors).verdict.unwrap();
    assert!(valid.leaf().may_sign());
    assert!(valid.alternative_names().is_empty());
}
