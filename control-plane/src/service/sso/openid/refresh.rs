//! Fresh tokens for a refresh token (RFC 6749 §6, OpenID Connect Core §12).

use keypost_shared::secret::SecretText;

use super::super::super::Context;
use super::super::access_token::PoolSigner;
use super::super::session::{self, Refreshing, SessionError, TokenPair};
use super::client::{AskingClient, GrantError};
use super::id_token::IdToken;
use super::scope::OpenIdScope;
use super::tokens::OpenIdTokens;
use crate::service::audit::RequestSource;
use crate::store::StoreError;
use crate::store::sso::{pool, user};

/// Goes on with a refresh token of this app, for fewer scopes where it asks for fewer.
pub async fn refresh(
    context: &Context,
    source: RequestSource,
    asking: &AskingClient,
    refresh_token: &SecretText,
    scope: Option<OpenIdScope>,
) -> Result<OpenIdTokens, GrantError> {
    let refreshing = Refreshing { app: Some(asking.client.id), scope };
    let pair = session::refresh(context, source, refresh_token.expose(), refreshing).await?;
    let scope = match pair.scope.as_deref() {
        Some(text) => {
            OpenIdScope::parse(text).map_err(|error| StoreError::unreadable("refresh_token.scope", error))?
        }
        None => OpenIdScope::default(),
    };
    let id_token = if scope.openid { Some(id_token(context, asking, &pair, scope).await?) } else { None };
    Ok(OpenIdTokens {
        access_token: pair.access_token,
        expires_in: pair.expires_in,
        refresh_token: Some(pair.refresh_token),
        id_token,
        scope: pair.scope,
    })
}

/// An ID token beside a fresh access token. Without the nonce, which was for the first (OpenID Connect Core §12.2).
async fn id_token(
    context: &Context,
    asking: &AskingClient,
    pair: &TokenPair,
    scope: OpenIdScope,
) -> Result<SecretText, GrantError> {
    let mut connection = context.connection().await?;
    let org = &pair.session.org;
    let pool = pool::find(&mut connection, org).await?.ok_or(SessionError::Over)?;
    let user = user::find(&mut connection, org, pair.session.user).await?.ok_or(SessionError::Over)?;
    let token = IdToken {
        app: asking.client.id,
        user: &user,
        session: &pair.session,
        scope,
        nonce: None,
        access_token: &pair.access_token,
        lives: pair.expires_in,
    };
    let signer = PoolSigner::open(context, &pool).map_err(SessionError::from)?;
    Ok(token.sign(&signer, context.now()).map_err(SessionError::from)?)
}
