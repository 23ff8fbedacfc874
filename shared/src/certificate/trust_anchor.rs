//! Trust anchors: the roots that a pool's owner uploaded. All of a root counts, not its name and key alone: it expires,
//! its path length and name constraints hold, and it must be a CA's.

use super::MAX_CERTIFICATE_LENGTH;
use super::fingerprint::Fingerprint;
use super::name::CanonicalName;
use super::parsed::Certificate;
use super::refusal::Problem;

/// A root, read once and kept.
#[derive(Clone, Debug)]
pub struct TrustAnchor {
    der: Vec<u8>,
    subject: CanonicalName,
    public_key: Vec<u8>,
}

impl TrustAnchor {
    /// Reads the DER of a root. Whether it may issue anything is asked where it is used, and
    /// [before it is taken in](super::root_upload::check).
    pub fn from_der(der: Vec<u8>) -> Result<Self, Problem> {
        if der.len() > MAX_CERTIFICATE_LENGTH {
            return Err(Problem::TooLarge { bytes: der.len(), most: MAX_CERTIFICATE_LENGTH });
        }
        let certificate = Certificate::read(&der)?;
        certificate.extensions.read_long()?;
        let subject = certificate.subject().canonical();
        let public_key = certificate.public_key().to_vec();
        Ok(Self { der, subject, public_key })
    }

    /// The DER of the root.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its certificate.
    pub fn certificate(&self) -> Result<Certificate<'_>, Problem> {
        Certificate::read(&self.der)
    }

    /// SHA-256 of the root, as `openssl x509 -fingerprint -sha256` shows it: its name in the API.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    pub(crate) fn has_name(&self, name: &CanonicalName) -> bool {
        self.subject == *name
    }

    /// Whether it is the same CA by another certificate: the same name and the same key.
    pub(crate) fn has_same_key(&self, other: &TrustAnchor) -> bool {
        self.subject == other.subject && self.public_key == other.public_key
    }

    pub(crate) fn has_key_of(&self, certificate: &Certificate<'_>) -> bool {
        self.public_key == certificate.public_key()
    }
}
