//! Why a chain is refused: where, what, and a stable code for it.

use std::fmt;

use super::asn1::Malformed;
use super::general_name::NameForm;
use super::time::InWords;
use crate::time::UnixTime;

/// A refusal: the first rule that did not hold, and which certificate broke it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Refusal {
    /// Where the problem is.
    pub place: Place,
    /// What it is.
    pub problem: Problem,
}

impl Refusal {
    /// The stable code of the problem, the same wherever it is.
    pub fn code(&self) -> &'static str {
        self.problem.code()
    }
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The chain as a whole.
    Chain,
    /// The certificate at this position, the device's being 0.
    Certificate(usize),
    /// The trust anchor at this position of the list that was given.
    Anchor(usize),
}

impl Place {
    pub(crate) fn refuses(self, problem: impl Into<Problem>) -> Refusal {
        Refusal { place: self, problem: problem.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Chain => f.write_str("the chain"),
            Place::Certificate(0) => f.write_str("the device's certificate"),
            Place::Certificate(position) => write!(f, "certificate {position} above the device's"),
            Place::Anchor(position) => write!(f, "root {position}"),
        }
    }
}

/// A rule that does not hold. The sections are those of RFC 5280 unless another document is named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// No certificate at all.
    #[error("there is no certificate")]
    Empty,
    /// More certificates than the longest chain that is allowed, with its root, could have.
    #[error("{count} certificates, where at most {most} are read")]
    TooManyCertificates {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// More bytes than any certificate, or any chain, should have.
    #[error("{bytes} bytes, where at most {most} are read")]
    TooLarge {
        /// How many bytes there are, or would be once decoded.
        bytes: usize,
        /// How many there may be.
        most: usize,
    },
    /// More parts than any certificate should have.
    #[error("it has more than {most} {what}")]
    TooMany {
        /// Parts of what kind.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// An entry of `x5c` that is not standard Base64 with padding (RFC 7515 §4.1.6).
    #[error("not standard Base64")]
    NotBase64,
    /// Not the DER that X.509 asks for.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// Neither version 1 nor version 3, or version 1 where only 3 will do (§4.1.2.1, §6.1.4 (k)).
    #[error("X.509 version {0} is not accepted here")]
    Version(u32),
    /// Extensions or unique identifiers in a version that has none (§4.1.2.9, §4.1.2.8).
    #[error("it has fields that only version 3 has, and says that it is another")]
    FieldsOfVersion3,
    /// The same extension twice (§4.2).
    #[error("the extension {0} occurs twice")]
    DuplicateExtension(String),
    /// The algorithm in the signed part is not the one outside (§4.1.1.2).
    #[error("the signature algorithms inside and outside differ")]
    SignatureAlgorithmsDiffer,
    /// Not a positive number of at most 20 octets (§4.1.2.2).
    #[error("the serial number is not a positive number of at most 20 octets")]
    SerialNumber,
    /// Nobody issued it (§4.1.2.4).
    #[error("the issuer is empty")]
    IssuerEmpty,
    /// A device without a name, and without a critical subjectAltName instead (§4.1.2.6, §4.2.1.6).
    #[error("the subject is empty")]
    SubjectEmpty,
    /// The validity period has not begun.
    #[error("not valid before {}", InWords(*.0))]
    NotYetValid(UnixTime),
    /// The validity period is over.
    #[error("expired at {}", InWords(*.0))]
    Expired(UnixTime),
    /// A critical extension that is not processed here (§4.2).
    #[error("the critical extension {0} is not understood")]
    UnknownCriticalExtension(String),
    /// A key identifier marked critical, which it must not be (§4.2.1.1, §4.2.1.2).
    #[error("a key identifier is marked critical")]
    KeyIdentifierCritical,
    /// The certificate's subject is not the issuer of the one before it (RFC 7515 §4.1.6).
    #[error("it did not issue the certificate before it: the chain is not in order")]
    NotInOrder,
    /// The same certificate twice (§6.1).
    #[error("it occurs twice in the chain")]
    Repeated,
    /// No trust anchor has the name of the certificate's issuer.
    #[error("its issuer is none of the trusted roots")]
    UnknownIssuer,
    /// More intermediates than the caller allows.
    #[error("{count} intermediates, where at most {most} are allowed")]
    TooManyIntermediates {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// More intermediates below a CA than its pathLenConstraint allows (§4.2.1.9).
    #[error("more intermediates follow than its path length allows")]
    PathLengthExceeded,
    /// It issued a certificate and is no CA (§6.1.4 (k)).
    #[error("its basicConstraints do not make it a CA")]
    NotACa,
    /// It issued a certificate and its keyUsage does not include keyCertSign (§6.1.4 (n)).
    #[error("its key usage does not include signing certificates")]
    MayNotSignCertificates,
    /// A CA certificate in a device's place.
    #[error("a CA certificate is not a device's")]
    CaAsDevice,
    /// keyCertSign or a path length in a certificate that is no CA's (§4.2.1.3, §4.2.1.9).
    #[error("it claims a CA's rights without being one")]
    CaRightsWithoutCa,
    /// Name constraints in a certificate that is no CA's (§4.2.1.10).
    #[error("it constrains names without being a CA")]
    NameConstraintsWithoutCa,
    /// There is an extended key usage, and it is not for this (§4.2.1.12).
    #[error("its extended key usage does not include client authentication")]
    NotForClientAuthentication,
    /// Neither RSA nor an uncompressed point of P-256 or P-384.
    #[error("its public key is neither RSA nor P-256 nor P-384")]
    UnsupportedKey,
    /// A key that is none: an even modulus or exponent, a point off the curve.
    #[error("its public key is not usable")]
    BadKey,
    /// An RSA modulus of another length than 2048 to 4096 bits in steps of 8.
    #[error("its RSA key has {bits} bits; 2048 to 4096 are accepted, in whole octets")]
    KeySize {
        /// The length of the modulus.
        bits: usize,
    },
    /// A signature algorithm that is not known.
    #[error("the signature algorithm {0} is not supported")]
    UnsupportedSignature(String),
    /// SHA-224 or less.
    #[error("the hash of the signature is weaker than SHA-256")]
    WeakHash,
    /// The issuer's key is of another kind than the signature.
    #[error("the signature is of another kind than the issuer's key")]
    SignatureOfOtherKind,
    /// An ECDSA signature that is not the DER of two positive numbers of the curve's size (RFC 3279 §2.2.3).
    #[error("the signature is not encoded as its algorithm asks")]
    SignatureEncoding,
    /// The signature does not verify with the issuer's key.
    #[error("the signature is not that of the issuer's key")]
    BadSignature,
    /// So many roots of the same name that finding the right one takes too many signature checks.
    #[error("too many signatures would have to be checked")]
    TooManySignatures,
    /// A name lies in a subtree that a CA above excludes (§6.1.3 (c)).
    #[error("a {0} lies in a subtree that a CA above it excludes")]
    NameExcluded(NameForm),
    /// A name lies in none of the subtrees that a CA above permits for its form (§6.1.3 (b)).
    #[error("a {0} lies outside of what a CA above it permits")]
    NameNotPermitted(NameForm),
    /// A name of a constrained form that cannot be compared, because of its form or its syntax (§4.2.1.10).
    #[error("a {0} is constrained by a CA above it, and cannot be compared")]
    NameNotComparable(NameForm),
    /// Names times constraints is more than anybody needs.
    #[error("too many names would have to be compared with too many constraints")]
    TooManyNameComparisons,
    /// A CA asks for an explicit policy, and none is valid for the whole path (§6.1.5 (g)).
    #[error("a certificate policy is required and none holds for the whole chain")]
    NoValidPolicy,
}

impl Problem {
    /// A stable code: for logs, for `error_description`, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Problem::Empty => "chain_empty",
            Problem::TooManyCertificates { .. } => "too_many_certificates",
            Problem::TooLarge { .. } => "too_large",
            Problem::TooMany { .. } => "too_many_parts",
            Problem::NotBase64 => "not_base64",
            Problem::Malformed(_) => "malformed",
            Problem::Version(_) => "version_not_accepted",
            Problem::FieldsOfVersion3 => "fields_of_version_3",
            Problem::DuplicateExtension(_) => "duplicate_extension",
            Problem::SignatureAlgorithmsDiffer => "signature_algorithms_differ",
            Problem::SerialNumber => "serial_number",
            Problem::IssuerEmpty => "issuer_empty",
            Problem::SubjectEmpty => "subject_empty",
            Problem::NotYetValid(_) => "not_yet_valid",
            Problem::Expired(_) => "expired",
            Problem::UnknownCriticalExtension(_) => "unknown_critical_extension",
            Problem::KeyIdentifierCritical => "key_identifier_critical",
            Problem::NotInOrder => "not_in_order",
            Problem::Repeated => "certificate_repeated",
            Problem::UnknownIssuer => "unknown_issuer",
            Problem::TooManyIntermediates { .. } => "too_many_intermediates",
            Problem::PathLengthExceeded => "path_length_exceeded",
            Problem::NotACa => "not_a_ca",
            Problem::MayNotSignCertificates => "may_not_sign_certificates",
            Problem::CaAsDevice => "ca_as_device",
            Problem::CaRightsWithoutCa => "ca_rights_without_ca",
            Problem::NameConstraintsWithoutCa => "name_constraints_without_ca",
            Problem::NotForClientAuthentication => "not_for_client_authentication",
            Problem::UnsupportedKey => "unsupported_key",
            Problem::BadKey => "bad_key",
            Problem::KeySize { .. } => "key_size",
            Problem::UnsupportedSignature(_) => "unsupported_signature_algorithm",
            Problem::WeakHash => "weak_hash",
            Problem::SignatureOfOtherKind => "signature_of_other_kind",
            Problem::SignatureEncoding => "signature_encoding",
            Problem::BadSignature => "bad_signature",
            Problem::TooManySignatures => "too_many_signatures",
            Problem::NameExcluded(_) => "name_excluded",
            Problem::NameNotPermitted(_) => "name_not_permitted",
            Problem::NameNotComparable(_) => "name_not_comparable",
            Problem::TooManyNameComparisons => "too_many_name_comparisons",
            Problem::NoValidPolicy => "no_valid_policy",
        }
    }
}

impl From<Malformed> for Problem {
    fn from(Malformed(what): Malformed) -> Self {
        Problem::Malformed(what)
    }
}
