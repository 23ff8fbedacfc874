//! Signing in with a name and a password.
//!
//! Whether there is no such person, the password is wrong, the person is disabled or the account is delayed: the answer is
//! the same, and so is the work, one check of a password by argon2 and the same questions to the database.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use keypost_shared::id::{OrgId, SsoAppId, UserId};
use keypost_shared::secret::SecretText;
use serde_json::json;
use uuid::Uuid;

use super::super::Context;
use super::super::attempts::{FailedAttempts, TooMany};
use super::super::audit::{ActorKind, Event, RequestSource, Target};
use super::super::change::Change;
use super::guess::{Account, Guess, NoGuess};
use super::name;
use super::password::{Password, PasswordError, Verdict};
use super::session::{self, PairFor, SessionError, SignInFrom, TokenPair};
use crate::store::StoreError;
use crate::store::sso::owner;
use crate::store::sso::user::{self, SignInName, User, UserStatus};

/// As what somebody signs in.
#[derive(Clone, Debug)]
pub enum Door {
    /// An owner; with an organization, one of its owners.
    Owner(Option<OrgId>),
    /// A user of this organization's client app.
    App(OrgId, SsoAppId),
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// There is no such person, the password is wrong, or they may not sign in now. There is no telling which.
    #[error("the name or the password is wrong")]
    Wrong,
    /// Too many failures from this address or network.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Too many passwords wait to be checked.
    #[error("too many sign in at the moment")]
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
    /// A stored hash is broken, or the machine.
    #[error("a password could not be checked: {0}")]
    Broken(PasswordError),
    /// No session could be begun.
    #[error(transparent)]
    Session(SessionError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NoGuess> for SignInError {
    fn from(error: NoGuess) -> Self {
        match error {
            NoGuess::TooMany(too_many) => too_many.into(),
            NoGuess::Store(error) => error.into(),
        }
    }
}

impl From<PasswordError> for SignInError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy { retry_after } => Self::Busy { retry_after },
            other => Self::Broken(other),
        }
    }
}

impl From<SessionError> for SignInError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Store(error) => Self::Store(error),
            other => Self::Session(other),
        }
    }
}

/// Somebody who has proved who they are.
pub struct Proven {
    /// Who.
    pub user: User,
    /// The hash of the password with which they did.
    password_hash: SecretText,
}

impl Proven {
    /// The person, unless what was proved has been undone meanwhile. With the row locked, nobody disables them or changes
    /// the password until the change has made a session that can be ended.
    pub async fn lock(&self, change: &mut Change) -> Result<User, SignInError> {
        let stored = user::lock_with_password(change.tx(), &self.user.org, self.user.id).await?;
        let (user, hash) = stored.ok_or(SignInError::Wrong)?;
        if user.status == UserStatus::Enabled && self.is_by(&hash) {
            Ok(user)
        } else {
            Err(SignInError::Wrong)
        }
    }

    /// Whether it was by this hash that the person was proved to be who they are.
    pub(super) fn is_by(&self, stored: &SecretText) -> bool {
        self.password_hash.hash().matches(&stored.hash())
    }
}

/// Signs somebody in: opens a session, and makes its first pair of tokens.
pub async fn sign_in(
    context: &Context,
    attempts: &FailedAttempts,
    source: RequestSource,
    from: SignInFrom,
    door: &Door,
    typed_name: &str,
    password: Password,
) -> Result<TokenPair, SignInError> {
    let proven = prove(context, attempts, source.address, door, typed_name, password).await?;
    open(context, source, from, proven).await
}

/// Who signs in by this name and password. Every failure counts: against the account, the network and the address.
pub async fn prove(
    context: &Context,
    attempts: &FailedAttempts,
    address: IpAddr,
    door: &Door,
    typed_name: &str,
    password: Password,
) -> Result<Proven, SignInError> {
    let proven = prove_uncounted(context, attempts, address, door, typed_name, password).await;
    count(context, &proven);
    proven
}

/// Whether a person who is signed in knows their password. Every failure counts as one to sign in does.
pub async fn prove_again(
    context: &Context,
    attempts: &FailedAttempts,
    address: IpAddr,
    signed_in: &User,
    password: Password,
) -> Result<Proven, SignInError> {
    let attempt = attempts.begin(address, context.now())?;
    let found = find_by_id(context, signed_in).await?;
    let account = Account::Known(signed_in.org.clone(), signed_in.id);
    let proven = check(context, address, account, found, password).await;
    if matches!(proven, Err(SignInError::Wrong)) {
        attempt.failed(context.now());
    }
    count(context, &proven);
    proven
}

/// Opens a session for somebody who has proved who they are, unless that has been undone meanwhile.
pub async fn open(
    context: &Context,
    source: RequestSource,
    from: SignInFrom,
    proven: Proven,
) -> Result<TokenPair, SignInError> {
    let person = &proven.user;
    let actor = source.actor(ActorKind::User, Some(person.id.to_string()), Some(person.username.clone()));
    let mut change = Change::begin(context, &Arc::new(actor)).await?;
    let user = proven.lock(&mut change).await?;
    let pair = begin_session(&mut change, &user, from).await?;
    change.commit().await?;
    Ok(pair)
}

