//! Devices.

use std::collections::BTreeMap;

use keypost_shared::id::DeviceId;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::audit::Event;
use super::change::Change;
use super::{Context, CreateError};
use crate::store::device::{Device, DeviceStatus};
use crate::store::environment::EnvScope;
use crate::store::{self, StoreError};

/// A device to create.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct NewDevice {
    /// Its id.
    #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
    pub id: DeviceId,
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// What it is.
    #[schema(max_length = 2000)]
    pub description: Option<String>,
    /// What its tokens carry as `metadata`: a JSON object.
    #[schema(value_type = Option<Object>)]
    pub metadata: Box<RawValue>,
    /// Its own tags.
    pub tags: BTreeMap<String, String>,
    /// Its first server; none for the environment's.
    pub primary_server_url: Option<String>,
    /// Its servers; none for the environment's.
    pub server_urls: Vec<String>,
}

/// Creates a device. It has no client yet, so KV need not know of it.
pub async fn create(change: &mut Change, scope: &EnvScope, new: NewDevice) -> Result<Device, CreateError> {
    let now = change.now();
    let device = Device {
        id: new.id,
        name: new.name,
        description: new.description,
        metadata: new.metadata,
        tags: new.tags,
        primary_server_url: new.primary_server_url,
        server_urls: new.server_urls,
        status: DeviceStatus::Registered,
        last_activated_at: None,
        created_at: now,
        updated_at: now,
    };
    store::device::insert(change.tx(), scope, &device).await?;
    change.record(Event::created(scope.target("device", &device.id), &device));
    Ok(device)
}

/// A device of the environment.
pub async fn find(
    context: &Context,
    scope: &EnvScope,
    device: &DeviceId,
) -> Result<Option<Device>, StoreError> {
    let mut connection = context.connection().await?;
    store::device::find(&mut connection, scope, device).await
}
