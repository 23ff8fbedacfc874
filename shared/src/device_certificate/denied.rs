//! Certificates that a pool's owner has denied. Every certificate of a chain is asked, the root's included: to deny a CA
//! is to deny whatever it has issued.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::certificate::{Certificate, Fingerprint, ValidChain};

/// A certificate that must not be in any chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeniedCertificate {
    /// By SHA-256: of the TBSCertificate, which is the better one, or of the whole certificate, which is what openssl
    /// shows. An ECDSA signature can be written in two ways without the issuer's help, so that the whole has two
    /// fingerprints: either one is enough here.
    Fingerprint(Fingerprint),
    /// By issuer and serial number (RFC 5280 §4.1.2.2).
    IssuerAndSerial {
        /// Who issued it.
        issuer: IssuerName,
        /// Its number there.
        serial: HexSerial,
    },
}

impl DeniedCertificate {
    /// Whether `certificate`, which `issuer` signed, is this one. A root is its own issuer.
    fn is(&self, certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
        match self {
            Self::Fingerprint(denied) => {
                *denied == certificate.tbs_fingerprint()
                    || *denied == certificate.thumbprint()
                    || certificate.twin_thumbprint(issuer).is_some_and(|twin| *denied == twin)
            }
            Self::IssuerAndSerial { issuer, serial } => {
                *serial == HexSerial::of(certificate) && *issuer == IssuerName::of(certificate)
            }
        }
    }
}

/// The first certificate of the chain that is denied: its position, the device's being 0 and the root's the last.
pub(super) fn first_denied(chain: &ValidChain<'_>, denied: &[DeniedCertificate]) -> Option<usize> {
    if denied.is_empty() {
        return None;
    }
    let issuers = chain.certificates().skip(1).chain([chain.anchor()]);
    chain
        .certificates()
        .zip(issuers)
        .position(|(certificate, issuer)| denied.iter().any(|denied| denied.is(certificate, issuer)))
}

/// A serial number in hexadecimal: lower case, no colons, no leading zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HexSerial(String);

/// A text that is no serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a serial number of at most 20 octets in hexadecimal")]
pub struct HexSerialError;

impl HexSerial {
    fn of(certificate: &Certificate<'_>) -> Self {
        Self(without_zeros(&certificate.serial().to_string()).to_owned())
    }
}

fn without_zeros(digits: &str) -> &str {
    match digits.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    }
}

impl FromStr for HexSerial {
    type Err = HexSerialError;

    /// Reads what openssl and browsers show: `0A:3F`, `0x0a3f`, `0A3F`.
    fn from_str(text: &str) -> Result<Self, HexSerialError> {
        let text = text.trim();
        let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        if text.len() > 128 {
            return Err(HexSerialError);
        }
        let digits: String =
            text.chars().filter(|char| *char != ':').map(|char| char.to_ascii_lowercase()).collect();
        let shorter = without_zeros(&digits);
        let good = !digits.is_empty()
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            && shorter.len() <= 40;
        if good { Ok(Self(shorter.to_owned())) } else { Err(HexSerialError) }
    }
}

impl TryFrom<String> for HexSerial {
    type Error = HexSerialError;

    fn try_from(text: String) -> Result<Self, HexSerialError> {
        text.parse()
    }
}

impl From<HexSerial> for String {
    fn from(serial: HexSerial) -> String {
        serial.0
    }
}

impl fmt::Display for HexSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An issuer's name as text. Case and white space do not count (RFC 5280 §7.1), nor from which end it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IssuerName {
    text: String,
    /// Each part as it is compared: `cn=name`.
    parts: Vec<String>,
}

/// A text that is no name of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a distinguished name, such as CN=Issuing CA,O=Retail Corp,C=US, of at most 2048 characters")]
pub struct IssuerNameError;

impl IssuerName {
    fn of(certificate: &Certificate<'_>) -> Self {
        let text = certificate.issuer().to_string();
        let parts = comparable(&text).unwrap_or_default();
        Self { text, parts }
    }
}

impl PartialEq for IssuerName {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts || self.parts.iter().rev().eq(&other.parts)
    }
}

impl Eq for IssuerName {}

impl FromStr for IssuerName {
    type Err = IssuerNameError;

