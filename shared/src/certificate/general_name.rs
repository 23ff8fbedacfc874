//! The forms of a name in subjectAltName and nameConstraints (RFC 5280 §4.2.1.6).

use std::fmt;

use der::{Tag, TagNumber};

use super::asn1::{Element, constructed, primitive};
use super::name::Name;
use super::refusal::Problem;

/// A name of one of the forms of GeneralName. Text is ASCII, and otherwise as it stands in the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GeneralName<'a> {
    /// `[1]`: a mailbox, or in a constraint also a host or a domain.
    Rfc822(&'a str),
    /// `[2]`: a DNS name.
    Dns(&'a str),
    /// `[4]`: a distinguished name.
    Directory(Name<'a>),
    /// `[6]`: a URI, or in a constraint a host or a domain.
    Uri(&'a str),
    /// `[7]`: an IPv4 or IPv6 address, in a constraint with its mask.
    IpAddress(&'a [u8]),
    /// A form that Keypost does not read.
    Other(NameForm),
}

/// The forms of GeneralName.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 5280 §4.2.1.6")]
pub enum NameForm {
    OtherName,
    Rfc822Name,
    DnsName,
    X400Address,
    DirectoryName,
    EdiPartyName,
    Uri,
    IpAddress,
    RegisteredId,
}

impl<'a> GeneralName<'a> {
    pub(crate) fn read(element: &Element<'a>) -> Result<Self, Problem> {
        let malformed = || Problem::Malformed("general name");
        let text = || match std::str::from_utf8(element.content) {
            Ok(text) if text.is_ascii() => Ok(text),
            _ => Err(malformed()),
        };
        Ok(match element.tag {
            tag if tag == constructed(TagNumber::N0) => Self::Other(NameForm::OtherName),
            tag if tag == primitive(TagNumber::N1) => Self::Rfc822(text()?),
            tag if tag == primitive(TagNumber::N2) => Self::Dns(text()?),
            tag if tag == constructed(TagNumber::N3) => Self::Other(NameForm::X400Address),
            // Name is a CHOICE, so its tag is explicit.
            tag if tag == constructed(TagNumber::N4) => {
                Self::Directory(Name::read(&Element::only(element.content, "general name")?)?)
            }
            tag if tag == constructed(TagNumber::N5) => Self::Other(NameForm::EdiPartyName),
            tag if tag == primitive(TagNumber::N6) => Self::Uri(text()?),
            tag if tag == primitive(TagNumber::N7) => Self::IpAddress(element.content),
            tag if tag == primitive(TagNumber::N8) => Self::Other(NameForm::RegisteredId),
            _ => return Err(malformed()),
        })
    }

    /// Reads the names of a subjectAltName: one at least, and addresses of the length of IPv4 or IPv6.
    pub(crate) fn read_all(value: &'a [u8]) -> Result<Vec<Self>, Problem> {
        let malformed = || Problem::Malformed("subjectAltName");
        let element = Element::only(value, "subjectAltName")?;
        if element.tag != Tag::Sequence {
            return Err(malformed());
        }
        let mut fields = element.fields("subjectAltName")?;
        let mut names = Vec::new();
        while !fields.is_empty() {
            let name = Self::read(&fields.next()?)?;
            if matches!(name, Self::IpAddress(address) if !matches!(address.len(), 4 | 16)) {
                return Err(malformed());
            }
            names.push(name);
        }
        if names.is_empty() { Err(malformed()) } else { Ok(names) }
    }

    /// Which form the name has.
    pub fn form(&self) -> NameForm {
        match self {
            Self::Rfc822(_) => NameForm::Rfc822Name,
            Self::Dns(_) => NameForm::DnsName,
            Self::Directory(_) => NameForm::DirectoryName,
            Self::Uri(_) => NameForm::Uri,
            Self::IpAddress(_) => NameForm::IpAddress,
            Self::Other(form) => *form,
        }
    }
}

impl fmt::Display for NameForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameForm::OtherName => "otherName",
            NameForm::Rfc822Name => "rfc822Name",
            NameForm::DnsName => "dNSName",
            NameForm::X400Address => "x400Address",
            NameForm::DirectoryName => "directoryName",
            NameForm::EdiPartyName => "ediPartyName",
            NameForm::Uri => "uniformResourceIdentifier",
            NameForm::IpAddress => "iPAddress",
            NameForm::RegisteredId => "registeredID",
        })
    }
}
