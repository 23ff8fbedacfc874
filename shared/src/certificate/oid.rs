//! Object identifiers, by the names that their documents give them. They are compared as DER, so that one with arcs of
//! any size (`2.25.` and a UUID, say) is only unknown, never unreadable.

use std::fmt;

use der::Tag;
use der::oid::ObjectIdentifier;

use super::asn1::{Element, Fields, Malformed};

/// An object identifier, as the content of its DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Oid<'a>(pub(crate) &'a [u8]);

impl<'a> Oid<'a> {
    pub(crate) fn read(fields: &mut Fields<'a>, what: &'static str) -> Result<Self, Malformed> {
        Self::from_content(fields.expect(Tag::ObjectIdentifier)?.content, what)
    }

    pub(crate) fn of(element: &Element<'a>, what: &'static str) -> Result<Self, Malformed> {
        match element.tag {
            Tag::ObjectIdentifier => Self::from_content(element.content, what),
            _ => Err(Malformed(what)),
        }
    }

    /// Arcs of seven bits an octet, the last octet of each without its highest bit, none with a leading zero
    /// (X.690 §8.19).
    fn from_content(content: &'a [u8], what: &'static str) -> Result<Self, Malformed> {
        let ends = content.last().is_some_and(|last| *last < 0x80);
        let padded = content.first() == Some(&0x80)
            || content.windows(2).any(|pair| matches!(pair, [0x00..=0x7f, 0x80]));
        if ends && !padded { Ok(Self(content)) } else { Err(Malformed(what)) }
    }

    pub(crate) fn is(&self, known: &ObjectIdentifier) -> bool {
        self.0 == known.as_bytes()
    }
}

impl fmt::Display for Oid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut arc = Some(0u128);
        let mut first = true;
        for octet in self.0 {
            arc = arc
                .and_then(|arc| arc.checked_mul(128))
                .and_then(|arc| arc.checked_add(u128::from(octet & 0x7f)));
            if *octet >= 0x80 {
                continue;
            }
            match (arc, first) {
                // The first two arcs share a number (X.690 §8.19.4).
                (Some(arc), true) => {
                    let root = (arc / 40).min(2);
                    write!(f, "{root}.{}", arc - root * 40)?;
                }
                (Some(arc), false) => write!(f, ".{arc}")?,
                (None, _) => f.write_str(if first { "?" } else { ".?" })?,
            }
            (arc, first) = (Some(0), false);
        }
        Ok(())
    }
}

impl fmt::Debug for Oid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const fn oid(dotted: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(dotted)
}

// Public keys: RFC 3279 §2.3.1, RFC 5480 §2.1.
pub(crate) const RSA_ENCRYPTION: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
pub(crate) const EC_PUBLIC_KEY: ObjectIdentifier = oid("1.2.840.10045.2.1");
pub(crate) const P256: ObjectIdentifier = oid("1.2.840.10045.3.1.7");
pub(crate) const P384: ObjectIdentifier = oid("1.3.132.0.34");

// Signatures: RFC 4055 §3 and §5, RFC 5758 §3.2; and the hashes that are no longer good enough, RFC 3279 §2.2.
pub(crate) const RSASSA_PSS: ObjectIdentifier = oid("1.2.840.113549.1.1.10");
pub(crate) const MGF1: ObjectIdentifier = oid("1.2.840.113549.1.1.8");
pub(crate) const SHA256_WITH_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.11");
pub(crate) const SHA384_WITH_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.12");
pub(crate) const SHA512_WITH_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.13");
pub(crate) const ECDSA_WITH_SHA256: ObjectIdentifier = oid("1.2.840.10045.4.3.2");
pub(crate) const ECDSA_WITH_SHA384: ObjectIdentifier = oid("1.2.840.10045.4.3.3");
pub(crate) const ECDSA_WITH_SHA512: ObjectIdentifier = oid("1.2.840.10045.4.3.4");
pub(crate) const SHA256: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.1");
pub(crate) const SHA384: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.2");
pub(crate) const SHA512: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.3");
pub(crate) const WITH_WEAK_HASH: [ObjectIdentifier; 8] = [
    oid("1.2.840.113549.1.1.2"),  // md2WithRSAEncryption
    oid("1.2.840.113549.1.1.4"),  // md5WithRSAEncryption
    oid("1.2.840.113549.1.1.5"),  // sha1WithRSAEncryption
    oid("1.2.840.113549.1.1.14"), // sha224WithRSAEncryption
    oid("1.3.14.3.2.29"),         // sha1WithRSA, as OIW called it
    oid("1.2.840.10040.4.3"),     // dsa-with-sha1
    oid("1.2.840.10045.4.1"),     // ecdsa-with-SHA1
    oid("1.2.840.10045.4.3.1"),   // ecdsa-with-SHA224
];

