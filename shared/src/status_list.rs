//! Token Status Lists (draft-ietf-oauth-status-list): one bit for every token that may have to be revoked.
//!
//! Each client owns a block of eight bits, and its tokens carry the index of the lowest clear one. Revoking a token sets
//! its bit, which ends every token of that client with that index, and the next token gets the next (design §9). As an
//! index counts bits from the least significant one of each byte (draft §4.1), a block is a byte of the list.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::id::Kid;
use crate::jwk::SigningAlg;
use crate::jws::{self, JwsHeader};
use crate::time::UnixTime;

/// The media type of a Status List Token, and its `typ` without `application/` (draft §5.1).
pub const STATUS_LIST_MEDIA_TYPE: &str = "application/statuslist+jwt";
/// The `typ` of its header.
pub const STATUS_LIST_TYP: &str = "statuslist+jwt";
/// How long verifiers may keep one before they ask again, in seconds: its `ttl`.
pub const STATUS_LIST_TTL: u64 = 60;
/// The tokens that a block can tell apart.
pub const BLOCK_BITS: u8 = 8;
/// The blocks of a list: 128 KiB before compression.
pub const LIST_BLOCKS: u32 = 131_072;

/// A client's place in its pool's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StatusBlock {
    /// The list, the last part of its URL.
    pub list: u32,
    /// The block within the list, below [`LIST_BLOCKS`].
    pub block: u32,
    /// The bits that are set.
    #[serde(default)]
    pub revoked: u8,
}

/// Where a token's status is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusIndex {
    /// The list.
    pub list: u32,
    /// The index of its bit.
    pub idx: u32,
}

impl StatusBlock {
    /// The index that the next token carries: that of the lowest bit that is clear here and in `revoked`. None where the
    /// block is full, or is no block of any list.
    pub fn next_index(&self, revoked: u8) -> Option<StatusIndex> {
        let bit = (self.revoked | revoked).trailing_ones();
        (bit < u32::from(BLOCK_BITS) && self.block < LIST_BLOCKS)
            .then(|| StatusIndex { list: self.list, idx: self.block * u32::from(BLOCK_BITS) + bit })
    }
}

impl StatusIndex {
    /// The block that the index belongs to.
    pub fn block(&self) -> u32 {
        self.idx / u32::from(BLOCK_BITS)
    }

    /// Its bit within the block.
    pub fn mask(&self) -> u8 {
        1 << (self.idx % u32::from(BLOCK_BITS))
    }

    /// The list's URL, for a pool of this issuer.
    pub fn uri(&self, issuer: &str) -> String {
        list_url(issuer, self.list)
    }
}

/// A token's claim `status` (draft §6.1): where its status is found.
#[derive(Clone, Debug, Serialize)]
pub struct StatusClaim {
    status_list: StatusReference,
}

#[derive(Clone, Debug, Serialize)]
struct StatusReference {
    idx: u32,
    uri: String,
}

impl StatusClaim {
    /// For a token with this index, of a pool of this issuer.
    pub fn new(index: StatusIndex, issuer: &str) -> Self {
        Self { status_list: StatusReference { idx: index.idx, uri: index.uri(issuer) } }
    }
}

/// The URL of a list: its `sub`, and the `uri` of tokens.
pub fn list_url(issuer: &str, list: u32) -> String {
    format!("{issuer}/status/{list}")
}

/// The claims of a Status List Token (draft §5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusListClaims {
    /// The list's URL.
    pub sub: String,
    /// When it was signed.
    pub iat: UnixTime,
    /// From when on it counts no longer.
    pub exp: UnixTime,
    /// How long it may be kept, in seconds.
    pub ttl: u64,
    /// The bits.
    pub status_list: CompressedStatusList,
}

impl StatusListClaims {
    /// The bytes that the key `kid` signs (draft §5.1).
    pub fn signing_input(&self, kid: &Kid) -> Result<String, serde_json::Error> {
        let header = JwsHeader { alg: SigningAlg::ES256, typ: STATUS_LIST_TYP.to_owned(), kid: kid.clone() };
        jws::signing_input(&header, self)
    }
}

/// The bits as they travel (draft §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressedStatusList {
    /// The bits of each token: always 1 here.
    pub bits: u8,
    /// The list, deflated in ZLIB's format, in base64url.
    pub lst: String,
}

/// Why a list cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the status list is not one of {LIST_BLOCKS} bytes with one bit for a token, deflated")]
pub struct StatusListError;

/// A list's bits: one byte for each block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusBits(Vec<u8>);

impl StatusBits {
    /// A list in which nothing is revoked.
    pub fn new() -> Self {
        Self(vec![0; LIST_BLOCKS as usize])
    }

