//! A token that somebody presents, to be revoked or looked into: a text that may be anything, until its signature is found
//! to be by one of the pool's keys.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::crypto::{Crypto, CryptoError};
use crate::id::{ClientId, SessionId, TokenId};
use crate::jwk::JwkSet;
use crate::jws::{JwsError, JwsHeader, UnverifiedJws};
use crate::status_list::StatusIndex;
use crate::time::UnixTime;

/// The longest header, in base64url: Keypost's have some 150 characters.
const MAX_HEADER: usize = 1_024;

/// The `typ`s of access tokens: nothing else that a pool's key signs may pass for one (RFC 8725 §3.11).
const TYPES: [&str; 2] = ["JWT", "at+jwt"];

/// A text that has the form of an access token, and of which nothing may be believed.
pub struct UnverifiedToken<'a> {
    jws: UnverifiedJws<'a>,
}

/// Why a text is no access token of a pool.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A header that is longer than any of Keypost's.
    #[error("the header is too long")]
    HeaderTooLong,
    /// Not one of Keypost's signed texts, or claims that are not those of an access token.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// Signed for another purpose.
    #[error("it is not an access token")]
    WrongType,
    /// Not by a key that is in the pool's key set now.
    #[error("its key is not in the key set")]
    UnknownKey,
    /// Not signed by the key that it names.
    #[error("its signature is wrong")]
    BadSignature,
    /// The platform could not verify.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// The claims of an access token whose signature has been checked, of a device, a service client or a person.
#[derive(Debug, Deserialize)]
pub struct TokenClaims {
    /// The issuer.
    pub iss: String,
    /// Whom it speaks for.
    pub sub: String,
    /// From when on it counts no longer.
    pub exp: UnixTime,
    /// When it was issued.
    pub iat: UnixTime,
    /// From when on it counts, if it says so.
    #[serde(default)]
    pub nbf: Option<UnixTime>,
    /// Its own id.
    pub jti: TokenId,
    /// The client that asked for it; none for people's.
    #[serde(default)]
    pub client_id: Option<ClientId>,
    /// For people's: the sign-in that it comes of.
    #[serde(default)]
    pub sid: Option<SessionId>,
    /// For people's: the client app that it was issued for; none for an owner's.
    #[serde(default, rename = "clientAppId")]
    pub client_app_id: Option<ClientId>,
    /// For people's: the organization whose they are.
    #[serde(default, rename = "organizationId")]
    pub organization_id: Option<String>,
    /// For people's: `ORG_OWNER` or `CLIENT_USER`.
    #[serde(default, rename = "userType")]
    pub user_type: Option<String>,
    /// For whom it is meant: a string or some.
    #[serde(default)]
    pub aud: Option<Box<RawValue>>,
    /// The scopes, in either form.
    #[serde(default)]
    pub scope: Option<ScopeClaim>,
    /// What it is bound to (RFC 7800 §3.1).
    #[serde(default)]
    pub cnf: Option<Box<RawValue>>,
    /// The name by which a person signs in.
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    status: Option<StatusClaim>,
}

/// `scope`, as either profile writes it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum ScopeClaim {
    /// Space-separated (RFC 9068 §2.2.3).
    Text(String),
    /// One by one.
    Array(Vec<String>),
}

impl ScopeClaim {
    /// The space-separated form; none where there is no scope at all.
    pub fn to_text(&self) -> Option<String> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Array(scopes) => scopes.join(" "),
        };
        (!text.is_empty()).then_some(text)
    }
}

#[derive(Debug, Deserialize)]
struct StatusClaim {
    status_list: StatusReference,
}

#[derive(Debug, Deserialize)]
struct StatusReference {
    idx: u32,
    uri: String,
}

impl<'a> UnverifiedToken<'a> {
    /// Takes the text apart. What it costs is bounded by the text's length.
    pub fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.split('.').next().is_some_and(|header| header.len() > MAX_HEADER) {
            return Err(TokenError::HeaderTooLong);
        }
        let jws = UnverifiedJws::<JwsHeader>::parse(text)?;
        if TYPES.contains(&jws.header.typ.as_str()) { Ok(Self { jws }) } else { Err(TokenError::WrongType) }
    }

    /// What it says to be signed by.
    pub fn header(&self) -> &JwsHeader {
        &self.jws.header
    }

    /// Checks that this key signed it, which the caller has found by the header, and reads the claims. Times are not
    /// checked.
    pub async fn verify_by<C: Crypto>(
        self,
        crypto: &C,
        key: &C::VerifyingKey,
    ) -> Result<TokenClaims, TokenError> {
        if crypto.verify(key, self.jws.signing_input(), self.jws.signature()).await? {
            Ok(self.jws.payload()?)
        } else {
            Err(TokenError::BadSignature)
        }
    }

    /// Checks that a key of the set signed it, and reads the claims. Times are not checked.
    pub async fn verify<C: Crypto>(self, crypto: &C, keys: &JwkSet) -> Result<TokenClaims, TokenError> {
        self.jws.verify(crypto, keys).await?;
        Ok(self.jws.payload()?)
    }
}

