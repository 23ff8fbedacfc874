//! `/api/internal/org`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use time::OffsetDateTime;

use super::access::{Everything, InOrg, OrgRead, OrgWrite};
use super::body::{Fields, FromFields, JsonBody};
use super::problem::{Problem, not_created};
use super::{App, answer, fields};
use crate::service::organization::{self, NewOrganization};
use crate::store::organization::Organization;

impl FromFields for NewOrganization {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let id = fields.optional("id", fields::parsed);
        let name = fields.required("name", fields::name);
        let description = fields.optional("description", fields::description);
        Some(Self { id: id?, name: name?, description: description? })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrganizationAnswer<'a> {
    id: &'a str,
    name: &'a str,
    description: Option<&'a str>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// `POST /api/internal/org`
pub(super) async fn create(
    State(app): State<App>,
    everything: Everything<OrgWrite>,
    JsonBody(new): JsonBody<NewOrganization>,
) -> Result<Response, Problem> {
    let created = organization::create(app.context(), everything.scope, new)
        .await
        .map_err(|error| not_created(error, "an organization", "thing"))?;
    Ok((StatusCode::CREATED, show(&created)).into_response())
}

/// `GET /api/internal/org/{orgId}`
pub(super) async fn read(org: InOrg<OrgRead>) -> Response {
    show(&org.organization)
}

fn show(organization: &Organization) -> Response {
    answer(&OrganizationAnswer {
        id: organization.id.as_str(),
        name: &organization.name,
        description: organization.description.as_deref(),
        created_at: organization.created_at,
        updated_at: organization.updated_at,
    })
}
