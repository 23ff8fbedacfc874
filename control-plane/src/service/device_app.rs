//! The applications on devices, each with its OAuth client.

use keypost_shared::id::{ClientAppId, ClientId, DeviceId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::scope::Scopes;

use super::{Context, CreateError, commit};
use crate::entropy::random_uuid;
use crate::store::device_app::{AppName, DeviceApp};
use crate::store::environment::EnvScope;
use crate::store::publication::Priority;
use crate::store::{self, StoreError};

/// An app to create.
#[derive(Clone, Debug)]
pub struct NewDeviceApp {
    /// Which application it is.
    pub client_app_id: ClientAppId,
    /// Its name.
    pub name: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// What its tokens may be for.
    pub scopes: Scopes,
    /// The keys that it may prove itself with (RFC 7523 §2.2): a JWK Set of public keys.
    pub jwks: Option<serde_json::Value>,
}

/// Creates an app of a device. Its client has no secret before it is activated.
pub async fn create(
    context: &Context,
    scope: &EnvScope,
    device: &DeviceId,
    new: NewDeviceApp,
) -> Result<DeviceApp, CreateError> {
    let now = context.now();
    let app = DeviceApp {
        id: random_uuid(&mut context.rng()),
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
    let mut tx = context.begin().await?;
    store::device_app::insert(&mut tx, scope, &app).await?;
    let key = KvKey::Client(scope.pool(), app.client_id.clone());
    store::publication::mark(&mut tx, &[key], Priority::Change, now).await?;
    commit(tx).await?;
    context.publications.wake();
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
