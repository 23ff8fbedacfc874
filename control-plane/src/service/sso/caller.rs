//! Who asks: by the header `apikey`, and by an access token.

use keypost_shared::id::{OrgId, SsoAppId};
use keypost_shared::secret::{ApiKey, KeyKind};
use keypost_shared::status_list::{StatusBlock, StatusIndex};
use time::OffsetDateTime;

use super::super::Context;
use super::super::audit::{Actor, ActorKind, RequestSource};
use super::access_token::{Presented, PresentedClaims};
use crate::clock::from_unix;
use crate::store::sso::key::{self, KeyHolder};
use crate::store::sso::session::Session;
use crate::store::sso::user::{User, UserStatus};
use crate::store::sso::{pool, session, user};
use crate::store::{StoreError, status_block};

/// Why somebody is not who they say, or nobody any more. There is no telling which.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// It does not count, or not any more.
    #[error("it does not count")]
    NotValid,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whoever holds an access token that counts now.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// Who.
    pub user: User,
    /// In which session.
    pub session: Session,
    /// The client app that the token is for; none for an owner's.
    pub app: Option<SsoAppId>,
    /// The organization's name.
    pub org_name: String,
    /// The scopes of OpenID Connect; none where the token is not of its flow.
    pub scope: Option<String>,
    /// The token's id.
    pub jti: String,
    /// When the token ends.
    pub expires_at: OffsetDateTime,
}

impl SignedIn {
    /// The person, as audit events name them.
    pub fn actor(&self, source: RequestSource) -> Actor {
        source.actor(ActorKind::User, Some(self.user.id.to_string()), Some(self.user.username.clone()))
    }
}

/// Whose the key in the header `apikey` is.
pub async fn key_holder(context: &Context, text: &str) -> Result<KeyHolder, CallerError> {
    let key = ApiKey::parse(text).ok_or(CallerError::NotValid)?;
    if !matches!(key.kind(), KeyKind::SsoOrganization | KeyKind::SsoApp) {
        return Err(CallerError::NotValid);
    }
    let mut connection = context.connection().await?;
    let holder = key::find_holder(&mut connection, &key.hash(), context.now()).await?;
    holder.ok_or(CallerError::NotValid)
}

/// Who holds this access token. It counts while its signature, its times, its session, its person and its bit in the status
/// list are good.
pub async fn signed_in(context: &Context, token: &str) -> Result<SignedIn, CallerError> {
    let presented = Presented::parse(token).ok_or(CallerError::NotValid)?;
    let mut connection = context.connection().await?;
    let key = pool::verifying_key(&mut connection, presented.kid()).await?.ok_or(CallerError::NotValid)?;
    let claims = presented.verify(context, key.pool, key.public).await?.ok_or(CallerError::NotValid)?;
    let session = session::find(&mut connection, &key.org, claims.sid).await?;
    let session = session
        .filter(|session| session.is_live(context.now()) && session.user == claims.sub)
        .ok_or(CallerError::NotValid)?;
    let block = status_block::of_session(&mut connection, session.pool, session.id).await?;
    if is_revoked(&claims, block) {
        return Err(CallerError::NotValid);
    }
    let user = find_user(&mut connection, &key.org, &claims).await?;
    Ok(SignedIn {
        user,
        session,
        app: claims.app,
        org_name: key.org_name,
        scope: claims.scope,
        jti: claims.jti,
        expires_at: from_unix(claims.exp),
    })
}

async fn find_user(
    tx: &mut sqlx::PgConnection,
    org: &OrgId,
    claims: &PresentedClaims,
) -> Result<User, CallerError> {
    let user = user::find(tx, org, claims.sub).await?;
    user.filter(|user| user.status == UserStatus::Enabled).ok_or(CallerError::NotValid)
}

/// Whether the token's bit is set, in the block that its session has. A token of a block that has been given up is one of
/// those that filled it.
fn is_revoked(claims: &PresentedClaims, block: Option<StatusBlock>) -> bool {
    // What has no status is no access token, whatever else the key has signed.
    let (Some(status), Some(block)) = (&claims.status, block) else { return true };
    let status = &status.status_list;
    let index = StatusIndex { list: block.list, idx: status.idx };
    let is_of_the_block = index.block() == block.block && index.uri(&claims.iss) == status.uri;
    !is_of_the_block || block.revoked & index.mask() != 0
}
