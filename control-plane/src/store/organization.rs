//! `organization`.

use keypost_shared::id::OrgId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{StoreError, id};
use crate::service::access::{GlobalScope, OrgScope};

/// A tenant.
#[derive(Clone, Debug)]
pub struct Organization {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// Adds an organization. [`StoreError::is_duplicate`] where the id is taken.
pub async fn insert(
    tx: &mut PgConnection,
    _: GlobalScope,
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
    let row = sqlx::query!(
        "select id, name, description, created_at, updated_at from organization where id = $1",
        scope.org().as_str(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(Organization {
            id: id("organization.id", &row.id)?,
            name: row.name,
            description: row.description,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    })
    .transpose()
}
