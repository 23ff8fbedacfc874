//! The shape of a chain: order, length, which root, how often the platform is asked.

use std::cell::Cell;

use super::builder::{
    Chain, Draft, basic_constraints, common_name, key, printable, public_key, sequence, utf8,
};
use super::*;

/// A tower of `count` intermediates between the device and the root, top first: `ca1` is issued by the root.
fn tower(count: usize) -> Vec<Vec<u8>> {
    let name = |level: usize| if level == 0 { "root".to_owned() } else { format!("ca{level}") };
    let mut chain = vec![Draft::device("device", &name(count)).sign()];
    chain.extend((1..=count).rev().map(|level| Draft::ca(&name(level), &name(level - 1)).sign()));
    chain
}

fn root() -> TrustAnchor {
    Draft::ca("root", "root").anchor()
}

#[test]
fn the_usual_chain_is_valid_with_and_without_its_root() {
    let chain = Chain::usual();
    let anchors = [chain.anchor()];
    let mut x5c = chain.x5c();
    assert_eq!(refusal(&decide(&x5c, &anchors)), None);
    x5c.push(chain.root.sign());
    let decision = decide(&x5c, &anchors);
    assert_eq!(refusal(&decision), None);

    let valid = decision.verdict.unwrap();
    assert_eq!(valid.leaf().der(), chain.leaf.sign());
    assert_eq!(valid.intermediates().len(), 1, "the root is no intermediate");
    assert_eq!(valid.anchor().der(), chain.root.sign());
    assert_eq!(valid.certificates().count(), 3);
    assert_eq!(valid.subject().unwrap().common_name.as_deref(), Some("pos-terminal-001"));
}

#[test]
fn the_way_to_a_decision_can_be_told() {
    let chain = Chain::usual();
    let anchors = [Draft::ca("other", "other").anchor(), chain.anchor()];
    let x5c = chain.x5c();
    let decision = decide(&x5c, &anchors);
    assert_eq!(
        decision.steps,
        [
            Step::Read { certificates: 2 },
            Step::Root { position: 1, intermediates: 1 },
            Step::RulesHold,
            Step::SignatureHolds(INTERMEDIATE),
            Step::SignatureHolds(LEAF),
            Step::NamesAndPoliciesHold,
        ]
    );
    assert_eq!(decision.verdict.unwrap().anchor_position(), 1);
}

#[test]
fn a_chain_that_is_not_in_order_is_refused() {
    let chain = Chain::usual();
    let anchors = [chain.anchor()];
    let (leaf, intermediate, root) = (chain.leaf.sign(), chain.intermediate.sign(), chain.root.sign());
    let swapped = [leaf.clone(), root.clone(), intermediate.clone()];
    assert_eq!(refusal(&decide(&swapped, &anchors)), Some((INTERMEDIATE, "not_in_order")));
    let upside_down = [root, intermediate.clone(), leaf.clone()];
    assert_eq!(refusal(&decide(&upside_down, &anchors)), Some((INTERMEDIATE, "not_in_order")));
    let with_a_stranger = [leaf.clone(), intermediate, Draft::ca("stranger", "stranger").sign()];
    let place = Place::Certificate(2);
    assert_eq!(refusal(&decide(&with_a_stranger, &anchors)), Some((place, "not_in_order")));
    assert_eq!(
        refusal(&decide(&[leaf], &anchors)),
        Some((LEAF, "unknown_issuer")),
        "the intermediate is missing"
    );
}

#[test]
fn nothing_at_all_is_refused() {
    assert_eq!(refusal(&decide(&[], &[root()])), Some((Place::Chain, "chain_empty")));
    assert_eq!(refusal(&decide(&Chain::usual().x5c(), &[])), Some((INTERMEDIATE, "unknown_issuer")));
}

#[test]
fn a_certificate_that_occurs_twice_is_refused() {
    let self_issued = Draft::ca("root", "root");
    let mut again = self_issued.clone();
    again.serial = vec![0x02, 0x01, 0x07];
    let leaf = Draft::device("device", "root").sign();
    let (one, two) = (self_issued.sign(), again.sign());
    let anchors = [root()];
    assert_eq!(refusal(&decide(&[leaf.clone(), one.clone(), two.clone()], &anchors)), None);
    let place = Place::Certificate(2);
    let twice = [leaf.clone(), one.clone(), one.clone()];
    assert_eq!(refusal(&decide(&twice, &anchors)), Some((place, "certificate_repeated")));
    let place = Place::Certificate(3);
    assert_eq!(
        refusal(&decide(&[leaf, one.clone(), two, one], &anchors)),
        Some((place, "certificate_repeated"))
    );
}

