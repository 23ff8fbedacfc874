//! Certificate policies: what a CA asks for, and whether a chain has it.

use super::builder::{Chain, Draft, dotted, sequence, tlv};
use super::*;

const ANY: &str = "2.5.29.32.0";
const A: &str = "1.2.3.1";
const B: &str = "1.2.3.2";
const C: &str = "1.2.3.3";

fn policies(policies: &[&str]) -> Vec<u8> {
    tlv(0x30, &policies.iter().flat_map(|policy| sequence(&[&dotted(policy)])).collect::<Vec<_>>())
}

fn mappings(pairs: &[(&str, &str)]) -> Vec<u8> {
    tlv(
        0x30,
        &pairs.iter().flat_map(|(from, to)| sequence(&[&dotted(from), &dotted(to)])).collect::<Vec<_>>(),
    )
}

fn require_explicit(after: u8) -> Vec<u8> {
    sequence(&[&tlv(0x80, &[after])])
}

fn inhibit_mapping(after: u8) -> Vec<u8> {
    sequence(&[&tlv(0x81, &[after])])
}

/// What a certificate says about policies, and a name if it is not the position's own.
#[derive(Clone, Copy, Default)]
struct Says<'a> {
    policies: &'a [&'a str],
    mappings: &'a [(&'a str, &'a str)],
    explicit: Option<u8>,
    no_mapping: Option<u8>,
    no_any: Option<u8>,
    self_issued: bool,
}

impl Says<'_> {
    fn put(&self, draft: &mut Draft) {
        if !self.policies.is_empty() {
            draft.set(&oid::CERTIFICATE_POLICIES, false, policies(self.policies));
        }
        if !self.mappings.is_empty() {
            draft.set(&oid::POLICY_MAPPINGS, true, mappings(self.mappings));
        }
        match (self.explicit, self.no_mapping) {
            (None, None) => {}
            (explicit, no_mapping) => {
                let part = |tag, count: Option<u8>| count.map_or_else(Vec::new, |count| tlv(tag, &[count]));
                let value = sequence(&[&part(0x80, explicit), &part(0x81, no_mapping)]);
                draft.set(&oid::POLICY_CONSTRAINTS, true, value);
            }
        }
        if let Some(count) = self.no_any {
            draft.set(&oid::INHIBIT_ANY_POLICY, true, tlv(0x02, &[count]));
        }
    }
}

