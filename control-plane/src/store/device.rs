//! `device`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use keypost_shared::id::DeviceId;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::environment::EnvScope;
use super::{StoreError, corrupt, id};

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
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

impl FromStr for DeviceStatus {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        [DeviceStatus::Registered, DeviceStatus::Active, DeviceStatus::Disabled]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| corrupt("device.status", "unknown"))
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
    let row = sqlx::query!(
        r#"select id, name, description, metadata as "metadata: Json<Box<RawValue>>",
                  tags as "tags: Json<BTreeMap<String, String>>", primary_server_url, server_urls, status,
                  last_activated_at, created_at, updated_at
             from device
            where org_id = $1 and env_id = $2 and id = $3"#,
        scope.org().as_str(),
        scope.env().as_str(),
        device.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(Device {
            id: id("device.id", &row.id)?,
            name: row.name,
            description: row.description,
            metadata: row.metadata.0,
            tags: row.tags.0,
            primary_server_url: row.primary_server_url,
            server_urls: row.server_urls,
            status: row.status.parse()?,
            last_activated_at: row.last_activated_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    })
    .transpose()
}
