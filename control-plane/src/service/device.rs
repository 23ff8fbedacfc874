//! Devices.

use std::collections::BTreeMap;

use keypost_shared::id::DeviceId;
use keypost_shared::kv_key::KvKey;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::audit::Event;
use super::change::Change;
use super::metadata::{self, MetadataPatch};
use super::precondition::Precondition;
use super::{ChangeError, Context, CreateError};
use crate::store::device::{Device, DeviceCertificate, DeviceStatus};
use crate::store::device_list::DeviceFilter;
use crate::store::environment::EnvScope;
use crate::store::publication::Priority;
use crate::store::{self, StoreError};

/// The most tags of a device.
pub const MAX_TAGS: usize = 64;

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
    /// What its tokens carry as `metadata`: a JSON object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    pub metadata: Box<RawValue>,
    /// Its own tags.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub tags: BTreeMap<String, String>,
    /// Its first server; none for the environment's.
    #[schema(max_length = 2048)]
    pub primary_server_url: Option<String>,
    /// Its servers; none for the environment's.
    #[schema(value_type = Option<Vec<String>>, max_items = 32)]
    pub server_urls: Vec<String>,
}

/// What a device is to be from now on.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct DeviceReplacement {
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// What it is.
    #[schema(max_length = 2000)]
    pub description: Option<String>,
    /// What its tokens carry as `metadata`: a JSON object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    pub metadata: Box<RawValue>,
    /// Its own tags.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub tags: BTreeMap<String, String>,
    /// Its first server; none for the environment's.
    #[schema(max_length = 2048)]
    pub primary_server_url: Option<String>,
    /// Its servers; none for the environment's.
    #[schema(value_type = Option<Vec<String>>, max_items = 32)]
    pub server_urls: Vec<String>,
}

/// What is to change of a device, as a merge patch (RFC 7396): what is not named stays, `null` removes.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct DevicePatch {
    /// Its name, which it always has.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// What it is.
    #[schema(value_type = Option<String>, max_length = 2000)]
    pub description: Option<Option<String>>,
    /// What its tokens carry as `metadata`, patched too.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<MetadataPatch>,
    /// Its own tags, patched too.
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    pub tags: Option<TagsPatch>,
    /// Its first server; none for the environment's.
    #[schema(value_type = Option<String>, max_length = 2048)]
    pub primary_server_url: Option<Option<String>>,
    /// Its servers; none for the environment's.
    #[schema(max_items = 32)]
    pub server_urls: Option<Vec<String>>,
}

/// What is to become of the tags.
#[derive(Clone, Debug)]
pub enum TagsPatch {
    /// None is to be left.
    Reset,
    /// These are to be set, or taken away.
    Merge(BTreeMap<String, Option<String>>),
}

/// Creates a device. It has no client yet.
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
        certificate: DeviceCertificate::default(),
        created_at: now,
        updated_at: now,
    };
    store::device::insert(change.tx(), scope, &device).await?;
    // Known from now on, and no device that a policy might let in.
    store::device_certificate::forgive(change.tx(), scope, &device.id).await?;
    change.mark(KvKey::Device(scope.pool(), device.id.clone()), Priority::Change);
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

/// The devices of the environment to which the filter applies, by id, after `after`.
pub async fn list(
    context: &Context,
    scope: &EnvScope,
    filter: &DeviceFilter,
    after: Option<&DeviceId>,
    rows: i64,
) -> Result<Vec<Device>, StoreError> {
    let mut tx = context.begin().await?;
    store::device_list::list(&mut tx, scope, filter, after, rows).await
}

/// Replaces what can be changed of a device.
pub async fn replace(
    context: &Context,
    scope: &EnvScope,
    device: &DeviceId,
    precondition: &Precondition,
    replacement: DeviceReplacement,
) -> Result<Device, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = lock(&mut change, scope, device, precondition).await?;
    let after = Device {
        name: replacement.name,
        description: replacement.description,
        metadata: replacement.metadata,
        tags: replacement.tags,
        primary_server_url: replacement.primary_server_url,
        server_urls: replacement.server_urls,
        ..before.clone()
    };
    update(change, scope, &before, after, "update").await
}

/// Patches a device.
pub async fn patch(
    context: &Context,
    scope: &EnvScope,
    device: &DeviceId,
    precondition: &Precondition,
    patch: DevicePatch,
) -> Result<Device, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = lock(&mut change, scope, device, precondition).await?;
    let metadata = match &patch.metadata {
        Some(patch) => metadata::apply(&before.metadata, patch)
            .map_err(|error| ChangeError::Wrong { field: "metadata", detail: error.to_string() })?,
        None => before.metadata.clone(),
    };
    let after = Device {
        name: patch.name.unwrap_or_else(|| before.name.clone()),
        description: patch.description.unwrap_or_else(|| before.description.clone()),
        metadata,
        tags: patched_tags(&before.tags, patch.tags)?,
        primary_server_url: patch.primary_server_url.unwrap_or_else(|| before.primary_server_url.clone()),
        server_urls: patch.server_urls.unwrap_or_else(|| before.server_urls.clone()),
        ..before.clone()
    };
    update(change, scope, &before, after, "update").await
}

