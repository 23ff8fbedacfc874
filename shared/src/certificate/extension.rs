//! The extensions that path validation processes (RFC 5280 §4.2.1), read; everything else is only asked whether it is
//! critical.

use der::Tag;

use super::asn1::{Element, Fields, Malformed, bit_string, small};
use super::general_name::GeneralName;
use super::name_constraint::NameConstraints;
use super::oid::{self, Oid};
use super::policy::PolicyExtensions;
use super::refusal::Problem;

/// What a certificate's extensions say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions<'a> {
    pub(crate) basic_constraints: Option<BasicConstraints>,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) extended_key_usage: Option<ExtendedKeyUsage>,
    pub(crate) subject_alt_name: Option<SubjectAltName<'a>>,
    pub(crate) name_constraints: Option<NameConstraints<'a>>,
    pub(crate) policy: PolicyExtensions<'a>,
    /// The first critical extension that is not processed here.
    pub(crate) unknown_critical: Option<Oid<'a>>,
    pub(crate) key_identifier_critical: bool,
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

/// §4.2.1.6
#[derive(Clone, Debug)]
pub(crate) struct SubjectAltName<'a> {
    pub(crate) critical: bool,
    pub(crate) names: Vec<GeneralName<'a>>,
}

impl<'a> Extensions<'a> {
    /// Reads Extensions, which has one member at least (§4.1).
    pub(crate) fn read(mut fields: Fields<'a>) -> Result<Self, Problem> {
        let mut extensions = Self::default();
        let mut seen = Vec::new();
        if fields.is_empty() {
            return Err(Problem::Malformed("extensions"));
        }
        while !fields.is_empty() {
            let mut extension = fields.expect(Tag::Sequence)?.fields("extensions")?;
            let id = Oid::read(&mut extension, "extensions")?;
            let critical = extension.optional_boolean()?;
            let value = extension.expect(Tag::OctetString)?.content;
            extension.end()?;
            seen.push(id);
            extensions.take(id, critical, value)?;
        }
        // Sorted, because a comparison of each with each would take long where there are thousands.
        seen.sort_unstable();
        match seen.windows(2).find(|pair| matches!(pair, [one, other] if one == other)) {
            Some([twice, ..]) => Err(Problem::DuplicateExtension(twice.to_string())),
            _ => Ok(extensions),
        }
    }

    fn take(&mut self, id: Oid<'a>, critical: bool, value: &'a [u8]) -> Result<(), Problem> {
        if id.is(&oid::BASIC_CONSTRAINTS) {
            self.basic_constraints = Some(BasicConstraints::read(value)?);
        } else if id.is(&oid::KEY_USAGE) {
            self.key_usage = Some(KeyUsage::read(value)?);
        } else if id.is(&oid::EXTENDED_KEY_USAGE) {
            self.extended_key_usage = Some(ExtendedKeyUsage::read(value)?);
        } else if id.is(&oid::SUBJECT_ALT_NAME) {
            self.subject_alt_name = Some(SubjectAltName { critical, names: GeneralName::read_all(value)? });
        } else if id.is(&oid::NAME_CONSTRAINTS) {
            self.name_constraints = Some(NameConstraints::read(value)?);
        } else if id.is(&oid::SUBJECT_KEY_IDENTIFIER) || id.is(&oid::AUTHORITY_KEY_IDENTIFIER) {
            // They help to find an issuer among many. Here the chain is in order, so they decide nothing.
            self.key_identifier_critical |= critical;
        } else if !self.policy.take(id, critical, value)? && critical {
            self.unknown_critical.get_or_insert(id);
        }
        Ok(())
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
    fn read(value: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "extKeyUsage";
        let mut fields = sequence(value, WHAT)?;
        if fields.is_empty() {
            return Err(Malformed(WHAT));
        }
        let mut usage = Self { client_auth: false, any: false };
        while !fields.is_empty() {
            let purpose = Oid::read(&mut fields, WHAT)?;
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
