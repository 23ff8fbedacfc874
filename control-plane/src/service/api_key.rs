//! API keys: who a key is, the first key there is, and keys that make, rotate and delete keys.
//!
//! A key never grants what its maker lacks: it reaches no further, may do no more, and lives no longer. Rotation hands a
//! secret out, so it follows the same rule.

use std::sync::Arc;

use keypost_shared::id::OrgId;
use keypost_shared::secret::{ApiKey, KeyKind};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Context;
use super::access::{Caller, Denied, Permission, Power, Reach};
use super::audit::{Actor, ActorKind, Event, RequestSource, Target};
use super::change::Change;
use super::precondition::{Outdated, Precondition};
use crate::clock::seconds;
use crate::entropy::random_uuid;
use crate::store::api_key::{Known, StoredApiKey};
use crate::store::{self, AdvisoryLock, StoreError};

/// How long the key before counts after a rotation where nothing else is asked, in seconds: a day, for whoever has to take
/// the new one to many places.
pub const DEFAULT_OVERLAP_SECONDS: u32 = 86_400;
/// The longest that may be asked for, in seconds: 30 days.
pub const LONGEST_OVERLAP_SECONDS: u32 = 30 * 86_400;

/// An API key to create.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct NewApiKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// The one organization that it reaches. Without it the key reaches everything, which only a global admin key may ask
    /// for.
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
    pub org_id: Option<OrgId>,
    /// What it is narrowed to: permissions that the key in use has. Without them it may do all that its reach allows, which
    /// only a key that is not narrowed may ask for.
    #[schema(min_items = 1, max_items = 12)]
    pub permissions: Option<Vec<Permission>>,
    /// When it expires; not after the key in use. Without it the key lives until it is deleted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<OffsetDateTime>,
}

/// A key, and its row.
#[derive(Debug)]
pub struct ShownApiKey {
    /// The key, to be shown this once.
    pub key: ApiKey,
    /// What is stored of it.
    pub stored: StoredApiKey,
}

/// Why a key gives no access.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// Mistyped, unknown, deleted or expired.
    #[error("the API key is not valid")]
    NotValid,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a key was not created, rotated or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The caller's key is not good any more.
    #[error("the API key in use has been deleted")]
    CallerGone,
    /// It would be more than the caller may.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The organization that it was to reach has been deleted in the meantime, or was never there.
    #[error("there is no such organization")]
    OrganizationGone,
    /// It has been deleted in the meantime.
    #[error("it is gone")]
    Gone,
    /// It is not in the state that the change was meant for.
    #[error(transparent)]
    Outdated(#[from] Outdated),
    /// It is to expire in the past.
    #[error("it would be expired already")]
    ExpiresInThePast,
    /// It has expired, so another secret for it would be good for nothing.
    #[error("it has expired")]
    Expired,
    /// Without it nobody could make a key that reaches everything.
    #[error("it is the last global admin key that is not narrowed")]
    LastAdmin,
    /// The database.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ApiKeyError {
    fn from(error: StoreError) -> Self {
        if error.is_dangling() { Self::OrganizationGone } else { Self::Store(error) }
    }
}

/// Whose key `text` is. A key whose checksum is wrong costs no look at the database.
pub async fn authenticate(
    context: &Context,
    text: &str,
    source: RequestSource,
) -> Result<Caller, AuthenticationError> {
    let key = ApiKey::parse(text).ok_or(AuthenticationError::NotValid)?;
    let mut connection = context.connection().await?;
    let now = context.now();
    let found = store::api_key::find_holder(&mut connection, &key.hash(), now).await?;
    let holder = found.ok_or(AuthenticationError::NotValid)?;
    context.api_key_uses.note(holder.id, now);
    let actor = source.actor(ActorKind::ApiKey, Some(holder.id.to_string()), Some(holder.name));
    Ok(Caller {
        api_key_id: holder.id,
        org: holder.org,
        permissions: holder.permissions,
        expires_at: holder.expires_at,
        actor: Arc::new(actor),
    })
}

/// Creates a key.
pub async fn create(
    change: &mut Change,
    caller: &Caller,
    new: NewApiKey,
) -> Result<ShownApiKey, ApiKeyError> {
    let reach = match new.org_id.clone() {
        Some(org) => Reach::Org(caller.enter(&org, Permission::ApiKeyWrite)?),
        None => Reach::Everything(caller.enter_everything(Permission::ApiKeyWrite)?),
    };
    let now = change.now();
    let names = |permissions: Vec<Permission>| permissions.iter().map(ToString::to_string).collect();
    let permissions: Option<Vec<String>> = new.permissions.map(names);
    caller.may_hand_out(Power { permissions: permissions.as_deref(), expires_at: new.expires_at })?;
    if new.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(ApiKeyError::ExpiresInThePast);
    }
    check_caller(change, caller).await?;
    let kind = if new.org_id.is_some() { KeyKind::Organization } else { KeyKind::Admin };
    let key = ApiKey::generate(kind, &mut change.rng());
    let stored = StoredApiKey {
        id: random_uuid(&mut change.rng()),
        name: new.name,
        org_id: new.org_id,
        permissions,
        prefix: key.display_prefix().to_owned(),
        created_at: now,
        updated_at: now,
        expires_at: new.expires_at,
        previous_expires_at: None,
        last_used_at: None,
    };
    store::api_key::insert(change.tx(), &reach, &stored, &key.hash()).await?;
    change.record(Event::created(target(&stored), &stored));
    Ok(ShownApiKey { key, stored })
}

