//! What the token endpoint answers (RFC 6749 §5.1, OpenID Connect Core §3.1.3.3).

use keypost_shared::id::SsoAppId;
use keypost_shared::secret::SecretText;

use super::super::access_token::PoolSigner;
use super::super::session::{self, AccessGrant, PairFor, SessionError, TokenPair};
use super::id_token::IdToken;
use super::scope::OpenIdScope;
use crate::service::change::Change;
use crate::store::sso::pool::SsoPool;
use crate::store::sso::session::Session;
use crate::store::sso::user::User;

/// Tokens for an app, to be shown once.
#[derive(Debug)]
pub struct OpenIdTokens {
    /// The access token.
    pub access_token: SecretText,
    /// How long it lives, in seconds.
    pub expires_in: i64,
    /// What to go on with; none without `offline_access`.
    pub refresh_token: Option<SecretText>,
    /// Who has signed in; none without `openid`.
    pub id_token: Option<SecretText>,
    /// What they are for; none where the session did not begin by OpenID Connect.
    pub scope: Option<String>,
}

/// For what tokens are issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) app: SsoAppId,
    pub(super) scope: OpenIdScope,
    pub(super) nonce: Option<&'a str>,
    pub(super) extends_session: bool,
}

/// Issues tokens in a session that the caller has locked.
pub(super) async fn issue(
    change: &mut Change,
    pool: &SsoPool,
    session: &Session,
    user: &User,
    wanted: Wanted<'_>,
) -> Result<OpenIdTokens, SessionError> {
    let Wanted { app, scope, nonce, extends_session } = wanted;
    let pair = PairFor { app: Some(app), extends_session, scope: Some(scope.to_string()), narrowed: None };
    // By its refresh tokens is known for which other apps a session has got tokens, which end with those apps. So there is
    // one, even where nobody is told it.
    let is_of_another_app = session.app != Some(app);
    let (grant, refresh_token) = if scope.offline_access || is_of_another_app {
        let TokenPair { access_token, refresh_token, expires_in, claims, session, .. } =
            session::issue(change, pool, session, user, pair).await?;
        let told = scope.offline_access.then_some(refresh_token);
        (AccessGrant { access_token, expires_in, claims, session }, told)
    } else {
        (session::issue_access_token(change, pool, session, user, &pair).await?, None)
    };
    let id_token = if scope.openid {
        let token = IdToken {
            app,
            user,
            session: &grant.session,
            scope,
            nonce,
            access_token: &grant.access_token,
            lives: grant.expires_in,
        };
        Some(token.sign(&PoolSigner::open(change.context(), pool)?, change.now())?)
    } else {
        None
    };
    Ok(OpenIdTokens {
        access_token: grant.access_token,
        expires_in: grant.expires_in,
        refresh_token,
        id_token,
        scope: Some(scope.to_string()),
    })
}