// Extensions: RFC 5280 §4.2.1.
pub(crate) const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = oid("2.5.29.14");
pub(crate) const KEY_USAGE: ObjectIdentifier = oid("2.5.29.15");
pub(crate) const SUBJECT_ALT_NAME: ObjectIdentifier = oid("2.5.29.17");
pub(crate) const BASIC_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.19");
pub(crate) const NAME_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.30");
pub(crate) const CERTIFICATE_POLICIES: ObjectIdentifier = oid("2.5.29.32");
pub(crate) const POLICY_MAPPINGS: ObjectIdentifier = oid("2.5.29.33");
pub(crate) const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = oid("2.5.29.35");
pub(crate) const POLICY_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.36");
pub(crate) const EXTENDED_KEY_USAGE: ObjectIdentifier = oid("2.5.29.37");
pub(crate) const INHIBIT_ANY_POLICY: ObjectIdentifier = oid("2.5.29.54");

pub(crate) const ANY_EXTENDED_KEY_USAGE: ObjectIdentifier = oid("2.5.29.37.0");
pub(crate) const CLIENT_AUTH: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.2");
pub(crate) const ANY_POLICY: ObjectIdentifier = oid("2.5.29.32.0");
pub(crate) const CPS_QUALIFIER: ObjectIdentifier = oid("1.3.6.1.5.5.7.2.1");
pub(crate) const USER_NOTICE_QUALIFIER: ObjectIdentifier = oid("1.3.6.1.5.5.7.2.2");

// Attributes of a name: RFC 4519 §2, RFC 2985 §5.2.1.
pub(crate) const COMMON_NAME: ObjectIdentifier = oid("2.5.4.3");
pub(crate) const SERIAL_NUMBER: ObjectIdentifier = oid("2.5.4.5");
pub(crate) const COUNTRY: ObjectIdentifier = oid("2.5.4.6");
pub(crate) const LOCALITY: ObjectIdentifier = oid("2.5.4.7");
pub(crate) const STATE: ObjectIdentifier = oid("2.5.4.8");
pub(crate) const STREET: ObjectIdentifier = oid("2.5.4.9");
pub(crate) const ORGANIZATION: ObjectIdentifier = oid("2.5.4.10");
pub(crate) const ORGANIZATIONAL_UNIT: ObjectIdentifier = oid("2.5.4.11");
pub(crate) const DOMAIN_COMPONENT: ObjectIdentifier = oid("0.9.2342.19200300.100.1.25");
pub(crate) const USER_ID: ObjectIdentifier = oid("0.9.2342.19200300.100.1.1");
pub(crate) const EMAIL_ADDRESS: ObjectIdentifier = oid("1.2.840.113549.1.9.1");

#[cfg(test)]
mod tests {
    use super::*;

    fn display(content: &[u8]) -> String {
        Oid(content).to_string()
    }

    #[test]
    fn an_identifier_prints_as_dotted_numbers() {
        for known in [BASIC_CONSTRAINTS, USER_ID, RSASSA_PSS, P384, ANY_POLICY] {
            assert_eq!(display(known.as_bytes()), known.to_string());
        }
        assert_eq!(display(&[0x69, 0x05]), "2.25.5");
        let mut uuid = vec![0x69, 0x83];
        uuid.extend([0xff; 17]);
        uuid.push(0x7f);
        assert_eq!(display(&uuid), format!("2.25.{}", u128::MAX));
        uuid.extend([0xff; 20]);
        uuid.push(0x01);
        assert!(display(&uuid).ends_with(".?"), "longer than a number can be: unknown, not wrong");
    }

    #[test]
    fn arcs_end_and_are_not_padded() {
        let read = |content: &'static [u8]| Oid::from_content(content, "t").is_ok();
        assert!(read(&[0x55, 0x1d, 0x13]));
        assert!(read(&[0x55, 0x81, 0x00]));
        assert!(!read(&[]));
        assert!(!read(&[0x55, 0x81]));
        assert!(!read(&[0x80, 0x01]));
        assert!(!read(&[0x55, 0x80, 0x01]));
        assert!(read(&[0x55, 0x81, 0x80, 0x01]), "a zero within an arc is a digit");
    }
}
