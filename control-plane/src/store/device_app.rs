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
    let row = sqlx::query_as!(
        Row,
        r#"select a.id, a.device_id, a.client_app_id, c.client_id, a.name, a.description, c.scopes,
                  c.jwks, c.secret_hash is not null as "activated!", a.created_at,
                  greatest(a.updated_at, c.updated_at) as "updated_at!"
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
    row.map(DeviceApp::try_from).transpose()
}

/// The app with this id, which nobody else changes until the transaction ends, and to which nobody adds a password.
pub async fn find_for_update(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
    app: Uuid,
) -> Result<Option<DeviceApp>, StoreError> {
    // The app before its client; and then read what is there, once both are locked.
    sqlx::query!(
        "select id from device_app
          where org_id = $1 and env_id = $2 and device_id = $3 and id = $4
            for update",
        scope.org().as_str(),
        scope.env().as_str(),
        device.as_str(),
        app,
    )
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query!(
        "select client_id from oauth_client where org_id = $1 and env_id = $2 and device_app_id = $3 for update",
        scope.org().as_str(),
        scope.env().as_str(),
        app,
    )
    .fetch_optional(&mut *tx)
    .await?;
    find(tx, scope, device, &AppName::Id(app)).await
}

/// The apps of a device of the environment, by client app, after `after`; at most `rows`.
pub async fn list(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
    after: Option<&ClientAppId>,
    rows: i64,
) -> Result<Vec<DeviceApp>, StoreError> {
    let found = sqlx::query_as!(
        Row,
        r#"select a.id, a.device_id, a.client_app_id, c.client_id, a.name, a.description, c.scopes,
                  c.jwks, c.secret_hash is not null as "activated!", a.created_at,
                  greatest(a.updated_at, c.updated_at) as "updated_at!"
             from device_app a
             join oauth_client c on c.org_id = a.org_id and c.env_id = a.env_id and c.device_app_id = a.id
            where a.org_id = $1 and a.env_id = $2 and a.device_id = $3
              and ($4::text is null or a.client_app_id > $4)
            order by a.client_app_id
            limit $5"#,
        scope.org().as_str(),
        scope.env().as_str(),
        device.as_str(),
        after.map(ClientAppId::as_str),
        rows,
    )
    .fetch_all(tx)
    .await?;
    found.into_iter().map(DeviceApp::try_from).collect()
}

/// All apps of a device of the environment.
pub async fn all(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
) -> Result<Vec<DeviceApp>, StoreError> {
    list(tx, scope, device, None, i64::MAX).await
}

/// The clients of a device's apps.
pub async fn clients(
    tx: &mut PgConnection,
    scope: &EnvScope,
    device: &DeviceId,
) -> Result<Vec<ClientId>, StoreError> {
    let found = sqlx::query_scalar!(
        "select c.client_id
           from device_app a
           join oauth_client c on c.org_id = a.org_id and c.env_id = a.env_id and c.device_app_id = a.id
          where a.org_id = $1 and a.env_id = $2 and a.device_id = $3",
        scope.org().as_str(),
        scope.env().as_str(),
        device.as_str(),
    )
    .fetch_all(tx)
    .await?;
    found.iter().map(|client| id("oauth_client.client_id", client)).collect()
}

/// Writes what can be changed, of the app and of its client.
pub async fn update(tx: &mut PgConnection, scope: &EnvScope, app: &DeviceApp) -> Result<(), StoreError> {
    sqlx::query!(
        "update device_app set name = $4, description = $5, updated_at = $6
          where org_id = $1 and env_id = $2 and id = $3",
        scope.org().as_str(),
        scope.env().as_str(),
        app.id,
        app.name.as_deref(),
        app.description.as_deref(),
        app.updated_at,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update oauth_client set name = $4, scopes = $5, jwks = $6, updated_at = $7
          where org_id = $1 and env_id = $2 and device_app_id = $3",
        scope.org().as_str(),
        scope.env().as_str(),
        app.id,
        app.name.as_deref().unwrap_or(app.client_app_id.as_str()),
        &Vec::from(app.scopes.clone()),
        app.jwks,
        app.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes apps that the transaction has locked, with their passwords and clients. Answers with the clients.
pub async fn delete_all(
    tx: &mut PgConnection,
    scope: &EnvScope,
    apps: &[Uuid],
) -> Result<Vec<ClientId>, StoreError> {
    // In the order in which an activation locks: the password, then the client.
    sqlx::query!("delete from otp where org_id = $1 and device_app_id = any($2)", scope.org().as_str(), apps)
        .execute(&mut *tx)
        .await?;
    let clients = sqlx::query_scalar!(
        "delete from oauth_client where org_id = $1 and env_id = $2 and device_app_id = any($3) returning client_id",
        scope.org().as_str(),
        scope.env().as_str(),
        apps,
    )
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from device_app where org_id = $1 and env_id = $2 and id = any($3)",
        scope.org().as_str(),
        scope.env().as_str(),
        apps,
    )
    .execute(tx)
    .await?;
    clients.iter().map(|client| id("oauth_client.client_id", client)).collect()
}

struct Row {
    id: Uuid,
    device_id: String,
    client_app_id: String,
    client_id: String,
    name: Option<String>,
    description: Option<String>,
    scopes: Vec<String>,
    jwks: Option<serde_json::Value>,
    activated: bool,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<Row> for DeviceApp {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
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
    }
}
