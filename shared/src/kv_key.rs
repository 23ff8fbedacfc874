//! The keys of the documents in KV (design §4). Every key that is written or read is one of these.

use std::fmt;
use std::str::FromStr;

use crate::id::{ClientId, IdError, PoolId};

/// The name of a document in KV.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KvKey {
    /// `v1/trust`: the publisher keys now valid.
    Trust,
    /// `v1/pool/{pool}`: a client pool.
    Pool(PoolId),
    /// `v1/client/{pool}/{client_id}`: an OAuth client of a pool.
    Client(PoolId, ClientId),
}

/// A text that is no key of a Keypost document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvKeyError {
    /// No family of documents has such keys.
    #[error("{0:?} is not the key of a Keypost document")]
    UnknownFamily(String),
    /// The family is known, an id in the key is not well-formed.
    #[error("an id in the key: {0}")]
    Id(#[from] IdError),
}

impl KvKey {
    /// The pool whose document it is; none for the trust document.
    pub fn pool(&self) -> Option<PoolId> {
        match self {
            KvKey::Trust => None,
            KvKey::Pool(pool) | KvKey::Client(pool, _) => Some(*pool),
        }
    }
}

impl fmt::Display for KvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KvKey::Trust => f.write_str("v1/trust"),
            KvKey::Pool(pool) => write!(f, "v1/pool/{pool}"),
            KvKey::Client(pool, client) => write!(f, "v1/client/{pool}/{client}"),
        }
    }
}

impl FromStr for KvKey {
    type Err = KvKeyError;

    fn from_str(text: &str) -> Result<Self, KvKeyError> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("v1"), Some("trust"), None, ..) => Ok(KvKey::Trust),
            (Some("v1"), Some("pool"), Some(pool), None, _) => Ok(KvKey::Pool(pool.parse()?)),
            (Some("v1"), Some("client"), Some(pool), Some(client), None) => {
                Ok(KvKey::Client(pool.parse()?, client.parse()?))
            }
            _ => Err(KvKeyError::UnknownFamily(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_back_as_itself() {
        let pool: PoolId = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
        for key in [KvKey::Trust, KvKey::Pool(pool), KvKey::Client(pool, "d1505d57-0".parse().unwrap())] {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        for bad in
            ["", "v1", "v1/trust/", "v2/trust", "v1/pool/x", "v1/pool/", "v1/edge/a", "v1/client/a/b/c"]
        {
            assert!(bad.parse::<KvKey>().is_err(), "{bad}");
        }
    }
}
