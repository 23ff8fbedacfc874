//! Certificate policies (RFC 5280 §6.1), for a relying party that has no wish of its own: any policy will do, and only a
//! CA can ask that there be one.
//!
//! The tree of §6.1.2 grows exponentially for whoever wants it to. But only its last level is ever asked for, so each
//! level is kept as a set of policies, as RFC 9618 recommends: a few policies, whatever the chain.

use std::collections::{BTreeMap, BTreeSet};

use der::{Tag, TagNumber};

use super::asn1::{Element, Malformed, primitive, small};
use super::extension::{Extensions, Unread, sequence};
use super::oid::{self, Oid};
use super::refusal::Problem;

/// What a certificate's extensions say about policies.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyExtensions<'a> {
    /// certificatePolicies (§4.2.1.4).
    policies: Option<BTreeSet<Oid<'a>>>,
    /// policyMappings (§4.2.1.5): from the issuer's policies to the subject's.
    mappings: BTreeMap<Oid<'a>, BTreeSet<Oid<'a>>>,
    /// policyConstraints (§4.2.1.11).
    require_explicit: Option<u32>,
    inhibit_mapping: Option<u32>,
    /// inhibitAnyPolicy (§4.2.1.14).
    inhibit_any: Option<u32>,
}

impl<'a> PolicyExtensions<'a> {
    pub(crate) fn read(extensions: &Extensions<'a>) -> Result<Self, Problem> {
        let mut policy = Self::default();
        if let Some(Unread { critical, value }) = extensions.certificate_policies {
            policy.policies = Some(read_policies(value, critical)?);
        }
        if let Some(Unread { value, .. }) = extensions.policy_mappings {
            policy.mappings = read_mappings(value)?;
        }
        if let Some(Unread { value, .. }) = extensions.policy_constraints {
            (policy.require_explicit, policy.inhibit_mapping) = read_constraints(value)?;
        }
        if let Some(Unread { value, .. }) = extensions.inhibit_any_policy {
            const WHAT: &str = "inhibitAnyPolicy";
            let Element { tag: Tag::Integer, content, .. } = Element::only(value, WHAT)? else {
                return Err(Problem::Malformed(WHAT));
            };
            policy.inhibit_any = Some(small(content, WHAT)?);
        }
        Ok(policy)
    }
}

/// How far down the path the policies have been followed.
pub(crate) struct PolicyState<'a> {
    /// The policies that the next certificate may name: the expected policies of the last level of the tree.
    expected: BTreeSet<Oid<'a>>,
    /// Whether it may name any.
    any: bool,
    explicit: Counter,
    mapping: Counter,
    any_policy: Counter,
}

/// So many more certificates, self-issued ones aside, until something holds; `None` for never.
#[derive(Clone, Copy)]
struct Counter(Option<u32>);

impl Counter {
    fn is_zero(self) -> bool {
        self.0 == Some(0)
    }

    fn count_down(&mut self) {
        self.0 = self.0.map(|count| count.saturating_sub(1));
    }

    fn at_most(&mut self, limit: Option<u32>) {
        self.0 = match (self.0, limit) {
            (Some(count), Some(limit)) => Some(count.min(limit)),
            (count, limit) => count.or(limit),
        };
    }
}

impl<'a> PolicyState<'a> {
    /// Where a path begins: any policy, and nothing required (§6.1.2). The root's own extensions count, but it need not
    /// name a policy.
    pub(crate) fn below(anchor: &PolicyExtensions<'a>) -> Self {
        let never = Counter(None);
        let mut state =
            Self { expected: BTreeSet::new(), any: true, explicit: never, mapping: never, any_policy: never };
        if anchor.policies.is_some() {
            state.follow(anchor, true);
        }
        state.map(anchor);
        state.limit(anchor);
        state
    }

    /// A certificate between the anchor and the device's (§6.1.3 (d) to (f), §6.1.4 (b) and (h) to (j)).
    pub(crate) fn pass(
        &mut self,
        intermediate: &PolicyExtensions<'a>,
        self_issued: bool,
    ) -> Result<(), Problem> {
        self.follow(intermediate, self_issued);
        self.required()?;
        self.map(intermediate);
        if !self_issued {
            for counter in [&mut self.explicit, &mut self.mapping, &mut self.any_policy] {
                counter.count_down();
            }
        }
        self.limit(intermediate);
        Ok(())
    }

    /// The device's certificate (§6.1.3 (d) to (f), §6.1.5 (a), (b) and (g)).
    pub(crate) fn end(mut self, leaf: &PolicyExtensions<'a>) -> Result<(), Problem> {
        self.follow(leaf, false);
        self.required()?;
        self.explicit.count_down();
        if leaf.require_explicit == Some(0) {
            self.explicit = Counter(Some(0));
        }
        self.required()
    }

