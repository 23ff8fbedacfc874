//! A person's access token (api.md §4): made by the control plane alone, by the key of the organization's sso pool.

use keypost_shared::host::{HostCrypto, PrivateKey};
use keypost_shared::id::{Kid, OrgId, PoolId, SessionId, SsoAppId, UserId};
use keypost_shared::issued_token::TokenError;
use keypost_shared::jwk::{EcPublicJwk, Jwk, JwkSet, SigningAlg};
use keypost_shared::jws::{JwsHeader, UnverifiedJws, append_signature, signing_input};
use keypost_shared::secret::SecretText;
use keypost_shared::status_list::{StatusClaim, StatusIndex};
use keypost_shared::time::UnixTime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::super::Context;
use super::super::pool_urls::PoolUrls;
use crate::clock::unix;
use crate::crypto_at_rest::KeyPurpose;
use crate::key_maker::StoredPrivate;
use crate::store::StoreError;
use crate::store::sso::pool::SsoPool;
use crate::store::sso::user::User;

/// What a token says of a person, and what signing in answers too.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UserClaims {
    /// The person.
    #[serde(rename = "userId")]
    #[schema(value_type = String, format = "uuid")]
    pub user_id: UserId,
    /// The username, as it was written.
    pub username: String,
    /// Whether it is an owner.
    #[serde(rename = "userType")]
    pub user_type: UserType,
    /// The organization.
    #[serde(rename = "organizationId")]
    #[schema(value_type = String)]
    pub org: OrgId,
    /// The organization's name.
    #[serde(rename = "organizationName")]
    pub org_name: String,
    /// The client app that the token is for; none for an owner's.
    #[serde(rename = "clientAppId", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub app: Option<SsoAppId>,
    /// As it was sent at signup.
    #[schema(value_type = Object)]
    pub user_metadata: Box<RawValue>,
}

/// Who a person is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UserType {
    /// The owner of an organization.
    OrgOwner,
    /// A user of one of its client apps.
    ClientUser,
}

impl UserClaims {
    /// Of a person, for this client app.
    pub fn of(user: &User, org_name: &str, app: Option<SsoAppId>) -> Self {
        Self {
            user_id: user.id,
            username: user.username.clone(),
            user_type: if user.app.is_none() { UserType::OrgOwner } else { UserType::ClientUser },
            org: user.org.clone(),
            org_name: org_name.to_owned(),
            app,
            user_metadata: user.metadata.clone(),
        }
    }
}

/// What a token is made of.
#[derive(Debug)]
pub(super) struct AccessToken<'a> {
    pub(super) claims: &'a UserClaims,
    pub(super) session: SessionId,
    pub(super) jti: String,
    pub(super) iat: UnixTime,
    pub(super) exp: UnixTime,
    /// The scopes of OpenID Connect; none outside of its flow.
    pub(super) scope: Option<&'a str>,
    /// None where the session could not be given a block: the token has no status then.
    pub(super) status: Option<StatusIndex>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: UserId,
    aud: Vec<String>,
    iat: UnixTime,
    exp: UnixTime,
    jti: &'a str,
    sid: SessionId,
    #[serde(flatten)]
    user: &'a UserClaims,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusClaim>,
}

/// Why nothing can be signed for the people of an organization.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The pool has no key that may sign now.
    #[error("the organization's sso pool has no key that signs")]
    NoKey,
    /// The key does not open, or a text does not serialise.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The key with which an organization's tokens are signed, opened.
pub struct PoolSigner {
    issuer: String,
    key: PrivateKey,
}

impl PoolSigner {
    /// Opens the pool's key. Past its end a key signs nothing.
    pub fn open(context: &Context, pool: &SsoPool) -> Result<Self, SignError> {
        let now = context.now();
        let signer = pool.signer.as_ref().filter(|signer| signer.ends_at.is_none_or(|end| end > now));
        let signer = signer.ok_or(SignError::NoKey)?;
        let StoredPrivate::Local { sealed } = &signer.private else { return Err(SignError::NoKey) };
        let opened = context.master_key.open(KeyPurpose::Pool(pool.id), &signer.kid, sealed);
        let key = opened.map_err(|error| StoreError::unreadable("signing_key.private_sealed", error))?;
        Ok(Self { issuer: PoolUrls::new(&context.edge_url, pool.id).issuer, key })
    }