    /// Reads RFC 4514 (`CN=x,O=y`) and the two forms of openssl (`O = y, CN = x` and `/O=y/CN=x`), also as openssl prints
    /// them, with `issuer=` before. An attribute that no certificate's name is ever shown with is refused: such a denial
    /// would deny nothing.
    fn from_str(text: &str) -> Result<Self, IssuerNameError> {
        let text = text.trim();
        let shown = text.get(..7).filter(|start| start.eq_ignore_ascii_case("issuer="));
        let name =
            Self::read(shown.map_or(text, |start| text.get(start.len()..).unwrap_or_default()).trim())?;
        let kinds =
            name.parts.iter().flat_map(|part| part.split(BETWEEN)).filter_map(|one| one.split_once('='));
        let mut unknown =
            kinds.filter(|(kind, _)| !kind.contains('.') && OIDS.iter().all(|(_, own)| own != kind));
        if unknown.next().is_some() { Err(IssuerNameError) } else { Ok(name) }
    }
}

impl IssuerName {
    /// Reads what may have been kept by a version that was less strict.
    fn read(text: &str) -> Result<Self, IssuerNameError> {
        if text.chars().count() > 2048 || text.chars().any(char::is_control) {
            return Err(IssuerNameError);
        }
        let parts = match text.strip_prefix('/') {
            Some(rest) => split(rest, '/').and_then(|parts| parts.iter().map(|part| normal(part)).collect()),
            None => comparable(text),
        };
        Ok(Self { text: text.to_owned(), parts: parts.ok_or(IssuerNameError)? })
    }
}

/// What stands between the attributes of a part that has several, once they are in their normal form.
const BETWEEN: char = '\0';

/// The parts of a name in their normal form. Where a part has several attributes, their order does not count.
fn comparable(text: &str) -> Option<Vec<String>> {
    let part = |part: &String| {
        let mut attributes: Vec<String> =
            split(part, '+')?.iter().map(|one| normal(one)).collect::<Option<_>>()?;
        attributes.sort();
        Some(attributes.join(BETWEEN.encode_utf8(&mut [0; 4])))
    };
    split(text, ',')?.iter().map(part).collect()
}

/// The parts of a text. A backslash keeps the character behind it from parting them, and so do quotation marks around it
/// (RFC 1779 §2.3), but where slashes part: there openssl escapes nothing.
fn split(text: &str, separator: char) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char == separator && !quoted {
            parts.push(String::new());
            continue;
        }
        quoted ^= char == '"' && separator != '/';
        let part = parts.last_mut()?;
        part.push(char);
        if char == '\\' {
            part.extend(chars.next());
        }
    }
    (!quoted).then_some(parts)
}

fn normal(part: &str) -> Option<String> {
    let (kind, value) = part.split_once('=')?;
    let kind = kind.trim().to_ascii_lowercase();
    let kind = kind.strip_prefix("oid.").unwrap_or(&kind);
    let kind = OTHER_NAMES.iter().find(|(other, _)| *other == kind).map_or(kind, |(_, name)| name);
    let kind = OIDS.iter().find(|(oid, _)| *oid == kind).map_or(kind, |(_, name)| name);
    let is_name = kind.starts_with(|first: char| first.is_ascii_alphabetic())
        && kind.chars().all(|char| char.is_ascii_alphanumeric() || char == '-');
    let is_oid = kind.contains('.')
        && kind.split('.').all(|arc| !arc.is_empty() && arc.chars().all(|char| char.is_ascii_digit()));
    let value = value.trim();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let value = unescaped(value)?.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    (is_name || is_oid).then(|| format!("{kind}={value}"))
}

/// The attributes that have names, by their object identifiers.
const OIDS: [(&str, &str); 21] = [
    ("2.5.4.3", "cn"),
    ("2.5.4.4", "sn"),
    ("2.5.4.5", "serialnumber"),
    ("2.5.4.6", "c"),
    ("2.5.4.7", "l"),
    ("2.5.4.8", "st"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "o"),
    ("2.5.4.11", "ou"),
    ("2.5.4.12", "title"),
    ("2.5.4.15", "businesscategory"),
    ("2.5.4.17", "postalcode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "gn"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnqualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.97", "organizationidentifier"),
    ("0.9.2342.19200300.100.1.1", "uid"),
    ("0.9.2342.19200300.100.1.25", "dc"),
    ("1.2.840.113549.1.9.1", "emailaddress"),
];

/// What other tools call some of them.
const OTHER_NAMES: [(&str, &str); 9] = [
    ("commonname", "cn"),
    ("e", "emailaddress"),
    ("email", "emailaddress"),
    ("givenname", "gn"),
    ("s", "st"),
    ("sp", "st"),
    ("surname", "sn"),
    ("t", "title"),
    ("userid", "uid"),
];

