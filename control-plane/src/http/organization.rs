//! `/api/internal/org`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keypost_shared::id::OrgId;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Everything, InOrg, InReach, OrgRead, OrgWrite};
use super::body::{Fields, FromFields, JsonBody};
use super::creation::{Create, Interrupted};
use super::deletion::Deletion;
use super::precondition::{IfMatch, tagged};
use super::problem::{Problem, not_created};
use super::query::{Page, PageRequest, Query};
use super::{App, answer, fields};
use crate::service::cascade;
use crate::service::organization::{self, NewOrganization, OrganizationReplacement};
use crate::store::organization::Organization;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read, replace, delete))
}

impl FromFields for NewOrganization {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let id = fields.optional("id", fields::organization_id);
        let OrganizationReplacement { name, description } = FromFields::from_fields(fields)?;
        Some(Self { id: id?, name, description })
    }
}

impl FromFields for OrganizationReplacement {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name = fields.required("name", fields::name);
        let description = fields.optional("description", fields::description);
        Some(Self { name: name?, description: description? })
    }
}

/// An organization: a tenant.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Organization)]
struct OrganizationAnswer {
    id: String,
    name: String,
    description: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl From<Organization> for OrganizationAnswer {
    fn from(organization: Organization) -> Self {
        Self {
            id: organization.id.into(),
            name: organization.name,
            description: organization.description,
            created_at: organization.created_at,
            updated_at: organization.updated_at,
        }
    }
}

/// Create an organization.
#[utoipa::path(
    post,
    path = "/api/internal/org",
    operation_id = "createOrganization",
    tag = "Organizations",
    request_body = NewOrganization,
    responses((status = 201, body = OrganizationAnswer))
)]
async fn create(
    State(app): State<App>,
    everything: Everything<OrgWrite>,
    Create(new, request): Create<NewOrganization>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, everything.scope.actor()).await?;
    let created = organization::create(&mut creation.change, (&everything.scope).into(), new)
        .await
        .map_err(|error| not_created(error, "an organization", "thing"))?
        .organization;
    let updated_at = created.updated_at;
    Ok(creation.finish(&OrganizationAnswer::from(created), Some(updated_at)).await?)
}

/// List organizations, by id. An organization's key sees its own.
#[utoipa::path(
    get,
    path = "/api/internal/org",
    operation_id = "listOrganizations",
    tag = "Organizations",
    responses((status = 200, body = Page<OrganizationAnswer>))
)]
async fn list(
    State(app): State<App>,
    within: InReach<OrgRead>,
    Query(page): Query<PageRequest<OrgId>>,
) -> Result<Response, Problem> {
    let found = organization::list(app.context(), &within.reach, page.after.as_ref(), page.rows()).await?;
    Ok(answer(&page.page(found, |organization| organization.id.to_string(), OrganizationAnswer::from)))
}

/// Read an organization.
#[utoipa::path(
    get,
    path = "/api/internal/org/{orgId}",
    operation_id = "getOrganization",
    tag = "Organizations",
    responses((status = 200, body = OrganizationAnswer))
)]
async fn read(org: InOrg<OrgRead>) -> Response {
    show(org.organization)
}

/// Replace what can be changed of an organization.
#[utoipa::path(
    put,
    path = "/api/internal/org/{orgId}",
    operation_id = "replaceOrganization",
    tag = "Organizations",
    request_body = OrganizationReplacement,
    responses((status = 200, body = OrganizationAnswer))
)]
async fn replace(
    State(app): State<App>,
    org: InOrg<OrgWrite>,
    IfMatch(precondition): IfMatch,
    JsonBody(replacement): JsonBody<OrganizationReplacement>,
) -> Result<Response, Problem> {
    Ok(show(organization::replace(app.context(), &org.scope, &precondition, replacement).await?))
}

/// Delete an organization and its API keys. With `cascade`, its environments go first, each with all that is in it; where
/// that is interrupted, ask again.
#[utoipa::path(
    delete,
    path = "/api/internal/org/{orgId}",
    operation_id = "deleteOrganization",
    tag = "Organizations",
    params(("cascade" = Option<bool>, Query, description = "Whether to delete its environments too.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete(
    State(app): State<App>,
    org: InOrg<OrgWrite>,
    deletion: Deletion,
) -> Result<StatusCode, Problem> {
    let Deletion { precondition, cascade } = deletion;
    cascade::delete_organization(app.context(), &org.scope, &precondition, cascade).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn show(organization: Organization) -> Response {
    let updated_at = organization.updated_at;
    tagged(answer(&OrganizationAnswer::from(organization)), updated_at)
}
