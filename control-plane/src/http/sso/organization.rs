//! `/api/organization`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keypost_shared::id::OrgId;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::access::{OrgRead, OrgWrite};
use super::super::api_key::Rotation;
use super::super::body::JsonBody;
use super::super::creation::{Create, CreateWithDefaults, Interrupted};
use super::super::problem::{Problem, not_created};
use super::super::query::{Page, PageRequest, Query};
use super::caller::forbidden;
use super::envelope::{Envelope, done};
use super::managed::{ManagedOrg, Managing};
use crate::service::organization::{self as management, NewOrganization, OrganizationReplacement};
use crate::service::pool_urls::PoolUrls;
use crate::service::precondition::Precondition;
use crate::service::sso::organization::{self, FoundError, Listed};
use crate::service::{cascade, environment};
use crate::store::organization::Organization;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(own))
        .routes(routes!(read, replace, delete))
        .routes(routes!(rotate_key))
}

/// An organization, as its owner sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OwnedOrganization)]
struct OrganizationAnswer {
    id: String,
    name: String,
    description: Option<String>,
    /// The pool by whose keys the access tokens of its people are signed.
    #[schema(format = "uuid")]
    sso_pool_id: Option<String>,
    /// The pool's issuer, at the edge.
    sso_issuer: Option<String>,
    /// Whether the pool's document has reached KV.
    published: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// An organization that has just been created.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CreatedOrganization)]
struct CreatedOrganizationAnswer<'a> {
    #[serde(flatten)]
    organization: OrganizationAnswer,
    /// Shown this once.
    org_owner_api_key: &'a str,
}

/// A key of an organization.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OrganizationKeyAnswer<'a> {
    /// Shown this once.
    org_owner_api_key: &'a str,
    /// Until when the one before counts; null where it does no more.
    #[serde(with = "time::serde::rfc3339::option")]
    previous_expires_at: Option<OffsetDateTime>,
}

impl OrganizationAnswer {
    fn new(app: &App, listed: Listed) -> Self {
        let Listed { organization, sso_pool, published } = listed;
        Self {
            id: organization.id.into(),
            name: organization.name,
            description: organization.description,
            sso_pool_id: sso_pool.map(|pool| pool.to_string()),
            sso_issuer: sso_pool.map(|pool| PoolUrls::new(&app.context().edge_url, pool).issuer),
            published,
            created_at: organization.created_at,
            updated_at: organization.updated_at,
        }
    }
}

/// Create another organization. Answers once its pool's document is in KV, or after 5 s with `published: false`.
#[utoipa::path(
    post,
    path = "/api/organization",
    operation_id = "createOwnOrganization",
    tag = "Single sign-on: organizations",
    request_body = NewOrganization,
    responses((status = 201, body = Envelope<CreatedOrganizationAnswer>))
)]
async fn create(
    State(app): State<App>,
    managing: Managing<OrgWrite>,
    Create(new, request): Create<NewOrganization>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, managing.manager.actor()).await?;
    let (founded, key) = organization::found(&mut creation.change, &managing.manager, new).await?;
    let context = app.context();
    let wait = async |marks| environment::wait_until_published(context, marks).await;
    let answer = |published| {
        let organization = founded.organization.clone();
        let listed = Listed { organization, sso_pool: Some(founded.sso_pool), published };
        let organization = OrganizationAnswer::new(&app, listed);
        let answer = CreatedOrganizationAnswer { organization, org_owner_api_key: key.expose() };
        Envelope::of("The organization has been created", answer)
    };
    Ok(creation.finish_after(&app, None, wait, answer).await?)
}

/// List the caller's organizations, by id; with a global admin key, all.
#[utoipa::path(
    get,
    path = "/api/organization",
    operation_id = "listOwnOrganizations",
    tag = "Single sign-on: organizations",
    responses((status = 200, body = Envelope<Page<OrganizationAnswer>>))
)]
async fn list(
    State(app): State<App>,
    managing: Managing<OrgRead>,
    Query(page): Query<PageRequest<OrgId>>,
) -> Result<Response, Problem> {
    let found = managing.manager.list(app.context(), page.after.as_ref(), page.rows()).await?;
    let key = |listed: &Listed| listed.organization.id.to_string();
    let page = page.page(found, key, |listed| OrganizationAnswer::new(&app, listed));
    Ok(Envelope::of("Organizations", page).answer(StatusCode::OK))
}

