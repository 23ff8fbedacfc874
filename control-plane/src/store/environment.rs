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
    let row = sqlx::query!(
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
    row.map(|row| {
        Ok(Environment {
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
    })
    .transpose()
}
