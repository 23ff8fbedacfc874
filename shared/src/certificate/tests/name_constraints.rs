//! Name constraints, form by form.

use super::builder::{Chain, Draft, common_name, name, printable, sequence, set, tlv, utf8};
use super::*;

const RFC822: u8 = 0x81;
const DNS: u8 = 0x82;
const DIRECTORY: u8 = 0xa4;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

/// The extension, of GeneralNames in DER.
fn constraints(permitted: &[Vec<u8>], excluded: &[Vec<u8>]) -> Vec<u8> {
    let list = |tag, bases: &[Vec<u8>]| {
        let subtrees: Vec<u8> = bases.iter().flat_map(|base| sequence(&[base])).collect();
        if subtrees.is_empty() { subtrees } else { tlv(tag, &subtrees) }
    };
    sequence(&[&list(0xa0, permitted), &list(0xa1, excluded)])
}

fn alternative_names(names: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &names.concat())
}

/// The code for a device with the names, below an intermediate with the constraints.
fn below(value: Vec<u8>, names: &[Vec<u8>]) -> Option<&'static str> {
    changed(|chain| {
        chain.intermediate.set(&oid::NAME_CONSTRAINTS, true, value);
        if !names.is_empty() {
            chain.leaf.set(&oid::SUBJECT_ALT_NAME, false, alternative_names(names));
        }
    })
    .map(|(_, code)| code)
}

fn permitted(form: u8, base: &[u8], name: &[u8]) -> Option<&'static str> {
    below(constraints(&[tlv(form, base)], &[]), &[tlv(form, name)])
}

fn excluded(form: u8, base: &[u8], name: &[u8]) -> Option<&'static str> {
    below(constraints(&[], &[tlv(form, base)]), &[tlv(form, name)])
}

/// Whether `name` is in the subtree of `base`, asked by way of both lists.
#[track_caller]
fn check(form: u8, base: &str, name: &str, inside: bool) {
    check_bytes(form, base.as_bytes(), name.as_bytes(), inside);
}

#[track_caller]
fn check_bytes(form: u8, base: &[u8], name: &[u8], inside: bool) {
    let (allowed, forbidden) = (permitted(form, base, name), excluded(form, base, name));
    if inside {
        assert_eq!((allowed, forbidden), (None, Some("name_excluded")));
    } else {
        assert_eq!((allowed, forbidden), (Some("name_not_permitted"), None));
    }
}

#[test]
fn a_dns_name_is_in_the_tree_of_what_it_ends_in() {
    for (base, name, inside) in [
        ("example.com", "example.com", true),
        ("example.com", "EXAMPLE.com", true),
        ("eXample.com", "a.b.example.COM", true),
        ("example.com", "badexample.com", false),
        ("example.com", "example.com.evil", false),
        ("a.example.com", "example.com", false),
        ("com", "example.com", true),
        ("", "example.com", true),
        (".example.com", "a.example.com", true),
        (".example.com", "a.b.example.com", true),
        (".example.com", "example.com", false),
        (".example.com", "badexample.com", false),
        ("example.com", "*.example.com", true),
        ("example.com", "_srv._tcp.example.com", true),
        ("example.com", "com", false),
    ] {
        check(DNS, base, name, inside);
    }
}

#[test]
fn a_wildcard_reaches_into_what_is_excluded() {
    assert_eq!(excluded(DNS, b"www.example.com", b"*.example.com"), Some("name_excluded"));
    assert_eq!(excluded(DNS, b"a.www.example.com", b"*.example.com"), None, "a wildcard is one label");
    assert_eq!(permitted(DNS, b"www.example.com", b"*.example.com"), Some("name_not_permitted"));
    assert_eq!(excluded(DNS, b"com", b"*.example.com"), Some("name_excluded"));
    assert_eq!(excluded(DNS, b"www.example.org", b"*.example.com"), None);
}

