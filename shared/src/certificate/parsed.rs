//! A certificate, read (RFC 5280 §4.1). Nothing about it is believed yet.

use std::fmt;

use der::{Tag, TagNumber};

use super::asn1::{Element, Fields, Malformed, constructed, integer, octets, primitive, small};
use super::extension::Extensions;
use super::fingerprint::Fingerprint;
use super::name::Name;
use super::public_key::{KeyKind, PublicKey};
use super::refusal::Problem;
use super::signature::CertificateSignature;
use super::time;
use crate::time::UnixTime;

/// The one before the extensions came, and the one that everybody issues.
pub(crate) const VERSION_1: u32 = 1;
pub(crate) const VERSION_3: u32 = 3;

/// A certificate.
#[derive(Clone, Debug)]
pub struct Certificate<'a> {
    der: &'a [u8],
    tbs: &'a [u8],
    signature: &'a [u8],
    pub(crate) version: u32,
    serial: SerialNumber<'a>,
    pub(crate) algorithm: Result<CertificateSignature, Problem>,
    issuer: Name<'a>,
    not_before: UnixTime,
    not_after: UnixTime,
    subject: Name<'a>,
    pub(crate) key: PublicKey<'a>,
    pub(crate) extensions: Extensions<'a>,
}

impl<'a> Certificate<'a> {
    /// Reads the DER of one certificate.
    pub(crate) fn read(der: &'a [u8]) -> Result<Self, Problem> {
        const WHAT: &str = "certificate";
        let certificate = Element::only(der, WHAT)?;
        let mut fields = expect_sequence(&certificate, WHAT)?;
        let tbs = fields.expect(Tag::Sequence)?;
        let algorithm = fields.expect(Tag::Sequence)?;
        let signature = octets(fields.expect(Tag::BitString)?.content, "signature")?;
        fields.end()?;

        let mut fields = tbs.fields("tbsCertificate")?;
        let version = read_version(&mut fields)?;
        let serial = SerialNumber(integer(fields.expect(Tag::Integer)?.content, "serialNumber")?);
        let inner_algorithm = fields.expect(Tag::Sequence)?;
        if inner_algorithm.whole != algorithm.whole {
            return Err(Problem::SignatureAlgorithmsDiffer);
        }
        let issuer = Name::read(&fields.next()?)?;
        if issuer.is_empty() {
            return Err(Problem::IssuerEmpty);
        }
        let mut validity = expect_sequence(&fields.next()?, "validity")?;
        let (not_before, not_after) = (time::read(&validity.next()?)?, time::read(&validity.next()?)?);
        validity.end()?;
        let subject = Name::read(&fields.next()?)?;
        let key = PublicKey::read(&fields.next()?)?;
        let extensions = read_version_3_fields(fields, version)?;

        Ok(Self {
            der,
            tbs: tbs.whole,
            signature,
            version,
            serial,
            algorithm: CertificateSignature::read(&algorithm),
            issuer,
            not_before,
            not_after,
            subject,
            key,
            extensions,
        })
    }

    /// The DER of the whole certificate.
    pub fn der(&self) -> &'a [u8] {
        self.der
    }

    /// The DER of the TBSCertificate: what is signed.
    pub fn tbs(&self) -> &'a [u8] {
        self.tbs
    }

    /// The signature, as it stands in the certificate.
    pub(crate) fn signature(&self) -> &'a [u8] {
        self.signature
    }

    /// The serial number, unique for an issuer.
    pub fn serial(&self) -> SerialNumber<'a> {
        self.serial
    }

    /// Who issued it.
    pub fn issuer(&self) -> &Name<'a> {
        &self.issuer
    }

    /// Whose it is.
    pub fn subject(&self) -> &Name<'a> {
        &self.subject
    }

    /// The first second in which it is valid.
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// The last second in which it is valid.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// The DER of its SubjectPublicKeyInfo.
    pub fn public_key(&self) -> &'a [u8] {
        self.key.der
    }

    /// What kind of key that is, where it is one that is accepted.
    pub fn key_kind(&self) -> Result<KeyKind, Problem> {
        self.key.accepted()
    }

    /// Whether its key may sign anything but certificates: keyUsage is absent or includes digitalSignature
    /// (§4.2.1.3). The path rules do not ask; who lets a device sign an assertion should.
    pub fn may_sign(&self) -> bool {
        self.extensions.key_usage.is_none_or(|usage| usage.digital_signature)
    }

    /// SHA-256 of the TBSCertificate. This is what is denied: the signature around it can be encoded anew.
    pub fn tbs_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.tbs)
    }

    /// SHA-256 of the whole certificate: `x5t#S256` (RFC 7515 §4.1.8, RFC 8705 §3.1).
    pub fn thumbprint(&self) -> Fingerprint {
        Fingerprint::of(self.der)
    }

    /// Whether issuer and subject are the same (RFC 5280 §3.2).
    pub(crate) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }
}

fn expect_sequence<'a>(element: &Element<'a>, what: &'static str) -> Result<Fields<'a>, Malformed> {
    if element.tag == Tag::Sequence { element.fields(what) } else { Err(Malformed(what)) }
}

/// `[0] Version DEFAULT v1`, counted as people do. A default is left out in DER.
fn read_version(fields: &mut Fields<'_>) -> Result<u32, Problem> {
    const WHAT: &str = "version";
    let Some(explicit) = fields.optional(constructed(TagNumber::N0))? else { return Ok(VERSION_1) };
    let version = Element::only(explicit.content, WHAT)?;
    match version {
        Element { tag: Tag::Integer, content, .. } => match small(content, WHAT)? {
            0 => Err(Problem::Malformed(WHAT)),
            version => Ok(version.saturating_add(1)),
        },
        _ => Err(Problem::Malformed(WHAT)),
    }
}

/// The unique identifiers, which say nothing, and the extensions.
fn read_version_3_fields(mut fields: Fields<'_>, version: u32) -> Result<Extensions<'_>, Problem> {
    if version != VERSION_3 && !fields.is_empty() {
        return Err(Problem::FieldsOfVersion3);
    }
    for unique_identifier in [primitive(TagNumber::N1), primitive(TagNumber::N2)] {
        fields.optional(unique_identifier)?;
    }
    let extensions = match fields.optional(constructed(TagNumber::N3))? {
        Some(explicit) => {
            let extensions = Element::only(explicit.content, "extensions")?;
            Extensions::read(expect_sequence(&extensions, "extensions")?)?
        }
        None => Extensions::default(),
    };
    fields.end()?;
    Ok(extensions)
}

/// A serial number: the content of its INTEGER. Equal numbers are equal bytes, because DER has one spelling.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SerialNumber<'a>(&'a [u8]);

impl<'a> SerialNumber<'a> {
    /// Two's complement, most significant octet first.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// Lower-case hexadecimal, two digits an octet, as `openssl x509 -serial` shows it but for the case.
impl fmt::Display for SerialNumber<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.0 {
            [0, digits @ ..] if !digits.is_empty() => digits,
            digits => digits,
        };
        digits.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for SerialNumber<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
