//! Signatures on certificates: which algorithms are accepted, what there is to check, and who checks it. The check itself
//! is the platform's, because WebCrypto's answer has to be awaited.

use std::borrow::Cow;

use der::{Tag, TagNumber};

use super::asn1::{Element, Fields, Malformed, constructed, positive, small};
use super::oid::{self, Oid};
use super::public_key::{Curve, KeyKind};
use super::refusal::{Place, Problem};
use crate::crypto::CryptoError;

/// The hashes that Keypost accepts in a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

/// How a signature is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 (RFC 8017 §8.2).
    RsaPkcs1(Hash),
    /// RSASSA-PSS (RFC 8017 §8.1), with MGF1 over the same hash.
    RsaPss {
        /// The hash of the message and of MGF1.
        hash: Hash,
        /// The length of the salt in bytes.
        salt_length: u32,
    },
    /// ECDSA (FIPS 186-5 §6.4).
    Ecdsa {
        /// The curve of the key.
        curve: Curve,
        /// The hash of the message.
        hash: Hash,
    },
}

/// A signature to check.
#[derive(Clone, Debug)]
pub struct SignatureCheck<'a> {
    /// Which certificate carries the signature.
    pub place: Place,
    /// How to check it.
    pub algorithm: SignatureAlgorithm,
    /// The signer's key, the DER of a SubjectPublicKeyInfo.
    pub public_key: &'a [u8],
    /// What is signed.
    pub message: &'a [u8],
    /// The signature; for ECDSA r‖s, each as long as a coordinate of the curve.
    pub signature: Cow<'a, [u8]>,
}

/// Who checks signatures: WebCrypto in the Worker, RustCrypto elsewhere. Futures need not be `Send`.
#[allow(async_fn_in_trait, reason = "only this workspace implements it, and a Worker's futures are not Send")]
pub trait VerifySignature {
    /// Whether the signature is the key's. [`CryptoError::BadKey`] where the key is none, a point off the curve say.
    async fn verify_signature(&self, check: &SignatureCheck<'_>) -> Result<bool, CryptoError>;
}

/// The signature algorithm of a certificate, as far as it can be told without the issuer's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateSignature {
    RsaPkcs1(Hash),
    RsaPss { hash: Hash, salt_length: u32 },
    Ecdsa(Hash),
}

impl CertificateSignature {
    /// Reads an AlgorithmIdentifier (RFC 5280 §4.1.1.2).
    pub(crate) fn read(element: &Element<'_>) -> Result<Self, Problem> {
        const WHAT: &str = "signatureAlgorithm";
        let mut fields = element.fields(WHAT)?;
        let algorithm = Oid::read(&mut fields, WHAT)?;
        let known = [
            (oid::SHA256_WITH_RSA, Self::RsaPkcs1(Hash::Sha256)),
            (oid::SHA384_WITH_RSA, Self::RsaPkcs1(Hash::Sha384)),
            (oid::SHA512_WITH_RSA, Self::RsaPkcs1(Hash::Sha512)),
            (oid::ECDSA_WITH_SHA256, Self::Ecdsa(Hash::Sha256)),
            (oid::ECDSA_WITH_SHA384, Self::Ecdsa(Hash::Sha384)),
            (oid::ECDSA_WITH_SHA512, Self::Ecdsa(Hash::Sha512)),
        ];
        if let Some((_, signature)) = known.iter().find(|(known, _)| algorithm.is(known)) {
            // NULL or nothing for RSA (RFC 4055 §5), nothing for ECDSA (RFC 5758 §3.2).
            if matches!(signature, Self::RsaPkcs1(_)) {
                null_or_nothing(fields, WHAT)?;
            } else {
                fields.end()?;
            }
            Ok(*signature)
        } else if algorithm.is(&oid::RSASSA_PSS) {
            pss(fields)
        } else if oid::WITH_WEAK_HASH.iter().any(|weak| algorithm.is(weak)) {
            Err(Problem::WeakHash)
        } else {
            Err(Problem::UnsupportedSignature(algorithm.to_string()))
        }
    }