#[test]
fn a_dns_name_that_is_none_is_not_compared() {
    for name in [
        "",
        ".",
        "example.com.",
        "a..example.com",
        "-a.example.com",
        "a-.example.com",
        "a b.example.com",
        "a.*.example.com",
        "*example.com",
        "*",
    ] {
        assert_eq!(permitted(DNS, b"example.com", name.as_bytes()), Some("name_not_comparable"), "{name}");
        assert_eq!(excluded(DNS, b"example.com", name.as_bytes()), Some("name_not_comparable"), "{name}");
        // Nobody asks where no DNS name is constrained.
        let other = constraints(&[], &[tlv(URI, b"example.com")]);
        assert_eq!(below(other, &[tlv(DNS, name.as_bytes())]), None, "{name}");
    }
    let long = format!("{}.example.com", "a".repeat(64));
    assert_eq!(permitted(DNS, b"example.com", long.as_bytes()), Some("name_not_comparable"));
    let longer = format!("{}example.com", "a.".repeat(122));
    assert_eq!(permitted(DNS, b"example.com", longer.as_bytes()), Some("name_not_comparable"));
}

#[test]
fn an_address_is_in_the_range_of_its_prefix() {
    let v4 = [192, 0, 2, 0, 255, 255, 255, 0];
    check_bytes(IP, &v4, &[192, 0, 2, 255], true);
    check_bytes(IP, &v4, &[192, 0, 3, 0], false);
    check_bytes(IP, &[192, 0, 2, 7, 255, 255, 255, 0], &[192, 0, 2, 1], true);
    check_bytes(IP, &[10, 16, 0, 0, 255, 240, 0, 0], &[10, 31, 255, 255], true);
    check_bytes(IP, &[10, 16, 0, 0, 255, 240, 0, 0], &[10, 32, 0, 0], false);
    check_bytes(IP, &[0; 8], &[203, 0, 113, 1], true);
    check_bytes(IP, &[1, 2, 3, 4, 255, 255, 255, 255], &[1, 2, 3, 4], true);
    check_bytes(IP, &[1, 2, 3, 4, 255, 255, 255, 255], &[1, 2, 3, 5], false);
    let v6 = [
        [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let mut inside = [0x20, 0x01, 0x0d, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    check_bytes(IP, &v6, &inside, true);
    inside[3] = 0xb9;
    check_bytes(IP, &v6, &inside, false);
    // One family is not in a range of the other.
    check_bytes(IP, &[0; 8], &[0; 16], false);
    check_bytes(IP, &[0; 32], &[0; 4], false);
}

#[test]
fn a_mailbox_is_one_or_all_of_a_host_or_below_a_domain() {
    for (base, name, inside) in [
        ("ops@example.com", "ops@EXAMPLE.com", true),
        ("ops@example.com", "Ops@example.com", false),
        ("ops@example.com", "dev@example.com", false),
        ("ops@example.com", "ops@a.example.com", false),
        ("*@example.com", "*@example.com", true),
        ("*@example.com", "ops@example.com", false),
        ("example.com", "ops@example.com", true),
        ("example.com", "ops@a.example.com", false),
        (".example.com", "ops@a.example.com", true),
        (".example.com", "ops@a.b.example.com", true),
        (".example.com", "ops@example.com", false),
        (".example.com", "ops@badexample.com", false),
    ] {
        check(RFC822, base, name, inside);
    }
    for name in [
        "",
        "ops",
        "@example.com",
        "ops@",
        "a@b@example.com",
        "\"a@b\"@example.com",
        "o ps@example.com",
        "ops@exa mple.com",
        "ops@example.com.",
    ] {
        assert_eq!(permitted(RFC822, b"example.com", name.as_bytes()), Some("name_not_comparable"), "{name}");
        assert_eq!(excluded(RFC822, b"example.com", name.as_bytes()), Some("name_not_comparable"), "{name}");
    }
}

#[test]
fn a_uri_is_known_by_its_host() {
    for (base, name, inside) in [
        ("example.com", "https://example.com", true),
        ("example.com", "https://EXAMPLE.com:8443/a?b#c", true),
        ("example.com", "https://a.example.com/", false),
        (".example.com", "ldap://a.example.com/x", true),
        (".example.com", "https://a.b.example.com", true),
        (".example.com", "https://example.com", false),
        ("example.com", "https://example.org/example.com", false),
        ("example.com", "https://example.org?example.com", false),
        ("example.com", "https://example.org#//example.com", false),
    ] {
        check(URI, base, name, inside);
    }
    for name in [
        "urn:uuid:1",
        "mailto:a@example.com",
        "https://",
        "https:///example.com",
        "https://user@example.com/",
        "https://example.com:80@evil.example/",
        "https://192.0.2.1/",
        "https://[2001:db8::1]/",
        "https://example.com:x/",
        "example.com",
    ] {
        assert_eq!(permitted(URI, b"example.com", name.as_bytes()), Some("name_not_comparable"), "{name}");
        assert_eq!(excluded(URI, b"example.com", name.as_bytes()), Some("name_not_comparable"), "{name}");
    }
}

fn directory(attributes: &[Vec<u8>]) -> Vec<u8> {
    tlv(DIRECTORY, &tlv(0x30, &attributes.concat()))
}

fn o(value: &str) -> Vec<u8> {
    rdn(&oid::ORGANIZATION, utf8(value))
}

fn rdn(kind: &der::oid::ObjectIdentifier, value: Vec<u8>) -> Vec<u8> {
    set(&[&sequence(&[&super::builder::id(kind), &value])])
}

#[test]
fn a_directory_name_is_in_the_tree_of_what_it_begins_with() {
    let cn = |value: &str| rdn(&oid::COMMON_NAME, utf8(value));
    let subject_below = |value: Vec<u8>, subject: &[Vec<u8>]| {
        changed(|chain| {
            chain.intermediate.set(&oid::NAME_CONSTRAINTS, true, value);
            chain.leaf.subject = tlv(0x30, &subject.concat());
        })
        .map(|(_, code)| code)
    };
    for (base, subject, inside) in [
        (vec![o("05243")], vec![o("05243"), cn("x")], true),
        (vec![o("05243")], vec![rdn(&oid::ORGANIZATION, printable("05243")), cn("x")], true),
        (vec![o("Retail Corp")], vec![o(" retail  corp "), cn("x")], true),
        (vec![o("05243")], vec![o("05244"), cn("x")], false),
        (vec![o("05243")], vec![cn("x"), o("05243")], false),
        (vec![o("05243"), cn("x")], vec![o("05243")], false),
        (vec![o("05243"), cn("x")], vec![o("05243"), cn("x")], true),
        (vec![], vec![cn("x")], true),
    ] {
        let base = directory(&base);
        let allowed = subject_below(constraints(std::slice::from_ref(&base), &[]), &subject);
        let forbidden = subject_below(constraints(&[], &[base]), &subject);
        let expected =
            if inside { (None, Some("name_excluded")) } else { (Some("name_not_permitted"), None) };
        assert_eq!((allowed, forbidden), expected, "{subject:x?}");
    }
}

#[test]
fn directory_names_are_constrained_in_the_subject_and_beside_it() {
    let constraint = |list: bool| {
        let base = directory(&[o("05243")]);
        if list { constraints(&[base], &[]) } else { constraints(&[], &[base]) }
    };
    let decide = |value: Vec<u8>, subject: Vec<u8>, beside: Vec<u8>| {
        changed(|chain| {
            chain.intermediate.set(&oid::NAME_CONSTRAINTS, true, value);
            chain.leaf.subject = tlv(0x30, &subject);
            chain.leaf.set(&oid::SUBJECT_ALT_NAME, true, sequence(&[&tlv(DIRECTORY, &tlv(0x30, &beside))]));
        })
        .map(|(_, code)| code)
    };
    assert_eq!(decide(constraint(true), o("05243"), o("05243")), None);
    assert_eq!(decide(constraint(true), o("05243"), o("x")), Some("name_not_permitted"));
    assert_eq!(decide(constraint(true), o("x"), o("05243")), Some("name_not_permitted"));
    assert_eq!(decide(constraint(true), vec![], o("05243")), None, "an empty subject is no name");
    assert_eq!(decide(constraint(false), o("x"), o("x")), None);
    assert_eq!(decide(constraint(false), o("05243"), o("x")), Some("name_excluded"));
    assert_eq!(decide(constraint(false), o("x"), o("05243")), Some("name_excluded"));
    assert_eq!(decide(constraint(false), vec![], o("x")), None);
}

#[test]
fn every_permitted_form_is_asked_for_by_itself() {
    let only_dns = constraints(&[tlv(DNS, b"example.com")], &[]);
    assert_eq!(below(only_dns.clone(), &[tlv(IP, &[192, 0, 2, 1])]), None, "no IP address is constrained");
    assert_eq!(below(only_dns.clone(), &[]), None, "and the subject is of another form");
    assert_eq!(
        below(only_dns.clone(), &[tlv(DNS, b"example.com"), tlv(DNS, b"example.org")]),
        Some("name_not_permitted")
    );
    let both = constraints(&[tlv(DNS, b"example.com"), tlv(DNS, b"example.org")], &[]);
    assert_eq!(below(both, &[tlv(DNS, b"example.com"), tlv(DNS, b"example.org")]), None);
    let excluded_too = constraints(&[tlv(DNS, b"example.com")], &[tlv(DNS, b"a.example.com")]);
    assert_eq!(below(excluded_too.clone(), &[tlv(DNS, b"b.example.com")]), None);
    assert_eq!(below(excluded_too, &[tlv(DNS, b"a.example.com")]), Some("name_excluded"));
}

#[test]
fn forms_that_are_not_read_are_refused_where_they_are_constrained() {
    let other_name = tlv(0xa0, &[super::builder::dotted("1.2.3"), tlv(0xa0, &utf8("x"))].concat());
    let registered = tlv(0x88, &[0x2a, 0x03]);
    for name in [other_name, registered, tlv(0xa3, &[]), tlv(0xa5, &[])] {
        let names = [name.clone()];
        assert_eq!(below(constraints(&names, &[]), &names), Some("name_not_comparable"));
        assert_eq!(below(constraints(&[], &names), &names), Some("name_not_comparable"));
        assert_eq!(below(constraints(&names, &[]), &[]), None, "no such name, no question");
        assert_eq!(below(constraints(&[tlv(DNS, b"a")], &[]), &names), None, "not constrained");
    }
}

#[test]
fn the_email_address_of_the_subject_counts_as_one() {
    let decide = |value: Vec<u8>, address: Vec<u8>| {
        changed(|chain| {
            chain.intermediate.set(&oid::NAME_CONSTRAINTS, true, value);
            chain.leaf.subject = name(&[(oid::COMMON_NAME, utf8("device")), (oid::EMAIL_ADDRESS, address)]);
        })
        .map(|(_, code)| code)
    };
    let only = |base: &str| constraints(&[tlv(RFC822, base.as_bytes())], &[]);
    let not = |base: &str| constraints(&[], &[tlv(RFC822, base.as_bytes())]);
    let address = |text: &str| tlv(0x16, text.as_bytes());
    assert_eq!(decide(only("example.com"), address("ops@example.com")), None);
    assert_eq!(decide(only("example.com"), address("ops@example.org")), Some("name_not_permitted"));
    assert_eq!(decide(not("example.com"), address("ops@example.com")), Some("name_excluded"));
    assert_eq!(decide(not("example.com"), address("ops@example.org")), None);
    assert_eq!(decide(not("example.com"), utf8("ops@exämple.com")), Some("name_not_comparable"));
    assert_eq!(decide(not("example.com"), tlv(0x04, b"ops@example.com")), Some("name_not_comparable"));
    assert_eq!(decide(constraints(&[tlv(DNS, b"example.com")], &[]), utf8("nonsense")), None);
}

#[test]
fn a_cn_that_is_written_as_a_dns_name_counts_as_one() {
    let decide = |value: Vec<u8>, cn: &str, names: &[Vec<u8>]| {
        changed(|chain| {
            chain.intermediate.set(&oid::NAME_CONSTRAINTS, true, value);
            chain.leaf.subject = common_name(cn);
            if !names.is_empty() {
                chain.leaf.set(&oid::SUBJECT_ALT_NAME, false, alternative_names(names));
            }
        })
        .map(|(_, code)| code)
    };
    let only = || constraints(&[tlv(DNS, b"store.example")], &[]);
    assert_eq!(decide(only(), "pos1.store.example", &[]), None);
    assert_eq!(decide(only(), "pos1.other.example", &[]), Some("name_not_permitted"));
    assert_eq!(decide(only(), "pos-terminal-001", &[]), None, "one label is no DNS name");
    assert_eq!(decide(only(), "a b.other.example", &[]), None);
    assert_eq!(
        decide(constraints(&[], &[tlv(DNS, b"store.example")]), "pos1.store.example", &[]),
        Some("name_excluded")
    );
    // Where there is a dNSName, that is the name.
    assert_eq!(decide(only(), "pos1.other.example", &[tlv(DNS, b"pos1.store.example")]), None);
    assert_eq!(decide(only(), "pos1.other.example", &[tlv(IP, &[192, 0, 2, 1])]), Some("name_not_permitted"));
    // A CA's CN is not a device's.
    let of_a_ca = changed(|chain| {
        chain.root.set(&oid::NAME_CONSTRAINTS, true, only());
        chain.intermediate.subject = common_name("ca.other.example");
        chain.leaf.issuer = chain.intermediate.subject.clone();
    });
    assert_eq!(of_a_ca, None);
}

#[test]
fn constraints_hold_for_everything_below() {
    let only = |base: &str| constraints(&[tlv(DNS, base.as_bytes())], &[]);
    let dns = |name: &str| sequence(&[&tlv(DNS, name.as_bytes())]);
    // The root's own, on the device.
    let refused = changed(|chain| {
        chain.root.set(&oid::NAME_CONSTRAINTS, true, only("example.com"));
        chain.leaf.set(&oid::SUBJECT_ALT_NAME, false, dns("example.org"));
    });
    assert_eq!(refused, Some((LEAF, "name_not_permitted")));
    // … and on an intermediate.
    let refused = changed(|chain| {
        chain.root.set(&oid::NAME_CONSTRAINTS, true, only("example.com"));
        chain.intermediate.set(&oid::SUBJECT_ALT_NAME, false, dns("example.org"));
    });
    assert_eq!(refused, Some((INTERMEDIATE, "name_not_permitted")));
    // A CA below cannot widen them,
    let refused = changed(|chain| {
        chain.root.set(&oid::NAME_CONSTRAINTS, true, only("example.com"));
        chain.intermediate.set(&oid::NAME_CONSTRAINTS, true, only("example.org"));
        chain.leaf.set(&oid::SUBJECT_ALT_NAME, false, dns("example.org"));
    });
    assert_eq!(refused, Some((LEAF, "name_not_permitted")));
    // only narrow them.
    let narrowed = |name: &str| {
        changed(|chain| {
            chain.root.set(&oid::NAME_CONSTRAINTS, true, only("example.com"));
            chain.intermediate.set(&oid::NAME_CONSTRAINTS, true, only("a.example.com"));
            chain.leaf.set(&oid::SUBJECT_ALT_NAME, false, dns(name));
        })
    };
    assert_eq!(narrowed("a.example.com"), None);
    assert_eq!(narrowed("b.example.com"), Some((LEAF, "name_not_permitted")));
    // Nobody is held to what he says himself.
    let own = changed(|chain| {
        chain.intermediate.set(&oid::NAME_CONSTRAINTS, true, only("example.com"));
        chain.intermediate.set(&oid::SUBJECT_ALT_NAME, false, dns("ca.example.org"));
        chain.root.set(&oid::SUBJECT_ALT_NAME, false, dns("root.example.org"));
    });
    assert_eq!(own, None);
    // Not being critical changes nothing.
    let refused = changed(|chain| {
        chain.intermediate.set(&oid::NAME_CONSTRAINTS, false, only("example.com"));
        chain.leaf.set(&oid::SUBJECT_ALT_NAME, false, dns("example.org"));
    });
    assert_eq!(refused, Some((LEAF, "name_not_permitted")));
}

#[test]
fn a_ca_that_renews_itself_is_not_held_to_its_own_constraints() {
    let value = constraints(&[directory(&[o("devices")])], &[]);
    let mut root = Draft::ca("root", "root");
    root.set(&oid::NAME_CONSTRAINTS, true, value.clone());
    let next = Draft::ca("root", "root");
    let mut leaf = Draft::device("device", "root");
    leaf.subject = tlv(0x30, &o("devices"));
    let anchors = [root.anchor()];
    assert_eq!(refusal(&decide(&[leaf.sign(), next.sign()], &anchors)), None);
    // A device that bears its issuer's name is no CA that renews itself.
    let mut self_issued = leaf.clone();
    self_issued.subject = common_name("root");
    let refused = refusal(&decide(&[self_issued.sign(), next.sign()], &anchors));
    assert_eq!(refused, Some((LEAF, "name_not_permitted")));
}

#[test]
fn malformed_constraints_are_refused_whoever_they_concern() {
    let base = tlv(DNS, b"example.com");
    let base_with = |extra: Vec<u8>| sequence(&[&tlv(0xa0, &sequence(&[&base, &extra]))]);
    for wrong in [
        sequence(&[]),
        sequence(&[&tlv(0xa0, &[])]),
        sequence(&[&tlv(0xa0, &[]), &tlv(0xa1, &[])]),
        sequence(&[&tlv(0xa0, &sequence(&[&base])), &tlv(0xa1, &[])]),
        sequence(&[&tlv(0xa1, &sequence(&[&base])), &tlv(0xa0, &sequence(&[&base]))]),
        sequence(&[&tlv(0xa2, &sequence(&[&base]))]),
        sequence(&[&tlv(0xa0, &base)]),
        sequence(&[&tlv(0xa0, &sequence(&[]))]),
        tlv(0x31, &tlv(0xa0, &sequence(&[&base]))),
        // minimum 0 is the default and left out; 1, and any maximum, are not allowed.
        base_with(tlv(0x80, &[0])),
        base_with(tlv(0x80, &[1])),
        base_with(tlv(0x81, &[1])),
        constraints(&[tlv(DNS, b"*.example.com")], &[]),
        constraints(&[tlv(DNS, b"example.com.")], &[]),
        constraints(&[tlv(DNS, b"..example.com")], &[]),
        constraints(&[tlv(DNS, b".")], &[]),
        constraints(&[tlv(DNS, "é.com".as_bytes())], &[]),
        constraints(&[tlv(IP, &[192, 0, 2, 1])], &[]),
        constraints(&[tlv(IP, &[0; 16])], &[]),
        constraints(&[tlv(IP, &[0; 9])], &[]),
        constraints(&[tlv(IP, &[])], &[]),
        constraints(&[tlv(IP, &[192, 0, 2, 0, 255, 0, 255, 0])], &[]),
        constraints(&[tlv(IP, &[192, 0, 2, 0, 255, 255, 253, 0])], &[]),
        constraints(&[tlv(IP, &[192, 0, 2, 0, 0, 255, 255, 255])], &[]),
        constraints(&[tlv(RFC822, b"a@b@example.com")], &[]),
        constraints(&[tlv(RFC822, b"@example.com")], &[]),
        constraints(&[tlv(RFC822, b"")], &[]),
        constraints(&[tlv(RFC822, b"*.example.com")], &[]),
        constraints(&[tlv(URI, b"https://example.com")], &[]),
        constraints(&[tlv(URI, b"")], &[]),
        constraints(&[tlv(DIRECTORY, b"x")], &[]),
        b"nonsense".to_vec(),
    ] {
        for critical in [false, true] {
            let refused =
                changed(|chain| chain.root.set(&oid::SUBJECT_ALT_NAME, critical, sequence(&[&base])));
            assert_eq!(refused, None);
            let refused =
                changed(|chain| chain.intermediate.set(&oid::NAME_CONSTRAINTS, critical, wrong.clone()));
            assert_eq!(refused, Some((INTERMEDIATE, "malformed")), "{wrong:02x?}");
        }
    }
    // One that excludes nothing but what nobody has is fine.
    assert_eq!(below(constraints(&[], &[base]), &[]), None);
}

#[test]
fn names_times_constraints_have_a_limit() {
    let names = |count: u32| (0..count).map(|number| tlv(IP, &number.to_be_bytes())).collect::<Vec<_>>();
    let bases = |count: u32| {
        (0..count)
            .map(|number| tlv(IP, &[(number + (1 << 24)).to_be_bytes(), [255; 4]].concat()))
            .collect::<Vec<_>>()
    };
    let not = |count| constraints(&[], &bases(count));
    assert_eq!(below(not(1024), &names(1024)), None);
    assert_eq!(below(not(1025), &names(1024)), Some("too_many_name_comparisons"));
    assert_eq!(below(not(1024), &names(1025)), Some("too_many_name_comparisons"));
    // An early match does not make it less.
    let only: Vec<_> = names(1025).iter().map(|name| tlv(IP, &[&name[2..], &[255; 4]].concat())).collect();
    assert_eq!(below(constraints(&only, &[]), &names(1025)), Some("too_many_name_comparisons"));
    // Names of another form are not counted.
    let dns: Vec<_> = (0..1024).map(|number| tlv(DNS, format!("a{number}").as_bytes())).collect();
    assert_eq!(below(not(1500), &dns), None);
    // All constraints of a path count together.
    let refused = changed(|chain| {
        chain.root.set(&oid::NAME_CONSTRAINTS, true, not(600));
        chain.intermediate.set(&oid::NAME_CONSTRAINTS, true, not(600));
        chain.leaf.set(&oid::SUBJECT_ALT_NAME, false, alternative_names(&names(1024)));
    });
    assert_eq!(refused, Some((LEAF, "too_many_name_comparisons")));
}

#[test]
fn constraints_wait_for_the_signatures() {
    // Who has no key of the root's cannot make anybody compare a million names.
    let mut chain = Chain::usual();
    chain.root.set(&oid::NAME_CONSTRAINTS, true, constraints(&[tlv(DNS, b"example.com")], &[]));
    chain.leaf.set(&oid::SUBJECT_ALT_NAME, false, sequence(&[&tlv(DNS, b"example.org")]));
    assert_eq!(refusal(&decide(&chain.x5c(), &[chain.anchor()])), Some((LEAF, "name_not_permitted")));
    chain.leaf.signer = super::builder::key("forger");
    assert_eq!(refusal(&decide(&chain.x5c(), &[chain.anchor()])), Some((LEAF, "bad_signature")));
    // They are not even read.
    for id in
        [&oid::SUBJECT_ALT_NAME, &oid::CERTIFICATE_POLICIES, &oid::POLICY_MAPPINGS, &oid::INHIBIT_ANY_POLICY]
    {
        let mut chain = Chain::usual();
        chain.leaf.set(id, false, b"nonsense".to_vec());
        assert_eq!(refusal(&decide(&chain.x5c(), &[chain.anchor()])), Some((LEAF, "malformed")));
        chain.leaf.signer = super::builder::key("forger");
        assert_eq!(refusal(&decide(&chain.x5c(), &[chain.anchor()])), Some((LEAF, "bad_signature")));
    }
}
