//! `organization`.

use keypost_shared::id::OrgId;
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, id};
use crate::service::access::{MayFound, OrgScope, Reach};

/// A tenant.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Adds an organization. [`StoreError::is_duplicate`] where the id is taken.
pub async fn insert(
    tx: &mut PgConnection,
    _: MayFound,
    organization: &Organization,
) -> Result<(), StoreError> {
    let Organization { id, name, description, created_at, updated_at } = organization;
    sqlx::query!(
        "insert into organization (id, name, description, created_at, updated_at) values ($1, $2, $3, $4, $5)",
        id.as_str(),
        name,
        description.as_deref(),
        created_at,
        updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The organization, if there is one.
pub async fn find(tx: &mut PgConnection, scope: &OrgScope) -> Result<Option<Organization>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "select id, name, description, created_at, updated_at from organization where id = $1",
        scope.org().as_str(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(Organization::try_from).transpose()
}

/// The organization, locked until the transaction ends.
pub async fn find_for_update(
    tx: &mut PgConnection,
    scope: &OrgScope,
) -> Result<Option<Organization>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "select id, name, description, created_at, updated_at from organization where id = $1 for update",
        scope.org().as_str(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(Organization::try_from).transpose()
}

/// Organizations within reach, by id, after `after`; at most `rows`.
pub async fn list(
    tx: &mut PgConnection,
    reach: &Reach,
    after: Option<&OrgId>,
    rows: i64,
) -> Result<Vec<Organization>, StoreError> {
    let found = sqlx::query_as!(
        Row,
        "select id, name, description, created_at, updated_at
           from organization
          where ($1::text is null or id = $1) and ($2::text is null or id > $2)
          order by id
          limit $3",
        reach.org().map(OrgId::as_str),
        after.map(OrgId::as_str),
        rows,
    )
    .fetch_all(tx)
    .await?;
    found.into_iter().map(Organization::try_from).collect()
}

/// Writes what can be changed.
pub async fn update(
    tx: &mut PgConnection,
    scope: &OrgScope,
    organization: &Organization,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update organization set name = $2, description = $3, updated_at = $4 where id = $1",
        scope.org().as_str(),
        organization.name,
        organization.description.as_deref(),
        organization.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// An API key that went with its organization.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletedApiKey {
    /// Its id.
    pub id: Uuid,
    /// What it was for.
    pub name: String,
    /// Its beginning.
    pub prefix: String,
    /// What it was narrowed to.
    pub permissions: Option<Vec<String>>,
}

/// Deletes all API keys of the organization, and answers with them.
pub async fn delete_api_keys(
    tx: &mut PgConnection,
    scope: &OrgScope,
) -> Result<Vec<DeletedApiKey>, StoreError> {
    let deleted = sqlx::query_as!(
        DeletedApiKey,
        "delete from api_key where org_id = $1 returning id, name, prefix, permissions",
        scope.org().as_str(),
    )
    .fetch_all(tx)
    .await?;
    Ok(deleted)
}

/// Deletes the organization. Nothing may belong to it any more.
pub async fn delete(tx: &mut PgConnection, scope: &OrgScope) -> Result<(), StoreError> {
    sqlx::query!("delete from organization where id = $1", scope.org().as_str()).execute(tx).await?;
    Ok(())
}

struct Row {
    id: String,
    name: String,
    description: Option<String>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<Row> for Organization {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: id("organization.id", &row.id)?,
            name: row.name,
            description: row.description,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
