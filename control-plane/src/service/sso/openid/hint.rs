//! `id_token_hint`: whom an app means, by an ID token that it has got before (OpenID Connect Core §3.1.2.1).

use keypost_shared::id::{OrgId, SsoAppId, UserId};
use serde::Deserialize;

use super::super::super::Context;
use super::super::access_token::Presented;
use crate::service::pool_urls::PoolUrls;
use crate::store::StoreError;
use crate::store::sso::pool;

/// Whom an app means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// Whoever it is.
    Anybody,
    /// This person, and nobody else.
    Person(UserId),
    /// Somebody of whom the hint does not tell any more, or never did: its key is gone, or it is no ID token of the
    /// organization's.
    Unknown,
}

/// What an ID token has, and an access token has not: one audience, as a text.
#[derive(Deserialize)]
struct IdTokenClaims {
    iss: String,
    sub: UserId,
    #[serde(rename = "aud")]
    _aud: SsoAppId,
}

impl Meant {
    /// Reads a hint, if there is one. It may have expired, and be another app's of the organization.
    pub async fn read(context: &Context, org: &OrgId, hint: Option<&str>) -> Result<Self, StoreError> {
        let Some(text) = hint else { return Ok(Self::Anybody) };
        let Some(presented) = Presented::parse(text) else { return Ok(Self::Unknown) };
        let key = {
            let mut connection = context.connection().await?;
            pool::verifying_key(&mut connection, presented.kid()).await?
        };
        let Some(key) = key.filter(|key| key.org == *org) else { return Ok(Self::Unknown) };
        let issuer = PoolUrls::new(&context.edge_url, key.pool).issuer;
        let claims = presented.payload::<IdTokenClaims>(key.public).await?;
        let claims = claims.filter(|claims| claims.iss == issuer);
        Ok(claims.map_or(Self::Unknown, |claims| Self::Person(claims.sub)))
    }

    /// Whether somebody who is signed in in the browser already may be answered for. Of whom nothing is known, nobody may.
    pub fn is(self, user: UserId) -> bool {
        match self {
            Self::Anybody => true,
            Self::Person(meant) => meant == user,
            Self::Unknown => false,
        }
    }

    /// Whether somebody who has just given their password is another one than the app means.
    pub fn is_another_than(self, user: UserId) -> bool {
        matches!(self, Self::Person(meant) if meant != user)
    }
}
