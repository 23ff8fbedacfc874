//! Distinguished names (RFC 5280 §4.1.2.4): reading, comparing by §7.1, printing by RFC 4514.

use std::borrow::Cow;
use std::fmt::{self, Write};

use der::Tag;
use der::oid::ObjectIdentifier;

use super::asn1::Element;
use super::oid::{self, Oid};
use super::refusal::Problem;
use super::text;

/// So long may a name be, in bytes. Comparing takes time for each.
const MAX_LENGTH: usize = 2048;
/// So many attributes may a name have.
const MAX_ATTRIBUTES: usize = 64;

/// A distinguished name. Two of them are equal if RFC 5280 §7.1 says so: strings of whatever type are compared without
/// regard to case and white space, anything else byte by byte.
#[derive(Clone, Debug)]
pub struct Name<'a> {
    /// The DER of the whole RDNSequence.
    der: &'a [u8],
    rdns: Vec<Vec<Attribute<'a>>>,
}

/// An attribute of a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: Oid<'a>,
    tag: Tag,
    content: &'a [u8],
    whole: &'a [u8],
}

/// A name in the form in which it is compared: one byte string for each relative distinguished name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CanonicalName(Vec<Vec<u8>>);

impl<'a> Name<'a> {
    /// Reads an RDNSequence.
    pub(crate) fn read(element: &Element<'a>) -> Result<Self, Problem> {
        let malformed = Problem::Malformed("name");
        if element.tag != Tag::Sequence {
            return Err(malformed);
        }
        if element.whole.len() > MAX_LENGTH {
            return Err(Problem::TooMany { what: "bytes in a name", most: MAX_LENGTH });
        }
        let mut rdns = Vec::new();
        let mut count = 0;
        let mut sequence = element.fields("name")?;
        while !sequence.is_empty() {
            let mut set = sequence.expect(Tag::Set)?.fields("name")?;
            let mut attributes = Vec::new();
            while !set.is_empty() {
                let mut pair = set.expect(Tag::Sequence)?.fields("name")?;
                let kind = Oid::read(&mut pair, "name")?;
                let Element { tag, content, whole } = pair.next()?;
                pair.end()?;
                if matches!(text::decode(tag, content), Some(Err(_))) {
                    return Err(malformed);
                }
                attributes.push(Attribute { kind, tag, content, whole });
                count += 1;
                if count > MAX_ATTRIBUTES {
                    return Err(Problem::TooMany { what: "attributes in a name", most: MAX_ATTRIBUTES });
                }
            }
            if attributes.is_empty() {
                return Err(malformed);
            }
            rdns.push(attributes);
        }
        Ok(Self { der: element.whole, rdns })
    }

    /// The DER of the name.
    pub fn der(&self) -> &'a [u8] {
        self.der
    }

    /// Whether the name has no part at all.
    pub fn is_empty(&self) -> bool {
        self.rdns.is_empty()
    }

    pub(crate) fn attributes(&self) -> impl Iterator<Item = &Attribute<'a>> {
        self.rdns.iter().flatten()
    }

    pub(crate) fn canonical(&self) -> CanonicalName {
        CanonicalName(self.rdns.iter().map(|attributes| canonical_rdn(attributes)).collect())
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        // Nearly always a CA copies its own name as it is.
        self.der == other.der || self.canonical() == other.canonical()
    }
}

impl Eq for Name<'_> {}

impl CanonicalName {
    /// Whether `name` is in the subtree of which this is the base: whether it begins with it (RFC 5280 §4.2.1.10).
    pub(crate) fn contains(&self, name: &CanonicalName) -> bool {
        name.0.starts_with(&self.0)
    }
}

/// An RDN is a set: its attributes are sorted. The lengths keep what is inside from being taken for another attribute.
fn canonical_rdn(attributes: &[Attribute<'_>]) -> Vec<u8> {
    let mut canonical: Vec<Vec<u8>> = attributes.iter().map(Attribute::canonical).collect();
    canonical.sort_unstable();
    canonical.concat()
}

impl<'a> Attribute<'a> {
    /// The value as text, if it is of a string type.
    pub(crate) fn text(&self) -> Option<Cow<'a, str>> {
        text::decode(self.tag, self.content)?.ok()
    }

    fn canonical(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.content.len());
        let is_text = match self.text() {
            Some(text) => {
                text::normalise(&text, &mut value);
                1
            }
            None => {
                value.extend_from_slice(self.whole);
                0
            }
        };
        let mut canonical = Vec::with_capacity(self.kind.0.len() + value.len() + 17);
        canonical.extend_from_slice(&self.kind.0.len().to_be_bytes());
        canonical.extend_from_slice(self.kind.0);
        canonical.push(is_text);
        canonical.extend_from_slice(&value.len().to_be_bytes());
        canonical.append(&mut value);
        canonical
    }
}

/// RFC 4514: the last part first, `CN=pos-terminal-001,O=05243,C=US`.
impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, attributes) in self.rdns.iter().rev().enumerate() {
            if position > 0 {
                f.write_char(',')?;
            }
            for (position, attribute) in attributes.iter().enumerate() {
                if position > 0 {
                    f.write_char('+')?;
                }
                attribute.fmt(f)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Attribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SHORT_NAMES.iter().find(|(known, _)| self.kind.is(known)) {
            Some((_, short)) => write!(f, "{short}=")?,
            None => write!(f, "{}=", self.kind)?,
        }
        match self.text() {
            Some(text) => escape(&text, f),
            None => {
                f.write_char('#')?;
                self.whole.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

/// RFC 4514 §3, and two that everybody knows.
const SHORT_NAMES: [(ObjectIdentifier, &str); 11] = [
    (oid::COMMON_NAME, "CN"),
    (oid::ORGANIZATION, "O"),
    (oid::ORGANIZATIONAL_UNIT, "OU"),
    (oid::COUNTRY, "C"),
    (oid::STATE, "ST"),
    (oid::LOCALITY, "L"),
    (oid::STREET, "STREET"),
    (oid::DOMAIN_COMPONENT, "DC"),
    (oid::USER_ID, "UID"),
    (oid::SERIAL_NUMBER, "serialNumber"),
    (oid::EMAIL_ADDRESS, "emailAddress"),
];

/// RFC 4514 §2.4. Characters that cannot be seen are escaped too, because the text ends up in logs and on screens.
fn escape(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let last = text.chars().count().saturating_sub(1);
    for (position, char) in text.chars().enumerate() {
        let at_an_end = (position == 0 && matches!(char, ' ' | '#')) || (position == last && char == ' ');
        if char.is_control() || text::is_invisible(char) {
            let mut utf8 = [0; 4];
            char.encode_utf8(&mut utf8).bytes().try_for_each(|octet| write!(f, "\\{octet:02X}"))?;
        } else if at_an_end || matches!(char, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            write!(f, "\\{char}")?;
        } else {
            f.write_char(char)?;
        }
    }
    Ok(())
}