#[test]
fn a_loop_of_cas_ends() {
    let one = Draft::ca("a", "b");
    let two = Draft::ca("b", "a");
    let leaf = Draft::device("device", "a");
    let mut two_again = two.clone();
    two_again.serial = vec![0x02, 0x01, 0x07];
    let mut one_again = one.clone();
    one_again.serial = vec![0x02, 0x01, 0x07];
    let chain = [leaf, one, two, one_again, two_again].map(|draft| draft.sign());
    assert_eq!(refusal(&decide(&chain, &[root()])), Some((Place::Certificate(4), "unknown_issuer")));
}

#[test]
fn four_intermediates_are_the_most() {
    let anchors = [root()];
    assert_eq!(refusal(&decide(&tower(4), &anchors)), None);
    assert_eq!(refusal(&decide(&tower(5), &anchors)), Some((Place::Chain, "too_many_intermediates")));
    assert_eq!(refusal(&decide(&tower(6), &anchors)), Some((Place::Chain, "too_many_certificates")));
    let mut with_root = tower(4);
    with_root.push(Draft::ca("root", "root").sign());
    assert_eq!(refusal(&decide(&with_root, &anchors)), None);
}

#[test]
fn the_caller_sets_the_most_intermediates() {
    let anchors = [root()];
    let most = |max_intermediates| Rules { max_intermediates, ..Rules::for_device(NOW) };
    assert_eq!(refusal(&decide_by(&tower(0), &anchors, &most(0))), None);
    let one_too_many = Some((Place::Chain, "too_many_intermediates"));
    assert_eq!(refusal(&decide_by(&tower(1), &anchors, &most(0))), one_too_many);
    assert_eq!(refusal(&decide_by(&tower(1), &anchors, &most(1))), None);
    assert_eq!(refusal(&decide_by(&tower(9), &anchors, &most(255))), None);
    assert_eq!(refusal(&decide_by(&tower(1), &anchors, &most(usize::MAX))), None);
}

/// Counts what the platform is asked.
struct Counting(Cell<usize>);

impl VerifySignature for Counting {
    async fn verify_signature(&self, check: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
        self.0.set(self.0.get() + 1);
        HostCrypto.verify_signature(check).await
    }
}