impl UnverifiedJws<'_> {
    /// Checks that the key of the set that the header names signed.
    pub async fn verify<C: Crypto>(&self, crypto: &C, keys: &JwkSet) -> Result<(), TokenError> {
        let key = keys.keys.iter().find(|key| key.kid == self.header.kid && key.alg == self.header.alg);
        let key = crypto.import_public(&key.ok_or(TokenError::UnknownKey)?.key).await?;
        let signed = crypto.verify(&key, self.signing_input(), self.signature()).await?;
        if signed { Ok(()) } else { Err(TokenError::BadSignature) }
    }
}

impl TokenClaims {
    /// Whether it counts at this time, by what it says itself.
    pub fn is_current(&self, now: UnixTime) -> bool {
        now < self.exp && self.nbf.is_none_or(|start| start <= now)
    }

    /// Where its status is found, if it has one. None also for a list that is not this issuer's.
    pub fn status_index(&self) -> Option<StatusIndex> {
        let StatusReference { idx, uri } = &self.status.as_ref()?.status_list;
        let number = uri.strip_prefix(&self.iss)?.strip_prefix("/status/")?;
        let list: u32 = number.parse().ok()?;
        let index = StatusIndex { list, idx: *idx };
        (index.uri(&self.iss) == *uri).then_some(index)
    }

    /// The client that it was issued to: the app, for people's.
    pub fn issued_to(&self) -> Option<&ClientId> {
        self.client_id.as_ref().or(self.client_app_id.as_ref())
    }

    /// Whose place in the status lists it uses: a client's, or for people's their session's.
    pub fn status_holder(&self) -> Option<ClientId> {
        self.client_id.clone().or_else(|| self.sid.map(ClientId::from))
    }

    /// Whether it is a person's access token, and nothing else that is signed for them, such as an ID token: that has no
    /// status, because nobody asks for one.
    pub fn is_of_a_person(&self) -> bool {
        self.client_id.is_none() && self.sid.is_some() && self.user_type.is_some() && self.has_status()
    }

    /// Whether it says that its status can be found somewhere.
    pub fn has_status(&self) -> bool {
        self.status.is_some()
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use serde_json::{Value, json};

    use super::*;
    use crate::host::{HostCrypto, PrivateKey};
    use crate::jwk::{Jwk, SigningAlg};
    use crate::jws::{append_signature, signing_input};

    fn key(seed: u64) -> PrivateKey {
        PrivateKey::generate(&mut ChaCha20Rng::seed_from_u64(seed))
    }

    fn sign(key: &PrivateKey, typ: &str, claims: &Value) -> String {
        let header = JwsHeader { alg: SigningAlg::ES256, typ: typ.to_owned(), kid: key.kid().clone() };
        let input = signing_input(&header, claims).unwrap();
        let signature = block_on(HostCrypto.sign(key, input.as_bytes())).unwrap();
        append_signature(input, &signature)
    }

    fn read(text: &str) -> Result<TokenClaims, TokenError> {
        let keys = JwkSet { keys: vec![Jwk::es256(key(1).public().clone())] };
        block_on(UnverifiedToken::parse(text)?.verify(&HostCrypto, &keys))
    }

    fn claims() -> Value {
        json!({
            "iss": "https://e.example/p", "sub": "s", "exp": 10, "iat": 1, "jti": "j", "client_id": "c",
            "scope": ["a", "b"], "metadata": {"x": [1, 2]},
            "status": {"status_list": {"idx": 8, "uri": "https://e.example/p/status/3"}},
        })
    }

    #[test]
    fn a_token_is_read_once_a_key_of_the_set_has_signed_it() {
        for typ in TYPES {
            let claims = read(&sign(&key(1), typ, &claims())).unwrap();
            assert_eq!(claims.scope.as_ref().unwrap().to_text().as_deref(), Some("a b"));
            assert_eq!(claims.status_index(), Some(StatusIndex { list: 3, idx: 8 }));
            assert!(claims.is_current(UnixTime(9)) && !claims.is_current(UnixTime(10)));
        }
        assert!(matches!(read(&sign(&key(2), "JWT", &claims())), Err(TokenError::UnknownKey)));
        for typ in ["statuslist+jwt", "keypost-pool+jws", "jwt", ""] {
            assert!(matches!(read(&sign(&key(1), typ, &claims())), Err(TokenError::WrongType)), "{typ}");
        }
        let good = sign(&key(1), "JWT", &claims());
        let other = sign(&key(1), "JWT", &json!({"iss": "x"}));
        let swapped = format!("{}.{}", good.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
        assert!(matches!(read(&swapped), Err(TokenError::BadSignature)));
        assert!(matches!(read(&other), Err(TokenError::Jws(_))), "claims are missing");
        assert!(matches!(read(&"x".repeat(100_000)), Err(TokenError::HeaderTooLong)));
        for nothing in ["", ".", "..", "a.b.c", "e30.e30.AA"] {
            assert!(read(nothing).is_err(), "{nothing}");
        }
    }

    #[test]
    fn a_status_of_another_issuer_or_spelling_is_none() {
        for uri in [
            "https://e.example/q/status/3",
            "https://e.example/p/status/03",
            "https://e.example/p/status/+3",
            "https://e.example/p/status/",
            "https://e.example/p/status/3/",
            "",
        ] {
            let mut own = claims();
            own["status"]["status_list"]["uri"] = json!(uri);
            let read = read(&sign(&key(1), "JWT", &own)).unwrap();
            assert_eq!((read.status_index(), read.has_status()), (None, true), "{uri}");
        }
    }
}
