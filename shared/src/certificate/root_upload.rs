//! What an organization uploads as a root: one PEM certificate (RFC 7468), fit to be a trust anchor. Each thing that is
//! wrong with it has its own error, because a person reads it.

use base64ct::{Base64, Encoding};

use super::parsed::Certificate;
use super::path::{check_ca, check_every, signature_check};
use super::refusal::{Place, Problem};
use super::signature::VerifySignature;
use super::time::InWords;
use super::trust_anchor::TrustAnchor;
use super::{MAX_CERTIFICATE_LENGTH, Rules};
use crate::crypto::CryptoError;
use crate::time::UnixTime;

/// Base64, line ends, and the text that `openssl x509 -text` puts before it.
const MAX_UPLOAD_LENGTH: usize = 4 * MAX_CERTIFICATE_LENGTH;

/// Why an upload is no root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootUploadError {
    /// Not a PEM file with a certificate in it.
    #[error("not a PEM certificate (it begins with -----BEGIN CERTIFICATE-----)")]
    NotPem,
    /// A private key was uploaded. It should be considered lost.
    #[error("the file contains a private key; upload the certificate alone, and replace the key")]
    PrivateKey,
    /// A bundle.
    #[error("the file contains {0} certificates; upload one root at a time")]
    SeveralCertificates(usize),
    /// Far more than a certificate.
    #[error("the file has {bytes} bytes; a root has at most {most}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// basicConstraints does not say CA, or keyUsage does not allow signing certificates.
    #[error("not a CA certificate: {0}")]
    NotACa(Problem),
    /// Issuer and subject differ, or the signature is not its own key's.
    #[error("not self-signed: upload the root, not an intermediate")]
    NotSelfSigned,
    /// Its validity is over.
    #[error("it expired at {}", InWords(*.0))]
    Expired(UnixTime),
    /// Its validity has not begun.
    #[error("it is not valid before {}", InWords(*.0))]
    NotYetValid(UnixTime),
    /// A key that is not accepted.
    #[error("its key is not accepted: {0}")]
    WeakKey(Problem),
    /// A hash that is not accepted.
    #[error("its signature is not accepted: {0}")]
    WeakHash(Problem),
    /// Anything else that would keep every chain from being accepted.
    #[error("not usable as a root: {0}")]
    Unusable(Problem),
    /// The platform's cryptography failed; the upload may be all right.
    #[error(transparent)]
    Crypto(CryptoError),
}

impl RootUploadError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            RootUploadError::NotPem => "not_pem",
            RootUploadError::PrivateKey => "private_key",
            RootUploadError::SeveralCertificates(_) => "several_certificates",
            RootUploadError::TooLarge { .. } => "too_large",
            RootUploadError::NotACa(_) => "not_a_ca",
            RootUploadError::NotSelfSigned => "not_self_signed",
            RootUploadError::Expired(_) => "expired",
            RootUploadError::NotYetValid(_) => "not_yet_valid",
            RootUploadError::WeakKey(_) => "weak_key",
            RootUploadError::WeakHash(_) => "weak_hash",
            RootUploadError::Unusable(_) => "unusable_root",
            RootUploadError::Crypto(_) => "crypto_failed",
        }
    }
}

/// Reads an upload and checks that it can be a root from `at` on.
pub async fn check<V: VerifySignature>(
    verifier: &V,
    upload: &[u8],
    at: UnixTime,
) -> Result<TrustAnchor, RootUploadError> {
    let anchor = TrustAnchor::from_der(read_pem(upload)?).map_err(RootUploadError::of)?;
    let certificate = anchor.certificate().map_err(RootUploadError::of)?;
    check_certificate(verifier, &certificate, at).await?;
    Ok(anchor)
}

async fn check_certificate<V: VerifySignature>(
    verifier: &V,
    certificate: &Certificate<'_>,
    at: UnixTime,
) -> Result<(), RootUploadError> {
    // The most telling first: an intermediate or a device's certificate is the likeliest mistake.
    let above = check_ca(certificate).map_err(RootUploadError::of)?;
    if !certificate.is_self_issued() {
        return Err(RootUploadError::NotSelfSigned);
    }
    // A root for other purposes than client authentication could never issue a chain that is accepted.
    check_every(certificate, &Rules::for_device(at)).map_err(RootUploadError::of)?;
    let check = signature_check(certificate, Place::Anchor(0), &above).map_err(RootUploadError::of)?;
    match verifier.verify_signature(&check).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(RootUploadError::NotSelfSigned),
        Err(CryptoError::BadKey) => Err(RootUploadError::WeakKey(Problem::BadKey)),
        Err(failure) => Err(RootUploadError::Crypto(failure)),
    }
}

impl RootUploadError {
    fn of(problem: Problem) -> Self {
        match problem {
            Problem::NotACa | Problem::MayNotSignCertificates | Problem::Version(_) => Self::NotACa(problem),
            Problem::Expired(at) => Self::Expired(at),
            Problem::NotYetValid(at) => Self::NotYetValid(at),
            Problem::UnsupportedKey | Problem::BadKey | Problem::KeySize { .. } => Self::WeakKey(problem),
            Problem::WeakHash | Problem::UnsupportedSignature(_) => Self::WeakHash(problem),
            Problem::SignatureOfOtherKind | Problem::SignatureEncoding => Self::NotSelfSigned,
            Problem::TooLarge { bytes, most } => Self::TooLarge { bytes, most },
            problem => Self::Unusable(problem),
        }
    }
}

const BEGIN: &str = "-----BEGIN ";
const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const END_CERTIFICATE: &str = "-----END CERTIFICATE-----";

/// The DER of the one certificate of a PEM file. Text around it is ignored (RFC 7468 §2 and §5.2), other PEM is not.
fn read_pem(upload: &[u8]) -> Result<Vec<u8>, RootUploadError> {
    if upload.len() > MAX_UPLOAD_LENGTH {
        return Err(RootUploadError::TooLarge { bytes: upload.len(), most: MAX_UPLOAD_LENGTH });
    }
    let text = std::str::from_utf8(upload).map_err(|_| RootUploadError::NotPem)?;
    if text.split(BEGIN).skip(1).any(|label| label.split("-----").next().is_some_and(is_private_key)) {
        return Err(RootUploadError::PrivateKey);
    }
    let count = text.matches(BEGIN_CERTIFICATE).count();
    if count > 1 {
        return Err(RootUploadError::SeveralCertificates(count));
    }
    let body = text
        .split_once(BEGIN_CERTIFICATE)
        .and_then(|(_, rest)| rest.split_once(END_CERTIFICATE))
        .filter(|_| text.matches(BEGIN).count() == 1)
        .map(|(body, _)| body.split_ascii_whitespace().collect::<String>())
        .ok_or(RootUploadError::NotPem)?;
    Base64::decode_vec(&body).map_err(|_| RootUploadError::NotPem)
}

fn is_private_key(label: &str) -> bool {
    label.ends_with("PRIVATE KEY")
}
