//! The applications on devices, each with its OAuth client.

use keypost_shared::id::{ClientAppId, ClientId, DeviceId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::scope::Scopes;
use utoipa::ToSchema;

use super::audit::Event;
use super::change::Change;
use super::precondition::Precondition;
use super::{ChangeError, Context, CreateError};
use crate::entropy::random_uuid;
use crate::store::device_app::{AppName, DeviceApp};
use crate::store::environment::EnvScope;
use crate::store::publication::Priority;
use crate::store::{self, StoreError};

/// An app to create.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct NewDeviceApp {
    /// Which application it is.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
    pub client_app_id: ClientAppId,
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// What it is.
    #[schema(max_length = 2000)]
    pub description: Option<String>,
    /// What its tokens may be for: scope tokens (RFC 6749 §3.3).
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 64)]
    pub scopes: Scopes,
    /// The keys that it may prove itself with (RFC 7523 §2.2): a JWK Set of public keys.
    #[schema(value_type = Option<Object>)]
    pub jwks: Option<serde_json::Value>,
}

/// What an app is to be from now on.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct DeviceAppReplacement {
    /// Which application it is: where it is sent, it must be what it was.
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
    pub client_app_id: Option<ClientAppId>,
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// What it is.
    #[schema(max_length = 2000)]
    pub description: Option<String>,
    /// What its tokens may be for: scope tokens (RFC 6749 §3.3).
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 64)]
    pub scopes: Scopes,
    /// The keys that it may prove itself with (RFC 7523 §2.2): a JWK Set of public keys.
    #[schema(value_type = Option<Object>)]
    pub jwks: Option<serde_json::Value>,
}

/// Creates an app of a device. Its client has no secret before it is activated.
pub async fn create(
    change: &mut Change,
    scope: &EnvScope,
    device: &DeviceId,
    new: NewDeviceApp,
) -> Result<DeviceApp, CreateError> {
    let now = change.now();
    let app = DeviceApp {
        id: random_uuid(&mut change.rng()),
        device_id: device.clone(),
        client_id: ClientId::of_device_app(scope.pool(), device, &new.client_app_id),
        client_app_id: new.client_app_id,
        name: new.name,
        description: new.description,
        scopes: new.scopes,
        jwks: new.jwks,
        activated: false,
        created_at: now,
        updated_at: now,
    };
    store::device_app::insert(change.tx(), scope, &app).await?;
    change.mark(KvKey::Client(scope.pool(), app.client_id.clone()), Priority::Change);
    change.mark(KvKey::Device(scope.pool(), device.clone()), Priority::Change);
    change.record(Event::created(scope.target("app", app.id), &app));
    Ok(app)
}

/// An app of a device of the environment.
pub async fn find(
    context: &Context,
    scope: &EnvScope,
    device: &DeviceId,
    app: &AppName,
) -> Result<Option<DeviceApp>, StoreError> {
    let mut connection = context.connection().await?;
    store::device_app::find(&mut connection, scope, device, app).await
}

/// The apps of a device of the environment, by client app, after `after`.
pub async fn list(
    context: &Context,
    scope: &EnvScope,
    device: &DeviceId,
    after: Option<&ClientAppId>,
    rows: i64,
) -> Result<Vec<DeviceApp>, StoreError> {
    let mut connection = context.connection().await?;
    store::device_app::list(&mut connection, scope, device, after, rows).await
}

/// Replaces what can be changed of an app.
pub async fn replace(
    context: &Context,
    scope: &EnvScope,
    app: &DeviceApp,
    precondition: &Precondition,
    replacement: DeviceAppReplacement,
) -> Result<DeviceApp, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = lock(&mut change, scope, app, precondition).await?;
    if replacement.client_app_id.is_some_and(|id| id != before.client_app_id) {
        let detail = "cannot be changed: make another app".to_owned();
        return Err(ChangeError::Wrong { field: "clientAppId", detail });
    }
    let after = DeviceApp {
        name: replacement.name,
        description: replacement.description,
        scopes: replacement.scopes,
        jwks: replacement.jwks,
        updated_at: change.touch(before.updated_at),
        ..before.clone()
    };
    store::device_app::update(change.tx(), scope, &after).await?;
    if before.scopes != after.scopes || before.jwks != after.jwks {
        let takes_away = !after.scopes.contains_all(&before.scopes)
            || (before.jwks.is_some() && before.jwks != after.jwks);
        let client = KvKey::Client(scope.pool(), after.client_id.clone());
        for key in [client, KvKey::Device(scope.pool(), after.device_id.clone())] {
            if takes_away { change.lose(key) } else { change.mark(key, Priority::Change) }
        }
    }
    change.record(Event::updated(scope.target("app", after.id), &before, &after));
    change.commit().await?;
    Ok(after)
}

/// Deletes an app with its client and its one-time password.
pub async fn delete(
    context: &Context,
    scope: &EnvScope,
    app: &DeviceApp,
    precondition: &Precondition,
) -> Result<(), ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    // The device first, as whoever activates it does.
    store::device::find_for_update(change.tx(), scope, &app.device_id).await?.ok_or(ChangeError::Gone)?;
    let before = lock(&mut change, scope, app, precondition).await?;
    let clients = store::device_app::delete_all(change.tx(), scope, &[before.id]).await?;
    change.revoke_tokens(scope.pool(), &clients).await?;
    for client in clients {
        change.lose(KvKey::Client(scope.pool(), client));
    }
    change.lose(KvKey::Device(scope.pool(), app.device_id.clone()));
    change.record(Event::deleted(scope.target("app", before.id), &before));
    change.commit().await?;
    Ok(())
}

/// The app as it is now, which nobody else changes until the change has ended.
async fn lock(
    change: &mut Change,
    scope: &EnvScope,
    app: &DeviceApp,
    precondition: &Precondition,
) -> Result<DeviceApp, ChangeError> {
    let found = store::device_app::find_for_update(change.tx(), scope, &app.device_id, app.id).await?;
    let found = found.ok_or(ChangeError::Gone)?;
    precondition.check(found.updated_at)?;
    Ok(found)
}