    /// The pool's issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs claims as a JWT of this `typ`.
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<SecretText, SignError> {
        let header = JwsHeader { alg: SigningAlg::ES256, typ: typ.to_owned(), kid: self.key.kid().clone() };
        let input = signing_input(&header, claims)
            .map_err(|error| StoreError::unreadable("sso_user.user_metadata", error))?;
        let signature = self.key.sign(input.as_bytes());
        Ok(SecretText::new(append_signature(input, &signature)))
    }

    pub(super) fn access_token(&self, token: &AccessToken<'_>) -> Result<SecretText, SignError> {
        let user = token.claims;
        let aud = user.app.map(|app| app.to_string()).into_iter().chain([user.org.to_string()]).collect();
        self.sign(
            "JWT",
            &Claims {
                iss: &self.issuer,
                sub: user.user_id,
                aud,
                iat: token.iat,
                exp: token.exp,
                jti: &token.jti,
                sid: token.session,
                user,
                scope: token.scope,
                status: token.status.map(|index| StatusClaim::new(index, &self.issuer)),
            },
        )
    }
}

/// What a presented token says, once it has been verified.
#[derive(Debug, Deserialize)]
pub(super) struct PresentedClaims {
    pub(super) iss: String,
    pub(super) sub: UserId,
    pub(super) exp: UnixTime,
    pub(super) jti: String,
    pub(super) sid: SessionId,
    #[serde(rename = "clientAppId", default)]
    pub(super) app: Option<SsoAppId>,
    #[serde(default)]
    pub(super) scope: Option<String>,
    #[serde(default)]
    pub(super) status: Option<PresentedStatus>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PresentedStatus {
    pub(super) status_list: PresentedIndex,
}

#[derive(Debug, Deserialize)]
pub(super) struct PresentedIndex {
    pub(super) idx: u32,
    pub(super) uri: String,
}

/// An access token, or an ID token, of which nothing may be believed yet.
pub(super) struct Presented<'a> {
    jws: UnverifiedJws<'a>,
}

impl<'a> Presented<'a> {
    /// The longest text that is looked at: 16 KiB of metadata in base64url, and the rest.
    const MAX_LENGTH: usize = 32 * 1024;

    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if text.len() > Self::MAX_LENGTH {
            return None;
        }
        let jws = UnverifiedJws::<JwsHeader>::parse(text).ok()?;
        // Nothing else that the pool's key signs may pass for one (RFC 8725 §3.11).
        (jws.header.typ == "JWT").then_some(Self { jws })
    }

    pub(super) fn kid(&self) -> &Kid {
        &self.jws.header.kid
    }

    /// The claims, if the key signed them for this pool and they have not expired.
    pub(super) async fn verify(
        self,
        context: &Context,
        pool: PoolId,
        key: EcPublicJwk,
    ) -> Result<Option<PresentedClaims>, StoreError> {
        let claims: Option<PresentedClaims> = self.payload(key).await?;
        let issuer = PoolUrls::new(&context.edge_url, pool).issuer;
        Ok(claims.filter(|claims| claims.iss == issuer && unix(context.now()) < claims.exp))
    }

    /// What was signed, if the key signed it: for whom, and until when, is to be looked at.
    pub(super) async fn payload<T: DeserializeOwned>(
        self,
        key: EcPublicJwk,
    ) -> Result<Option<T>, StoreError> {
        let keys = JwkSet { keys: vec![Jwk::es256(key)] };
        match self.jws.verify(&HostCrypto, &keys).await {
            Ok(()) => {}
            Err(TokenError::Crypto(error)) => {
                return Err(StoreError::unreadable("signing_key.public_jwk", error));
            }
            Err(_) => return Ok(None),
        }
        Ok(self.jws.payload().ok())
    }
}
