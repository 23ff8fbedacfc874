//! The applications on devices, each with its OAuth client.

use keypost_shared::id::{ClientAppId, ClientId, DeviceId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::scope::Scopes;
use utoipa::ToSchema;

use super::audit::Event;
use super::change::Change;
use super::{Context, CreateError};
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
    #[schema(value_type = Vec<String>, min_items = 1)]
    pub scopes: Scopes,
    /// The keys that it may prove itself with (RFC 7523 §2.2): a JWK Set of public keys.
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
