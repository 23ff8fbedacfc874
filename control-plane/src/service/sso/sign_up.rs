//! Signing up: an owner with an organization, or a user of a client app.

use std::sync::Arc;

use keypost_shared::id::{OrgId, SsoAppId, UserId};
use keypost_shared::secret::{ApiKey, SecretText};
use serde_json::value::RawValue;

use super::super::audit::{ActorKind, Event, RequestSource, Target};
use super::super::change::Change;
use super::super::organization::NewOrganization;
use super::super::{Context, CreateError};
use super::name::{self, Email, Username};
use super::organization;
use super::password::{Password, PasswordError};
use super::session::{SessionError, SignInFrom, TokenPair};
use super::sign_in::begin_session;
use super::user_metadata::others_than;
use crate::entropy::random_uuid;
use crate::store::StoreError;
use crate::store::sso::client_app;
use crate::store::sso::user::{self, NameKeys, User, UserStatus};

/// Somebody who wants to own an organization.
#[derive(Debug)]
pub struct NewOwner {
    /// What they want to be called.
    pub username: Username,
    /// Their address.
    pub email: Email,
    /// Their password.
    pub password: Password,
    /// Their first name.
    pub first_name: Option<String>,
    /// Their last name.
    pub last_name: Option<String>,
    /// The organization's name.
    pub organization_name: String,
    /// What the organization is.
    pub organization_description: Option<String>,
}

/// Somebody who wants to use a client app.
#[derive(Debug)]
pub struct NewAppUser {
    /// What they want to be called.
    pub username: Username,
    /// Their address.
    pub email: Email,
    /// Their password.
    pub password: Password,
    /// What the app keeps with them.
    pub metadata: Box<RawValue>,
}

/// Somebody who may sign up: what takes long, the hash of their password, has been made.
pub struct Prepared<T> {
    new: T,
    keys: NameKeys,
    hash: SecretText,
}

/// Why nobody has signed up.
#[derive(Debug, thiserror::Error)]
pub enum SignUpError {
    /// Not everybody may, here.
    #[error("signing up is closed")]
    Closed,
    /// The client app is not there any more.
    #[error("the client app is gone")]
    AppGone,
    /// There is somebody of this username or address.
    #[error("the {0} is taken")]
    Taken(&'static str),
    /// An owner's username is somebody's address.
    #[error("the username is an address, and not the owner's own")]
    ForeignAddress,
    /// Members of the metadata that users of this app may not bring along.
    #[error("{} members of the metadata are not allowed", .0.len())]
    Metadata(Vec<String>),
    /// The password could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// No session could be begun.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The organization could not be created.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The database.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for SignUpError {
    fn from(error: StoreError) -> Self {
        match error.constraint() {
            Some("sso_user_owner_username" | "sso_user_username") => Self::Taken("username"),
            Some("sso_user_owner_email" | "sso_user_email") => Self::Taken("email"),
            Some("sso_user_org_id_client_app_id_fkey") => Self::AppGone,
            _ => Self::Store(error),
        }
    }
}

/// What an owner needs to sign up, before anything is locked.
pub async fn prepare_owner(context: &Context, new: NewOwner) -> Result<Prepared<NewOwner>, SignUpError> {
    if !context.sso.public_signup {
        return Err(SignUpError::Closed);
    }
    let keys = name::keys(&new.username, &new.email);
    // Owners sign in by either, so that no two of them may fit one text.
    if new.username.is_address() && keys.username != keys.email {
        return Err(SignUpError::ForeignAddress);
    }
    let hash = hash(context, None, &keys, new.password.clone()).await?;
    Ok(Prepared { new, keys, hash })
}

/// Signs an owner up, with an organization of theirs: their first tokens, and the organization's key, to be shown once.
pub async fn add_owner(
    change: &mut Change,
    source: RequestSource,
    from: SignInFrom,
    Prepared { new, keys, hash }: Prepared<NewOwner>,
) -> Result<(TokenPair, ApiKey), SignUpError> {
    let id = UserId(random_uuid(&mut change.rng()));
    let actor = source.actor(ActorKind::User, Some(id.to_string()), Some(new.username.as_str().to_owned()));
    change.set_actor(Arc::new(actor));
    let founding =
        NewOrganization { id: None, name: new.organization_name, description: new.organization_description };
    let (founded, key) = organization::begin(change, founding).await?;
    let org = founded.organization.id;
    let person = User {
        first_name: new.first_name,
        last_name: new.last_name,
        ..person(id, &org, None, &new.username, &new.email, empty_metadata()?, change.now())
    };
    add(change, &person, &keys, &hash).await?;
    organization::add_owner(change, &org, id).await?;
    let pair = begin_session(change, &person, from).await?;
    tracing::info!(%org, user = %id, "an owner signs up");
    Ok((pair, key))
}

/// What a user of a client app needs to sign up, if its rules allow them, before anything is locked.
pub async fn prepare_app_user(
    context: &Context,
    (org, app): (&OrgId, SsoAppId),
    new: NewAppUser,
) -> Result<Prepared<NewAppUser>, SignUpError> {
    let rules = {
        let mut connection = context.connection().await?;
        client_app::find(&mut connection, org, app).await?.ok_or(SignUpError::AppGone)?
    };
    if !rules.public_signup {
        return Err(SignUpError::Closed);
    }
    let others = rules.signup_metadata_keys.map(|allowed| others_than(&new.metadata, &allowed));
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        return Err(SignUpError::Metadata(others));
    }
    let keys = name::keys(&new.username, &new.email);
    let hash = hash(context, Some((org, app)), &keys, new.password.clone()).await?;
    Ok(Prepared { new, keys, hash })
}