/// A value without its backslashes: each keeps a character as it is, or stands for a byte of UTF-8 in hexadecimal (RFC
/// 4514 §2.4).
fn unescaped(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let escaped = rest.next()?;
        match char::from(escaped).to_digit(16) {
            Some(high) => {
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            None => bytes.push(escaped),
        }
    }
    String::from_utf8(bytes).ok()
}

impl TryFrom<String> for IssuerName {
    type Error = IssuerNameError;

    fn try_from(text: String) -> Result<Self, IssuerNameError> {
        Self::read(&text)
    }
}

impl From<IssuerName> for String {
    fn from(name: IssuerName) -> String {
        name.text
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_read_as_tools_show_it() {
        let serial: HexSerial = "0a3f".parse().unwrap();
        for same in ["0A3F", "A3f", "0x0A3F", "00:0a:3F", " a3f "] {
            assert_eq!(same.parse(), Ok(serial.clone()), "{same}");
        }
        assert_eq!("00".parse::<HexSerial>().unwrap().to_string(), "0");
        for bad in ["", ":", "xyz", "-1", &"1".repeat(41), &":".repeat(200)] {
            assert!(bad.parse::<HexSerial>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_issuer_is_read_as_tools_show_it() {
        let name: IssuerName = "CN=Issuing CA,O=Retail\\, Corp,C=US".parse().unwrap();
        for same in [
            "cn=issuing ca, o=RETAIL\\, corp, c=us",
            "C = US, O = Retail\\, Corp, CN = Issuing  CA",
            "CN=Issuing CA,O=Retail\\, Corp,C=US ",
            "CN=Issuing CA,O=Retail\\2C Corp,C=US",
            "2.5.4.3=Issuing CA,2.5.4.10=Retail\\, Corp,2.5.4.6=US",
            "/C=US/O=Retail, Corp/CN=Issuing CA",
            "issuer=C = US, O = \"Retail, Corp\", CN = Issuing CA",
            "issuer= /C=US/O=Retail, Corp/CN=Issuing CA",
            "OID.2.5.4.3=Issuing CA, O=\"Retail, Corp\", C=US",
        ] {
            assert_eq!(same.parse::<IssuerName>().unwrap(), name, "{same}");
        }
        let plain: IssuerName = "CN=x,O=y".parse().unwrap();
        assert_eq!("/O=y/CN=x".parse::<IssuerName>().unwrap(), plain);
        let odd: IssuerName = "OU=a+CN=b,O=Acme\\, Inc. \\+ \\\"Sons\\\" \\<x\\>\\;#,C=US".parse().unwrap();
        for same in [
            "C = US, O = \"Acme, Inc. + \\\"Sons\\\" <x>;#\", CN = b + OU = a",
            "C = US, O = \"acme, inc. + \\\"sons\\\" <x>;#\", OU=A+CN=B",
        ] {
            assert_eq!(same.parse::<IssuerName>().unwrap(), odd, "{same}");
        }
        let mail: IssuerName = "STREET=s,emailAddress=a@b.c,GN=g".parse().unwrap();
        assert_eq!("2.5.4.9=s, E=a@b.c, givenName=g".parse::<IssuerName>().unwrap(), mail);
        for other in ["CN=x", "CN=x,O=y,C=US", "CN=y,O=x", "OU=x,O=y"] {
            assert_ne!(other.parse::<IssuerName>().unwrap(), plain, "{other}");
        }
        for bad in [
            "",
            "x",
            "CN=a,,O=b",
            "CN=a\nb",
            "=a",
            "CN=a\\",
            "CN=a\\f",
            "CN=a\\ff",
            "1..2=x",
            "C N=x",
            "O = \"Retail, Corp, CN = x",
            "CN=a+b",
            "issuer=",
            "issuer=issuer=CN=x",
            "subject=CN=x",
            "foo=x,CN=y",
            "CN=x+foo=y",
            &format!("CN={}", "a".repeat(2048)),
        ] {
            assert!(bad.parse::<IssuerName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_denial_survives_its_text() {
        let issuer = DeniedCertificate::IssuerAndSerial {
            issuer: "CN=x".parse().unwrap(),
            serial: "0A".parse().unwrap(),
        };
        for denied in [DeniedCertificate::Fingerprint(Fingerprint::of(b"x")), issuer] {
            let text = serde_json::to_string(&denied).unwrap();
            assert_eq!(serde_json::from_str::<DeniedCertificate>(&text).unwrap(), denied, "{text}");
        }
    }
}
