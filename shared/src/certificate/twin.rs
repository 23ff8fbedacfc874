//! The other way to write an ECDSA signature: with r and s, r and n - s verify too (SEC 1 §4.1.4). Whoever holds a
//! certificate so signed can make one from it with another fingerprint, and needs nobody's key for that.

use super::asn1::{Element, positive};
use super::asn1_write::{BIT_STRING, SEQUENCE, tlv, unsigned};
use super::fingerprint::Fingerprint;
use super::parsed::Certificate;
use super::public_key::{Curve, KeyKind};

/// The order of the group of P-256 (FIPS 186-5, SP 800-186 §3.2.1.3).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The order of the group of P-384 (SP 800-186 §3.2.1.4).
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a,
    0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

impl Certificate<'_> {
    /// SHA-256 of this certificate with its signature written the other way. None where the signature of `issuer` is no
    /// ECDSA, and so has one way only.
    pub fn twin_thumbprint(&self, issuer: &Certificate<'_>) -> Option<Fingerprint> {
        let order: &[u8] = match issuer.key_kind().ok()? {
            KeyKind::Rsa => return None,
            KeyKind::Ec(Curve::P256) => &P256_ORDER,
            KeyKind::Ec(Curve::P384) => &P384_ORDER,
        };
        let mut pair = Element::only(self.signature(), "signature").ok()?.fields("signature").ok()?;
        let (r, s) = (pair.next().ok()?, pair.next().ok()?);
        let twin = subtract(order, positive(s.content, "signature").ok()?)?;
        let signature = tlv(SEQUENCE, &[r.whole, unsigned(&twin).as_slice()].concat());
        let mut parts = Element::only(self.der(), "certificate").ok()?.fields("certificate").ok()?;
        let (tbs, algorithm) = (parts.next().ok()?, parts.next().ok()?);
        let signature = tlv(BIT_STRING, &[&[0], signature.as_slice()].concat());
        let whole = tlv(SEQUENCE, &[tbs.whole, algorithm.whole, signature.as_slice()].concat());
        Some(Fingerprint::of(&whole))
    }
}

/// `order - number`, most significant octet first. None where that is negative.
fn subtract(order: &[u8], number: &[u8]) -> Option<Vec<u8>> {
    if number.len() > order.len() {
        return None;
    }
    let padded = number.iter().rev().chain(std::iter::repeat(&0));
    let mut borrow = false;
    let mut difference: Vec<u8> = Vec::with_capacity(order.len());
    for (from, what) in order.iter().rev().zip(padded) {
        let (octet, first) = from.overflowing_sub(*what);
        let (octet, second) = octet.overflowing_sub(u8::from(borrow));
        borrow = first || second;
        difference.push(octet);
    }
    difference.reverse();
    (!borrow).then_some(difference)
}
