//! `environment`.

use std::collections::BTreeMap;
use std::sync::Arc;

use keypost_shared::id::{EnvId, OrgId, PoolId};
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::{StoreError, id};
use crate::service::access::OrgScope;
use crate::service::audit::{Actor, Target};

/// A part of an organization with devices and a client pool of its own.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// The organization that it belongs to.
    pub org_id: OrgId,
    /// Its id within the organization.
    pub id: EnvId,
    /// Its client pool.
    pub pool_id: PoolId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// The tags that every device has, with the value of a device that sets none.
    pub tag_defaults: BTreeMap<String, String>,
    /// The first server of a device that names none.
    pub primary_server_url: Option<String>,
    /// The servers of a device that names none.
    pub server_urls: Vec<String>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// An environment of an organization that the caller may act in: what its devices and clients are asked for with.
#[derive(Clone, Debug)]
pub struct EnvScope {
    org: OrgId,
    env: EnvId,
    pool: PoolId,
    actor: Arc<Actor>,
}

impl EnvScope {
    /// The organization.
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// The environment.
    pub fn env(&self) -> &EnvId {
        &self.env
    }

    /// The environment's client pool.
    pub fn pool(&self) -> PoolId {
        self.pool
    }

    /// Who acts.
    pub fn actor(&self) -> &Arc<Actor> {
        &self.actor
    }

    /// Something of the environment, as audit events name it.
    pub fn target(&self, kind: &'static str, id: impl ToString) -> Target {
        Target { org: Some(self.org.clone()), env: Some(self.env.clone()), kind, id: id.to_string() }
    }
}

impl Environment {
    /// The scope to act in it. The organization is the one that the caller may act in, whatever this environment says.
    pub fn within(&self, scope: &OrgScope) -> EnvScope {
        EnvScope {
            org: scope.org().clone(),
            env: self.id.clone(),
            pool: self.pool_id,
            actor: scope.actor().clone(),
        }
    }
}

/// Adds an environment to the scope's organization; its pool must follow in the same transaction.
///
/// [`StoreError::is_duplicate`] where the id is taken, [`StoreError::is_dangling`] where the organization has gone.
pub async fn insert(
    tx: &mut PgConnection,
    scope: &OrgScope,
    environment: &Environment,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into environment
             (org_id, id, name, description, tag_defaults, primary_server_url, server_urls, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        scope.org().as_str(),
        environment.id.as_str(),
        environment.name,
        environment.description.as_deref(),
        Json(&environment.tag_defaults) as _,
        environment.primary_server_url.as_deref(),
        &environment.server_urls,
        environment.created_at,
        environment.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// An environment of the scope's organization.
pub async fn find(
    tx: &mut PgConnection,
    scope: &OrgScope,
    env: &EnvId,
) -> Result<Option<Environment>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"select e.org_id, e.id, p.id as pool_id, e.name, e.description,
                  e.tag_defaults as "tag_defaults: Json<BTreeMap<String, String>>",
                  e.primary_server_url, e.server_urls, e.created_at, e.updated_at
             from environment e
             join client_pool p on p.org_id = e.org_id and p.env_id = e.id
            where e.org_id = $1 and e.id = $2"#,
        scope.org().as_str(),
        env.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(Environment::try_from).transpose()
}

/// Environments of the scope's organization, by id, after `after`; at most `rows`.
pub async fn list(
    tx: &mut PgConnection,
    scope: &OrgScope,
    after: Option<&EnvId>,
    rows: i64,
) -> Result<Vec<Environment>, StoreError> {
    let found = sqlx::query_as!(
        Row,
        r#"select e.org_id, e.id, p.id as pool_id, e.name, e.description,
                  e.tag_defaults as "tag_defaults: Json<BTreeMap<String, String>>",
                  e.primary_server_url, e.server_urls, e.created_at, e.updated_at
             from environment e
             join client_pool p on p.org_id = e.org_id and p.env_id = e.id
            where e.org_id = $1 and ($2::text is null or e.id > $2)
            order by e.id
            limit $3"#,
        scope.org().as_str(),
        after.map(EnvId::as_str),
        rows,
    )
    .fetch_all(tx)
    .await?;
    found.into_iter().map(Environment::try_from).collect()
}

/// The scope's environment, which nobody else changes until the transaction ends, and to which nobody adds a client.
/// Devices without one may be added meanwhile: KV knows nothing of them.
pub async fn lock_to_change(
    tx: &mut PgConnection,
    scope: &EnvScope,
) -> Result<Option<Environment>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"select e.org_id, e.id, p.id as pool_id, e.name, e.description,
                  e.tag_defaults as "tag_defaults: Json<BTreeMap<String, String>>",
                  e.primary_server_url, e.server_urls, e.created_at, e.updated_at
             from environment e
             join client_pool p on p.org_id = e.org_id and p.env_id = e.id
            where e.org_id = $1 and e.id = $2 and p.id = $3
              for no key update of e"#,
        scope.org().as_str(),
        scope.env().as_str(),
        scope.pool().0,
    )
    .fetch_optional(&mut *tx)
    .await?;
    lock_pool(tx, scope).await?;
    row.map(Environment::try_from).transpose()
}

