//! API keys: who a key is, and the first key there is.

use std::sync::Arc;

use keypost_shared::secret::{ApiKey, KeyKind};
use serde_json::json;

use super::Context;
use super::access::Caller;
use super::audit::{Actor, ActorKind, Event, RequestSource, Target};
use super::change::Change;
use crate::entropy::random_uuid;
use crate::store::api_key::NewApiKey;
use crate::store::{self, AdvisoryLock, StoreError};

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

/// Whose key `text` is. A key whose checksum is wrong costs no look at the database.
pub async fn authenticate(
    context: &Context,
    text: &str,
    source: RequestSource,
) -> Result<Caller, AuthenticationError> {
    let key = ApiKey::parse(text).ok_or(AuthenticationError::NotValid)?;
    let mut connection = context.connection().await?;
    let found = store::api_key::find_holder(&mut connection, &key.hash(), context.now()).await?;
    let holder = found.ok_or(AuthenticationError::NotValid)?;
    let actor = source.actor(ActorKind::ApiKey, Some(holder.id.to_string()), Some(holder.name));
    Ok(Caller {
        api_key_id: holder.id,
        org: holder.org,
        permissions: holder.permissions,
        expires_at: holder.expires_at,
        actor: Arc::new(actor),
    })
}

/// Sees to it that there is a key that reaches everything.
///
/// A `configured` one is added where it is missing. Without one, and where there is no key at all, one is made: it is the
/// answer, to be shown this once.
pub async fn ensure_first(
    context: &Context,
    configured: Option<&ApiKey>,
) -> Result<Option<ApiKey>, StoreError> {
    let mut change = Change::begin(context, &Actor::system()).await?;
    store::lock(change.tx(), AdvisoryLock::FirstApiKey).await?;
    let made = match configured {
        Some(key) => {
            if insert_global(&mut change, key, "KEYPOST_ADMIN_API_KEY").await? {
                tracing::info!(prefix = key.display_prefix(), "the configured admin API key has been added");
            }
            None
        }
        None if store::api_key::any(change.tx()).await? => None,
        None => {
            let key = ApiKey::generate(KeyKind::Admin, &mut context.rng());
            insert_global(&mut change, &key, "first admin key").await?;
            Some(key)
        }
    };
    change.commit().await?;
    Ok(made)
}

async fn insert_global(change: &mut Change, key: &ApiKey, name: &str) -> Result<bool, StoreError> {
    let new = NewApiKey {
        id: random_uuid(&mut change.rng()),
        name,
        hash: key.hash(),
        prefix: key.display_prefix(),
        created_at: change.now(),
    };
    let added = store::api_key::insert_global(change.tx(), &new).await?;
    if added {
        let target = Target { org: None, env: None, kind: "api_key", id: new.id.to_string() };
        let changes = json!({"after": {"name": name, "prefix": new.prefix}});
        change.record(Event::new(target, "create", changes));
    }
    Ok(added)
}