/// Lets a device have no tokens any more, until it is enabled. Nothing changes where it is disabled.
pub async fn disable(
    context: &Context,
    scope: &EnvScope,
    device: &DeviceId,
    precondition: &Precondition,
) -> Result<Device, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = lock(&mut change, scope, device, precondition).await?;
    if before.status == DeviceStatus::Disabled {
        return Ok(before);
    }
    let after = Device { status: DeviceStatus::Disabled, ..before.clone() };
    update(change, scope, &before, after, "disable").await
}

/// Lets a device have tokens again. Nothing changes where it may.
pub async fn enable(
    context: &Context,
    scope: &EnvScope,
    device: &DeviceId,
    precondition: &Precondition,
) -> Result<Device, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = lock(&mut change, scope, device, precondition).await?;
    if before.status != DeviceStatus::Disabled {
        return Ok(before);
    }
    let status = match before.last_activated_at {
        Some(_) => DeviceStatus::Active,
        None => DeviceStatus::Registered,
    };
    let after = Device { status, ..before.clone() };
    update(change, scope, &before, after, "enable").await
}

/// Deletes a device; with `cascade` also its apps, without which they keep it from being deleted.
pub async fn delete(
    context: &Context,
    scope: &EnvScope,
    device: &DeviceId,
    precondition: &Precondition,
    cascade: bool,
) -> Result<(), ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = lock(&mut change, scope, device, precondition).await?;
    let apps = store::device_app::all(change.tx(), scope, device).await?;
    if !cascade && !apps.is_empty() {
        return Err(ChangeError::HasChildren("apps"));
    }
    let deleted = store::device::delete(change.tx(), scope, device).await?;
    change.revoke_tokens(scope.pool(), &deleted.clients).await?;
    for client in deleted.clients {
        change.lose(KvKey::Client(scope.pool(), client));
    }
    let now = change.now();
    store::device_certificate::remember_deleted(change.tx(), scope, device, now).await?;
    change.lose(KvKey::Device(scope.pool(), device.clone()));
    for app in &apps {
        change.record(Event::deleted(scope.target("app", app.id), app));
    }
    change.record(Event::deleted(scope.target("device", device), &before));
    change.commit().await?;
    Ok(())
}

/// The device as it is now, which nobody else changes, and to which nobody adds an app, until the change has ended.
async fn lock(
    change: &mut Change,
    scope: &EnvScope,
    device: &DeviceId,
    precondition: &Precondition,
) -> Result<Device, ChangeError> {
    let found = store::device::find_for_update(change.tx(), scope, device).await?.ok_or(ChangeError::Gone)?;
    precondition.check(found.updated_at)?;
    Ok(found)
}

/// Writes the device as it is to be. Where that changes its tokens, the documents of its clients are made anew.
async fn update(
    mut change: Change,
    scope: &EnvScope,
    before: &Device,
    after: Device,
    verb: &'static str,
) -> Result<Device, ChangeError> {
    let after = Device { updated_at: change.touch(before.updated_at), ..after };
    store::device::update(change.tx(), scope, &after).await?;
    if claims_of(before) != claims_of(&after) {
        let is_disabled_now =
            after.status == DeviceStatus::Disabled && before.status != DeviceStatus::Disabled;
        let clients = store::device_app::clients(change.tx(), scope, &after.id).await?;
        if is_disabled_now {
            change.revoke_tokens(scope.pool(), &clients).await?;
        }
        let device = KvKey::Device(scope.pool(), after.id.clone());
        for key in clients.into_iter().map(|client| KvKey::Client(scope.pool(), client)).chain([device]) {
            if is_disabled_now { change.lose(key) } else { change.mark(key, Priority::Change) }
        }
    }
    change.record(Event::changed(scope.target("device", &after.id), verb, before, &after));
    change.commit().await?;
    Ok(after)
}

/// What a device's tokens have from it, and whether it may have any.
fn claims_of(device: &Device) -> (&str, &BTreeMap<String, String>, Option<&str>, &[String], bool) {
    let may = device.status != DeviceStatus::Disabled;
    (device.metadata.get(), &device.tags, device.primary_server_url.as_deref(), &device.server_urls, may)
}

fn patched_tags(
    before: &BTreeMap<String, String>,
    patch: Option<TagsPatch>,
) -> Result<BTreeMap<String, String>, ChangeError> {
    let mut tags = before.clone();
    match patch {
        None => {}
        Some(TagsPatch::Reset) => tags.clear(),
        Some(TagsPatch::Merge(patch)) => {
            for (name, value) in patch {
                match value {
                    Some(value) => drop(tags.insert(name, value)),
                    None => drop(tags.remove(&name)),
                }
            }
        }
    }
    if tags.len() > MAX_TAGS {
        let detail = format!("must have at most {MAX_TAGS} entries");
        return Err(ChangeError::Wrong { field: "tags", detail });
    }
    Ok(tags)
}