/// Read the organization at which the caller signs in, or whose key it is.
#[utoipa::path(
    get,
    path = "/api/organization/me",
    operation_id = "getMyOrganization",
    tag = "Single sign-on: organizations",
    responses((status = 200, body = Envelope<OrganizationAnswer>))
)]
async fn own(State(app): State<App>, managing: Managing<OrgRead>) -> Result<Response, Problem> {
    let own = managing.manager.own(app.context()).await?;
    let (_, organization) = own.ok_or_else(|| Problem::not_found("organization"))?;
    show(&app, organization).await
}

/// Read an organization.
#[utoipa::path(
    get,
    path = "/api/organization/{orgId}",
    operation_id = "getOwnOrganization",
    tag = "Single sign-on: organizations",
    responses((status = 200, body = Envelope<OrganizationAnswer>))
)]
async fn read(State(app): State<App>, org: ManagedOrg<OrgRead>) -> Result<Response, Problem> {
    show(&app, org.organization).await
}

/// Replace what can be changed of an organization.
#[utoipa::path(
    put,
    path = "/api/organization/{orgId}",
    operation_id = "replaceOwnOrganization",
    tag = "Single sign-on: organizations",
    request_body = OrganizationReplacement,
    responses((status = 200, body = Envelope<OrganizationAnswer>))
)]
async fn replace(
    State(app): State<App>,
    org: ManagedOrg<OrgWrite>,
    JsonBody(replacement): JsonBody<OrganizationReplacement>,
) -> Result<Response, Problem> {
    let replaced = management::replace(app.context(), &org.scope, &Precondition::None, replacement).await?;
    show(&app, replaced).await
}

/// Delete an organization with all that belongs to it: client apps and people, whose sessions and tokens end, and
/// environments with their devices. Where that is interrupted, ask again.
#[utoipa::path(
    delete,
    path = "/api/organization/{orgId}",
    operation_id = "deleteOwnOrganization",
    tag = "Single sign-on: organizations",
    responses((status = 200, body = Envelope<serde_json::Value>))
)]
async fn delete(State(app): State<App>, org: ManagedOrg<OrgWrite>) -> Result<Response, Problem> {
    cascade::delete_organization(app.context(), &org.scope, &Precondition::None, true).await?;
    Ok(done("The organization has been deleted"))
}

/// Give an organization another key, shown this once. The one before counts for the overlap; one that was before that ends
/// now.
#[utoipa::path(
    post,
    path = "/api/organization/{orgId}/rotate-key",
    operation_id = "rotateOrganizationKey",
    tag = "Single sign-on: organizations",
    request_body = Option<Rotation>,
    responses((status = 200, body = Envelope<OrganizationKeyAnswer>))
)]
async fn rotate_key(
    State(app): State<App>,
    org: ManagedOrg<OrgWrite>,
    CreateWithDefaults(rotation, request): CreateWithDefaults<Rotation>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, org.scope.actor()).await?.of_a_secret();
    let rotated =
        organization::rotate_key(&mut creation.change, &org.scope, rotation.overlap_seconds).await?;
    let answer = OrganizationKeyAnswer {
        org_owner_api_key: rotated.key.expose(),
        previous_expires_at: rotated.previous_expires_at,
    };
    Ok(creation.finish(&Envelope::of("The organization has another key", answer), None).await?)
}

async fn show(app: &App, organization: Organization) -> Result<Response, Problem> {
    let listed = organization::with_pool(app.context(), organization).await?;
    Ok(Envelope::of("Organization", OrganizationAnswer::new(app, listed)).answer(StatusCode::OK))
}

impl From<FoundError> for Problem {
    fn from(error: FoundError) -> Self {
        match error {
            FoundError::TooMany => {
                Problem::conflict("limit_reached", "There are too many", &error.to_string())
            }
            FoundError::ByKey => forbidden(&error.to_string()),
            FoundError::Create(error) => not_created(error, "an organization", "thing"),
        }
    }
}
