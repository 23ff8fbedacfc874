//! Service clients: the rows of `oauth_client` that belong to no device.

use keypost_shared::id::ClientId;
use keypost_shared::scope::Scopes;
use keypost_shared::secret::SecretHash;
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::environment::EnvScope;
use super::{StoreError, corrupt, id};

/// A service client, without its secret, which nobody has kept.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceClient {
    /// Its id, the `sub` of its tokens.
    pub client_id: ClientId,
    /// Its name.
    pub name: String,
    /// What its tokens may be for.
    pub scopes: Scopes,
    /// The `aud` of its tokens, where it is not the pool's.
    pub audience: Vec<String>,
    /// The keys that it may prove itself with (RFC 7523 §2.2).
    pub jwks: Option<serde_json::Value>,
    /// When its secret was made.
    #[serde(with = "time::serde::rfc3339::option")]
    pub secret_created_at: Option<OffsetDateTime>,
    /// Until when the secret before counts, or has counted.
    #[serde(with = "time::serde::rfc3339::option")]
    pub previous_secret_expires_at: Option<OffsetDateTime>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Adds a service client. [`StoreError::is_dangling`] where the environment has gone.
pub async fn insert(
    tx: &mut PgConnection,
    scope: &EnvScope,
    client: &ServiceClient,
    secret: &SecretHash,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into oauth_client
             (client_id, org_id, env_id, pool_id, name, scopes, audience, jwks, status, secret_hash, secret_created_at,
              created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, 'enabled', $9, $10, $11, $12)",
        client.client_id.as_str(),
        scope.org().as_str(),
        scope.env().as_str(),
        scope.pool().0,
        client.name,
        &Vec::from(client.scopes.clone()),
        &client.audience,
        client.jwks,
        secret.as_bytes().as_slice(),
        client.secret_created_at,
        client.created_at,
        client.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A service client of the environment.
pub async fn find(
    tx: &mut PgConnection,
    scope: &EnvScope,
    client: &ClientId,
) -> Result<Option<ServiceClient>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "select client_id, name, scopes, audience, jwks, secret_created_at, previous_secret_expires_at, created_at,
                updated_at
           from oauth_client
          where org_id = $1 and env_id = $2 and client_id = $3 and device_app_id is null",
        scope.org().as_str(),
        scope.env().as_str(),
        client.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(ServiceClient::try_from).transpose()
}

/// A service client of the environment, locked until the transaction ends.
pub async fn find_for_update(
    tx: &mut PgConnection,
    scope: &EnvScope,
    client: &ClientId,
) -> Result<Option<ServiceClient>, StoreError> {
    // A statement of its own, so that one list of columns serves both.
    sqlx::query!(
        "select client_id from oauth_client
          where org_id = $1 and env_id = $2 and client_id = $3 and device_app_id is null
            for update",
        scope.org().as_str(),
        scope.env().as_str(),
        client.as_str(),
    )
    .fetch_optional(&mut *tx)
    .await?;
    find(tx, scope, client).await
}

/// Service clients of the environment, by id, after `after`; at most `rows`.
pub async fn list(
    tx: &mut PgConnection,
    scope: &EnvScope,
    after: Option<&ClientId>,
    rows: i64,
) -> Result<Vec<ServiceClient>, StoreError> {
    let found = sqlx::query_as!(
        Row,
        "select client_id, name, scopes, audience, jwks, secret_created_at, previous_secret_expires_at, created_at,
                updated_at
           from oauth_client
          where org_id = $1 and env_id = $2 and device_app_id is null and ($3::text is null or client_id > $3)
          order by client_id
          limit $4",
        scope.org().as_str(),
        scope.env().as_str(),
        after.map(ClientId::as_str),
        rows,
    )
    .fetch_all(tx)
    .await?;
    found.into_iter().map(ServiceClient::try_from).collect()
}

/// Writes what can be changed.
pub async fn update(
    tx: &mut PgConnection,
    scope: &EnvScope,
    client: &ServiceClient,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update oauth_client set name = $4, scopes = $5, audience = $6, jwks = $7, updated_at = $8
          where org_id = $1 and env_id = $2 and client_id = $3 and device_app_id is null",
        scope.org().as_str(),
        scope.env().as_str(),
        client.client_id.as_str(),
        client.name,
        &Vec::from(client.scopes.clone()),
        &client.audience,
        client.jwks,
        client.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Puts another secret in the place of the one of a client that [`find_for_update`] has locked. The one before counts
/// until `client.previous_secret_expires_at`, and none where there is no such time.
pub async fn rotate(
    tx: &mut PgConnection,
    scope: &EnvScope,
    client: &ServiceClient,
    secret: &SecretHash,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update oauth_client
            set previous_secret_hash = case when $4::timestamptz is null then null else secret_hash end,
                previous_secret_expires_at = case when secret_hash is null then null else $4::timestamptz end,
                secret_hash = $5, secret_created_at = $6, updated_at = $7
          where org_id = $1 and env_id = $2 and client_id = $3 and device_app_id is null",
        scope.org().as_str(),
        scope.env().as_str(),
        client.client_id.as_str(),
        client.previous_secret_expires_at,
        secret.as_bytes().as_slice(),
        client.secret_created_at,
        client.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Removes a service client.
pub async fn delete(tx: &mut PgConnection, scope: &EnvScope, client: &ClientId) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from oauth_client
          where org_id = $1 and env_id = $2 and client_id = $3 and device_app_id is null",
        scope.org().as_str(),
        scope.env().as_str(),
        client.as_str(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

struct Row {
    client_id: String,
    name: String,
    scopes: Vec<String>,
    audience: Vec<String>,
    jwks: Option<serde_json::Value>,
    secret_created_at: Option<OffsetDateTime>,
    previous_secret_expires_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<Row> for ServiceClient {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            client_id: id("oauth_client.client_id", &row.client_id)?,
            name: row.name,
            scopes: Scopes::new(row.scopes).map_err(|error| corrupt("oauth_client.scopes", error))?,
            audience: row.audience,
            jwks: row.jwks,
            secret_created_at: row.secret_created_at,
            previous_secret_expires_at: row.previous_secret_expires_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
