//! Another password: for who knows the one before, and for who has been given a code.

use std::sync::Arc;

use keypost_shared::id::{OrgId, UserId};
use keypost_shared::secret::{SecretHash, SecretText, generate_secret};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::super::Context;
use super::super::attempts::{FailedAttempts, network};
use super::super::audit::{Actor, ActorKind, Event, RequestSource, Target};
use super::super::change::Change;
use super::caller::SignedIn;
use super::password::{Password, PasswordError, PolicyError};
use super::session;
use super::sign_in::{SignInError, prove_again};
use crate::store::StoreError;
use crate::store::sso::session::Which;
use crate::store::sso::user::{self, User};
use crate::store::sso::{password_reset, sign_in_network};

/// How long a code to set another password is good for.
pub(super) const RESET_LASTS: Duration = Duration::DAY;

/// Why a password is not changed.
#[derive(Debug, thiserror::Error)]
pub enum NewPasswordError {
    /// The new one may not be a password.
    #[error("the new password {0}")]
    Policy(#[from] PolicyError),
    /// The current one is wrong, or cannot be checked now; for a code: it is wrong, has been used, or has expired.
    #[error(transparent)]
    SignIn(#[from] SignInError),
}

impl From<StoreError> for NewPasswordError {
    fn from(error: StoreError) -> Self {
        Self::SignIn(error.into())
    }
}

impl From<PasswordError> for NewPasswordError {
    fn from(error: PasswordError) -> Self {
        Self::SignIn(error.into())
    }
}

/// Changes the password of whoever is signed in and knows the current one. Their other sessions end.
pub async fn change(
    context: &Context,
    attempts: &FailedAttempts,
    source: RequestSource,
    signed_in: &SignedIn,
    current: Password,
    new: &str,
) -> Result<(), NewPasswordError> {
    let person = &signed_in.user;
    let new = choose(new, person)?;
    let proven = prove_again(context, attempts, source.address, person, current).await?;
    let hash = context.passwords.hash(new, &mut *context.rng()).await?;

    let actor = Arc::new(signed_in.actor(source));
    let mut change = Change::begin(context, &actor).await?;
    let stored = user::lock_with_password(change.tx(), &person.org, person.id).await?;
    // Somebody else has changed it meanwhile: what was proved counts no more.
    if !stored.is_some_and(|(_, stored)| proven.is_by(&stored)) {
        return Err(SignInError::Wrong.into());
    }
    set(&mut change, person, &hash, "change_password").await?;
    let others = Which::OfUserBut(person.id, signed_in.session.id);
    let ended = session::end(&mut change, &person.org, others, "password_changed").await?;
    change.commit().await?;
    Ok(end_rest(context, &actor, &person.org, others, ended).await?)
}

/// A code with which this person of the organization can set another password, to be shown once, and when it ends. The one
/// before is good no more.
pub async fn make_code(
    change: &mut Change,
    org: &OrgId,
    person: UserId,
) -> Result<(SecretText, OffsetDateTime), StoreError> {
    let code = generate_secret(&mut change.rng());
    let (now, expires_at) = (change.now(), change.now() + RESET_LASTS);
    password_reset::replace(change.tx(), org, person, &code.hash(), now, expires_at).await?;
    Ok((code, expires_at))
}

/// Sets another password by a code, which is used up. All sessions of the person end.
pub async fn reset(
    context: &Context,
    attempts: &FailedAttempts,
    source: RequestSource,
    code: &str,
    new: &str,
) -> Result<(), NewPasswordError> {
    let attempt = attempts.begin(source.address, context.now()).map_err(SignInError::from)?;
    let done = reset_uncounted(context, source, &SecretHash::of(code.as_bytes()), new).await;
    if matches!(done, Err(NewPasswordError::SignIn(SignInError::Wrong))) {
        attempt.failed(context.now());
    }
    done
}

async fn reset_uncounted(
    context: &Context,
    source: RequestSource,
    code: &SecretHash,
    new: &str,
) -> Result<(), NewPasswordError> {
    let wrong = || NewPasswordError::from(SignInError::Wrong);
    let person = {
        let mut connection = context.connection().await?;
        let of = password_reset::find(&mut connection, code, context.now()).await?.ok_or_else(wrong)?;
        user::find(&mut connection, &of.org_id, of.user_id).await?.ok_or_else(wrong)?
    };
    // A password that may not be one does not use the code up.
    let new = choose(new, &person)?;
    let hash = context.passwords.hash(new, &mut *context.rng()).await?;

    let network = network(source.address);
    let actor = source.actor(ActorKind::User, Some(person.id.to_string()), Some(person.username.clone()));
    let actor = Arc::new(actor);
    let mut change = Change::begin(context, &actor).await?;
    // The person's row first, as wherever a password is set.
    user::lock_with_password(change.tx(), &person.org, person.id).await?.ok_or_else(wrong)?;
    let now = change.now();
    password_reset::use_up(change.tx(), code, now).await?.ok_or_else(wrong)?;
    set(&mut change, &person, &hash, "reset_password").await?;
    // Delays that strangers have brought upon the account do not keep the person out who comes back.
    sign_in_network::note(change.tx(), &person.org, person.id, network, now).await?;
    let all = Which::OfUser(person.id);
    let ended = session::end(&mut change, &person.org, all, "password_reset").await?;
    change.commit().await?;
    Ok(end_rest(context, &actor, &person.org, all, ended).await?)
}

fn choose(text: &str, person: &User) -> Result<Password, PolicyError> {
    Password::choose(text, &[&person.username, &person.email])
}

async fn set(
    change: &mut Change,
    person: &User,
    hash: &SecretText,
    verb: &'static str,
) -> Result<(), StoreError> {
    let now = change.now();
    user::set_password(change.tx(), &person.org, person.id, hash, Some(now)).await?;
    password_reset::end(change.tx(), &person.org, person.id).await?;
    let target =
        Target { org: Some(person.org.clone()), env: None, kind: "sso_user", id: person.id.to_string() };
    change.record(Event::new(target, verb, json!({})));
    Ok(())
}

/// Ends the sessions that one change does not end: a person may have more than it ends at once.
async fn end_rest(
    context: &Context,
    actor: &Arc<Actor>,
    org: &OrgId,
    which: Which,
    mut ended: usize,
) -> Result<(), StoreError> {
    while session::may_be_more(ended) {
        let mut change = Change::begin(context, actor).await?;
        ended = session::end(&mut change, org, which, "password_changed").await?;
        change.commit().await?;
    }
    Ok(())
}
