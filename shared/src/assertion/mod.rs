//! Assertions (RFC 7523): JWTs by which a device or a client proves that it holds a key. Here is what can be told of one
//! without a key: its form, its header and its claims. Everything is bounded before it is parsed, and nothing may be
//! believed before the signature has been verified with the right key.

mod alg;
mod claims;
mod header;
mod problem;
#[cfg(test)]
mod tests;

pub use alg::AssertionAlg;
pub use claims::{Claims, MAX_LIFETIME, SKEW};
pub use header::Header;
pub use problem::AssertionProblem;

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::certificate::{KeyKind, Place, SignatureCheck};

/// The most characters of an assertion: a chain of 64 KiB, twice in base64, and claims.
pub const MAX_ASSERTION: usize = 124 * 1024;
/// The most characters of its claims.
const MAX_CLAIMS: usize = 8 * 1024;
/// The most characters of its signature: RSA-4096 has 683.
const MAX_SIGNATURE: usize = 1024;

/// An assertion that has been taken apart. Nothing in it has been verified.
#[derive(Debug)]
pub struct UnverifiedAssertion<'a> {
    /// The protected header.
    pub header: Header,
    /// The claims.
    pub claims: Claims,
    signing_input: &'a str,
    signature: Vec<u8>,
}

impl<'a> UnverifiedAssertion<'a> {
    /// Takes an assertion apart.
    pub fn parse(text: &'a str) -> Result<Self, AssertionProblem> {
        if text.len() > MAX_ASSERTION {
            return Err(AssertionProblem::TooLarge);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AssertionProblem::Malformed);
        };
        if claims.len() > MAX_CLAIMS || signature.len() > MAX_SIGNATURE {
            return Err(AssertionProblem::TooLarge);
        }
        let signing_input = text.get(..header.len() + 1 + claims.len()).unwrap_or_default();
        let header = Header::parse(&decode(header)?)?;
        let claims = Claims::parse(&decode(claims)?)?;
        Ok(Self { header, claims, signing_input, signature: decode(signature)? })
    }

    /// What to check of the signature with this key, the DER of a SubjectPublicKeyInfo.
    pub fn signature_check<'s>(
        &'s self,
        kind: KeyKind,
        public_key: &'s [u8],
    ) -> Result<SignatureCheck<'s>, AssertionProblem> {
        let algorithm = self.header.alg.with(kind).ok_or(AssertionProblem::AlgKeyMismatch)?;
        if matches!(kind, KeyKind::Ec(curve) if self.signature.len() != 2 * curve.coordinate_length()) {
            return Err(AssertionProblem::BadSignature);
        }
        Ok(SignatureCheck {
            place: Place::Certificate(0),
            algorithm,
            public_key,
            message: self.signing_input.as_bytes(),
            signature: Cow::Borrowed(&self.signature),
        })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, AssertionProblem> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| AssertionProblem::Malformed)
}
