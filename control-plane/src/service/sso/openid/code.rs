//! Authorization codes (RFC 6749 §4.1.2): made for an app whose person has signed in, and redeemed once.

use std::sync::Arc;

use keypost_shared::secret::{SecretHash, SecretText, generate_secret};
use time::Duration;

use super::super::super::Context;
use super::super::session;
use super::authorization_request::AuthorizationRequest;
use super::browser;
use super::client::{AskingClient, GrantError};
use super::pkce::{CodeChallenge, CodeVerifier};
use super::redirect_uri::RedirectUri;
use super::scope::OpenIdScope;
use super::token_request::TokenError;
use super::tokens::{self, OpenIdTokens, Wanted};
use crate::service::audit::{ActorKind, RequestSource};
use crate::service::change::Change;
use crate::store::StoreError;
use crate::store::sso::authorization_code::{self, AuthorizationCode};
use crate::store::sso::openid_client::OpenIdClient;
use crate::store::sso::session::{Session, Which};
use crate::store::sso::{pool, user};

/// How long a code waits to be redeemed.
const LASTS: Duration = Duration::seconds(60);

/// Makes a code for tokens in a session. `begun`: the session was begun for this app just now, so that its refresh tokens
/// make it last longer; for an app at which the person was only recognised they do not.
pub async fn make(
    change: &mut Change,
    client: &OpenIdClient,
    redirect_uri: &RedirectUri,
    request: &AuthorizationRequest,
    session: &Session,
    begun: bool,
) -> Result<SecretText, StoreError> {
    let now = change.now();
    // As a refresh token: 256 random bits.
    let code = generate_secret(&mut change.rng());
    let stored = AuthorizationCode {
        hash: code.hash(),
        org: client.org.clone(),
        session: session.id,
        app: client.id,
        redirect_uri: redirect_uri.as_str().to_owned(),
        code_challenge: *request.code_challenge.as_bytes(),
        scope: request.scope.to_string(),
        nonce: request.nonce.clone(),
        extends_session: begun,
        expires_at: now + LASTS,
        used_at: None,
    };
    authorization_code::insert(change.tx(), &stored, now).await?;
    Ok(code)
}

/// Redeems a code, once.
///
/// Whoever fails has not used it up: only the app that began can know the verifier. A code that comes again has been seen by
/// somebody else, and ends the session (RFC 6749 §4.1.2).
pub async fn redeem(
    context: &Context,
    source: RequestSource,
    asking: &AskingClient,
    code: &SecretText,
    redirect_uri: &str,
    verifier: &CodeVerifier,
) -> Result<OpenIdTokens, GrantError> {
    let hash = SecretHash::of(code.expose().as_bytes());
    let (org, app) = (&asking.client.org, asking.client.id);
    let invalid = TokenError::InvalidGrant;
    let mut change =
        Change::begin(context, &Arc::new(source.clone().actor(ActorKind::User, None, None))).await?;
    let found = authorization_code::find(change.tx(), org, app, &hash).await?.ok_or(invalid)?;
    let session = crate::store::sso::session::lock(change.tx(), org, found.session).await?.ok_or(invalid)?;
    // Read again: whoever held the lock may have used it.
    let found = authorization_code::find(change.tx(), org, app, &hash).await?.ok_or(invalid)?;
    let now = change.now();
    let is_meant = found.redirect_uri == redirect_uri
        && CodeChallenge::from_bytes(found.code_challenge).is_met_by(verifier);
    if found.used_at.is_some() {
        session::end(&mut change, org, Which::One(session.id), "authorization_code_reused").await?;
        change.commit().await?;
        return Err(invalid.into());
    }
    if !is_meant || now >= found.expires_at {
        return Err(invalid.into());
    }
    let pool = pool::find(change.tx(), org).await?.ok_or(invalid)?;
    let user = user::find(change.tx(), org, session.user).await?.ok_or(invalid)?;
    change.set_actor(Arc::new(browser::actor(source, &user)));
    let scope = OpenIdScope::parse(&found.scope)
        .map_err(|error| StoreError::unreadable("authorization_code.scope", error))?;
    let wanted = Wanted { app, scope, nonce: found.nonce.as_deref(), extends_session: found.extends_session };
    let tokens = tokens::issue(&mut change, &pool, &session, &user, wanted).await?;
    authorization_code::note_use(change.tx(), &found, now).await?;
    change.commit().await?;
    Ok(tokens)
}
