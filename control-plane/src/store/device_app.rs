//! `device_app`, with the OAuth client that belongs to each.

use keypost_shared::id::{ClientAppId, ClientId, DeviceId};
use keypost_shared::scope::Scopes;
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::environment::EnvScope;
use super::{StoreError, corrupt, id};

/// An application on a device.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceApp {
    /// Its id.
    pub id: Uuid,
    /// The device that it is on.
    pub device_id: DeviceId,
    /// Which application it is.
    pub client_app_id: ClientAppId,
    /// Its OAuth client.
    pub client_id: ClientId,
    /// Its name.
    pub name: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// What its tokens may be for.
    pub scopes: Scopes,
    /// The keys that it may prove itself with (RFC 7523 §2.2).
    pub jwks: Option<serde_json::Value>,
    /// Whether it has been activated.
    pub activated: bool,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// How a path names an app: either will do.
#[derive(Clone, Debug)]
pub enum AppName {
    /// By its id.
    Id(Uuid),
    /// By the application that it is.
    ClientApp(ClientAppId),
}

/// Adds an app and its client, which has no secret yet.
///
/// [`StoreError::is_duplicate`] where the device has that app, [`StoreError::is_dangling`] where the device has gone.
pub async fn insert(tx: &mut PgConnection, scope: &EnvScope, app: &DeviceApp) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into device_app
             (id, org_id, env_id, device_id, client_app_id, name, description, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        app.id,
        scope.org().as_str(),
        scope.env().as_str(),
        app.device_id.as_str(),
        app.client_app_id.as_str(),
        app.name.as_deref(),
        app.description.as_deref(),
        app.created_at,
        app.updated_at,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into oauth_client
             (client_id, org_id, env_id, pool_id, device_app_id, name, scopes, status, jwks, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, 'enabled', $8, $9, $10)",
        app.client_id.as_str(),
        scope.org().as_str(),
        scope.env().as_str(),
        scope.pool().0,
        app.id,
        app.name.as_deref().unwrap_or(app.client_app_id.as_str()),
        &Vec::from(app.scopes.clone()),
        app.jwks,
        app.created_at,
        app.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// An app of a device of the environment.
pub async fn find(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
    app: &AppName,
) -> Result<Option<DeviceApp>, StoreError> {
    let (app_id, client_app_id) = match app {
        AppName::Id(id) => (Some(*id), None),
        AppName::ClientApp(id) => (None, Some(id.as_str())),
    };
    let row = sqlx::query!(
        r#"select a.id, a.device_id, a.client_app_id, c.client_id, a.name, a.description, c.scopes,
                  c.jwks, c.secret_hash is not null as "activated!", a.created_at, a.updated_at
             from device_app a
             join oauth_client c on c.org_id = a.org_id and c.env_id = a.env_id and c.device_app_id = a.id
            where a.org_id = $1 and a.env_id = $2 and a.device_id = $3
              and (a.id = $4 or a.client_app_id = $5)"#,
        scope.org().as_str(),
        scope.env().as_str(),
        device.as_str(),
        app_id,
        client_app_id,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(DeviceApp {
            id: row.id,
            device_id: id("device_app.device_id", &row.device_id)?,
            client_app_id: id("device_app.client_app_id", &row.client_app_id)?,
            client_id: id("oauth_client.client_id", &row.client_id)?,
            name: row.name,
            description: row.description,
            scopes: Scopes::new(row.scopes).map_err(|error| corrupt("oauth_client.scopes", error))?,
            jwks: row.jwks,
            activated: row.activated,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    })
    .transpose()
}
