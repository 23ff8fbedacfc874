//! `device`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use keypost_shared::certificate::Fingerprint;
use keypost_shared::id::{ClientId, DeviceId};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::environment::EnvScope;
use super::{StoreError, corrupt, fingerprint, id};

/// A device of an environment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its id within the environment.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// What its tokens carry as `metadata`: a JSON object, as it was sent.
    pub metadata: Box<RawValue>,
    /// Its own tags.
    pub tags: BTreeMap<String, String>,
    /// Its first server; none for the environment's.
    pub primary_server_url: Option<String>,
    /// Its servers; none for the environment's.
    pub server_urls: Vec<String>,
    /// Whether it may have tokens.
    pub status: DeviceStatus,
    /// When it was last activated.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_activated_at: Option<OffsetDateTime>,
    /// What is known of its certificate.
    #[serde(flatten)]
    pub certificate: DeviceCertificate,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// What is known of a device's certificate. It is only ever changed by what the edge reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCertificate {
    /// `certificate`, where the device has come to exist by it; none where somebody registered it.
    pub provisioned_by: Option<String>,
    /// When it has.
    #[serde(with = "time::serde::rfc3339::option")]
    pub provisioned_at: Option<OffsetDateTime>,
    /// SHA-256 of the certificate that the device was first seen with.
    #[serde(rename = "certificateFingerprint")]
    pub fingerprint: Option<Fingerprint>,
}

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceStatus {
    /// Known, never activated.
    Registered,
    /// Activated at least once.
    Active,
    /// May have no tokens.
    Disabled,
}

impl DeviceStatus {
    /// Its name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            DeviceStatus::Registered => "registered",
            DeviceStatus::Active => "active",
            DeviceStatus::Disabled => "disabled",
        }
    }
}

impl fmt::Display for DeviceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be registered, active or disabled")]
pub struct UnknownStatus;

impl FromStr for DeviceStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        [DeviceStatus::Registered, DeviceStatus::Active, DeviceStatus::Disabled]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(UnknownStatus)
    }
}

/// Adds a device to the environment.
///
/// [`StoreError::is_duplicate`] where the id is taken, [`StoreError::is_dangling`] where the environment has gone.
pub async fn insert(tx: &mut PgConnection, scope: &EnvScope, device: &Device) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into device
             (org_id, env_id, id, name, description, metadata, tags, primary_server_url, server_urls, status,
              last_activated_at, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6::text::json, $7, $8, $9, $10, $11, $12, $13)",
        scope.org().as_str(),
        scope.env().as_str(),
        device.id.as_str(),
        device.name,
        device.description.as_deref(),
        // As text: a JSON parameter would go by way of jsonb, which writes numbers and order anew.
        device.metadata.get(),
        Json(&device.tags) as _,
        device.primary_server_url.as_deref(),
        &device.server_urls,
        device.status.as_str(),
        device.last_activated_at,
        device.created_at,
        device.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A device of the environment.
pub async fn find(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
) -> Result<Option<Device>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, name, description, metadata as "metadata: Json<Box<RawValue>>",
                  tags as "tags: Json<BTreeMap<String, String>>", primary_server_url, server_urls, status,
                  last_activated_at, provisioned_by, provisioned_at, certificate_fingerprint, created_at, updated_at
             from device
            where org_id = $1 and env_id = $2 and id = $3"#,
        scope.org().as_str(),
        scope.env().as_str(),
        device.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(Device::try_from).transpose()
}

/// A device of the environment, which nobody else changes until the transaction ends, and to which nobody adds an app.
pub async fn find_for_update(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
) -> Result<Option<Device>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, name, description, metadata as "metadata: Json<Box<RawValue>>",
                  tags as "tags: Json<BTreeMap<String, String>>", primary_server_url, server_urls, status,
                  last_activated_at, provisioned_by, provisioned_at, certificate_fingerprint, created_at, updated_at
             from device
            where org_id = $1 and env_id = $2 and id = $3
              for update"#,
        scope.org().as_str(),
        scope.env().as_str(),
        device.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(Device::try_from).transpose()
}