fn counted(chain: &[Vec<u8>], anchors: &[TrustAnchor]) -> (usize, Option<(Place, &'static str)>) {
    let counting = Counting(Cell::new(0));
    let rules = Rules::for_device(NOW);
    let decision = pollster::block_on(validate(&counting, chain, anchors, &rules)).unwrap();
    (counting.0.get(), refusal(&decision))
}

#[test]
fn who_has_no_certificate_costs_one_signature_check_at_most() {
    let anchors = [root()];
    // Every name is right, no signature is the root's.
    let mut forged = tower(4);
    let mut top = Draft::ca("ca1", "root");
    top.signer = key("forger");
    forged[4] = top.sign();
    assert_eq!(counted(&forged, &anchors), (1, Some((Place::Certificate(4), "bad_signature"))));
    assert_eq!(counted(&tower(19), &anchors), (0, Some((Place::Chain, "too_many_certificates"))));
    assert_eq!(counted(&tower(4), &anchors), (5, None));
}

#[test]
fn a_megabyte_is_refused_unread() {
    let anchors = [root()];
    let too_large = vec![0x30; MAX_CERTIFICATE_LENGTH + 1];
    assert_eq!(counted(&[too_large], &anchors), (0, Some((LEAF, "too_large"))));
    let large = vec![0x30; MAX_CERTIFICATE_LENGTH];
    assert_eq!(counted(std::slice::from_ref(&large), &anchors), (0, Some((LEAF, "malformed"))));
    assert_eq!(counted(&vec![large.clone(); 3], &anchors), (0, Some((Place::Chain, "too_large"))));
    assert_eq!(counted(&vec![large; 2], &anchors), (0, Some((LEAF, "malformed"))));
}

#[test]
fn x5c_is_measured_before_it_is_decoded() {
    let rules = Rules::for_device(NOW);
    let code =
        |entries: &[&str]| decode_x5c(entries, &rules).map_err(|refusal| (refusal.place, refusal.code()));
    assert_eq!(code(&["AAEC", "/w=="]), Ok(vec![vec![0, 1, 2], vec![0xff]]));
    for wrong in ["_w==", "/w", "/w=", "/w==\n", " /w==", "/x==", "é"] {
        assert_eq!(code(&["AAEC", wrong]), Err((INTERMEDIATE, "not_base64")), "{wrong}");
    }
    assert_eq!(code(&[]), Err((Place::Chain, "chain_empty")));
    assert_eq!(code(&[""; 7]), Err((Place::Chain, "too_many_certificates")));
    // What is not even Base64 is not looked at if there is too much of it.
    let megabyte = "!".repeat(1 << 20);
    assert_eq!(code(&[&megabyte]), Err((LEAF, "too_large")));
    let third = "!".repeat(MAX_CHAIN_LENGTH / 2);
    assert_eq!(code(&[&third, &third, &third]), Err((Place::Chain, "too_large")));
}

#[test]
fn of_roots_with_the_same_name_the_one_with_the_key_counts() {
    let chain = Chain::usual();
    let mut renewed = chain.root.clone();
    renewed.signer = key("renewed root");
    renewed.public_key = public_key(&renewed.signer);
    let x5c = chain.x5c();

    let both = [renewed.anchor(), chain.anchor()];
    let decision = decide(&x5c, &both);
    assert_eq!(decision.verdict.unwrap().anchor_position(), 1);
    let only_the_new_one = [renewed.anchor()];
    assert_eq!(refusal(&decide(&x5c, &only_the_new_one)), Some((INTERMEDIATE, "bad_signature")));
}

#[test]
fn the_refusal_is_of_the_root_that_came_furthest() {
    let mut chain = Chain::usual();
    let mut other_key = chain.root.clone();
    other_key.signer = key("other");
    other_key.public_key = public_key(&other_key.signer);
    let mut expired = chain.root.clone();
    expired.not_after = super::builder::utc("250101000000Z");
    let x5c = chain.x5c();
    for anchors in [[expired.anchor(), other_key.anchor()], [other_key.anchor(), expired.anchor()]] {
        assert_eq!(refusal(&decide(&x5c, &anchors)).unwrap().1, "expired");
    }
    // A signature further down shows that the root was right.
    chain.leaf.signer = key("forger");
    let x5c = chain.x5c();
    let anchors = [expired.anchor(), chain.anchor(), other_key.anchor()];
    assert_eq!(refusal(&decide(&x5c, &anchors)), Some((LEAF, "bad_signature")));
}

#[test]
fn many_roots_of_one_name_end_in_a_budget() {
    let chain = Chain::usual();
    let namesake = |number: usize| {
        let mut root = chain.root.clone();
        root.signer = key(&format!("root {number}"));
        root.public_key = public_key(&root.signer);
        root.anchor()
    };
    let mut anchors: Vec<_> = (0..11).map(namesake).collect();
    anchors.push(chain.anchor());
    assert_eq!(counted(&chain.x5c(), &anchors), (13, None), "eleven wrong ones and two that count");
    anchors.splice(0..0, (20..30).map(namesake));
    assert_eq!(counted(&chain.x5c(), &anchors).0, 13, "the budget");
    assert!(counted(&chain.x5c(), &anchors).1.is_some());
}

#[test]
fn what_follows_the_root_in_the_chain_is_not_needed() {
    // The device goes on sending what was once above: its root, certified by an older root that is gone and has expired.
    let chain = Chain::usual();
    let mut cross = Draft::ca("root", "old root");
    cross.not_after = super::builder::utc("250101000000Z");
    let mut old = Draft::ca("old root", "old root");
    old.not_after = super::builder::utc("250101000000Z");
    let x5c = [chain.leaf.sign(), chain.intermediate.sign(), cross.sign(), old.sign()];
    assert_eq!(refusal(&decide(&x5c, &[chain.anchor()])), None);
    // And the other way round: only the older root is trusted, and it has not expired.
    let (cross, old) = (Draft::ca("root", "old root"), Draft::ca("old root", "old root"));
    let x5c = [chain.leaf.sign(), chain.intermediate.sign(), cross.sign()];
    assert_eq!(refusal(&decide(&x5c, &[old.anchor()])), None);
    // The same root, issued anew for its old key, with another validity.
    let mut renewed = chain.root.clone();
    renewed.serial = vec![0x02, 0x01, 0x09];
    let mut expired = chain.root.clone();
    expired.not_after = super::builder::utc("250101000000Z");
    let x5c = [chain.leaf.sign(), chain.intermediate.sign(), expired.sign()];
    assert_eq!(refusal(&decide(&x5c, &[renewed.anchor()])), None);
}

#[test]
fn what_follows_must_have_certified_what_is_before_it() {
    // The root's name and another key: not the issuer of the intermediate.
    let chain = Chain::usual();
    let mut namesake = Draft::ca("root", "root");
    namesake.signer = key("namesake");
    namesake.public_key = public_key(&namesake.signer);
    let x5c = [chain.leaf.sign(), chain.intermediate.sign(), namesake.sign()];
    assert_eq!(refusal(&decide(&x5c, &[chain.anchor()])), Some((Place::Certificate(2), "bad_signature")));
}

#[test]
fn a_root_need_not_be_self_signed() {
    let chain = Chain::usual();
    let x5c = [chain.leaf.sign()];
    assert_eq!(refusal(&decide(&x5c, &[chain.intermediate.anchor()])), None);
}

#[test]
fn a_self_signed_device_is_nobody() {
    let device = Draft::device("device", "device");
    assert_eq!(refusal(&decide(&[device.sign()], &[root()])), Some((LEAF, "unknown_issuer")));
    assert_eq!(refusal(&decide(&[device.sign()], &[device.anchor()])), Some((ROOT, "not_a_ca")));
}

#[test]
fn names_are_chained_whatever_their_spelling() {
    let spelled = |value: Vec<u8>| super::builder::name(&[(oid::COMMON_NAME, value)]);
    for (subject, issuer, same) in [
        (utf8("Retail  CA"), printable(" retail ca "), true),
        (utf8("Retail CA"), super::builder::tlv(0x1e, b"\0R\0e\0t\0a\0i\0l\0 \0C\0A"), true),
        (utf8("Retail CA"), super::builder::tlv(0x14, b"Retail CA"), true),
        (utf8("RÉSEAU"), utf8("réseau"), true),
        (utf8("Retail CA"), utf8("RetailCA"), false),
        (utf8("Retail CA"), utf8("Retail CA 2"), false),
        // No strings: byte by byte, and never like a string with the same bytes.
        (super::builder::tlv(0x04, b"a"), super::builder::tlv(0x04, b"a"), true),
        (super::builder::tlv(0x04, b"a"), super::builder::tlv(0x04, b"A"), false),
        (super::builder::tlv(0x04, b"a"), utf8("a"), false),
    ] {
        let mut chain = Chain::usual();
        chain.intermediate.subject = spelled(subject.clone());
        chain.leaf.issuer = spelled(issuer.clone());
        let verdict = refusal(&decide(&chain.x5c(), &[chain.anchor()]));
        let expected = (!same).then_some((INTERMEDIATE, "not_in_order"));
        assert_eq!(verdict, expected, "{subject:x?} {issuer:x?}");
        // And against the root's name.
        let mut chain = Chain::usual();
        chain.root.subject = spelled(subject.clone());
        chain.root.issuer = chain.root.subject.clone();
        chain.intermediate.issuer = spelled(issuer.clone());
        let verdict = refusal(&decide(&chain.x5c(), &[chain.anchor()]));
        assert_eq!(verdict, (!same).then_some((INTERMEDIATE, "unknown_issuer")), "{subject:x?} {issuer:x?}");
    }
}

#[test]
fn the_parts_of_a_name_are_kept_apart() {
    let attribute = |kind, value: &str| sequence(&[&super::builder::id(kind), &utf8(value)]);
    let (o, ou) = (attribute(&oid::ORGANIZATION, "x"), attribute(&oid::ORGANIZATIONAL_UNIT, "y"));
    let set = super::builder::set;
    let together = sequence(&[&set(&[&o, &ou])]);
    let other_order = sequence(&[&set(&[&ou, &o])]);
    let apart = sequence(&[&set(&[&o]), &set(&[&ou])]);
    let apart_swapped = sequence(&[&set(&[&ou]), &set(&[&o])]);
    for (subject, issuer, same) in [
        (&together, &other_order, true),
        (&together, &apart, false),
        (&apart, &apart_swapped, false),
        (&apart, &apart, true),
    ] {
        let mut chain = Chain::usual();
        chain.intermediate.subject = subject.clone();
        chain.leaf.issuer = issuer.clone();
        assert_eq!(refusal(&decide(&chain.x5c(), &[chain.anchor()])).is_none(), same);
    }
}

#[test]
fn path_lengths_count_intermediates_below() {
    let limited = |draft: &mut Draft, length| {
        draft.set(&oid::BASIC_CONSTRAINTS, true, basic_constraints(true, Some(length)));
    };
    assert_eq!(changed(|chain| limited(&mut chain.intermediate, 0)), None);
    assert_eq!(changed(|chain| limited(&mut chain.root, 1)), None);
    let exceeded = Some((INTERMEDIATE, "path_length_exceeded"));
    assert_eq!(changed(|chain| limited(&mut chain.root, 0)), exceeded, "a root's own length counts");
    // A length below can be greater than one above, and changes nothing.
    let both = changed(|chain| {
        limited(&mut chain.root, 0);
        limited(&mut chain.intermediate, 7);
    });
    assert_eq!(both, exceeded);
    let mut middle = Draft::ca("ca1", "root");
    limited(&mut middle, 0);
    let mut below = Draft::ca("ca2", "ca1");
    limited(&mut below, 5);
    let chain = [Draft::device("device", "ca2").sign(), below.sign(), middle.sign()];
    assert_eq!(refusal(&decide(&chain, &[root()])), exceeded);
}

#[test]
fn a_ca_that_renews_itself_does_not_count_for_path_lengths() {
    let mut limited_root = Draft::ca("root", "root");
    limited_root.set(&oid::BASIC_CONSTRAINTS, true, basic_constraints(true, Some(0)));
    // root (pathlen 0) → root's next key → device
    let mut next = Draft::ca("root", "root");
    next.public_key = public_key(&key("next"));
    let mut leaf = Draft::device("device", "root");
    leaf.signer = key("next");
    let anchors = [limited_root.anchor()];
    assert_eq!(refusal(&decide(&[leaf.sign(), next.sign()], &anchors)), None);
    // … but it counts for the caller's limit.
    let none = Rules { max_intermediates: 0, ..Rules::for_device(NOW) };
    let x5c = [leaf.sign(), next.sign()];
    assert_eq!(refusal(&decide_by(&x5c, &anchors, &none)), Some((Place::Chain, "too_many_intermediates")));
    // Another CA below it is one too many.
    let mut other = Draft::ca("other", "root");
    other.signer = key("next");
    let x5c = [Draft::device("device", "other").sign(), other.sign(), next.sign()];
    assert_eq!(refusal(&decide(&x5c, &anchors)), Some((INTERMEDIATE, "path_length_exceeded")));
    // A self-issued device is not counted, and neither is any other.
    let mut self_issued = Draft::device("root", "root");
    self_issued.public_key = public_key(&key("device"));
    assert_eq!(refusal(&decide(&[self_issued.sign()], &anchors)), None);
}

#[test]
fn a_problem_of_a_root_that_has_nothing_to_do_with_it_is_none() {
    let chain = Chain::usual();
    let mut broken = Draft::ca("broken", "broken");
    broken.set(&oid::EXTENDED_KEY_USAGE, true, super::builder::purposes(&[super::builder::SERVER_AUTH]));
    broken.not_after = super::builder::utc("210101000000Z");
    assert_eq!(refusal(&decide(&chain.x5c(), &[broken.anchor(), chain.anchor()])), None);
}

#[test]
fn a_platform_that_fails_decides_nothing() {
    struct Broken;
    impl VerifySignature for Broken {
        async fn verify_signature(&self, _: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
            Err(CryptoError::Platform("gone".to_owned()))
        }
    }
    let chain = Chain::usual();
    let (x5c, anchors, rules) = (chain.x5c(), [chain.anchor()], Rules::for_device(NOW));
    assert!(pollster::block_on(validate(&Broken, &x5c, &anchors, &rules)).is_err());
}

#[test]
fn what_is_denied_can_be_named() {
    let chain = Chain::usual();
    let (x5c, anchors) = (chain.x5c(), [chain.anchor()]);
    let valid = decide(&x5c, &anchors).verdict.unwrap();
    let leaf = valid.leaf();
    assert_eq!(leaf.tbs_fingerprint(), Fingerprint::of(&chain.leaf.tbs()));
    assert_eq!(leaf.thumbprint(), Fingerprint::of(&chain.leaf.sign()));
    assert_eq!(leaf.issuer().to_string(), "CN=intermediate");
    assert_eq!(leaf.serial().to_string(), "01");
    assert_eq!(leaf.public_key(), chain.leaf.public_key);
    assert_eq!((leaf.not_before(), leaf.not_after()), (UnixTime(1_577_836_800), UnixTime(2_208_988_800)));
    // Another encoding of the signature is another certificate, and still the one that was denied.
    let mut tampered = x5c[0].clone();
    *tampered.last_mut().unwrap() ^= 1;
    let tampered = Certificate::read(&tampered).unwrap();
    assert_ne!(tampered.thumbprint(), leaf.thumbprint());
    assert_eq!(tampered.tbs_fingerprint(), leaf.tbs_fingerprint());
    assert_eq!(common_name("x"), Certificate::read(&Draft::device("x", "y").sign()).unwrap().subject().der());
}
