//! SHA-256 fingerprints.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A SHA-256. It prints as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A hash that was computed before.
    pub fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As JOSE writes it (RFC 7515 §4.1.8).
    pub fn to_base64url(&self) -> String {
        Base64UrlUnpadded::encode_string(&self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a SHA-256 in hexadecimal: 64 digits, with or without colons")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Reads 64 hexadecimal digits of either case, with or without the colons that openssl puts between octets.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut digits = text.bytes();
        let mut hash = [0; 32];
        for (position, octet) in hash.iter_mut().enumerate() {
            if position > 0 && text.len() == 95 && digits.next() != Some(b':') {
                return Err(FingerprintError);
            }
            let (high, low) = (digits.next().and_then(digit), digits.next().and_then(digit));
            *octet = high.zip(low).map(|(high, low)| high << 4 | low).ok_or(FingerprintError)?;
        }
        if digits.next().is_none() { Ok(Self(hash)) } else { Err(FingerprintError) }
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_tools_show_it() {
        let fingerprint = Fingerprint::of(b"x");
        let text = fingerprint.to_string();
        let pairs: Vec<String> =
            text.as_bytes().chunks(2).map(|two| String::from_utf8_lossy(two).into()).collect();
        let colons = pairs.join(":");
        for same in [text.clone(), text.to_uppercase(), colons.clone(), colons.to_uppercase()] {
            assert_eq!(same.parse(), Ok(fingerprint), "{same}");
        }
        for bad in [
            "",
            "zz",
            &text[1..],
            &format!("{text}00"),
            &colons.replacen(':', "", 1),
            &colons.replace(':', "-"),
        ] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad}");
        }
    }
}
