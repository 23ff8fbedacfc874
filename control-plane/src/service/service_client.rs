//! Service clients: OAuth clients of an environment that are bound to no device.

use keypost_shared::id::ClientId;
use keypost_shared::kv_key::KvKey;
use keypost_shared::scope::Scopes;
use keypost_shared::secret::{SecretText, generate_secret};
use utoipa::ToSchema;

use super::audit::Event;
use super::change::Change;
use super::precondition::Precondition;
use super::{ChangeError, Context, CreateError};
use crate::clock::seconds;
use crate::entropy::random_uuid;
use crate::store::environment::EnvScope;
use crate::store::publication::{Mark, Priority};
use crate::store::service_client::ServiceClient;
use crate::store::{self, StoreError};

/// What a service client is to be.
#[derive(Clone, Debug, ToSchema)]
pub struct ServiceClientSettings {
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// What its tokens may be for: scope tokens (RFC 6749 §3.3).
    #[schema(value_type = Vec<String>, min_items = 1)]
    pub scopes: Scopes,
    /// The `aud` of its tokens, one text or several, in the place of the pool's.
    #[schema(value_type = Option<Vec<String>>, max_items = 32)]
    pub audience: Vec<String>,
    /// The keys that it may prove itself with (RFC 7523 §2.2): a JWK Set of public keys.
    #[schema(value_type = Option<Object>)]
    pub jwks: Option<serde_json::Value>,
}

/// A service client, and a secret that it has been given.
#[derive(Debug)]
pub struct ClientWithSecret {
    /// The secret, to be shown this once.
    pub secret: SecretText,
    /// The client.
    pub client: ServiceClient,
}

/// Creates a service client with a secret.
pub async fn create(
    change: &mut Change,
    scope: &EnvScope,
    settings: ServiceClientSettings,
) -> Result<ClientWithSecret, CreateError> {
    let now = change.now();
    let secret = generate_secret(&mut change.rng());
    let id = random_uuid(&mut change.rng()).hyphenated().to_string();
    let client = ServiceClient {
        client_id: store::id("oauth_client.client_id", &id)?,
        name: settings.name,
        scopes: settings.scopes,
        audience: settings.audience,
        jwks: settings.jwks,
        secret_created_at: Some(now),
        previous_secret_expires_at: None,
        created_at: now,
        updated_at: now,
    };
    store::service_client::insert(change.tx(), scope, &client, &secret.hash()).await?;
    change.mark(KvKey::Client(scope.pool(), client.client_id.clone()), Priority::Change);
    change.record(Event::created(scope.target("client", &client.client_id), &client));
    Ok(ClientWithSecret { secret, client })
}

/// Waits until what was marked is in KV, for a while. Says whether it is.
pub async fn wait_until_published(context: &Context, marks: Vec<Mark>) -> bool {
    context.publications.published(&marks).await
}

/// A service client of the environment.
pub async fn find(
    context: &Context,
    scope: &EnvScope,
    client: &ClientId,
) -> Result<Option<ServiceClient>, StoreError> {
    let mut connection = context.connection().await?;
    store::service_client::find(&mut connection, scope, client).await
}

/// The service clients of the environment, by id, after `after`.
pub async fn list(
    context: &Context,
    scope: &EnvScope,
    after: Option<&ClientId>,
    rows: i64,
) -> Result<Vec<ServiceClient>, StoreError> {
    let mut connection = context.connection().await?;
    store::service_client::list(&mut connection, scope, after, rows).await
}

/// Replaces what can be changed of a service client.
pub async fn replace(
    context: &Context,
    scope: &EnvScope,
    client: &ClientId,
    precondition: &Precondition,
    settings: ServiceClientSettings,
) -> Result<ServiceClient, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = lock(&mut change, scope, client).await?;
    precondition.check(before.updated_at)?;
    let after = ServiceClient {
        name: settings.name,
        scopes: settings.scopes,
        audience: settings.audience,
        jwks: settings.jwks,
        updated_at: change.touch(before.updated_at),
        ..before.clone()
    };
    store::service_client::update(change.tx(), scope, &after).await?;
    let loses_scopes = !before.scopes.iter().all(|scope| after.scopes.iter().any(|other| other == scope));
    let loses_keys = before.jwks.is_some() && before.jwks != after.jwks;
    let key = KvKey::Client(scope.pool(), client.clone());
    if loses_scopes || loses_keys {
        change.lose(key)
    } else {
        change.mark(key, Priority::Change)
    }
    change.record(Event::updated(scope.target("client", client), &before, &after));
    change.commit().await?;
    Ok(after)
}

/// Gives a service client another secret. The one before counts for the overlap; one that was before that ends now.
pub async fn rotate_secret(
    change: &mut Change,
    scope: &EnvScope,
    client: &ClientId,
    overlap_seconds: u32,
) -> Result<ClientWithSecret, ChangeError> {
    let now = change.now();
    let before = lock(change, scope, client).await?;
    let secret = generate_secret(&mut change.rng());
    let after = ServiceClient {
        secret_created_at: Some(now),
        previous_secret_expires_at: (overlap_seconds > 0).then(|| now + seconds(overlap_seconds)),
        updated_at: change.touch(before.updated_at),
        ..before.clone()
    };
    store::service_client::rotate(change.tx(), scope, &after, &secret.hash()).await?;
    let ends_one_early = before.previous_secret_expires_at.is_some_and(|until| until > now);
    let key = KvKey::Client(scope.pool(), client.clone());
    match after.previous_secret_expires_at {
        Some(until) if !ends_one_early => change.lose_later(key, until),
        _ => change.lose(key),
    }
    change.record(Event::changed(scope.target("client", client), "rotate_secret", &before, &after));
    Ok(ClientWithSecret { secret, client: after })
}

/// Deletes a service client: it gets no more tokens.
pub async fn delete(
    context: &Context,
    scope: &EnvScope,
    client: &ClientId,
    precondition: &Precondition,
) -> Result<(), ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = lock(&mut change, scope, client).await?;
    precondition.check(before.updated_at)?;
    store::service_client::delete(change.tx(), scope, client).await?;
    change.revoke_tokens(scope.pool(), std::slice::from_ref(client)).await?;
    change.lose(KvKey::Client(scope.pool(), client.clone()));
    change.record(Event::deleted(scope.target("client", client), &before));
    change.commit().await?;
    Ok(())
}

/// The client as it is now, which nobody else changes until the change has ended.
async fn lock(
    change: &mut Change,
    scope: &EnvScope,
    client: &ClientId,
) -> Result<ServiceClient, ChangeError> {
    store::service_client::find_for_update(change.tx(), scope, client).await?.ok_or(ChangeError::Gone)
}