    /// §6.1.3 (d) and (e). anyPolicy counts as long as it is not inhibited, or where a CA only renews itself.
    fn follow(&mut self, certificate: &PolicyExtensions<'a>, any_is_free: bool) {
        let Some(policies) = &certificate.policies else {
            self.expected.clear();
            self.any = false;
            return;
        };
        let is_any = |policy: &&Oid<'a>| policy.is(&oid::ANY_POLICY);
        let names_any =
            policies.iter().any(|policy| is_any(&policy)) && (any_is_free || !self.any_policy.is_zero());
        let named = policies.iter().filter(|policy| !is_any(policy));
        let mut valid: BTreeSet<_> =
            named.filter(|policy| self.any || self.expected.contains(policy)).copied().collect();
        if names_any {
            valid.append(&mut self.expected);
        }
        self.expected = valid;
        self.any &= names_any;
    }

    /// §6.1.3 (f), §6.1.5 (g).
    fn required(&self) -> Result<(), Problem> {
        if self.explicit.is_zero() && !self.any && self.expected.is_empty() {
            return Err(Problem::NoValidPolicy);
        }
        Ok(())
    }

    /// §6.1.4 (b): what the issuer calls one thing is called another below.
    fn map(&mut self, certificate: &PolicyExtensions<'a>) {
        let mappings = &certificate.mappings;
        if self.mapping.is_zero() {
            self.expected.retain(|policy| !mappings.contains_key(policy));
            return;
        }
        let mut mapped = BTreeSet::new();
        for (policy, becomes) in mappings {
            if self.expected.remove(policy) || self.any {
                mapped.extend(becomes);
            }
        }
        self.expected.append(&mut mapped);
    }

    /// §6.1.4 (i) and (j).
    fn limit(&mut self, certificate: &PolicyExtensions<'a>) {
        self.explicit.at_most(certificate.require_explicit);
        self.mapping.at_most(certificate.inhibit_mapping);
        self.any_policy.at_most(certificate.inhibit_any);
    }
}

/// Each policy once. Where the extension is critical its qualifiers must be understood as well.
fn read_policies(value: &[u8], critical: bool) -> Result<BTreeSet<Oid<'_>>, Problem> {
    const WHAT: &str = "certificatePolicies";
    let mut policies = BTreeSet::new();
    let mut fields = sequence(value, WHAT)?;
    while !fields.is_empty() {
        let mut information = fields.expect(Tag::Sequence)?.fields(WHAT)?;
        let policy = Oid::read(&mut information, WHAT)?;
        if let Some(qualifiers) = information.optional(Tag::Sequence)? {
            let mut qualifiers = qualifiers.fields(WHAT)?;
            while !qualifiers.is_empty() {
                let mut qualifier = qualifiers.expect(Tag::Sequence)?.fields(WHAT)?;
                let kind = Oid::read(&mut qualifier, WHAT)?;
                qualifier.next()?;
                qualifier.end()?;
                if critical && !kind.is(&oid::CPS_QUALIFIER) && !kind.is(&oid::USER_NOTICE_QUALIFIER) {
                    return Err(Problem::UnknownCriticalExtension(kind.to_string()));
                }
            }
        }
        information.end()?;
        if !policies.insert(policy) {
            return Err(Problem::Malformed(WHAT));
        }
    }
    if policies.is_empty() { Err(Problem::Malformed(WHAT)) } else { Ok(policies) }
}

/// anyPolicy is mapped neither from nor to (§6.1.4 (a)).
fn read_mappings(value: &[u8]) -> Result<BTreeMap<Oid<'_>, BTreeSet<Oid<'_>>>, Malformed> {
    const WHAT: &str = "policyMappings";
    let mut mappings = BTreeMap::<_, BTreeSet<_>>::new();
    let mut fields = sequence(value, WHAT)?;
    while !fields.is_empty() {
        let mut mapping = fields.expect(Tag::Sequence)?.fields(WHAT)?;
        let from = Oid::read(&mut mapping, WHAT)?;
        let to = Oid::read(&mut mapping, WHAT)?;
        mapping.end()?;
        if from.is(&oid::ANY_POLICY) || to.is(&oid::ANY_POLICY) {
            return Err(Malformed(WHAT));
        }
        mappings.entry(from).or_default().insert(to);
    }
    if mappings.is_empty() { Err(Malformed(WHAT)) } else { Ok(mappings) }
}

/// requireExplicitPolicy and inhibitPolicyMapping, of which one must be there.
fn read_constraints(value: &[u8]) -> Result<(Option<u32>, Option<u32>), Malformed> {
    const WHAT: &str = "policyConstraints";
    let mut fields = sequence(value, WHAT)?;
    let mut count = |number| match fields.optional(primitive(number))? {
        Some(count) => small(count.content, WHAT).map(Some),
        None => Ok(None),
    };
    let constraints = (count(TagNumber::N0)?, count(TagNumber::N1)?);
    fields.end()?;
    if constraints == (None, None) { Err(Malformed(WHAT)) } else { Ok(constraints) }
}
