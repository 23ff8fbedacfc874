//! Why an assertion is refused, with a stable code for each reason.

use crate::device_certificate::RefusalCode;

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionProblem {
    /// More characters than any assertion should have.
    #[error("the assertion is too large")]
    TooLarge,
    /// Not a compact JWS with a header that is understood.
    #[error("the assertion is not a compact JWS")]
    Malformed,
    /// `none`, an HMAC, or anything else that is not offered.
    #[error("the alg is not one of RS256, RS384, RS512, PS256, ES256 and ES384")]
    AlgNotAllowed,
    /// An algorithm that does not go with the key.
    #[error("the alg does not go with the key")]
    AlgKeyMismatch,
    /// Extensions that must be understood (RFC 7515 §4.1.11): none is.
    #[error("the header has crit")]
    CritNotSupported,
    /// A key at a URL.
    #[error("the header has jku")]
    JkuNotAllowed,
    /// A chain at a URL.
    #[error("the header has x5u")]
    X5uNotAllowed,
    /// A key in the header.
    #[error("the header has jwk")]
    JwkNotAllowed,
    /// No chain, where the signer is known by its certificate.
    #[error("the header has no x5c")]
    X5cMissing,
    /// A `kid` that names neither the certificate nor its device.
    #[error("the kid does not name the certificate of x5c")]
    KidMismatch,
    /// The fingerprint of another certificate.
    #[error("the x5t#S256 is not that of the certificate of x5c")]
    X5tMismatch,
    /// Claims that are no JSON object, or of the wrong types.
    #[error("the claims are not understood")]
    ClaimsMalformed,
    /// No `iss`.
    #[error("there is no iss")]
    IssMissing,
    /// No `sub`.
    #[error("there is no sub")]
    SubMissing,
    /// Somebody else than the signer.
    #[error("the iss is not the signer")]
    IssMismatch,
    /// Somebody else than the signer.
    #[error("the sub is not the signer, nor one of its clients")]
    SubMismatch,
    /// Meant for somebody else, or for several.
    #[error("the aud is not this issuer alone")]
    AudMismatch,
    /// No `exp`.
    #[error("there is no exp")]
    ExpMissing,
    /// Over.
    #[error("the assertion has expired")]
    Expired,
    /// `exp` more than 10 minutes ahead.
    #[error("the exp is more than 10 minutes ahead")]
    TooLongLived,
    /// Issued in the future.
    #[error("the iat is in the future")]
    IatInFuture,
    /// Not to be used yet.
    #[error("the nbf is in the future")]
    NotYetValid,
    /// No `jti`, or an empty one.
    #[error("there is no jti")]
    JtiMissing,
    /// A `jti` of more than 256 bytes.
    #[error("the jti is too long")]
    JtiTooLong,
    /// The signature is not by the key.
    #[error("the signature is not that of the key")]
    BadSignature,
    /// An assertion that has been used.
    #[error("the assertion has been used before")]
    Replayed,
}

impl AssertionProblem {
    /// The stable code.
    pub fn code(self) -> RefusalCode {
        RefusalCode::plain(match self {
            Self::TooLarge => "assertion_too_large",
            Self::Malformed => "assertion_malformed",
            Self::AlgNotAllowed => "alg_not_allowed",
            Self::AlgKeyMismatch => "alg_key_mismatch",
            Self::CritNotSupported => "crit_not_supported",
            Self::JkuNotAllowed => "jku_not_allowed",
            Self::X5uNotAllowed => "x5u_not_allowed",
            Self::JwkNotAllowed => "jwk_not_allowed",
            Self::X5cMissing => "x5c_missing",
            Self::KidMismatch => "kid_mismatch",
            Self::X5tMismatch => "x5t_mismatch",
            Self::ClaimsMalformed => "claims_malformed",
            Self::IssMissing => "iss_missing",
            Self::SubMissing => "sub_missing",
            Self::IssMismatch => "iss_mismatch",
            Self::SubMismatch => "sub_mismatch",
            Self::AudMismatch => "aud_mismatch",
            Self::ExpMissing => "exp_missing",
            Self::Expired => "assertion_expired",
            Self::TooLongLived => "assertion_too_long_lived",
            Self::IatInFuture => "iat_in_future",
            Self::NotYetValid => "assertion_not_yet_valid",
            Self::JtiMissing => "jti_missing",
            Self::JtiTooLong => "jti_too_long",
            Self::BadSignature => "signature_invalid",
            Self::Replayed => "assertion_replayed",
        })
    }
}
