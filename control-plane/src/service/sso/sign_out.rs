//! Ending sessions by oneself.

use std::sync::Arc;

use keypost_shared::id::SessionId;
use keypost_shared::secret::SecretHash;

use super::super::Context;
use super::super::audit::{ActorKind, RequestSource};
use super::super::change::Change;
use super::caller::SignedIn;
use super::session::{self, SessionError};
use crate::store::StoreError;
use crate::store::sso::session::{self as sessions, Session, Which};
use crate::store::sso::{refresh_token, user};

/// The most sessions that a person sees of theirs.
const MOST_LISTED: i64 = 500;

/// Ends the session of a refresh token, used or not.
pub async fn sign_out(context: &Context, source: RequestSource, token: &str) -> Result<(), SessionError> {
    let hash = SecretHash::of(token.as_bytes());
    let unknown = Arc::new(source.clone().actor(ActorKind::User, None, None));
    let mut change = Change::begin(context, &unknown).await?;
    let found = refresh_token::find(change.tx(), &hash).await?.ok_or(SessionError::Over)?;
    let session = sessions::lock(change.tx(), &found.org, found.session).await?;
    let now = change.now();
    let session = session.filter(|session| session.is_live(now)).ok_or(SessionError::Over)?;
    let person = user::find(change.tx(), &session.org, session.user).await?.ok_or(SessionError::Over)?;
    let actor = source.actor(ActorKind::User, Some(person.id.to_string()), Some(person.username));
    change.set_actor(Arc::new(actor));
    session::end(&mut change, &session.org, Which::One(session.id), "signed_out").await?;
    change.commit().await?;
    Ok(())
}

/// The sessions of whoever is signed in, the latest first.
pub async fn list(context: &Context, signed_in: &SignedIn) -> Result<Vec<Session>, StoreError> {
    let mut connection = context.connection().await?;
    let user = &signed_in.user;
    sessions::live_of_user(&mut connection, &user.org, user.id, context.now(), MOST_LISTED).await
}

/// Ends a session of whoever is signed in. Whether there is one.
pub async fn end(
    context: &Context,
    source: RequestSource,
    signed_in: &SignedIn,
    id: SessionId,
) -> Result<bool, StoreError> {
    let user = &signed_in.user;
    let mut change = Change::begin(context, &Arc::new(signed_in.actor(source))).await?;
    let session = sessions::lock(change.tx(), &user.org, id).await?;
    let now = change.now();
    if !session.is_some_and(|session| session.user == user.id && session.is_live(now)) {
        return Ok(false);
    }
    session::end(&mut change, &user.org, Which::One(id), "signed_out").await?;
    change.commit().await?;
    Ok(true)
}
