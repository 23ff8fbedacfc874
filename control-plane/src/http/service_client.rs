//! `/api/internal/org/{orgId}/env/{envId}/client`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use keypost_shared::id::ClientId;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{ClientWrite, InClient, InEnv, OrgRead};
use super::api_key::Rotation;
use super::body::{Fields, FromFields, JsonBody};
use super::creation::{Create, CreateWithDefaults, Interrupted};
use super::precondition::{IfMatch, tagged};
use super::problem::{Problem, not_created};
use super::query::{Page, PageRequest, Query};
use super::{App, answer, fields};
use crate::service::service_client::{self, ServiceClientSettings, wait_until_published};
use crate::store::service_client::ServiceClient;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, replace, delete))
        .routes(routes!(rotate_secret))
}

impl FromFields for ServiceClientSettings {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name = fields.required("name", fields::name);
        let scopes = fields.required("scopes", fields::scopes);
        let audience = fields.optional("audience", fields::audience);
        let jwks = fields.optional("jwks", fields::public_jwks);
        Some(Self { name: name?, scopes: scopes?, audience: audience?.unwrap_or_default(), jwks: jwks? })
    }
}

/// A service client: an OAuth client that is bound to no device.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ServiceClient)]
struct ServiceClientAnswer {
    /// The `sub` of its tokens.
    client_id: String,
    name: String,
    scopes: Vec<String>,
    /// The `aud` of its tokens; empty for the pool's.
    audience: Vec<String>,
    #[schema(value_type = Option<Object>)]
    jwks: Option<Value>,
    #[serde(with = "time::serde::rfc3339::option")]
    secret_created_at: Option<OffsetDateTime>,
    /// After a rotation, until when the secret before counts, or has counted.
    #[serde(with = "time::serde::rfc3339::option")]
    previous_secret_expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// A service client, with its secret, shown this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ServiceClientWithSecret)]
struct CreatedClientAnswer<'a> {
    client_secret: &'a str,
    /// Whether its document is in KV, where the edge reads it.
    published: bool,
    #[serde(flatten)]
    client: ServiceClientAnswer,
}

/// A secret, shown this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClientSecret)]
struct ClientSecretAnswer<'a> {
    client_secret: &'a str,
    /// Until when the secret before counts; null where it has ended.
    #[serde(with = "time::serde::rfc3339::option")]
    previous_expires_at: Option<OffsetDateTime>,
    /// Whether the edge can know it already: whether it is in KV.
    published: bool,
}

impl From<ServiceClient> for ServiceClientAnswer {
    fn from(client: ServiceClient) -> Self {
        Self {
            client_id: client.client_id.into(),
            name: client.name,
            scopes: client.scopes.into(),
            audience: client.audience,
            jwks: client.jwks,
            secret_created_at: client.secret_created_at,
            previous_secret_expires_at: client.previous_secret_expires_at,
            created_at: client.created_at,
            updated_at: client.updated_at,
        }
    }
}

/// Create a service client. Its secret is shown this once.
///
/// It answers once the client's document is in KV, or after 5 s with `published: false`.
#[utoipa::path(
    post,
    path = "/api/internal/org/{orgId}/env/{envId}/client",
    operation_id = "createServiceClient",
    tag = "Service clients",
    request_body = ServiceClientSettings,
    responses((status = 201, body = CreatedClientAnswer))
)]
async fn create(
    State(app): State<App>,
    env: InEnv<ClientWrite>,
    Create(settings, request): Create<ServiceClientSettings>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, env.scope.actor()).await?;
    let created = service_client::create(&mut creation.change, &env.scope, settings)
        .await
        .map_err(|error| not_created(error, "a service client", "environment"))?;
    let updated_at = created.client.updated_at;
    let client = ServiceClientAnswer::from(created.client);
    let answer = |published| CreatedClientAnswer {
        client_secret: created.secret.expose(),
        published,
        client: client.clone(),
    };
    let wait = async |marks| wait_until_published(app.context(), marks).await;
    Ok(creation.finish_after(&app, Some(updated_at), wait, answer).await?)
}

