//! The keys in KV (design §4). Every key that is written or read is one of these: a [`KvKey`] names a document of the
//! control plane, an [`EdgeKey`] something that the edge wrote, which publishing leaves alone.

use std::fmt;
use std::str::FromStr;

use crate::id::{ClientId, DeviceId, IdError, PoolId, TokenId};

/// The name of a document in KV.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KvKey {
    /// `v1/trust`: the publisher keys now valid.
    Trust,
    /// `v1/pool/{pool}`: a client pool.
    Pool(PoolId),
    /// `v1/client/{pool}/{client_id}`: an OAuth client of a pool.
    Client(PoolId, ClientId),
    /// `v1/device/{pool}/{device}`: a device of a pool that authenticates by certificate.
    Device(PoolId, DeviceId),
    /// `v1/revoked/{pool}/{n}`: a shard of the pool's revocation list.
    Revoked(PoolId, u32),
    /// `v1/status/{pool}/{n}`: one of the pool's Token Status Lists.
    Status(PoolId, u32),
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
    /// The family is known, a number in the key is not well-formed.
    #[error("a number in the key: {0:?}")]
    Number(String),
}

impl KvKey {
    /// The pool whose document it is; none for the trust document.
    pub fn pool(&self) -> Option<PoolId> {
        match self {
            KvKey::Trust => None,
            KvKey::Pool(pool)
            | KvKey::Client(pool, _)
            | KvKey::Device(pool, _)
            | KvKey::Revoked(pool, _)
            | KvKey::Status(pool, _) => Some(*pool),
        }
    }

    /// What the keys of a pool's clients begin with; the client's id follows.
    pub fn client_prefix(pool: PoolId) -> String {
        format!("v1/client/{pool}/")
    }
}

impl fmt::Display for KvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KvKey::Trust => f.write_str("v1/trust"),
            KvKey::Pool(pool) => write!(f, "v1/pool/{pool}"),
            KvKey::Client(pool, client) => write!(f, "{}{client}", Self::client_prefix(*pool)),
            KvKey::Device(pool, device) => write!(f, "v1/device/{pool}/{device}"),
            KvKey::Revoked(pool, number) => write!(f, "v1/revoked/{pool}/{number}"),
            KvKey::Status(pool, number) => write!(f, "v1/status/{pool}/{number}"),
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
            (Some("v1"), Some("device"), Some(pool), Some(device), None) => {
                Ok(KvKey::Device(pool.parse()?, device.parse()?))
            }
            (Some("v1"), Some("revoked"), Some(pool), Some(number), None) => {
                Ok(KvKey::Revoked(pool.parse()?, read_number(number)?))
            }
            (Some("v1"), Some("status"), Some(pool), Some(number), None) => {
                Ok(KvKey::Status(pool.parse()?, read_number(number)?))
            }
            _ => Err(KvKeyError::UnknownFamily(text.to_owned())),
        }
    }
}

/// Reads a number in its one spelling.
pub(crate) fn read_number(text: &str) -> Result<u32, KvKeyError> {
    let number = text.parse::<u32>().ok().filter(|number| number.to_string() == text);
    number.ok_or_else(|| KvKeyError::Number(text.to_owned()))
}

/// The name of something that the edge wrote, with an HMAC under the shared secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EdgeKey {
    /// `v1/edge/{pool}/report/{device}`: a device that the edge has provisioned or seen with its first certificate, until
    /// the control plane has taken it up.
    Report(PoolId, DeviceId),
    /// `v1/edge/{pool}/revocation/{jti}`: a revocation that the edge accepted, until the token has expired.
    Revocation(PoolId, TokenId),
}

impl EdgeKey {
    /// What all of them begin with.
    pub const PREFIX: &str = "v1/edge/";
}

impl fmt::Display for EdgeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EdgeKey::Report(pool, device) => write!(f, "{}{pool}/report/{device}", Self::PREFIX),
            EdgeKey::Revocation(pool, jti) => write!(f, "{}{pool}/revocation/{jti}", Self::PREFIX),
        }
    }
}

impl FromStr for EdgeKey {
    type Err = KvKeyError;

    fn from_str(text: &str) -> Result<Self, KvKeyError> {
        let unknown = || KvKeyError::UnknownFamily(text.to_owned());
        let mut parts = text.strip_prefix(Self::PREFIX).ok_or_else(unknown)?.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(pool), Some("report"), Some(device), None) => {
                Ok(EdgeKey::Report(pool.parse()?, device.parse()?))
            }
            (Some(pool), Some("revocation"), Some(jti), None) => {
                Ok(EdgeKey::Revocation(pool.parse()?, jti.parse()?))
            }
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_back_as_itself() {
        let pool: PoolId = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
        let device: DeviceId = "pos:1.x_y".parse().unwrap();
        let client = KvKey::Client(pool, "d1505d57-0".parse().unwrap());
        let lists = [KvKey::Revoked(pool, 7), KvKey::Status(pool, 10)];
        for key in [KvKey::Trust, KvKey::Pool(pool), client, KvKey::Device(pool, device.clone())]
            .into_iter()
            .chain(lists)
        {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        let report = EdgeKey::Report(pool, device);
        assert_eq!(report.to_string(), format!("v1/edge/{pool}/report/pos:1.x_y"));
        assert!(report.to_string().parse::<KvKey>().is_err(), "no document of the control plane");
        assert_eq!(report.to_string().parse(), Ok(report));
        let revocation = EdgeKey::Revocation(pool, "Kj-_4".parse().unwrap());
        assert_eq!(revocation.to_string(), format!("v1/edge/{pool}/revocation/Kj-_4"));
        assert_eq!(revocation.to_string().parse(), Ok(revocation));
        for bad in ["v1/edge/", "v1/edge/x/report/y", "v1/trust", &format!("v1/edge/{pool}/report/a/b")] {
            assert!(bad.parse::<EdgeKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        for bad in
            ["", "v1", "v1/trust/", "v2/trust", "v1/pool/x", "v1/pool/", "v1/edge/a", "v1/client/a/b/c"]
        {
            assert!(bad.parse::<KvKey>().is_err(), "{bad}");
        }
        for number in ["", "07", "+7", "-1", "4294967296", "x"] {
            let key = format!("v1/status/6ba7b810-9dad-11d1-80b4-00c04fd430c8/{number}");
            assert_eq!(key.parse::<KvKey>(), Err(KvKeyError::Number(number.to_owned())));
        }
    }
}