/// A path of so many certificates, the root's first, the device's last.
fn path(says: &[Says<'_>]) -> Option<&'static str> {
    let mut issuer = "root".to_owned();
    let mut chain = Vec::new();
    let mut root = Draft::ca("root", "root");
    says[0].put(&mut root);
    for (position, says_here) in says.iter().enumerate().skip(1) {
        let is_leaf = position == says.len() - 1;
        let subject = match says_here.self_issued {
            true => issuer.clone(),
            false => format!("certificate {position}"),
        };
        let mut draft = if is_leaf { Draft::device(&subject, &issuer) } else { Draft::ca(&subject, &issuer) };
        says_here.put(&mut draft);
        chain.insert(0, draft.sign());
        issuer = subject;
    }
    refusal(&decide(&chain, &[root.anchor()])).map(|(_, code)| code)
}

fn of<'a>(policies: &'a [&'a str]) -> Says<'a> {
    Says { policies, ..Says::default() }
}

const NONE: Option<&str> = Some("no_valid_policy");

#[test]
fn without_a_ca_that_asks_policies_do_not_matter() {
    assert_eq!(path(&[of(&[]), of(&[A]), of(&[B])]), None);
    assert_eq!(path(&[of(&[A]), of(&[B]), of(&[])]), None);
    assert_eq!(path(&[of(&[]), Says { no_any: Some(0), ..of(&[A]) }, of(&[ANY])]), None);
}

#[test]
fn where_one_is_required_the_whole_path_must_share_one() {
    let root = Says { explicit: Some(0), ..of(&[]) };
    assert_eq!(path(&[root, of(&[A]), of(&[A])]), None);
    assert_eq!(path(&[root, of(&[A, B]), of(&[B, C])]), None);
    assert_eq!(path(&[root, of(&[A]), of(&[B])]), NONE);
    assert_eq!(path(&[root, of(&[A]), of(&[])]), NONE);
    assert_eq!(path(&[root, of(&[]), of(&[A])]), NONE);
    assert_eq!(path(&[root, of(&[A]), of(&[B]), of(&[A])]), NONE, "what is lost does not come back");
    assert_eq!(path(&[root, of(&[A]), of(&[A]), of(&[A])]), None);
    // What the root itself names counts.
    let root = Says { explicit: Some(0), ..of(&[A]) };
    assert_eq!(path(&[root, of(&[A]), of(&[A])]), None);
    assert_eq!(path(&[root, of(&[B]), of(&[B])]), NONE);
}

#[test]
fn any_policy_stands_for_all() {
    let root = Says { explicit: Some(0), ..of(&[]) };
    assert_eq!(path(&[root, of(&[ANY]), of(&[A])]), None);
    assert_eq!(path(&[root, of(&[A]), of(&[ANY])]), None);
    assert_eq!(path(&[root, of(&[ANY]), of(&[ANY])]), None);
    assert_eq!(path(&[root, of(&[A]), of(&[ANY]), of(&[A])]), None);
    assert_eq!(path(&[root, of(&[A]), of(&[ANY]), of(&[B])]), NONE, "but not for more than was there");
    assert_eq!(path(&[root, of(&[A, ANY]), of(&[ANY]), of(&[B])]), None);
}

#[test]
fn any_policy_can_be_inhibited() {
    let root = Says { explicit: Some(0), no_any: Some(0), ..of(&[]) };
    assert_eq!(path(&[root, of(&[ANY]), of(&[A])]), NONE);
    assert_eq!(path(&[root, of(&[A]), of(&[ANY])]), NONE);
    assert_eq!(path(&[root, of(&[A]), of(&[A])]), None);
    let after_one = Says { explicit: Some(0), no_any: Some(1), ..of(&[]) };
    assert_eq!(path(&[after_one, of(&[ANY]), of(&[A])]), None);
    assert_eq!(path(&[after_one, of(&[ANY]), of(&[ANY])]), NONE);
    // A CA that renews itself neither counts nor is bound.
    let renewed = Says { self_issued: true, ..of(&[ANY]) };
    assert_eq!(path(&[after_one, renewed, of(&[ANY]), of(&[A])]), None);
    assert_eq!(path(&[root, renewed, of(&[A])]), None);
    let self_issued_device = Says { self_issued: true, ..of(&[ANY]) };
    assert_eq!(path(&[root, of(&[A]), self_issued_device]), NONE, "a device is bound whatever its name");
}

#[test]
fn the_requirement_can_come_later() {
    let after = |count| Says { explicit: Some(count), ..of(&[]) };
    assert_eq!(path(&[after(0), of(&[]), of(&[])]), NONE);
    // Two certificates below the root: the requirement is counted down by each.
    assert_eq!(path(&[after(1), of(&[]), of(&[])]), NONE);
    assert_eq!(path(&[after(2), of(&[]), of(&[])]), NONE);
    assert_eq!(path(&[after(3), of(&[]), of(&[])]), None);
    let renewed = Says { self_issued: true, ..of(&[]) };
    assert_eq!(path(&[after(3), renewed, of(&[]), of(&[])]), None);
    assert_eq!(path(&[after(3), of(&[]), of(&[]), of(&[])]), NONE);
    // The least of several counts.
    assert_eq!(path(&[after(9), after(0), of(&[])]), NONE);
    assert_eq!(path(&[after(1), after(9), of(&[])]), NONE);
    // A device can ask it of its own path, at once or not at all.
    assert_eq!(path(&[of(&[]), of(&[]), after(0)]), NONE);
    assert_eq!(path(&[of(&[]), of(&[]), after(1)]), None);
    assert_eq!(path(&[of(&[]), of(&[A]), Says { explicit: Some(0), ..of(&[A]) }]), None);
}

#[test]
fn policies_can_be_mapped() {
    let root = Says { explicit: Some(0), ..of(&[]) };
    let a_to_b = Says { mappings: &[(A, B)], ..of(&[A]) };
    assert_eq!(path(&[root, a_to_b, of(&[B])]), None);
    assert_eq!(path(&[root, a_to_b, of(&[A])]), NONE, "A is called B now");
    assert_eq!(path(&[root, Says { mappings: &[(A, B), (A, C)], ..of(&[A]) }, of(&[C])]), None);
    // From what is not there nothing is mapped, except below anyPolicy.
    assert_eq!(path(&[root, Says { mappings: &[(C, B)], ..of(&[A]) }, of(&[B])]), NONE);
    assert_eq!(path(&[root, Says { mappings: &[(C, B)], ..of(&[ANY]) }, of(&[B])]), None);
    // One step at a time.
    assert_eq!(path(&[root, Says { mappings: &[(A, B), (B, C)], ..of(&[A]) }, of(&[C])]), NONE);
    assert_eq!(path(&[root, Says { mappings: &[(A, B), (B, A)], ..of(&[A, B]) }, of(&[A])]), None);
    assert_eq!(path(&[root, Says { mappings: &[(B, A), (A, C)], ..of(&[A]) }, of(&[A])]), NONE);
}

#[test]
fn mapping_can_be_inhibited() {
    let root = Says { explicit: Some(0), no_mapping: Some(0), ..of(&[]) };
    let a_to_b = Says { mappings: &[(A, B)], ..of(&[A, C]) };
    assert_eq!(path(&[root, a_to_b, of(&[B])]), NONE);
    assert_eq!(path(&[root, a_to_b, of(&[A])]), NONE, "what would have been mapped is gone");
    assert_eq!(path(&[root, a_to_b, of(&[C])]), None);
    let after_one = Says { explicit: Some(0), no_mapping: Some(1), ..of(&[]) };
    assert_eq!(path(&[after_one, a_to_b, of(&[B])]), None);
    assert_eq!(path(&[after_one, of(&[A]), a_to_b, of(&[B])]), NONE);
    let renewed = Says { self_issued: true, ..of(&[A]) };
    assert_eq!(path(&[after_one, renewed, a_to_b, of(&[B])]), None);
}

#[test]
fn qualifiers_matter_where_the_extension_is_critical() {
    let qualified = |qualifier: &str| {
        let qualifiers =
            sequence(&[&sequence(&[&dotted(qualifier), &tlv(0x16, b"https://example.com/cps")])]);
        sequence(&[&sequence(&[&dotted(A), &qualifiers])])
    };
    let decide = |qualifier, critical| {
        changed(|chain| chain.leaf.set(&oid::CERTIFICATE_POLICIES, critical, qualified(qualifier)))
    };
    for known in ["1.3.6.1.5.5.7.2.1", "1.3.6.1.5.5.7.2.2"] {
        assert_eq!(decide(known, true), None);
        assert_eq!(decide(known, false), None);
    }
    assert_eq!(decide("1.2.3.4", false), None);
    assert_eq!(decide("1.2.3.4", true), Some((LEAF, "unknown_critical_extension")));
}

#[test]
fn malformed_policies_are_refused() {
    let information = sequence(&[&dotted(A)]);
    for (id, wrong) in [
        (oid::CERTIFICATE_POLICIES, sequence(&[])),
        (oid::CERTIFICATE_POLICIES, policies(&[A, B, A])),
        (oid::CERTIFICATE_POLICIES, sequence(&[&dotted(A)])),
        (oid::CERTIFICATE_POLICIES, sequence(&[&sequence(&[&dotted(A), &tlv(0x04, b"")])])),
        (oid::CERTIFICATE_POLICIES, [sequence(&[&information]), vec![0]].concat()),
        (oid::POLICY_MAPPINGS, sequence(&[])),
        (oid::POLICY_MAPPINGS, mappings(&[(ANY, A)])),
        (oid::POLICY_MAPPINGS, mappings(&[(A, ANY)])),
        (oid::POLICY_MAPPINGS, sequence(&[&information])),
        (oid::POLICY_CONSTRAINTS, sequence(&[])),
        (oid::POLICY_CONSTRAINTS, sequence(&[&tlv(0x80, &[])])),
        (oid::POLICY_CONSTRAINTS, sequence(&[&tlv(0x80, &[0x80])])),
        (oid::POLICY_CONSTRAINTS, sequence(&[&tlv(0x82, &[0])])),
        (oid::POLICY_CONSTRAINTS, [inhibit_mapping(0), require_explicit(0)].concat()),
        (oid::INHIBIT_ANY_POLICY, sequence(&[])),
        (oid::INHIBIT_ANY_POLICY, tlv(0x02, &[0x80])),
        (oid::INHIBIT_ANY_POLICY, tlv(0x02, &[])),
    ] {
        let refused = changed(|chain| chain.intermediate.set(&id, false, wrong.clone()));
        assert_eq!(refused, Some((INTERMEDIATE, "malformed")), "{wrong:02x?}");
    }
    assert_eq!(refusal(&decide(&Chain::usual().x5c(), &[Chain::usual().anchor()])), None);
}
