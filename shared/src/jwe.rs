//! Signing keys sealed for the edge: JWE in compact form, `alg` `dir`, `enc` `A256GCM` (RFC 7516, RFC 7518 §4.5, §5.3).
//!
//! The protected header, which is the additional authenticated data, names the pool and the key, so that a sealed key
//! moved to another pool does not open as that pool's.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{Kid, PoolId};

/// The protected header of a sealed signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealHeader {
    alg: DirectAlg,
    enc: ContentEncryption,
    /// The id of the sealing key ([`SealingKey::id`]).
    pub kid: Kid,
    /// The pool that the sealed key signs for.
    pub pool: PoolId,
    /// The `kid` of the sealed key.
    pub signing_kid: Kid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum DirectAlg {
    #[serde(rename = "dir")]
    Dir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ContentEncryption {
    A256GCM,
}

impl SealHeader {
    /// The header for sealing `signing_kid` of `pool` under the sealing key `kid`.
    pub fn new(kid: Kid, pool: PoolId, signing_kid: Kid) -> Self {
        Self { alg: DirectAlg::Dir, enc: ContentEncryption::A256GCM, kid, pool, signing_kid }
    }
}

/// The symmetric key, a Worker secret, under which the control plane seals signing keys for the edge.
#[derive(Clone)]
pub struct SealingKey([u8; 32]);

/// A text that is no sealing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 bytes in base64url without padding, or two such keys parted by a comma")]
pub struct SealingKeyError;

impl SealingKey {
    /// Reads one key, or two parted by a comma while they are being rotated. The first is the one to seal with.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, SealingKeyError> {
        let keys: Vec<_> = text.split(',').map(|key| Self::parse(key.trim())).collect::<Result<_, _>>()?;
        if keys.len() > 2 { Err(SealingKeyError) } else { Ok(keys) }
    }

    fn parse(text: &str) -> Result<Self, SealingKeyError> {
        let mut bytes = [0; 32];
        match Base64UrlUnpadded::decode(text, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => Ok(Self(bytes)),
            _ => Err(SealingKeyError),
        }
    }

    /// The key's bytes, for the cipher.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A name for the key that both sides compute: a hash of 256 random bits gives nothing away.
    pub fn id(&self) -> Kid {
        let digest = Sha256::new().chain_update(b"keypost sealing key id\0").chain_update(self.0).finalize();
        Kid::from_digest(&digest.into())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

/// Why a text is no sealed key.
#[derive(Debug, thiserror::Error)]
pub enum JweError {
    /// Not five parts, or an encrypted key where `dir` has none.
    #[error("not a compact JWE with direct encryption")]
    NotCompact,
    /// A part is not base64url, or has the wrong length.
    #[error("a part is not base64url of the right length")]
    NotBase64,
    /// The header is not what Keypost seals with.
    #[error("the header is not understood: {0}")]
    Header(serde_json::Error),
}

/// A compact JWE, taken apart.
pub struct SplitJwe<'a> {
    /// The protected header: authenticated once the ciphertext has been opened.
    pub header: SealHeader,
    /// What is authenticated beside the ciphertext: the header as it stands in the text.
    pub additional_data: &'a [u8],
    /// The initialisation vector.
    pub iv: [u8; 12],
    /// The ciphertext with its tag of 16 bytes at the end, as AES-GCM implementations take it.
    pub ciphertext_and_tag: Vec<u8>,
}

impl<'a> SplitJwe<'a> {
    /// Takes a compact JWE apart.
    pub fn parse(text: &'a str) -> Result<Self, JweError> {
        let parts: Vec<&str> = text.splitn(6, '.').collect();
        let [header_text, "", iv_text, ciphertext, tag] = parts[..] else {
            return Err(JweError::NotCompact);
        };
        let header_json = Base64UrlUnpadded::decode_vec(header_text).map_err(|_| JweError::NotBase64)?;
        let header = serde_json::from_slice(&header_json).map_err(JweError::Header)?;
        let iv = decode_array(iv_text)?;
        let tag: [u8; 16] = decode_array(tag)?;
        let mut ciphertext_and_tag =
            Base64UrlUnpadded::decode_vec(ciphertext).map_err(|_| JweError::NotBase64)?;
        ciphertext_and_tag.extend_from_slice(&tag);
        Ok(Self { header, additional_data: header_text.as_bytes(), iv, ciphertext_and_tag })
    }
}

fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], JweError> {
    let mut bytes = [0; N];
    let length = Base64UrlUnpadded::decode(text, &mut bytes).map_err(|_| JweError::NotBase64)?.len();
    if length == N { Ok(bytes) } else { Err(JweError::NotBase64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_two_sealing_keys_are_read() {
        let (a, b) = ("A".repeat(43), format!("{}E", "B".repeat(42)));
        assert_eq!(SealingKey::parse_list(&a).unwrap().len(), 1);
        let two = SealingKey::parse_list(&format!("{a}, {b}")).unwrap();
        assert_eq!(two.len(), 2);
        assert_ne!(two[0].id(), two[1].id());
        for bad in ["", ",", "short", &format!("{a},{b},{a}"), &format!("{a}=")] {
            assert!(SealingKey::parse_list(bad).is_err(), "{bad}");
        }
    }
}
