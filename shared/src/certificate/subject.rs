//! What Keypost reads from a device's subject: O, OU and CN, as they stand (design §8). The device id comes from them,
//! so whatever could be read in two ways is refused.

use std::borrow::Cow;

use der::oid::ObjectIdentifier;

use super::name::Name;
use super::oid::{self, Oid};
use super::text::is_invisible;

/// The parts of a subject that name a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// O, the business unit.
    pub organization: Option<String>,
    /// Every OU, in the order of the name.
    pub organizational_units: Vec<String>,
    /// CN, from which the device id is made.
    pub common_name: Option<String>,
    /// C, country.
    pub countries: Vec<String>,
    /// ST, state or province.
    pub states: Vec<String>,
    /// L, locality.
    pub localities: Vec<String>,
    /// serialNumber: the device's, not the certificate's.
    pub serial_numbers: Vec<String>,
    /// UID, user id.
    pub user_ids: Vec<String>,
}

/// Why a subject does not name one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Two of what there may be one of.
    #[error("the subject has several {0}")]
    Several(&'static str),
    /// Not text, or text with characters that cannot be seen.
    #[error("the subject's {0} is not printable")]
    NotPrintable(&'static str),
}

impl SubjectError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            SubjectError::Several(_) => "subject_ambiguous",
            SubjectError::NotPrintable(_) => "subject_not_printable",
        }
    }
}

impl Subject {
    /// Reads them from a name.
    pub fn of(name: &Name<'_>) -> Result<Self, SubjectError> {
        Ok(Self {
            organization: at_most_one(values(name, &oid::ORGANIZATION, "O")?, "O")?,
            organizational_units: values(name, &oid::ORGANIZATIONAL_UNIT, "OU")?,
            common_name: at_most_one(values(name, &oid::COMMON_NAME, "CN")?, "CN")?,
            countries: printable_values(name, &oid::COUNTRY),
            states: printable_values(name, &oid::STATE),
            localities: printable_values(name, &oid::LOCALITY),
            serial_numbers: printable_values(name, &oid::SERIAL_NUMBER),
            user_ids: printable_values(name, &oid::USER_ID),
        })
    }
}

fn values(
    name: &Name<'_>,
    kind: &ObjectIdentifier,
    short: &'static str,
) -> Result<Vec<String>, SubjectError> {
    name.attributes()
        .filter(|attribute| Oid::is(&attribute.kind, kind))
        .map(|attribute| match attribute.text() {
            Some(text) if is_printable(&text) => Ok(text.into_owned()),
            _ => Err(SubjectError::NotPrintable(short)),
        })
        .collect()
}

/// Nothing but a policy looks at these: what cannot be seen is as if it were not there.
fn printable_values(name: &Name<'_>, kind: &ObjectIdentifier) -> Vec<String> {
    let own = name.attributes().filter(|attribute| Oid::is(&attribute.kind, kind));
    own.filter_map(|attribute| attribute.text())
        .filter(|text| is_printable(text))
        .map(Cow::into_owned)
        .collect()
}

fn at_most_one(values: Vec<String>, short: &'static str) -> Result<Option<String>, SubjectError> {
    match <[String; 1]>::try_from(values) {
        Ok([value]) => Ok(Some(value)),
        Err(none) if none.is_empty() => Ok(None),
        Err(_) => Err(SubjectError::Several(short)),
    }
}

/// Whether text is there and can be seen.
fn is_printable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|char| char.is_control() || is_invisible(char))
}