/// Begins a session and makes its first pair of tokens, in a change that has made sure of the person.
pub(super) async fn begin_session(
    change: &mut Change,
    user: &User,
    from: SignInFrom,
) -> Result<TokenPair, SessionError> {
    let (pool, session) = session::begin(change, user, from).await?;
    let pair = PairFor { app: user.app, extends_session: true, scope: None, narrowed: None };
    let pair = session::issue(change, &pool, &session, user, pair).await?;
    let target =
        Target { org: Some(user.org.clone()), env: None, kind: "sso_session", id: session.id.to_string() };
    let after = json!({"after": {"userId": user.id, "clientAppId": user.app}});
    change.record(Event::new(target, "begin", after));
    Ok(pair)
}

async fn prove_uncounted(
    context: &Context,
    attempts: &FailedAttempts,
    address: IpAddr,
    door: &Door,
    typed_name: &str,
    password: Password,
) -> Result<Proven, SignInError> {
    let attempt = attempts.begin(address, context.now())?;
    let key = name::key(typed_name);
    let found = find(context, door, &key).await?;
    let account = match &found {
        Some((user, _)) => Account::Known(user.org.clone(), user.id),
        None => Account::Unknown(match door {
            Door::Owner(_) => format!("owner {key}"),
            Door::App(_, app) => format!("{app} {key}"),
        }),
    };
    let proven = check(context, address, account, found, password).await;
    if matches!(proven, Err(SignInError::Wrong)) {
        attempt.failed(context.now());
    }
    proven
}

/// Compares the password, and counts what becomes of that.
async fn check(
    context: &Context,
    address: IpAddr,
    account: Account,
    found: Option<(User, SecretText)>,
    password: Password,
) -> Result<Proven, SignInError> {
    let guess = Guess::begin(context, address, account).await?;
    let stored = found.as_ref().map(|(_, hash)| hash.clone());
    let verdict = match context.passwords.verify(password.clone(), stored).await {
        Ok(verdict) => verdict,
        Err(error) => {
            guess.abandoned(context).await?;
            return Err(error.into());
        }
    };
    match (verdict, found) {
        (Verdict::Right { is_outdated }, Some((user, hash)))
            if user.status == UserStatus::Enabled && !guess.is_refused() =>
        {
            guess.succeeded(context).await?;
            let password_hash =
                if is_outdated { rehash(context, &user, hash, password).await? } else { hash };
            Ok(Proven { user, password_hash })
        }
        _ => {
            guess.failed(context).await?;
            Err(SignInError::Wrong)
        }
    }
}

/// Makes the hash of a password anew, with as much work as is asked for now. Where that cannot be done at the moment, the
/// next sign-in does it.
async fn rehash(
    context: &Context,
    user: &User,
    old: SecretText,
    password: Password,
) -> Result<SecretText, StoreError> {
    let new = match context.passwords.hash(password, &mut *context.rng()).await {
        Ok(new) => new,
        Err(error) => {
            tracing::warn!(%error, "a password's hash is outdated and could not be made anew");
            return Ok(old);
        }
    };
    let mut tx = context.begin().await?;
    let stored = user::lock_with_password(&mut tx, &user.org, user.id).await?;
    if !stored.is_some_and(|(_, hash)| hash.hash().matches(&old.hash())) {
        return Ok(old);
    }
    user::set_password(&mut tx, &user.org, user.id, &new, None).await?;
    tx.commit().await?;
    Ok(new)
}

/// Whoever signs in at this door by this name, with as many questions where there is nobody.
async fn find(context: &Context, door: &Door, key: &str) -> Result<Option<(User, SecretText)>, StoreError> {
    let mut connection = context.connection().await?;
    let name = match door {
        Door::Owner(_) => SignInName::Owner(key),
        Door::App(org, app) => SignInName::AppUser(org, *app, key),
    };
    let found = user::find_to_sign_in(&mut connection, name).await?;
    let Door::Owner(Some(org)) = door else { return Ok(found) };
    let user = found.as_ref().map_or(UserId(Uuid::nil()), |(user, _)| user.id);
    let owns = owner::owns(&mut connection, org, user).await?;
    Ok(found.filter(|_| owns))
}

async fn find_by_id(context: &Context, user: &User) -> Result<Option<(User, SecretText)>, StoreError> {
    let mut tx = context.begin().await?;
    user::lock_with_password(&mut tx, &user.org, user.id).await
}

fn count(context: &Context, proven: &Result<Proven, SignInError>) {
    context.metrics.sign_in(match proven {
        Ok(_) => "signed_in",
        Err(SignInError::Wrong) => "wrong",
        Err(SignInError::TooMany(_)) => "too_many_attempts",
        Err(SignInError::Busy { .. }) => "busy",
        Err(_) => "error",
    });
}