/// A key within reach.
pub async fn find(context: &Context, reach: &Reach, key: Uuid) -> Result<Option<StoredApiKey>, StoreError> {
    let mut connection = context.connection().await?;
    store::api_key::find(&mut connection, reach, key).await
}

/// The keys within reach, by id, after `after`.
pub async fn list(
    context: &Context,
    reach: &Reach,
    after: Option<Uuid>,
    rows: i64,
) -> Result<Vec<StoredApiKey>, StoreError> {
    let mut connection = context.connection().await?;
    store::api_key::list(&mut connection, reach, after, rows).await
}

/// Puts another key in the place of one. The one before counts for the overlap; one that was before that ends now.
pub async fn rotate(
    change: &mut Change,
    caller: &Caller,
    reach: &Reach,
    key: Uuid,
    overlap_seconds: u32,
) -> Result<ShownApiKey, ApiKeyError> {
    let now = change.now();
    let before = store::api_key::find_for_update(change.tx(), reach, key).await?.ok_or(ApiKeyError::Gone)?;
    caller.may_hand_out(before.power())?;
    if before.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(ApiKeyError::Expired);
    }
    check_caller(change, caller).await?;
    let kind = if before.org_id.is_some() { KeyKind::Organization } else { KeyKind::Admin };
    let fresh = ApiKey::generate(kind, &mut change.rng());
    let overlap_end = now + seconds(overlap_seconds);
    let after = StoredApiKey {
        prefix: fresh.display_prefix().to_owned(),
        previous_expires_at: Some(
            before.expires_at.map_or(overlap_end, |expires_at| expires_at.min(overlap_end)),
        ),
        updated_at: change.touch(before.updated_at),
        ..before.clone()
    };
    store::api_key::rotate(change.tx(), reach, &after, &fresh.hash()).await?;
    change.record(Event::changed(target(&after), "rotate", &before, &after));
    Ok(ShownApiKey { key: fresh, stored: after })
}

/// Deletes a key: it ends at once, and so does the one before. One that may do more than the caller's may be deleted too:
/// that takes something away, and a leaked key must be ended by whoever is at hand.
pub async fn delete(
    context: &Context,
    reach: &Reach,
    key: Uuid,
    precondition: &Precondition,
) -> Result<(), ApiKeyError> {
    let mut change = Change::begin(context, reach.actor()).await?;
    if reach.org().is_none() {
        // Of two that delete each other's key, one must see that it is the last.
        store::lock(change.tx(), AdvisoryLock::FirstApiKey).await?;
    }
    let before = store::api_key::find_for_update(change.tx(), reach, key).await?.ok_or(ApiKeyError::Gone)?;
    precondition.check(before.updated_at)?;
    let now = change.now();
    let is_admin = before.org_id.is_none()
        && before.permissions.is_none()
        && before.expires_at.is_none_or(|expires_at| expires_at > now);
    if is_admin && !store::api_key::any_other_admin(change.tx(), key, now).await? {
        return Err(ApiKeyError::LastAdmin);
    }
    store::api_key::delete(change.tx(), reach, key).await?;
    change.record(Event::deleted(target(&before), &before));
    change.commit().await?;
    Ok(())
}

/// Whoever sends a body slowly may have lost its key meanwhile; it must not get another one.
async fn check_caller(change: &mut Change, caller: &Caller) -> Result<(), ApiKeyError> {
    let exists = store::api_key::exists(change.tx(), caller.api_key_id).await?;
    if exists { Ok(()) } else { Err(ApiKeyError::CallerGone) }
}

fn target(key: &StoredApiKey) -> Target {
    Target { org: key.org_id.clone(), env: None, kind: "api_key", id: key.id.to_string() }
}

/// Sees to it that there is a key that reaches everything.
///
/// A `configured` one is added where it is missing, but not where it has been rotated: that would undo the rotation.
/// Without one, and where there is no key at all, one is made: it is the answer, to be shown this once.
pub async fn ensure_first(
    context: &Context,
    configured: Option<&ApiKey>,
) -> Result<Option<ApiKey>, StoreError> {
    let mut change = Change::begin(context, &Actor::system()).await?;
    store::lock(change.tx(), AdvisoryLock::FirstApiKey).await?;
    let made = match configured {
        Some(key) => {
            match store::api_key::is_known(change.tx(), &key.hash()).await? {
                Some(Known::Current) => {}
                Some(Known::Rotated) => tracing::warn!(
                    prefix = key.display_prefix(),
                    "KEYPOST_ADMIN_API_KEY holds a key that has been rotated, so it is not added again"
                ),
                None => {
                    insert_first(&mut change, key, "KEYPOST_ADMIN_API_KEY").await?;
                    tracing::info!(
                        prefix = key.display_prefix(),
                        "the configured admin API key has been added"
                    );
                }
            }
            None
        }
        None if store::api_key::any(change.tx()).await? => None,
        None => {
            let key = ApiKey::generate(KeyKind::Admin, &mut context.rng());
            insert_first(&mut change, &key, "first admin key").await?;
            Some(key)
        }
    };
    change.commit().await?;
    Ok(made)
}

async fn insert_first(change: &mut Change, key: &ApiKey, name: &str) -> Result<(), StoreError> {
    let now = change.now();
    let stored = StoredApiKey {
        id: random_uuid(&mut change.rng()),
        name: name.to_owned(),
        org_id: None,
        permissions: None,
        prefix: key.display_prefix().to_owned(),
        created_at: now,
        updated_at: now,
        expires_at: None,
        previous_expires_at: None,
        last_used_at: None,
    };
    store::api_key::insert_first(change.tx(), &stored, &key.hash()).await?;
    change.record(Event::created(target(&stored), &stored));
    Ok(())
}
