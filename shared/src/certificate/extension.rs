//! The extensions that path validation processes (RFC 5280 §4.2.1); everything else is only asked whether it is critical.
//!
//! They are read in two steps. What decides at once is small. Names, name constraints and policies can be long, so they
//! are left unread until the signatures have verified: a stranger can send as many as he likes.

use std::collections::BTreeSet;

use der::Tag;

use super::asn1::{Element, Fields, Malformed, bit_string, small};
use super::general_name::GeneralName;
use super::name_constraint::NameConstraints;
use super::oid::{self, Oid};
use super::policy::PolicyExtensions;
use super::refusal::Problem;

/// So many extensions may a certificate have, and so many purposes an extended key usage.
const MAX_MEMBERS: usize = 64;

/// What a certificate's extensions say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions<'a> {
    pub(crate) basic_constraints: Option<BasicConstraints>,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) extended_key_usage: Option<ExtendedKeyUsage>,
    pub(crate) subject_alt_name: Option<Unread<'a>>,
    pub(crate) name_constraints: Option<Unread<'a>>,
    pub(crate) certificate_policies: Option<Unread<'a>>,
    pub(crate) policy_mappings: Option<Unread<'a>>,
    pub(crate) policy_constraints: Option<Unread<'a>>,
    pub(crate) inhibit_any_policy: Option<Unread<'a>>,
    /// The first critical extension that is not processed here.
    pub(crate) unknown_critical: Option<Oid<'a>>,
    pub(crate) key_identifier_critical: bool,
}

/// An extension that is left for later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unread<'a> {
    pub(crate) critical: bool,
    pub(crate) value: &'a [u8],
}

/// What was left for later, read.
#[derive(Clone, Debug)]
pub(crate) struct LongExtensions<'a> {
    /// §4.2.1.6
    pub(crate) alternative_names: Vec<GeneralName<'a>>,
    /// §4.2.1.10
    pub(crate) name_constraints: Option<NameConstraints<'a>>,
    pub(crate) policy: PolicyExtensions<'a>,
}

/// §4.2.1.9
#[derive(Clone, Copy, Debug)]
pub(crate) struct BasicConstraints {
    pub(crate) ca: bool,
    pub(crate) path_length: Option<u32>,
}

/// §4.2.1.3, the bits that matter here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyUsage {
    pub(crate) digital_signature: bool,
    pub(crate) key_cert_sign: bool,
}

/// §4.2.1.12
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExtendedKeyUsage {
    pub(crate) client_auth: bool,
    /// anyExtendedKeyUsage.
    pub(crate) any: bool,
}

impl<'a> Extensions<'a> {
    /// Reads Extensions, which has one member at least (§4.1).
    pub(crate) fn read(mut fields: Fields<'a>) -> Result<Self, Problem> {
        let mut extensions = Self::default();
        let mut seen = BTreeSet::new();
        if fields.is_empty() {
            return Err(Problem::Malformed("extensions"));
        }
        while !fields.is_empty() {
            let mut extension = fields.expect(Tag::Sequence)?.fields("extensions")?;
            let id = Oid::read(&mut extension, "extensions")?;
            let critical = extension.optional_boolean()?;
            let value = extension.expect(Tag::OctetString)?.content;
            extension.end()?;
            if !seen.insert(id) {
                return Err(Problem::DuplicateExtension(id.to_string()));
            }
            if seen.len() > MAX_MEMBERS {
                return Err(Problem::TooMany { what: "extensions", most: MAX_MEMBERS });
            }
            extensions.take(id, critical, value)?;
        }
        Ok(extensions)
    }

