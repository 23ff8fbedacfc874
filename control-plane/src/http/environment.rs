//! `/api/internal/org/{orgId}/env`

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keypost_shared::id::EnvId;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{InEnv, InOrg, OrgRead, OrgWrite};
use super::body::{Fields, FromFields, JsonBody};
use super::creation::{Create, Interrupted};
use super::deletion::Deletion;
use super::precondition::{IfMatch, tagged};
use super::problem::{Problem, not_created};
use super::query::{Page, PageRequest, Query};
use super::{App, answer, fields};
use crate::service::cascade;
use crate::service::environment::{self, EnvironmentReplacement, NewEnvironment};
use crate::service::pool_urls::PoolUrls;
use crate::store::environment::Environment;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read, replace, delete))
}

impl FromFields for NewEnvironment {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let id = fields.required("id", fields::parsed);
        let rest: EnvironmentReplacement = rest_of(fields)?;
        Some(Self {
            id: id?,
            name: rest.name,
            description: rest.description,
            tag_defaults: rest.tag_defaults,
            primary_server_url: rest.primary_server_url,
            server_urls: rest.server_urls,
        })
    }
}

impl FromFields for EnvironmentReplacement {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        fields.read_only(&[
            "id",
            "orgId",
            "clientPoolId",
            "issuer",
            "tokenEndpoint",
            "jwksUri",
            "published",
            "createdAt",
            "updatedAt",
        ]);
        rest_of(fields)
    }
}

fn rest_of(fields: &mut Fields) -> Option<EnvironmentReplacement> {
    let name = fields.required("name", fields::name);
    let description = fields.optional("description", fields::description);
    let tag_defaults = fields.optional("tagDefaults", fields::tags);
    let primary_server_url = fields.optional("primaryServerUrl", fields::server_url);
    let server_urls = fields.optional("serverUrls", fields::server_urls);
    Some(EnvironmentReplacement {
        name: name?,
        description: description?,
        tag_defaults: tag_defaults?,
        primary_server_url: primary_server_url?,
        server_urls: server_urls?.unwrap_or_default(),
    })
}

/// An environment, with the URLs of its client pool.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Environment)]
struct EnvironmentAnswer<'a> {
    id: &'a str,
    org_id: &'a str,
    name: &'a str,
    description: Option<&'a str>,
    tag_defaults: &'a BTreeMap<String, String>,
    primary_server_url: Option<&'a str>,
    server_urls: &'a [String],
    client_pool_id: String,
    issuer: String,
    token_endpoint: String,
    jwks_uri: String,
    /// Whether the pool's document has reached KV.
    published: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// Create an environment, with its client pool and the pool's first keys. Answers once the pool's document is in KV, or
/// after 5 s with `published: false`.
#[utoipa::path(
    post,
    path = "/api/internal/org/{orgId}/env",
    operation_id = "createEnvironment",
    tag = "Environments",
    request_body = NewEnvironment,
    responses((status = 201, body = EnvironmentAnswer))
)]
async fn create(
    State(app): State<App>,
    org: InOrg<OrgWrite>,
    Create(new, request): Create<NewEnvironment>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, org.scope.actor()).await?;
    let created = environment::create(&mut creation.change, &org.scope, new)
        .await
        .map_err(|error| not_created(error, "an environment", "organization"))?;
    let context = app.context();
    let wait = async |marks| environment::wait_until_published(context, marks).await;
    let answer = |published| EnvironmentAnswer::new(&app, &created, published);
    Ok(creation.finish_after(&app, Some(created.updated_at), wait, answer).await?)
}

/// List the environments of an organization, by id.
#[utoipa::path(
    get,
    path = "/api/internal/org/{orgId}/env",
    operation_id = "listEnvironments",
    tag = "Environments",
    responses((status = 200, body = Page<EnvironmentAnswer>))
)]
async fn list(
    State(app): State<App>,
    org: InOrg<OrgRead>,
    Query(page): Query<PageRequest<EnvId>>,
) -> Result<Response, Problem> {
    let found = environment::list(app.context(), &org.scope, page.after.as_ref(), page.rows()).await?;
    let published = environment::published(app.context(), &found).await?;
    let key = |environment: &&Environment| environment.id.to_string();
    Ok(answer(&page.page(found.iter().collect(), key, |environment| {
        EnvironmentAnswer::new(&app, environment, published.contains(&environment.pool_id))
    })))
}

/// Read an environment.
#[utoipa::path(
    get,
    path = "/api/internal/org/{orgId}/env/{envId}",
    operation_id = "getEnvironment",
    tag = "Environments",
    responses((status = 200, body = EnvironmentAnswer))
)]
async fn read(State(app): State<App>, env: InEnv<OrgRead>) -> Result<Response, Problem> {
    show(&app, &env.environment).await
}

/// Replace what can be changed of an environment. What its devices' tokens have from it, they have from their next token on.
#[utoipa::path(
    put,
    path = "/api/internal/org/{orgId}/env/{envId}",
    operation_id = "replaceEnvironment",
    tag = "Environments",
    request_body = EnvironmentReplacement,
    responses((status = 200, body = EnvironmentAnswer))
)]
async fn replace(
    State(app): State<App>,
    env: InEnv<OrgWrite>,
    IfMatch(precondition): IfMatch,
    JsonBody(replacement): JsonBody<EnvironmentReplacement>,
) -> Result<Response, Problem> {
    let replaced = environment::replace(app.context(), &env.scope, &precondition, replacement).await?;
    show(&app, &replaced).await
}

/// Delete an environment, its client pool and the pool's keys. With `cascade`, its devices and service clients go first,
/// some thousand at a time; where that is interrupted, ask again.
#[utoipa::path(
    delete,
    path = "/api/internal/org/{orgId}/env/{envId}",
    operation_id = "deleteEnvironment",
    tag = "Environments",
    params(("cascade" = Option<bool>, Query, description = "Whether to delete its devices and service clients too.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete(
    State(app): State<App>,
    env: InEnv<OrgWrite>,
    deletion: Deletion,
) -> Result<StatusCode, Problem> {
    let Deletion { precondition, cascade } = deletion;
    cascade::delete_environment(app.context(), &env.scope, &precondition, cascade).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn show(app: &App, environment: &Environment) -> Result<Response, Problem> {
    let published = environment::published(app.context(), [environment]).await?;
    let published = published.contains(&environment.pool_id);
    let answered = answer(&EnvironmentAnswer::new(app, environment, published));
    Ok(tagged(answered, environment.updated_at))
}

impl<'a> EnvironmentAnswer<'a> {
    fn new(app: &App, environment: &'a Environment, published: bool) -> Self {
        let urls = PoolUrls::new(&app.context().edge_url, environment.pool_id);
        EnvironmentAnswer {
            id: environment.id.as_str(),
            org_id: environment.org_id.as_str(),
            name: &environment.name,
            description: environment.description.as_deref(),
            tag_defaults: &environment.tag_defaults,
            primary_server_url: environment.primary_server_url.as_deref(),
            server_urls: &environment.server_urls,
            client_pool_id: environment.pool_id.to_string(),
            issuer: urls.issuer,
            token_endpoint: urls.token_endpoint,
            jwks_uri: urls.jwks_uri,
            published,
            created_at: environment.created_at,
            updated_at: environment.updated_at,
        }
    }
}
