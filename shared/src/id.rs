//! Identifiers. Ids that people choose are checked here, once, at the door; past it they are types.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a string is not an id of the asked kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// More characters than the kind may have.
    #[error("must have at most {max} characters")]
    TooLong {
        /// The most that is allowed.
        max: usize,
    },
    /// A character outside the kind's alphabet.
    #[error("must match {pattern}")]
    BadCharacter {
        /// The regular expression that ids of this kind match.
        pattern: &'static str,
    },
    /// Not a UUID in its hyphenated form.
    #[error("must be a UUID")]
    NotUuid,
}

/// A string id: a checked string that serialises as itself and cannot be deserialised unchecked.
macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                $check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A UUID id, in lower-case hyphenated form wherever it is text.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl FromStr for $name {
            type Err = IdError;

            /// Takes the hyphenated form alone, so that one id has one spelling in URLs and KV keys.
            fn from_str(text: &str) -> Result<Self, IdError> {
                let id = Uuid::try_parse(text).map_err(|_| IdError::NotUuid)?;
                let mut canonical = Uuid::encode_buffer();
                if id.hyphenated().encode_lower(&mut canonical) != text {
                    return Err(IdError::NotUuid);
                }
                Ok(Self(id))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

string_id!(
    /// An organization: a lower-case slug of at most 63 characters.
    OrgId,
    check_slug
);
string_id!(
    /// An environment within its organization: a lower-case slug of at most 63 characters.
    EnvId,
    check_slug
);
string_id!(
    /// The name of a client application on a device, such as `client`: a lower-case slug of at most 63 characters.
    ClientAppId,
    check_slug
);
string_id!(
    /// A device within its environment: `[A-Za-z0-9][A-Za-z0-9._:-]{0,127}`, case-sensitive, never normalised.
    DeviceId,
    check_device_id
);
string_id!(
    /// An OAuth client's `client_id` (RFC 6749 §2.2): `[A-Za-z0-9_-]{1,64}`, for which raw and form-encoded Basic
    /// credentials are the same bytes.
    ClientId,
    check_token
);
string_id!(
    /// A key id, the JOSE `kid` (RFC 7515 §4.1.4): `[A-Za-z0-9_-]{1,64}`. Keypost's are RFC 7638 thumbprints.
    Kid,
    check_token
);
string_id!(
    /// A token's `jti` (RFC 7519 §4.1.7): `[A-Za-z0-9_-]{1,64}`. Keypost's are 128 random bits in base64url.
    TokenId,
    check_token
);
uuid_id!(
    /// A client pool: the unit that owns an issuer, keys, trust anchors, clients and revocations.
    PoolId
);
uuid_id!(
    /// A client app of single sign-on (design §10): the claim `clientAppId`, and the client id at the sso pool.
    SsoAppId
);
uuid_id!(
    /// A person: the owner of an organization, or the user of a client app.
    UserId
);
uuid_id!(
    /// A sign-in with all that comes of it: the claim `sid`.
    SessionId
);

/// In a pool's status lists, a session has a place as a client has.
impl From<SessionId> for ClientId {
    fn from(session: SessionId) -> Self {
        Self(session.0.hyphenated().to_string())
    }
}

/// At the edge, a client app is a client.
impl From<SsoAppId> for ClientId {
    fn from(app: SsoAppId) -> Self {
        Self(app.0.hyphenated().to_string())
    }
}

impl ClientAppId {
    /// `client`: the app of a device for which nobody has named another.
    pub fn device_default() -> Self {
        Self("client".to_owned())
    }
}

impl Kid {
    /// The base64url text of a digest, which always has the right alphabet.
    pub(crate) fn from_digest(digest: &[u8; 32]) -> Self {
        Self(Base64UrlUnpadded::encode_string(digest))
    }
}

impl ClientId {
    /// The client id of a device's app: UUIDv5 in the pool's namespace over `device id + "/" + client app id`, so that
    /// edge and control plane agree without asking (design §8).
    pub fn of_device_app(pool: PoolId, device: &DeviceId, app: &ClientAppId) -> Self {
        let name = format!("{device}/{app}");
        Self(Uuid::new_v5(&pool.0, name.as_bytes()).hyphenated().to_string())
    }
}

fn check_slug(text: &str) -> Result<(), IdError> {
    check(text, 63, "[a-z0-9][a-z0-9-]{0,62}", |position, c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || (position > 0 && c == '-')
    })
}

fn check_device_id(text: &str) -> Result<(), IdError> {
    check(text, 128, "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", |position, c| {
        c.is_ascii_alphanumeric() || (position > 0 && matches!(c, '.' | '_' | ':' | '-'))
    })
}

fn check_token(text: &str) -> Result<(), IdError> {
    check(text, 64, "[A-Za-z0-9_-]{1,64}", |_, c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

fn check(
    text: &str,
    max: usize,
    pattern: &'static str,
    allowed: impl Fn(usize, char) -> bool,
) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    // The alphabets are ASCII, so where every character is allowed, bytes and characters count the same.
    if !text.chars().enumerate().take(max + 1).all(|(position, c)| allowed(position, c)) {
        return Err(IdError::BadCharacter { pattern });
    }
    if text.len() > max {
        return Err(IdError::TooLong { max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_lower_case_and_bounded() {
        for good in ["a", "retail-corp", "0", &"a".repeat(63)] {
            assert!(good.parse::<OrgId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a b", "é", "a/b", "a\0", &"a".repeat(64)] {
            assert!(bad.parse::<OrgId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn device_ids_take_the_documented_alphabet_only() {
        for good in ["pos-terminal-001", "05243-001", "A:b.c_d", &"x".repeat(128)] {
            assert!(good.parse::<DeviceId>().is_ok(), "{good}");
        }
        for bad in ["", ".hidden", "..", "a/b", "a%2fb", "a\n", "ｘ", &"x".repeat(129)] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_checked_when_deserialised() {
        assert!(serde_json::from_str::<OrgId>("\"Not A Slug\"").is_err());
        assert_eq!(serde_json::from_str::<OrgId>("\"ok\"").unwrap().as_str(), "ok");
    }

    #[test]
    fn a_pool_id_has_one_spelling() {
        let text = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        assert_eq!(text.parse::<PoolId>().unwrap().to_string(), text);
        assert!(text.to_uppercase().parse::<PoolId>().is_err());
        assert!(text.replace('-', "").parse::<PoolId>().is_err());
        assert!(format!("{{{text}}}").parse::<PoolId>().is_err());
    }

    #[test]
    fn a_device_app_has_the_same_client_id_everywhere() {
        let pool = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
        let id = ClientId::of_device_app(pool, &"pos-1".parse().unwrap(), &"client".parse().unwrap());
        let expected = Uuid::new_v5(&pool.0, b"pos-1/client");
        assert_eq!(id.as_str(), expected.to_string());
    }
}