/// List service clients, by id. Reading them needs `org:read`, as reading the pool that they belong to does.
#[utoipa::path(
    get,
    path = "/api/internal/org/{orgId}/env/{envId}/client",
    operation_id = "listServiceClients",
    tag = "Service clients",
    responses((status = 200, body = Page<ServiceClientAnswer>))
)]
async fn list(
    State(app): State<App>,
    env: InEnv<OrgRead>,
    Query(page): Query<PageRequest<ClientId>>,
) -> Result<Response, Problem> {
    let found = service_client::list(app.context(), &env.scope, page.after.as_ref(), page.rows()).await?;
    Ok(answer(&page.page(found, |client| client.client_id.to_string(), ServiceClientAnswer::from)))
}

/// Read a service client. This needs `org:read`, as reading the pool that it belongs to does.
#[utoipa::path(
    get,
    path = "/api/internal/org/{orgId}/env/{envId}/client/{clientId}",
    operation_id = "getServiceClient",
    tag = "Service clients",
    responses((status = 200, body = ServiceClientAnswer))
)]
async fn read(found: InClient<OrgRead>) -> Response {
    show(found.client)
}

/// Replace what can be changed of a service client. Its secret stays.
#[utoipa::path(
    put,
    path = "/api/internal/org/{orgId}/env/{envId}/client/{clientId}",
    operation_id = "replaceServiceClient",
    tag = "Service clients",
    request_body = ServiceClientSettings,
    responses((status = 200, body = ServiceClientAnswer))
)]
async fn replace(
    State(app): State<App>,
    found: InClient<ClientWrite>,
    IfMatch(precondition): IfMatch,
    JsonBody(settings): JsonBody<ServiceClientSettings>,
) -> Result<Response, Problem> {
    let id = &found.client.client_id;
    Ok(show(service_client::replace(app.context(), &found.scope, id, &precondition, settings).await?))
}

/// Delete a service client. It gets no more tokens; those that it has live until they expire.
#[utoipa::path(
    delete,
    path = "/api/internal/org/{orgId}/env/{envId}/client/{clientId}",
    operation_id = "deleteServiceClient",
    tag = "Service clients",
    responses((status = 204, description = "It is deleted."))
)]
async fn delete(
    State(app): State<App>,
    found: InClient<ClientWrite>,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    service_client::delete(app.context(), &found.scope, &found.client.client_id, &precondition).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Give a service client another secret, shown this once.
///
/// The secret before counts for the overlap; one that was before that ends now. It answers once the change is in KV, or
/// after 5 s with `published: false`.
#[utoipa::path(
    post,
    path = "/api/internal/org/{orgId}/env/{envId}/client/{clientId}/secret",
    operation_id = "rotateServiceClientSecret",
    tag = "Service clients",
    request_body = Option<Rotation>,
    responses((status = 200, body = ClientSecretAnswer))
)]
async fn rotate_secret(
    State(app): State<App>,
    found: InClient<ClientWrite>,
    CreateWithDefaults(rotation, request): CreateWithDefaults<Rotation>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, found.scope.actor()).await?.of_a_secret();
    let (scope, id) = (&found.scope, &found.client.client_id);
    let rotated =
        service_client::rotate_secret(&mut creation.change, scope, id, rotation.overlap_seconds).await?;
    let answer = |published| ClientSecretAnswer {
        client_secret: rotated.secret.expose(),
        previous_expires_at: rotated.client.previous_secret_expires_at,
        published,
    };
    let wait = async |marks| wait_until_published(app.context(), marks).await;
    Ok(creation.finish_after(&app, Some(rotated.client.updated_at), wait, answer).await?)
}

fn show(client: ServiceClient) -> Response {
    let updated_at = client.updated_at;
    tagged(answer(&ServiceClientAnswer::from(client)), updated_at)
}
