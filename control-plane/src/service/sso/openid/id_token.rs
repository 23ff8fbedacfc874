//! ID tokens (OpenID Connect Core §2): what tells an app who has signed in, and when.
//!
//! They are signed by the same key and are of the same `typ` as access tokens, because verifiers know no other. What keeps
//! them from being taken for access tokens is that they have no `jti`, which every access token has.

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_shared::id::{SessionId, SsoAppId, UserId};
use keypost_shared::secret::SecretText;
use serde::Serialize;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use super::super::access_token::{PoolSigner, SignError};
use super::scope::OpenIdScope;
use super::standard_claims::StandardClaims;
use crate::store::sso::session::Session;
use crate::store::sso::user::User;

/// What an ID token is made of.
pub(super) struct IdToken<'a> {
    pub(super) app: SsoAppId,
    pub(super) user: &'a User,
    pub(super) session: &'a Session,
    pub(super) scope: OpenIdScope,
    pub(super) nonce: Option<&'a str>,
    /// The access token beside it.
    pub(super) access_token: &'a SecretText,
    /// How long that lives, in seconds.
    pub(super) lives: i64,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: UserId,
    aud: SsoAppId,
    exp: i64,
    iat: i64,
    auth_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    at_hash: String,
    sid: SessionId,
    #[serde(flatten)]
    person: StandardClaims,
}

impl IdToken<'_> {
    pub(super) fn sign(&self, signer: &PoolSigner, now: OffsetDateTime) -> Result<SecretText, SignError> {
        let exp = now + Duration::seconds(self.lives);
        signer.sign(
            "JWT",
            &Claims {
                iss: signer.issuer(),
                sub: self.user.id,
                aud: self.app,
                exp: exp.unix_timestamp(),
                iat: now.unix_timestamp(),
                // A session is begun with a password, each time that one is given.
                auth_time: self.session.created_at.unix_timestamp(),
                nonce: self.nonce,
                at_hash: at_hash(self.access_token),
                sid: self.session.id,
                person: StandardClaims::of(self.user, self.scope),
            },
        )
    }
}

/// The left half of the SHA-256 of an access token (OpenID Connect Core §3.1.3.6).
fn at_hash(access_token: &SecretText) -> String {
    let digest = Sha256::digest(access_token.expose().as_bytes());
    let (left, _) = digest.split_at(16);
    Base64UrlUnpadded::encode_string(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_hash_is_that_of_the_specification() {
        // OpenID Connect Core, appendix A.3, where the response has this access token and at_hash.
        let token = SecretText::new("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y".to_owned());
        assert_eq!(at_hash(&token), "77QmUPtjPfzWtF2AnpK9RQ");
    }
}
