//! Environments, each with its client pool and the pool's first keys.

use std::collections::{BTreeMap, BTreeSet};

use keypost_shared::id::{EnvId, OrgId, PoolId};
use keypost_shared::kv_key::KvKey;
use utoipa::ToSchema;

use super::access::OrgScope;
use super::audit::{Event, Target};
use super::change::Change;
use super::precondition::Precondition;
use super::{ChangeError, Context, CreateError, client_pool};
use crate::entropy::random_uuid;
use crate::store::environment::{EnvScope, Environment};
use crate::store::publication::{Mark, Priority};
use crate::store::signing_key::PoolOwner;
use crate::store::{self, StoreError};

/// The tags of a device where its environment names none (api.md §3).
pub const DEFAULT_TAGS: [&str; 8] =
    ["country", "business_unit_id", "device_id", "device_type", "state", "store_type", "brand", "app_id"];

/// An environment to create.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct NewEnvironment {
    /// Its id.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
    pub id: EnvId,
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// What it is.
    #[schema(max_length = 2000)]
    pub description: Option<String>,
    /// The tags that every device has; where none are given, the eight of [`DEFAULT_TAGS`] with `*`.
    pub tag_defaults: Option<BTreeMap<String, String>>,
    /// The first server of a device that names none.
    #[schema(max_length = 2048)]
    pub primary_server_url: Option<String>,
    /// The servers of a device that names none.
    #[schema(value_type = Option<Vec<String>>, max_items = 32)]
    pub server_urls: Vec<String>,
}

/// What an environment is to be from now on.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct EnvironmentReplacement {
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// What it is.
    #[schema(max_length = 2000)]
    pub description: Option<String>,
    /// The tags that every device has; where none are given, the eight of [`DEFAULT_TAGS`] with `*`.
    pub tag_defaults: Option<BTreeMap<String, String>>,
    /// The first server of a device that names none.
    #[schema(max_length = 2048)]
    pub primary_server_url: Option<String>,
    /// The servers of a device that names none.
    #[schema(value_type = Option<Vec<String>>, max_items = 32)]
    pub server_urls: Vec<String>,
}

/// Creates an environment, its pool, and two keys: one that signs at once and the one that will follow it, both in the
/// key set from the start. Also says whether the pool's document is in KV.
pub async fn create(
    change: &mut Change,
    scope: &OrgScope,
    new: NewEnvironment,
) -> Result<Environment, CreateError> {
    let now = change.now();
    let pool_id = PoolId(random_uuid(&mut change.rng()));
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

    store::environment::insert(change.tx(), scope, &environment).await?;
    client_pool::add(change, &PoolOwner::from(&env_scope)).await?;
    change.record(Event::created(target(&env_scope), &environment));
    Ok(environment)
}

/// Waits until the document of a new environment's pool is in KV, for a while. Says whether it is.
pub async fn wait_until_published(context: &Context, mut marks: Vec<Mark>) -> bool {
    // Tokens can be had as soon as the pool is there: the trust document in KV is good as it is, for a while.
    marks.retain(|mark| mark.key != KvKey::Trust);
    context.publications.published(&marks).await
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

/// Whose environment this client pool is, for who has not been let in anywhere yet.
pub async fn of_pool(context: &Context, pool: PoolId) -> Result<Option<(OrgId, EnvId)>, StoreError> {
    let mut connection = context.connection().await?;
    store::environment::of_pool(&mut connection, pool).await
}

/// The environment of a pool of which the edge has reported something; none where it is gone.
pub(super) async fn of_a_report(context: &Context, pool: PoolId) -> Result<Option<EnvScope>, StoreError> {
    let Some((org, env)) = of_pool(context, pool).await? else { return Ok(None) };
    let scope = OrgScope::of_the_edge(org);
    Ok(find(context, &scope, &env).await?.map(|environment| environment.within(&scope)))
}

/// The environments of the organization, by id, after `after`.
pub async fn list(
    context: &Context,
    scope: &OrgScope,
    after: Option<&EnvId>,
    rows: i64,
) -> Result<Vec<Environment>, StoreError> {
    let mut connection = context.connection().await?;
    store::environment::list(&mut connection, scope, after, rows).await
}

/// The pools whose documents have been in KV at all, of those of `environments`.
pub async fn published<'a>(
    context: &Context,
    environments: impl IntoIterator<Item = &'a Environment>,
) -> Result<BTreeSet<PoolId>, StoreError> {
    let keys: Vec<KvKey> =
        environments.into_iter().map(|environment| KvKey::Pool(environment.pool_id)).collect();
    let mut connection = context.connection().await?;
    let published = store::publication::ever_published(&mut connection, &keys).await?;
    Ok(published.iter().filter_map(KvKey::pool).collect())
}

/// Replaces what can be changed of the environment. Where that changes the tokens of its devices, the documents of all its
/// clients are made anew.
pub async fn replace(
    context: &Context,
    scope: &EnvScope,
    precondition: &Precondition,
    replacement: EnvironmentReplacement,
) -> Result<Environment, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = store::environment::lock_to_change(change.tx(), scope).await?.ok_or(ChangeError::Gone)?;
    precondition.check(before.updated_at)?;
    let after = Environment {
        name: replacement.name,
        description: replacement.description,
        tag_defaults: replacement.tag_defaults.unwrap_or_else(default_tags),
        primary_server_url: replacement.primary_server_url,
        server_urls: replacement.server_urls,
        updated_at: change.touch(before.updated_at),
        ..before.clone()
    };
    store::environment::update(change.tx(), scope, &after).await?;
    if claims_of(&before) != claims_of(&after) {
        change.mark_all_clients(scope.pool()).await?;
        // What a new device has from its environment stands in the pool's document.
        change.mark(KvKey::Pool(scope.pool()), Priority::Change);
    }
    change.record(Event::updated(target(scope), &before, &after));
    change.commit().await?;
    Ok(after)
}

/// What the tokens of its devices have from an environment.
fn claims_of(environment: &Environment) -> (&BTreeMap<String, String>, Option<&str>, &[String]) {
    (&environment.tag_defaults, environment.primary_server_url.as_deref(), &environment.server_urls)
}

pub(super) fn target(scope: &EnvScope) -> Target {
    scope.target("environment", scope.env())
}

fn default_tags() -> BTreeMap<String, String> {
    DEFAULT_TAGS.iter().map(|name| ((*name).to_owned(), "*".to_owned())).collect()
}
