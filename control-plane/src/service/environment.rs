//! Environments, each with its client pool and the pool's first keys.

use std::collections::BTreeMap;

use keypost_shared::host::PrivateKey;
use keypost_shared::id::{EnvId, PoolId};
use keypost_shared::kv_key::KvKey;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::access::OrgScope;
use super::{Context, CreateError, PUBLISH_PATIENCE, commit};
use crate::crypto_at_rest::KeyPurpose;
use crate::entropy::random_uuid;
use crate::store::environment::{EnvScope, Environment};
use crate::store::publication::Priority;
use crate::store::signing_key::NewSigningKey;
use crate::store::{self, StoreError};

/// The tags of a device where its environment names none (api.md §3).
pub const DEFAULT_TAGS: [&str; 8] =
    ["country", "business_unit_id", "device_id", "device_type", "state", "store_type", "brand", "app_id"];

/// An environment to create.
#[derive(Clone, Debug)]
pub struct NewEnvironment {
    /// Its id.
    pub id: EnvId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// The tags that every device has; where none are given, the eight of [`DEFAULT_TAGS`] with `*`.
    pub tag_defaults: Option<BTreeMap<String, String>>,
    /// The first server of a device that names none.
    pub primary_server_url: Option<String>,
    /// The servers of a device that names none.
    pub server_urls: Vec<String>,
}

/// Creates an environment, its pool, and two keys: one that signs at once and the one that will follow it, both in the
/// key set from the start. Also says whether the pool's document is in KV.
pub async fn create(
    context: &Context,
    scope: &OrgScope,
    new: NewEnvironment,
) -> Result<(Environment, bool), CreateError> {
    let now = context.now();
    let pool_id = PoolId(random_uuid(&mut context.rng()));
    let environment = Environment {
        org_id: scope.org().clone(),
        id: new.id,
        pool_id,
        name: new.name,
        description: new.description,
        tag_defaults: new.tag_defaults.unwrap_or_else(default_tags),
        primary_server_url: new.primary_server_url,
        server_urls: new.server_urls,
        created_at: now,
        updated_at: now,
    };
    let env_scope = environment.within(scope);

    let mut tx = context.begin().await?;
    let longest_window = store::snapshot::longest_window(&mut tx).await?;
    store::environment::insert(&mut tx, scope, &environment).await?;
    let window = store::client_pool::insert(&mut tx, &env_scope, now).await?;
    add_key(context, &mut tx, &env_scope, true, now).await?;
    add_key(context, &mut tx, &env_scope, false, now).await?;
    let mut keys = vec![KvKey::Pool(pool_id)];
    if longest_window.is_none_or(|longest| longest < window) {
        keys.push(KvKey::Trust);
    }
    let mut marks = store::publication::mark(&mut tx, &keys, Priority::Change, now).await?;
    // Tokens can be had as soon as the pool is there: the trust document in KV is good as it is, for a while.
    marks.retain(|mark| mark.key != KvKey::Trust);
    commit(tx).await?;

    context.publications.wake();
    let published = context.publications.published(&marks, PUBLISH_PATIENCE).await;
    Ok((environment, published))
}

/// An environment of the organization.
pub async fn find(
    context: &Context,
    scope: &OrgScope,
    env: &EnvId,
) -> Result<Option<Environment>, StoreError> {
    let mut connection = context.connection().await?;
    store::environment::find(&mut connection, scope, env).await
}

/// Whether the pool's document has been in KV at all.
pub async fn is_published(context: &Context, environment: &Environment) -> Result<bool, StoreError> {
    let mut connection = context.connection().await?;
    store::publication::was_ever_published(&mut connection, &KvKey::Pool(environment.pool_id)).await
}

async fn add_key(
    context: &Context,
    tx: &mut PgConnection,
    scope: &EnvScope,
    active: bool,
    now: OffsetDateTime,
) -> Result<(), CreateError> {
    let mut rng = context.rng();
    let key = PrivateKey::generate(&mut rng);
    let private_sealed = context.master_key.seal(KeyPurpose::Pool(scope.pool()), &key, &mut rng)?;
    let new = NewSigningKey {
        kid: key.kid(),
        public: key.public(),
        private_sealed: &private_sealed,
        active,
        created_at: now,
    };
    Ok(store::signing_key::insert(tx, scope, &new).await?)
}

fn default_tags() -> BTreeMap<String, String> {
    DEFAULT_TAGS.iter().map(|name| ((*name).to_owned(), "*".to_owned())).collect()
}