    fn take(&mut self, id: Oid<'a>, critical: bool, value: &'a [u8]) -> Result<(), Problem> {
        if id.is(&oid::BASIC_CONSTRAINTS) {
            self.basic_constraints = Some(BasicConstraints::read(value)?);
        } else if id.is(&oid::KEY_USAGE) {
            self.key_usage = Some(KeyUsage::read(value)?);
        } else if id.is(&oid::EXTENDED_KEY_USAGE) {
            self.extended_key_usage = Some(ExtendedKeyUsage::read(value)?);
        } else if id.is(&oid::SUBJECT_KEY_IDENTIFIER) || id.is(&oid::AUTHORITY_KEY_IDENTIFIER) {
            // They help to find an issuer among many. Here the chain is in order, so they decide nothing.
            self.key_identifier_critical |= critical;
        } else if let Some(later) = self.left_for_later(id) {
            *later = Some(Unread { critical, value });
        } else if critical {
            self.unknown_critical.get_or_insert(id);
        }
        Ok(())
    }

    fn left_for_later(&mut self, id: Oid<'_>) -> Option<&mut Option<Unread<'a>>> {
        [
            (&oid::SUBJECT_ALT_NAME, &mut self.subject_alt_name),
            (&oid::NAME_CONSTRAINTS, &mut self.name_constraints),
            (&oid::CERTIFICATE_POLICIES, &mut self.certificate_policies),
            (&oid::POLICY_MAPPINGS, &mut self.policy_mappings),
            (&oid::POLICY_CONSTRAINTS, &mut self.policy_constraints),
            (&oid::INHIBIT_ANY_POLICY, &mut self.inhibit_any_policy),
        ]
        .into_iter()
        .find_map(|(known, place)| id.is(known).then_some(place))
    }

    /// Reads what was left for later.
    pub(crate) fn read_long(&self) -> Result<LongExtensions<'a>, Problem> {
        let alternative_names = self.subject_alt_name.map(|names| GeneralName::read_all(names.value));
        let name_constraints =
            self.name_constraints.map(|constraints| NameConstraints::read(constraints.value));
        Ok(LongExtensions {
            alternative_names: alternative_names.transpose()?.unwrap_or_default(),
            name_constraints: name_constraints.transpose()?,
            policy: PolicyExtensions::read(self)?,
        })
    }
}

impl BasicConstraints {
    fn read(value: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "basicConstraints";
        let mut fields = sequence(value, WHAT)?;
        let ca = fields.optional_boolean()?;
        let path_length = match fields.optional(Tag::Integer)? {
            Some(length) => Some(small(length.content, WHAT)?),
            None => None,
        };
        fields.end()?;
        Ok(Self { ca, path_length })
    }
}

impl KeyUsage {
    /// At least one bit must be set (§4.2.1.3).
    fn read(value: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "keyUsage";
        let element = Element::only(value, WHAT)?;
        if element.tag != Tag::BitString {
            return Err(Malformed(WHAT));
        }
        let (bits, _) = bit_string(element.content, WHAT)?;
        match bits.first() {
            Some(first) if bits.iter().any(|octet| *octet != 0) => Ok(Self {
                digital_signature: first & 0b1000_0000 != 0,
                key_cert_sign: first & 0b0000_0100 != 0,
            }),
            _ => Err(Malformed(WHAT)),
        }
    }
}

impl ExtendedKeyUsage {
    fn read(value: &[u8]) -> Result<Self, Problem> {
        const WHAT: &str = "extKeyUsage";
        let mut fields = sequence(value, WHAT)?;
        if fields.is_empty() {
            return Err(Problem::Malformed(WHAT));
        }
        let mut usage = Self { client_auth: false, any: false };
        let mut count = 0;
        while !fields.is_empty() {
            let purpose = Oid::read(&mut fields, WHAT)?;
            count += 1;
            if count > MAX_MEMBERS {
                return Err(Problem::TooMany { what: "purposes", most: MAX_MEMBERS });
            }
            usage.client_auth |= purpose.is(&oid::CLIENT_AUTH);
            usage.any |= purpose.is(&oid::ANY_EXTENDED_KEY_USAGE);
        }
        Ok(usage)
    }
}

/// The members of the SEQUENCE that is an extension's whole value.
pub(crate) fn sequence<'a>(value: &'a [u8], what: &'static str) -> Result<Fields<'a>, Malformed> {
    let element = Element::only(value, what)?;
    if element.tag == Tag::Sequence { element.fields(what) } else { Err(Malformed(what)) }
}
