//! The public keys that Keypost works with: RSA of 2048 to 4096 bits, P-256 and P-384 (design §8).

use der::Tag;
use der::asn1::AnyRef;

use super::asn1::{Element, Fields, Malformed, octets, positive};
use super::oid::{self, Oid};
use super::refusal::Problem;

const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// What kind of key it is, which decides what it can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA (RFC 8017).
    Rsa,
    /// ECDSA on a curve.
    Ec(Curve),
}

/// The curves of FIPS 186 that Keypost takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// secp256r1
    P256,
    /// secp384r1
    P384,
}

impl Curve {
    /// The length of a coordinate, and of each half of a signature, in bytes.
    pub const fn coordinate_length(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }
}

/// A SubjectPublicKeyInfo (RFC 5280 §4.1.2.7). Whether the key is accepted is asked only where it is used.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey<'a> {
    /// The DER of the whole.
    pub(crate) der: &'a [u8],
    kind: Result<KeyKind, Problem>,
}

/// What kind of key the DER of a SubjectPublicKeyInfo holds, where it is one that is accepted.
pub fn key_kind(spki: &[u8]) -> Result<KeyKind, Problem> {
    PublicKey::read(&Element::only(spki, "subjectPublicKeyInfo")?)?.accepted()
}

impl<'a> PublicKey<'a> {
    pub(crate) fn read(element: &Element<'a>) -> Result<Self, Malformed> {
        if element.tag != Tag::Sequence {
            return Err(Malformed("subjectPublicKeyInfo"));
        }
        let mut fields = element.fields("subjectPublicKeyInfo")?;
        let mut algorithm = fields.expect(Tag::Sequence)?.fields("subjectPublicKeyInfo")?;
        let key = octets(fields.expect(Tag::BitString)?.content, "subjectPublicKeyInfo")?;
        fields.end()?;
        let kind = Oid::read(&mut algorithm, "subjectPublicKeyInfo")?;
        Ok(Self { der: element.whole, kind: accept(kind, algorithm, key) })
    }

    /// The kind of the key, if it is one that is accepted.
    pub(crate) fn accepted(&self) -> Result<KeyKind, Problem> {
        self.kind.clone()
    }
}

fn accept(algorithm: Oid<'_>, mut parameters: Fields<'_>, key: &[u8]) -> Result<KeyKind, Problem> {
    if algorithm.is(&oid::RSA_ENCRYPTION) {
        // The parameters must be NULL (RFC 3279 §2.3.1).
        let null = parameters.expect(Tag::Null)?;
        parameters.end()?;
        if null.content != AnyRef::NULL.value() {
            return Err(Problem::Malformed("subjectPublicKeyInfo"));
        }
        rsa(key)
    } else if algorithm.is(&oid::EC_PUBLIC_KEY) {
        // Named curves alone: explicit parameters are how a curve with a back door comes in (RFC 5480 §2.1.1).
        let curve = Oid::of(&parameters.next()?, "ECParameters").map_err(|_| Problem::UnsupportedKey)?;
        parameters.end()?;
        ec(curve, key)
    } else {
        Err(Problem::UnsupportedKey)
    }
}

/// RSAPublicKey (RFC 8017 §A.1.1).
fn rsa(key: &[u8]) -> Result<KeyKind, Problem> {
    let sequence = Element::only(key, "RSAPublicKey")?;
    if sequence.tag != Tag::Sequence {
        return Err(Problem::Malformed("RSAPublicKey"));
    }
    let mut fields = sequence.fields("RSAPublicKey")?;
    let modulus = positive(fields.expect(Tag::Integer)?.content, "RSAPublicKey")?;
    let exponent = positive(fields.expect(Tag::Integer)?.content, "RSAPublicKey")?;
    fields.end()?;

    let leading_zeros = modulus.first().map_or(0, |first| first.leading_zeros());
    let bits = (modulus.len() * 8).saturating_sub(leading_zeros as usize);
    if !MODULUS_BITS.contains(&bits) || bits % 8 != 0 {
        return Err(Problem::KeySize { bits });
    }
    let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    // An exponent of 1 makes every message its own signature, and one of more than 32 bits only makes verifying slow.
    if !odd(modulus) || !odd(exponent) || exponent == [1] || exponent.len() > 4 {
        return Err(Problem::BadKey);
    }
    Ok(KeyKind::Rsa)
}

/// An uncompressed point (SEC 1 §2.3.3). Whether it is on the curve is for whoever imports the key to find out.
fn ec(curve: Oid<'_>, point: &[u8]) -> Result<KeyKind, Problem> {
    let curve = if curve.is(&oid::P256) {
        Curve::P256
    } else if curve.is(&oid::P384) {
        Curve::P384
    } else {
        return Err(Problem::UnsupportedKey);
    };
    match point {
        [0x04, coordinates @ ..] if coordinates.len() == 2 * curve.coordinate_length() => {
            Ok(KeyKind::Ec(curve))
        }
        [0x02 | 0x03, ..] => Err(Problem::UnsupportedKey),
        _ => Err(Problem::BadKey),
    }
}