/// Signs a user of a client app up, for whoever holds the app's key: their first tokens.
pub async fn add_app_user(
    change: &mut Change,
    from: SignInFrom,
    whose: (&OrgId, SsoAppId),
    prepared: Prepared<NewAppUser>,
) -> Result<TokenPair, SignUpError> {
    let person = add_user(change, whose, prepared).await?;
    Ok(begin_session(change, &person, from).await?)
}

/// Adds a user of a client app.
pub(super) async fn add_user(
    change: &mut Change,
    (org, app): (&OrgId, SsoAppId),
    Prepared { new, keys, hash }: Prepared<NewAppUser>,
) -> Result<User, SignUpError> {
    let id = UserId(random_uuid(&mut change.rng()));
    let person = person(id, org, Some(app), &new.username, &new.email, new.metadata, change.now());
    add(change, &person, &keys, &hash).await?;
    Ok(person)
}

/// The hash of a password, unless somebody has the name already: of those who come at once the database decides, but most
/// who come late need not cost a hash.
async fn hash(
    context: &Context,
    app: Option<(&OrgId, SsoAppId)>,
    keys: &NameKeys,
    password: Password,
) -> Result<SecretText, SignUpError> {
    let taken = {
        let mut connection = context.connection().await?;
        user::find_taken(&mut connection, app, keys).await?
    };
    match taken {
        Some(field) => Err(SignUpError::Taken(field)),
        None => Ok(context.passwords.hash(password, &mut *context.rng()).await?),
    }
}

fn person(
    id: UserId,
    org: &OrgId,
    app: Option<SsoAppId>,
    username: &Username,
    email: &Email,
    metadata: Box<RawValue>,
    now: time::OffsetDateTime,
) -> User {
    User {
        id,
        org: org.clone(),
        app,
        username: username.as_str().to_owned(),
        email: email.as_str().to_owned(),
        first_name: None,
        last_name: None,
        metadata,
        status: UserStatus::Enabled,
        last_login_at: None,
        created_at: now,
        updated_at: now,
    }
}

fn empty_metadata() -> Result<Box<RawValue>, StoreError> {
    RawValue::from_string("{}".to_owned())
        .map_err(|error| StoreError::unreadable("sso_user.user_metadata", error))
}

async fn add(
    change: &mut Change,
    person: &User,
    keys: &NameKeys,
    hash: &SecretText,
) -> Result<(), SignUpError> {
    user::insert(change.tx(), person, keys, hash).await?;
    let target =
        Target { org: Some(person.org.clone()), env: None, kind: "sso_user", id: person.id.to_string() };
    change.record(Event::created(target, person));
    Ok(())
}
