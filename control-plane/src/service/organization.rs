//! Organizations.

use keypost_shared::id::OrgId;

use super::access::{GlobalScope, OrgScope};
use super::{Context, CreateError, commit};
use crate::entropy::random_uuid;
use crate::store::organization::Organization;
use crate::store::{self, StoreError};

/// An organization to create.
#[derive(Clone, Debug)]
pub struct NewOrganization {
    /// Its id; a random UUID where none is given.
    pub id: Option<OrgId>,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
}

/// Creates an organization.
pub async fn create(
    context: &Context,
    scope: GlobalScope,
    new: NewOrganization,
) -> Result<Organization, CreateError> {
    let now = context.now();
    let id = match new.id {
        Some(id) => id,
        // A UUID in lower case is a slug too.
        None => store::id("organization.id", &random_uuid(&mut context.rng()).hyphenated().to_string())?,
    };
    let organization =
        Organization { id, name: new.name, description: new.description, created_at: now, updated_at: now };
    let mut tx = context.begin().await?;
    store::organization::insert(&mut tx, scope, &organization).await?;
    commit(tx).await?;
    Ok(organization)
}

/// The organization, if there is one.
pub async fn find(context: &Context, scope: &OrgScope) -> Result<Option<Organization>, StoreError> {
    let mut connection = context.connection().await?;
    store::organization::find(&mut connection, scope).await
}