/// The scope's environment, which nobody else changes until the transaction ends, and to which nobody adds a device.
pub async fn lock_to_delete(
    tx: &mut PgConnection,
    scope: &EnvScope,
) -> Result<Option<Environment>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"select e.org_id, e.id, p.id as pool_id, e.name, e.description,
                  e.tag_defaults as "tag_defaults: Json<BTreeMap<String, String>>",
                  e.primary_server_url, e.server_urls, e.created_at, e.updated_at
             from environment e
             join client_pool p on p.org_id = e.org_id and p.env_id = e.id
            where e.org_id = $1 and e.id = $2 and p.id = $3
              for update of e"#,
        scope.org().as_str(),
        scope.env().as_str(),
        scope.pool().0,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Environment::try_from).transpose()
}

/// Keeps new clients out of the environment's pool until the transaction ends, and waits for those that are being added.
pub async fn lock_pool(tx: &mut PgConnection, scope: &EnvScope) -> Result<(), StoreError> {
    sqlx::query!(
        "select id from client_pool where org_id = $1 and env_id = $2 and id = $3 for update",
        scope.org().as_str(),
        scope.env().as_str(),
        scope.pool().0,
    )
    .fetch_optional(tx)
    .await?;
    Ok(())
}

/// Writes what can be changed.
pub async fn update(
    tx: &mut PgConnection,
    scope: &EnvScope,
    environment: &Environment,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update environment
            set name = $3, description = $4, tag_defaults = $5, primary_server_url = $6, server_urls = $7,
                updated_at = $8
          where org_id = $1 and id = $2",
        scope.org().as_str(),
        scope.env().as_str(),
        environment.name,
        environment.description.as_deref(),
        Json(&environment.tag_defaults) as _,
        environment.primary_server_url.as_deref(),
        &environment.server_urls,
        environment.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What belongs to the environment, for people; none where nothing does.
pub async fn children(tx: &mut PgConnection, scope: &EnvScope) -> Result<Option<&'static str>, StoreError> {
    let row = sqlx::query!(
        r#"select exists (select from device where org_id = $1 and env_id = $2) as "devices!",
                  exists (select from oauth_client
                           where org_id = $1 and env_id = $2 and device_app_id is null) as "services!""#,
        scope.org().as_str(),
        scope.env().as_str(),
    )
    .fetch_one(tx)
    .await?;
    Ok(match (row.devices, row.services) {
        (true, true) => Some("devices and service clients"),
        (true, false) => Some("devices"),
        (false, true) => Some("service clients"),
        (false, false) => None,
    })
}

/// Deletes the environment, whose pool has been deleted. Nothing else may belong to it any more.
pub async fn delete(tx: &mut PgConnection, scope: &EnvScope) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from environment where org_id = $1 and id = $2",
        scope.org().as_str(),
        scope.env().as_str(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

struct Row {
    org_id: String,
    id: String,
    pool_id: uuid::Uuid,
    name: String,
    description: Option<String>,
    tag_defaults: Json<BTreeMap<String, String>>,
    primary_server_url: Option<String>,
    server_urls: Vec<String>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<Row> for Environment {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            org_id: id("environment.org_id", &row.org_id)?,
            id: id("environment.id", &row.id)?,
            pool_id: PoolId(row.pool_id),
            name: row.name,
            description: row.description,
            tag_defaults: row.tag_defaults.0,
            primary_server_url: row.primary_server_url,
            server_urls: row.server_urls,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Whose environment this client pool is. It says nothing about who may use it: the caller has to
/// [enter](crate::service::access::Caller::enter) the organization first.
pub async fn of_pool(tx: &mut PgConnection, pool: PoolId) -> Result<Option<(OrgId, EnvId)>, StoreError> {
    let row = sqlx::query!(
        r#"select org_id, env_id as "env_id!" from client_pool where id = $1 and env_id is not null"#,
        pool.0,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| Ok((id("client_pool.org_id", &row.org_id)?, id("client_pool.env_id", &row.env_id)?)))
        .transpose()
}
