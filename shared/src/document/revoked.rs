use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Document;
use crate::id::{ClientId, DeviceId};

/// `v1/revoked/{pool}/{n}`: what records of clients and devices no longer count (design §4).
///
/// Records carry no `next_update`, so an old one could be put back into KV: one with a secret that has been replaced, a
/// scope that has been taken away, or a status that was better. Whatever has lost anything stands here, until no
/// publisher key is trusted that has signed a record from before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedDocument {
    /// The clients of this shard.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clients: BTreeMap<ClientId, Revoked>,
    /// The devices of this shard.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<DeviceId, Revoked>,
}

/// What is left of a client or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// It exists: its record counts from this version on.
    Least(u64),
    /// It has been deleted: no record of it counts. A device that comes by certificate may be let in anew.
    Gone,
    /// It is kept out, whatever its record says and whether there is one.
    Refused,
}

impl RevokedDocument {
    /// In which of `shards` shards an id stands. None where there are no shards.
    pub fn shard_of(id: &str, shards: u32) -> Option<u32> {
        let digest: [u8; 32] = Sha256::digest(id).into();
        let [a, b, c, d, ..] = digest;
        u32::from_be_bytes([a, b, c, d]).checked_rem(shards)
    }
}

impl Document for RevokedDocument {
    const TYP: &'static str = "keypost-revoked+jws";
    const EXPIRES: bool = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_says_in_few_words_what_is_revoked() {
        let document = RevokedDocument {
            clients: [("a".parse().unwrap(), Revoked::Least(7)), ("b".parse().unwrap(), Revoked::Gone)]
                .into(),
            devices: [("pos:1".parse().unwrap(), Revoked::Refused)].into(),
        };
        let text = serde_json::to_string(&document).unwrap();
        assert_eq!(text, r#"{"clients":{"a":{"least":7},"b":"gone"},"devices":{"pos:1":"refused"}}"#);
        assert_eq!(serde_json::from_str::<RevokedDocument>(&text).unwrap(), document);
        assert_eq!(serde_json::from_str::<RevokedDocument>("{}").unwrap(), RevokedDocument::default());
    }

    #[test]
    fn ids_spread_over_the_shards() {
        let shards: std::collections::BTreeSet<_> =
            (0..200).map(|n| RevokedDocument::shard_of(&format!("pos-{n}"), 8)).collect();
        assert_eq!(shards, (0..8).map(Some).collect());
        assert_eq!(RevokedDocument::shard_of("pos-1", 0), None);
        // SHA-256("abc") begins with ba7816bf.
        assert_eq!(RevokedDocument::shard_of("abc", 1000), Some(0xba78_16bf % 1000));
    }
}