    /// Makes the check of `signature` with the issuer's key.
    pub(crate) fn check<'a>(
        self,
        place: Place,
        issuer_key: (KeyKind, &'a [u8]),
        message: &'a [u8],
        signature: &'a [u8],
    ) -> Result<SignatureCheck<'a>, Problem> {
        let (kind, public_key) = issuer_key;
        let (algorithm, signature) = match (self, kind) {
            (Self::RsaPkcs1(hash), KeyKind::Rsa) => {
                (SignatureAlgorithm::RsaPkcs1(hash), Cow::Borrowed(signature))
            }
            (Self::RsaPss { hash, salt_length }, KeyKind::Rsa) => {
                (SignatureAlgorithm::RsaPss { hash, salt_length }, Cow::Borrowed(signature))
            }
            (Self::Ecdsa(hash), KeyKind::Ec(curve)) => {
                let raw = ecdsa_from_der(signature, curve).ok_or(Problem::SignatureEncoding)?;
                (SignatureAlgorithm::Ecdsa { curve, hash }, Cow::Owned(raw))
            }
            _ => return Err(Problem::SignatureOfOtherKind),
        };
        Ok(SignatureCheck { place, algorithm, public_key, message, signature })
    }
}

/// An ECDSA signature of certificates (RFC 3279 §2.2.3, Ecdsa-Sig-Value in DER) as WebCrypto and JOSE want it: r‖s, each
/// of the curve's length. `None` if it is not strict DER or a number is not positive or too long.
pub fn ecdsa_from_der(signature: &[u8], curve: Curve) -> Option<Vec<u8>> {
    let sequence = Element::only(signature, "signature").ok()?;
    if sequence.tag != Tag::Sequence {
        return None;
    }
    let mut fields = sequence.fields("signature").ok()?;
    let r = fields.expect(Tag::Integer).ok()?;
    let s = fields.expect(Tag::Integer).ok()?;
    fields.end().ok()?;

    let length = curve.coordinate_length();
    let mut raw = Vec::with_capacity(2 * length);
    for number in [r, s] {
        let number = positive(number.content, "signature").ok()?;
        raw.resize(raw.len() + length.checked_sub(number.len())?, 0);
        raw.extend_from_slice(number);
    }
    Some(raw)
}

/// RSASSA-PSS-params (RFC 4055 §3.1). The defaults are SHA-1 throughout, so hash and mask generation must be there.
fn pss(mut fields: Fields<'_>) -> Result<CertificateSignature, Problem> {
    const WHAT: &str = "RSASSA-PSS-params";
    let parameters = fields.expect(Tag::Sequence)?;
    fields.end()?;
    let mut parameters = parameters.fields(WHAT)?;
    let hash = parameters.optional(constructed(TagNumber::N0))?.ok_or(Problem::WeakHash)?;
    let hash = hash_algorithm(&Element::only(hash.content, WHAT)?)?;
    let mask = parameters.optional(constructed(TagNumber::N1))?.ok_or(Problem::WeakHash)?;
    let mut mask = sequence(&Element::only(mask.content, WHAT)?, WHAT)?;
    let generator = Oid::read(&mut mask, WHAT)?;
    let mask_hash = hash_algorithm(&mask.next()?)?;
    mask.end()?;
    if !generator.is(&oid::MGF1) || mask_hash != hash {
        return Err(Problem::UnsupportedSignature(oid::RSASSA_PSS.to_string()));
    }
    let salt_length = match parameters.optional(constructed(TagNumber::N2))? {
        Some(salt) => {
            let salt = Element::only(salt.content, WHAT)?;
            if salt.tag != Tag::Integer {
                return Err(Problem::Malformed(WHAT));
            }
            small(salt.content, WHAT)?
        }
        None => 20,
    };
    // The trailer has one value, the default, which DER leaves out.
    parameters.end()?;
    Ok(CertificateSignature::RsaPss { hash, salt_length })
}

fn hash_algorithm(element: &Element<'_>) -> Result<Hash, Problem> {
    const WHAT: &str = "RSASSA-PSS-params";
    let mut fields = sequence(element, WHAT)?;
    let hash = Oid::read(&mut fields, WHAT)?;
    null_or_nothing(fields, WHAT)?;
    let known = [(oid::SHA256, Hash::Sha256), (oid::SHA384, Hash::Sha384), (oid::SHA512, Hash::Sha512)];
    known.iter().find(|(known, _)| hash.is(known)).map(|(_, hash)| *hash).ok_or(Problem::WeakHash)
}

fn sequence<'a>(element: &Element<'a>, what: &'static str) -> Result<Fields<'a>, Malformed> {
    if element.tag == Tag::Sequence { element.fields(what) } else { Err(Malformed(what)) }
}

fn null_or_nothing(mut fields: Fields<'_>, what: &'static str) -> Result<(), Malformed> {
    match fields.optional(Tag::Null)? {
        Some(null) if !null.content.is_empty() => Err(Malformed(what)),
        _ => fields.end(),
    }
}
