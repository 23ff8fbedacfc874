//! API keys: who a key is, and the first key there is.

use keypost_shared::secret::{ApiKey, KeyKind};

use super::access::Caller;
use super::{Context, commit};
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
pub async fn authenticate(context: &Context, text: &str) -> Result<Caller, AuthenticationError> {
    let key = ApiKey::parse(text).ok_or(AuthenticationError::NotValid)?;
    let mut connection = context.connection().await?;
    let caller = store::api_key::find_caller(&mut connection, &key.hash(), context.now()).await?;
    caller.ok_or(AuthenticationError::NotValid)
}

/// Sees to it that there is a key that reaches everything.
///
/// A `configured` one is added where it is missing. Without one, and where there is no key at all, one is made: it is the
/// answer, to be shown this once.
pub async fn ensure_first(
    context: &Context,
    configured: Option<&ApiKey>,
) -> Result<Option<ApiKey>, StoreError> {
    let mut tx = context.begin().await?;
    store::lock(&mut tx, AdvisoryLock::FirstApiKey).await?;
    let made = match configured {
        Some(key) => {
            if insert_global(context, &mut tx, key, "KEYPOST_ADMIN_API_KEY").await? {
                tracing::info!(prefix = key.display_prefix(), "the configured admin API key has been added");
            }
            None
        }
        None if store::api_key::any(&mut tx).await? => None,
        None => {
            let key = ApiKey::generate(KeyKind::Admin, &mut context.rng());
            insert_global(context, &mut tx, &key, "first admin key").await?;
            Some(key)
        }
    };
    commit(tx).await?;
    Ok(made)
}

async fn insert_global(
    context: &Context,
    tx: &mut sqlx::PgConnection,
    key: &ApiKey,
    name: &str,
) -> Result<bool, StoreError> {
    let new = NewApiKey {
        id: random_uuid(&mut context.rng()),
        name,
        hash: key.hash(),
        prefix: key.display_prefix(),
        created_at: context.now(),
    };
    store::api_key::insert_global(tx, &new).await
}
