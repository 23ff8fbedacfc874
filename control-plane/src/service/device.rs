//! Devices.

use std::collections::BTreeMap;

use keypost_shared::id::DeviceId;
use serde_json::value::RawValue;

use super::{Context, CreateError, commit};
use crate::store::device::{Device, DeviceStatus};
use crate::store::environment::EnvScope;
use crate::store::{self, StoreError};

/// A device to create.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Its id.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// What its tokens carry as `metadata`: a JSON object.
    pub metadata: Box<RawValue>,
    /// Its own tags.
    pub tags: BTreeMap<String, String>,
    /// Its first server; none for the environment's.
    pub primary_server_url: Option<String>,
    /// Its servers; none for the environment's.
    pub server_urls: Vec<String>,
}

/// Creates a device. It has no client yet, so KV need not know of it.
pub async fn create(context: &Context, scope: &EnvScope, new: NewDevice) -> Result<Device, CreateError> {
    let now = context.now();
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
    let mut tx = context.begin().await?;
    store::device::insert(&mut tx, scope, &device).await?;
    commit(tx).await?;
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