/// Writes what can be changed.
pub async fn update(tx: &mut PgConnection, scope: &EnvScope, device: &Device) -> Result<(), StoreError> {
    sqlx::query!(
        "update device
            set name = $4, description = $5, metadata = $6::text::json, tags = $7, primary_server_url = $8,
                server_urls = $9, status = $10, updated_at = $11
          where org_id = $1 and env_id = $2 and id = $3",
        scope.org().as_str(),
        scope.env().as_str(),
        device.id.as_str(),
        device.name,
        device.description.as_deref(),
        device.metadata.get(),
        Json(&device.tags) as _,
        device.primary_server_url.as_deref(),
        &device.server_urls,
        device.status.as_str(),
        device.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What has been deleted.
#[derive(Clone, Debug)]
pub struct DeletedDevices {
    /// The devices, in the order of their ids.
    pub devices: Vec<DeviceId>,
    /// How many apps they had.
    pub apps: u64,
    /// The clients of those.
    pub clients: Vec<ClientId>,
}

/// Deletes some devices of the environment with all that is on them, the first by id; at most `limit`.
pub async fn delete_some(
    tx: &mut PgConnection,
    scope: &EnvScope,
    limit: i64,
) -> Result<DeletedDevices, StoreError> {
    let ids = sqlx::query_scalar!(
        "select id from device where org_id = $1 and env_id = $2 order by id limit $3 for update",
        scope.org().as_str(),
        scope.env().as_str(),
        limit,
    )
    .fetch_all(&mut *tx)
    .await?;
    delete_with_apps(tx, scope, &ids).await
}

/// Deletes a device with all that is on it. The transaction must have locked it.
pub async fn delete(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
) -> Result<DeletedDevices, StoreError> {
    delete_with_apps(tx, scope, &[device.as_str().to_owned()]).await
}

/// Deletes devices that the transaction has locked: so nobody adds an app, and nobody activates one.
async fn delete_with_apps(
    tx: &mut PgConnection,
    scope: &EnvScope,
    devices: &[String],
) -> Result<DeletedDevices, StoreError> {
    // Locked, so that nobody adds a one-time password.
    let apps = sqlx::query_scalar!(
        "select id from device_app
          where org_id = $1 and env_id = $2 and device_id = any($3)
          order by id
            for update",
        scope.org().as_str(),
        scope.env().as_str(),
        devices,
    )
    .fetch_all(&mut *tx)
    .await?;
    let clients = super::device_app::delete_all(tx, scope, &apps).await?;
    let deleted = sqlx::query_scalar!(
        "delete from device where org_id = $1 and env_id = $2 and id = any($3) returning id",
        scope.org().as_str(),
        scope.env().as_str(),
        devices,
    )
    .fetch_all(tx)
    .await?;
    let mut devices: Vec<DeviceId> =
        deleted.iter().map(|device| id("device.id", device)).collect::<Result<_, _>>()?;
    devices.sort_unstable();
    Ok(DeletedDevices { devices, apps: apps.len() as u64, clients })
}

/// A row with all columns that a device is made of.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) metadata: Json<Box<RawValue>>,
    pub(super) tags: Json<BTreeMap<String, String>>,
    pub(super) primary_server_url: Option<String>,
    pub(super) server_urls: Vec<String>,
    pub(super) status: String,
    pub(super) last_activated_at: Option<OffsetDateTime>,
    pub(super) provisioned_by: Option<String>,
    pub(super) provisioned_at: Option<OffsetDateTime>,
    pub(super) certificate_fingerprint: Option<Vec<u8>>,
    pub(super) created_at: OffsetDateTime,
    pub(super) updated_at: OffsetDateTime,
}

impl TryFrom<Row> for Device {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: id("device.id", &row.id)?,
            name: row.name,
            description: row.description,
            metadata: row.metadata.0,
            tags: row.tags.0,
            primary_server_url: row.primary_server_url,
            server_urls: row.server_urls,
            status: row.status.parse().map_err(|error| corrupt("device.status", error))?,
            last_activated_at: row.last_activated_at,
            certificate: DeviceCertificate {
                provisioned_by: row.provisioned_by,
                provisioned_at: row.provisioned_at,
                fingerprint: row
                    .certificate_fingerprint
                    .map(|bytes| fingerprint("device.certificate_fingerprint", bytes))
                    .transpose()?,
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
