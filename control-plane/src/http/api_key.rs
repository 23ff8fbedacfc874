//! `/api/internal/api-key`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::{ApiKeyWrite, InApiKey, InReach};
use super::body::{Fields, FromFields};
use super::creation::{Create, CreateWithDefaults, Interrupted};
use super::precondition::{IfMatch, tagged};
use super::problem::{Problem, ProblemAnswer};
use super::query::{Page, PageRequest, Query};
use super::{App, answer, fields};
use crate::service::api_key::{
    self, DEFAULT_OVERLAP_SECONDS, LONGEST_OVERLAP_SECONDS, NewApiKey, ShownApiKey,
};
use crate::store::api_key::StoredApiKey;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read, delete)).routes(routes!(rotate))
}

impl FromFields for NewApiKey {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name = fields.required("name", fields::name);
        let org_id = fields.optional("orgId", fields::parsed);
        let permissions = fields.optional("permissions", fields::permissions);
        let expires_at = fields.optional("expiresAt", fields::time);
        Some(Self { name: name?, org_id: org_id?, permissions: permissions?, expires_at: expires_at? })
    }
}

/// How a secret is replaced by another one.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Rotation {
    /// For how long the one before still counts, in seconds; 86400 where nothing is given, 0 ends it at once.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 2592000)]
    pub(super) overlap_seconds: u32,
}

impl FromFields for Rotation {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let overlap_seconds =
            fields.optional("overlapSeconds", |value| fields::integer(value, 0, LONGEST_OVERLAP_SECONDS));
        Some(Self { overlap_seconds: overlap_seconds?.unwrap_or(DEFAULT_OVERLAP_SECONDS) })
    }
}

/// An API key, without the key itself, which nobody has kept.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey)]
struct ApiKeyAnswer {
    id: String,
    name: String,
    /// The one organization that it reaches; null for a global admin key.
    org_id: Option<String>,
    /// What it is narrowed to; null for all that its reach allows.
    permissions: Option<Vec<String>>,
    /// Its beginning, for people to tell keys apart. It helps nobody to guess the rest: that has 232 random bits.
    prefix: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// When it was last used; up to a minute late.
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
    /// After a rotation, until when the key before counts, or has counted.
    #[serde(with = "time::serde::rfc3339::option")]
    previous_expires_at: Option<OffsetDateTime>,
}

/// An API key, with the key itself, shown this once.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyWithKey)]
struct ShownApiKeyAnswer<'a> {
    key: &'a str,
    #[serde(flatten)]
    stored: ApiKeyAnswer,
}

impl From<StoredApiKey> for ApiKeyAnswer {
    fn from(key: StoredApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            org_id: key.org_id.map(String::from),
            permissions: key.permissions,
            prefix: key.prefix,
            created_at: key.created_at,
            updated_at: key.updated_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            previous_expires_at: key.previous_expires_at,
        }
    }
}

/// Create an API key. It is shown this once.
///
/// A key never grants what its maker lacks (403): it reaches no further than the key in use, is narrowed where that is
/// narrowed, and expires no later than that.
#[utoipa::path(
    post,
    path = "/api/internal/api-key",
    operation_id = "createApiKey",
    tag = "API keys",
    request_body = NewApiKey,
    responses(
        (status = 201, body = ShownApiKeyAnswer),
        (status = 404, description = "There is no such organization.", body = ProblemAnswer, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(app): State<App>,
    within: InReach<ApiKeyWrite>,
    Create(new, request): Create<NewApiKey>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, within.reach.actor()).await?;
    let ShownApiKey { key, stored } = api_key::create(&mut creation.change, &within.caller, new).await?;
    let updated_at = stored.updated_at;
    let answer = ShownApiKeyAnswer { key: key.expose(), stored: stored.into() };
    Ok(creation.finish(&answer, Some(updated_at)).await?)
}

/// List API keys, by id. An organization's key sees those of its organization; it does not see global ones.
#[utoipa::path(
    get,
    path = "/api/internal/api-key",
    operation_id = "listApiKeys",
    tag = "API keys",
    responses((status = 200, body = Page<ApiKeyAnswer>))
)]
async fn list(
    State(app): State<App>,
    within: InReach<ApiKeyWrite>,
    Query(page): Query<PageRequest<Uuid>>,
) -> Result<Response, Problem> {
    let found = api_key::list(app.context(), &within.reach, page.after, page.rows()).await?;
    Ok(answer(&page.page(found, |key| key.id.to_string(), ApiKeyAnswer::from)))
}

/// Read an API key.
#[utoipa::path(
    get,
    path = "/api/internal/api-key/{apiKeyId}",
    operation_id = "getApiKey",
    tag = "API keys",
    responses((status = 200, body = ApiKeyAnswer))
)]
async fn read(found: InApiKey<ApiKeyWrite>) -> Response {
    let updated_at = found.key.updated_at;
    tagged(answer(&ApiKeyAnswer::from(found.key)), updated_at)
}

/// Delete an API key. It ends at once, and so does the one before a rotation.
///
/// The last global admin key that is not narrowed cannot be deleted (409): nobody could make another one. A key that
/// KEYPOST_ADMIN_API_KEY holds is added again at the next start.
#[utoipa::path(
    delete,
    path = "/api/internal/api-key/{apiKeyId}",
    operation_id = "deleteApiKey",
    tag = "API keys",
    responses((status = 204, description = "It is deleted."))
)]
async fn delete(
    State(app): State<App>,
    found: InApiKey<ApiKeyWrite>,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    api_key::delete(app.context(), &found.reach, found.key.id, &precondition).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Replace an API key by another one that may do the same. The new key is shown this once.
///
/// The key before counts for the overlap; one that was before that ends now. Only a key that may do, and lasts, as much as
/// this one may rotate it (403), because it gets the new one. Whoever comes with the key before can neither rotate nor make
/// anything that outlasts the overlap.
#[utoipa::path(
    post,
    path = "/api/internal/api-key/{apiKeyId}/rotate",
    operation_id = "rotateApiKey",
    tag = "API keys",
    request_body = Option<Rotation>,
    responses(
        (status = 200, body = ShownApiKeyAnswer),
        (status = 409, description = "It has expired.", body = ProblemAnswer, content_type = "application/problem+json"),
    )
)]
async fn rotate(
    State(app): State<App>,
    found: InApiKey<ApiKeyWrite>,
    CreateWithDefaults(rotation, request): CreateWithDefaults<Rotation>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, found.reach.actor()).await?.of_a_secret();
    let InApiKey { reach, caller, key, .. } = &found;
    let ShownApiKey { key, stored } =
        api_key::rotate(&mut creation.change, caller, reach, key.id, rotation.overlap_seconds).await?;
    let updated_at = stored.updated_at;
    let answer = ShownApiKeyAnswer { key: key.expose(), stored: stored.into() };
    Ok(creation.finish(&answer, Some(updated_at)).await?)
}
