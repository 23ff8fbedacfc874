//! Organizations.

use keypost_shared::id::{OrgId, PoolId};
use utoipa::ToSchema;

use super::access::{MayFound, OrgScope, Reach};
use super::audit::{Event, Target};
use super::change::Change;
use super::precondition::Precondition;
use super::{ChangeError, Context, CreateError, sso};
use crate::entropy::random_uuid;
use crate::store::organization::Organization;
use crate::store::{self, StoreError};

/// An organization to create.
#[derive(Clone, Debug, ToSchema)]
pub struct NewOrganization {
    /// Its id; a random UUID where none is given.
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
    pub id: Option<OrgId>,
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// What it is.
    #[schema(max_length = 2000)]
    pub description: Option<String>,
}

/// What an organization is to be from now on.
#[derive(Clone, Debug, ToSchema)]
pub struct OrganizationReplacement {
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// What it is.
    #[schema(max_length = 2000)]
    pub description: Option<String>,
}

/// An organization that has just been founded.
#[derive(Clone, Debug)]
pub struct Founded {
    /// The organization.
    pub organization: Organization,
    /// The pool of its people.
    pub sso_pool: PoolId,
}

/// Creates an organization, with the pool of its people and the pool's keys.
pub async fn create(
    change: &mut Change,
    may_found: MayFound,
    new: NewOrganization,
) -> Result<Founded, CreateError> {
    let now = change.now();
    let id = match new.id {
        Some(id) => id,
        // A UUID in lower case is a slug too.
        None => store::id("organization.id", &random_uuid(&mut change.rng()).hyphenated().to_string())?,
    };
    let organization =
        Organization { id, name: new.name, description: new.description, created_at: now, updated_at: now };
    store::organization::insert(change.tx(), may_found, &organization).await?;
    let sso_pool = sso::pool::add(change, &organization.id).await?;
    change.record(Event::created(target(&organization.id), &organization));
    Ok(Founded { organization, sso_pool })
}

/// The organization, if there is one.
pub async fn find(context: &Context, scope: &OrgScope) -> Result<Option<Organization>, StoreError> {
    let mut connection = context.connection().await?;
    store::organization::find(&mut connection, scope).await
}

/// The organizations that the caller reaches, by id, after `after`.
pub async fn list(
    context: &Context,
    reach: &Reach,
    after: Option<&OrgId>,
    rows: i64,
) -> Result<Vec<Organization>, StoreError> {
    let mut connection = context.connection().await?;
    store::organization::list(&mut connection, reach, after, rows).await
}

/// Replaces what can be changed of the organization.
pub async fn replace(
    context: &Context,
    scope: &OrgScope,
    precondition: &Precondition,
    replacement: OrganizationReplacement,
) -> Result<Organization, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = lock(&mut change, scope, precondition).await?;
    let after = Organization {
        name: replacement.name,
        description: replacement.description,
        updated_at: change.touch(before.updated_at),
        ..before.clone()
    };
    store::organization::update(change.tx(), scope, &after).await?;
    change.record(Event::updated(target(&after.id), &before, &after));
    change.commit().await?;
    Ok(after)
}

/// The organization as it is now, which nobody else changes until the change has ended.
async fn lock(
    change: &mut Change,
    scope: &OrgScope,
    precondition: &Precondition,
) -> Result<Organization, ChangeError> {
    let found = store::organization::find_for_update(change.tx(), scope).await?.ok_or(ChangeError::Gone)?;
    precondition.check(found.updated_at)?;
    Ok(found)
}

pub(super) fn target(id: &OrgId) -> Target {
    Target { org: Some(id.clone()), env: None, kind: "organization", id: id.to_string() }
}
