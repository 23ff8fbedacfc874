//! What a certificate says of a device, by the names that policies use.

use std::fmt;
use std::str::FromStr;

use crate::certificate::{GeneralName, Subject, SubjectError, ValidChain};

/// A part of a device's certificate that a policy can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `cn`: the subject's common name.
    CommonName,
    /// `o`: its organization.
    Organization,
    /// `ou`: its organizational unit.
    OrganizationalUnit,
    /// `c`: its country.
    Country,
    /// `st`: its state or province.
    State,
    /// `l`: its locality.
    Locality,
    /// `serialNumber`: its serial number, which is the device's and not the certificate's.
    SerialNumber,
    /// `uid`: its user id.
    UserId,
    /// `san.dns`: a DNS name of the subjectAltName.
    SanDns,
    /// `san.email`: a mailbox there.
    SanEmail,
    /// `san.uri`: a URI there.
    SanUri,
}

const NAMES: [(Attribute, &str); 11] = [
    (Attribute::CommonName, "cn"),
    (Attribute::Organization, "o"),
    (Attribute::OrganizationalUnit, "ou"),
    (Attribute::Country, "c"),
    (Attribute::State, "st"),
    (Attribute::Locality, "l"),
    (Attribute::SerialNumber, "serialNumber"),
    (Attribute::UserId, "uid"),
    (Attribute::SanDns, "san.dns"),
    (Attribute::SanEmail, "san.email"),
    (Attribute::SanUri, "san.uri"),
];

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(own, _)| own == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Attribute {
    type Err = ();

    /// Takes the name in any case: people write `{CN}` too.
    fn from_str(text: &str) -> Result<Self, ()> {
        NAMES
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text))
            .map(|(attribute, _)| *attribute)
            .ok_or(())
    }
}

/// Why an attribute has no one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoValue {
    /// The certificate does not have it.
    Missing,
    /// It has it more than once, and which one is meant cannot be told.
    Several,
}

impl fmt::Display for NoValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoValue::Missing => "no",
            NoValue::Several => "more than one",
        })
    }
}

/// The attributes of a device's certificate, as they stand there.
#[derive(Clone, Debug, Default)]
pub struct Attributes(Vec<(Attribute, String)>);

impl Attributes {
    /// Reads them from a valid chain. Whatever of O, OU and CN could be read in two ways is refused; of the rest, what
    /// cannot be seen is left out.
    pub fn of(chain: &ValidChain<'_>) -> Result<Self, SubjectError> {
        let subject: Subject = chain.subject()?;
        let mut values = Vec::new();
        for (attribute, own) in [
            (Attribute::CommonName, Vec::from_iter(subject.common_name)),
            (Attribute::Organization, Vec::from_iter(subject.organization)),
            (Attribute::OrganizationalUnit, subject.organizational_units),
            (Attribute::Country, subject.countries),
            (Attribute::State, subject.states),
            (Attribute::Locality, subject.localities),
            (Attribute::SerialNumber, subject.serial_numbers),
            (Attribute::UserId, subject.user_ids),
        ] {
            values.extend(own.into_iter().map(|value| (attribute, value)));
        }
        for name in chain.alternative_names() {
            let (attribute, text) = match name {
                GeneralName::Dns(text) => (Attribute::SanDns, *text),
                GeneralName::Rfc822(text) => (Attribute::SanEmail, *text),
                GeneralName::Uri(text) => (Attribute::SanUri, *text),
                _ => continue,
            };
            if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
                values.push((attribute, text.to_owned()));
            }
        }
        Ok(Self(values))
    }

    /// All values of an attribute.
    pub fn all(&self, attribute: Attribute) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(own, _)| *own == attribute).map(|(_, value)| value.as_str())
    }

    /// The one value of an attribute.
    pub fn one(&self, attribute: Attribute) -> Result<&str, NoValue> {
        let mut values = self.all(attribute);
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => Err(NoValue::Missing),
            (Some(_), Some(_)) => Err(NoValue::Several),
        }
    }

    #[cfg(test)]
    pub(super) fn made_of(values: &[(&str, &str)]) -> Self {
        let value = |(name, value): &(&str, &str)| (name.parse().unwrap(), (*value).to_owned());
        Self(values.iter().map(value).collect())
    }
}