    /// A list in which everything is revoked.
    pub fn all_revoked() -> Self {
        Self(vec![u8::MAX; LIST_BLOCKS as usize])
    }

    /// Sets bits of a block; one beyond the list has none.
    pub fn revoke(&mut self, block: u32, bits: u8) {
        if let Some(byte) = self.0.get_mut(block as usize) {
            *byte |= bits;
        }
    }

    /// The bits that are set in a block.
    pub fn block(&self, block: u32) -> u8 {
        self.0.get(block as usize).copied().unwrap_or_default()
    }

    /// Whether the token with this index is revoked.
    pub fn is_revoked(&self, index: StatusIndex) -> bool {
        self.block(index.block()) & index.mask() != 0
    }

    /// Deflates the list.
    #[cfg(feature = "host")]
    pub fn compress(&self) -> CompressedStatusList {
        /// The slowest level, as the draft asks for (§4.1).
        const LEVEL: u8 = 9;
        let deflated = miniz_oxide::deflate::compress_to_vec_zlib(&self.0, LEVEL);
        CompressedStatusList { bits: 1, lst: BASE64_URL_SAFE_NO_PAD.encode(&deflated) }
    }

    /// Inflates a list. What it takes is bounded by [`LIST_BLOCKS`].
    pub fn decompress(list: &CompressedStatusList) -> Result<Self, StatusListError> {
        if list.bits != 1 {
            return Err(StatusListError);
        }
        let deflated = BASE64_URL_SAFE_NO_PAD.decode(&list.lst).map_err(|_| StatusListError)?;
        let bits = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&deflated, LIST_BLOCKS as usize)
            .map_err(|_| StatusListError)?;
        if bits.len() == LIST_BLOCKS as usize { Ok(Self(bits)) } else { Err(StatusListError) }
    }
}

impl Default for StatusBits {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_hands_out_its_lowest_clear_bit() {
        let block = |revoked| StatusBlock { list: 3, block: 10, revoked };
        assert_eq!(block(0).next_index(0), Some(StatusIndex { list: 3, idx: 80 }));
        assert_eq!(block(0b101).next_index(0b10), Some(StatusIndex { list: 3, idx: 83 }));
        assert_eq!(block(0x7f).next_index(0), Some(StatusIndex { list: 3, idx: 87 }));
        assert_eq!(block(0x7f).next_index(0x80), None);
        for beyond in [LIST_BLOCKS, u32::MAX] {
            assert_eq!(StatusBlock { list: 0, block: beyond, revoked: 0 }.next_index(0), None);
        }
    }

    #[test]
    fn what_is_revoked_is_found_by_its_index_alone() {
        let mut bits = StatusBits::new();
        let index = StatusIndex { list: 0, idx: 8 * 500 + 3 };
        bits.revoke(index.block(), index.mask());
        let read = StatusBits::decompress(&bits.compress()).unwrap();
        assert_eq!(read, bits);
        assert!(read.is_revoked(index));
        assert!(!read.is_revoked(StatusIndex { idx: index.idx + 1, ..index }));
        assert!(!read.is_revoked(StatusIndex { idx: u32::MAX, ..index }));
        assert!(StatusBits::all_revoked().is_revoked(StatusIndex { idx: 0, ..index }));
    }

    #[test]
    fn bits_are_numbered_as_in_the_draft() {
        // draft-ietf-oauth-status-list, §4.1: the list 1 0 0 1 1 1 0 1 1 1 0 0 0 1 0 1 is the bytes b9 a3.
        let mut bits = StatusBits::new();
        for idx in [0, 3, 4, 5, 7, 8, 9, 13, 15] {
            let index = StatusIndex { list: 0, idx };
            bits.revoke(index.block(), index.mask());
        }
        assert_eq!((bits.block(0), bits.block(1)), (0xb9, 0xa3));
    }

    #[test]
    fn a_list_of_another_size_or_form_is_refused() {
        use base64ct::{Base64UrlUnpadded, Encoding};
        let deflate = |bytes: &[u8]| {
            Base64UrlUnpadded::encode_string(&miniz_oxide::deflate::compress_to_vec_zlib(bytes, 1))
        };
        let full = LIST_BLOCKS as usize;
        assert!(
            StatusBits::decompress(&CompressedStatusList { bits: 1, lst: deflate(&vec![0; full]) }).is_ok()
        );
        for (bits, lst) in [
            (2, deflate(&vec![0; full])),
            (1, deflate(&vec![0; full - 1])),
            (1, deflate(&vec![0; full + 1])),
            (1, "AAAA".to_owned()),
            (1, "=".to_owned()),
        ] {
            assert_eq!(StatusBits::decompress(&CompressedStatusList { bits, lst }), Err(StatusListError));
        }
    }
}
