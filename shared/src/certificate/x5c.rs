//! The `x5c` header (RFC 7515 §4.1.6): standard Base64 of one certificate each, the device's first. Its size is looked at
//! before anything is decoded, so that nobody can send work by the megabyte.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use serde::{Deserialize, Serialize};

use super::refusal::{Place, Problem, Refusal};
use super::{MAX_CERTIFICATE_LENGTH, MAX_CHAIN_LENGTH, Rules};

/// Decodes the entries of `x5c`.
pub fn decode_x5c<T: AsRef<str>>(entries: &[T], rules: &Rules) -> Result<Vec<Vec<u8>>, Refusal> {
    check_sizes(entries.iter().map(|entry| entry.as_ref().len() / 4 * 3), rules)?;
    entries
        .iter()
        .enumerate()
        .map(|(position, entry)| {
            BASE64_STANDARD
                .decode(entry.as_ref())
                .map_err(|_| Place::Certificate(position).refuses(Problem::NotBase64))
        })
        .collect()
}

/// So many certificates, so many bytes each and so many together, and no more.
pub(crate) fn check_sizes(sizes: impl ExactSizeIterator<Item = usize>, rules: &Rules) -> Result<(), Refusal> {
    // The device's, the intermediates, and the root, which may be there or not.
    let (count, most) = (sizes.len(), rules.max_intermediates.saturating_add(2));
    if count == 0 {
        return Err(Place::Chain.refuses(Problem::Empty));
    }
    if count > most {
        return Err(Place::Chain.refuses(Problem::TooManyCertificates { count, most }));
    }
    let mut total = 0usize;
    for (position, bytes) in sizes.enumerate() {
        if bytes > MAX_CERTIFICATE_LENGTH {
            let problem = Problem::TooLarge { bytes, most: MAX_CERTIFICATE_LENGTH };
            return Err(Place::Certificate(position).refuses(problem));
        }
        total = total.saturating_add(bytes);
    }
    if total > MAX_CHAIN_LENGTH {
        return Err(Place::Chain.refuses(Problem::TooLarge { bytes: total, most: MAX_CHAIN_LENGTH }));
    }
    Ok(())
}

/// The DER of a certificate. As text it is standard Base64, as in `x5c`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertificateDer(Vec<u8>);

impl CertificateDer {
    /// Takes the bytes as they are.
    pub fn new(der: Vec<u8>) -> Self {
        Self(der)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for CertificateDer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for CertificateDer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificateDer({} bytes)", self.0.len())
    }
}

impl TryFrom<String> for CertificateDer {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() / 4 * 3 > MAX_CERTIFICATE_LENGTH {
            return Err("a certificate is not that long");
        }
        BASE64_STANDARD.decode(&text).map(Self).map_err(|_| "a certificate is standard Base64")
    }
}

impl From<CertificateDer> for String {
    fn from(certificate: CertificateDer) -> String {
        BASE64_STANDARD.encode(&certificate.0)
    }
}
