//! Signing in, and up, in a browser: by the rules of [`sign_in`](super::super::sign_in) and
//! [`sign_up`](super::super::sign_up), with a code for the app that asked in the place of tokens.

use std::sync::Arc;

use keypost_shared::secret::SecretText;

use super::super::super::Context;
use super::super::name::Username;
use super::super::password::Password;
use super::super::session::{SessionError, SignInFrom};
use super::super::sign_in::{self, Door, SignInError};
use super::super::sign_up::{self, NewAppUser, SignUpError};
use super::browser::{self, Asked, Cookies};
use crate::service::attempts::FailedAttempts;
use crate::service::audit::{ActorKind, RequestSource};
use crate::service::change::Change;

/// Signs somebody in who shows a password. No code, and no session, for another one than the app means.
pub async fn sign_in(
    context: &Context,
    attempts: &FailedAttempts,
    (from, source): (SignInFrom, RequestSource),
    asked: Asked<'_>,
    cookies: Cookies<'_>,
    (username, password): (&str, &str),
) -> Result<Option<SecretText>, SignInError> {
    // What nobody can be called is nobody.
    let username = Username::parse(username.trim()).map_err(|_| SignInError::Wrong)?;
    let door = Door::App(asked.client.org.clone(), asked.client.id);
    let password = Password::typed(password);
    let proven =
        sign_in::prove(context, attempts, source.address, &door, username.as_str(), password).await?;
    if asked.meant.is_another_than(proven.user.id) {
        return Ok(None);
    }
    let mut change = Change::begin(context, &Arc::new(browser::actor(source, &proven.user))).await?;
    let user = proven.lock(&mut change).await?;
    let code = browser::sign_in(&mut change, from, asked, &user, cookies).await?;
    change.commit().await?;
    Ok(Some(code))
}

/// Makes an account at the app, and signs in with it.
pub async fn sign_up(
    context: &Context,
    (from, source): (SignInFrom, RequestSource),
    asked: Asked<'_>,
    cookies: Cookies<'_>,
    new: NewAppUser,
) -> Result<SecretText, SignUpError> {
    let actor = source.actor(ActorKind::User, None, Some(new.username.as_str().to_owned()));
    let whose = (&asked.client.org, asked.client.id);
    let prepared = sign_up::prepare_app_user(context, whose, new).await?;
    let mut change = Change::begin(context, &Arc::new(actor)).await.map_err(SessionError::from)?;
    let user = sign_up::add_user(&mut change, whose, prepared).await?;
    let code = browser::sign_in(&mut change, from, asked, &user, cookies).await?;
    change.commit().await.map_err(SessionError::from)?;
    Ok(code)
}
