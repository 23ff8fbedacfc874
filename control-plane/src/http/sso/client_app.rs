//! `/api/organization/{orgId}/client-apps` and `/api/organization/client-apps`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keypost_shared::id::SsoAppId;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::access::{OrgRead, OrgWrite};
use super::super::api_key::Rotation;
use super::super::body::{Fields, FromFields, JsonBody};
use super::super::creation::{Create, CreateWithDefaults, Interrupted};
use super::super::problem::Problem;
use super::super::query::{Page, PageRequest, Query};
use super::super::{App, fields};
use super::envelope::{Envelope, done};
use super::managed::{ManagedApp, ManagedOrg};
use crate::service::sso::client_app::{self, ClientAppSettings, CreateAppError};
use crate::store::sso::client_app::ClientApp;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, replace, delete))
        .routes(routes!(rotate_key))
}

impl FromFields for ClientAppSettings {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name = fields.required("name", fields::name);
        let description = fields.optional("description", fields::description);
        let redirect_uris = fields.optional("redirectUris", fields::redirect_uris);
        let origins = fields.optional("origins", fields::origins);
        let public_signup = fields.optional("publicSignup", fields::boolean);
        let signup_metadata_keys = fields.optional("signupMetadataKeys", fields::metadata_keys);
        Some(Self {
            name: name?,
            description: description?,
            redirect_uris: redirect_uris?.unwrap_or_default(),
            origins: origins?.unwrap_or_default(),
            public_signup: public_signup?.unwrap_or(true),
            signup_metadata_keys: signup_metadata_keys?,
        })
    }
}

/// A client app.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClientApp)]
struct ClientAppAnswer<'a> {
    /// The claim `clientAppId`, and the client id in OpenID Connect.
    #[schema(format = "uuid")]
    id: String,
    organization_id: &'a str,
    name: &'a str,
    description: Option<&'a str>,
    redirect_uris: &'a [String],
    origins: &'a [String],
    public_signup: bool,
    signup_metadata_keys: Option<&'a [String]>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// A client app that has just been created.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CreatedClientApp)]
struct CreatedClientAppAnswer<'a> {
    #[serde(flatten)]
    client_app: ClientAppAnswer<'a>,
    /// Shown this once.
    client_app_api_key: &'a str,
    /// Whether the edge can know it.
    published: bool,
}

/// A key of a client app.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ClientAppKeyAnswer<'a> {
    /// Shown this once.
    client_app_api_key: &'a str,
    /// Until when the one before counts; null where it does no more.
    #[serde(with = "time::serde::rfc3339::option")]
    previous_expires_at: Option<OffsetDateTime>,
    /// Whether the edge can know it.
    published: bool,
}

impl<'a> From<&'a ClientApp> for ClientAppAnswer<'a> {
    fn from(app: &'a ClientApp) -> Self {
        Self {
            id: app.id.to_string(),
            organization_id: app.org_id.as_str(),
            name: &app.name,
            description: app.description.as_deref(),
            redirect_uris: &app.redirect_uris,
            origins: &app.origins,
            public_signup: app.public_signup,
            signup_metadata_keys: app.signup_metadata_keys.as_deref(),
            created_at: app.created_at,
            updated_at: app.updated_at,
        }
    }
}

/// Create a client app, with a key. Answers once the edge can know it, or after 5 s with `published: false`.
#[utoipa::path(
    post,
    path = "/api/organization/{orgId}/client-apps",
    operation_id = "createClientApp",
    tag = "Single sign-on: client apps",
    request_body = ClientAppSettings,
    responses((status = 201, body = Envelope<CreatedClientAppAnswer>))
)]
async fn create(
    State(app): State<App>,
    org: ManagedOrg<OrgWrite>,
    Create(settings, request): Create<ClientAppSettings>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, org.scope.actor()).await?;
    let (created, key) = client_app::create(&mut creation.change, &org.scope, settings).await?;
    let wait = async |marks| client_app::wait_until_published(app.context(), marks).await;
    let answer = |published| {
        let answer = CreatedClientAppAnswer {
            client_app: ClientAppAnswer::from(&created),
            client_app_api_key: key.expose(),
            published,
        };
        Envelope::of("The client app has been created", answer)
    };
    Ok(creation.finish_after(&app, None, wait, answer).await?)
}

/// List the client apps of an organization, by id.
#[utoipa::path(
    get,
    path = "/api/organization/{orgId}/client-apps",
    operation_id = "listClientApps",
    tag = "Single sign-on: client apps",
    responses((status = 200, body = Envelope<Page<ClientAppAnswer>>))
)]
async fn list(
    State(app): State<App>,
    org: ManagedOrg<OrgRead>,
    Query(page): Query<PageRequest<SsoAppId>>,
) -> Result<Response, Problem> {
    let found = client_app::list(app.context(), &org.scope, page.after, page.rows()).await?;
    let key = |found: &&ClientApp| found.id.to_string();
    let page = page.page(found.iter().collect(), key, |found: &ClientApp| ClientAppAnswer::from(found));
    Ok(Envelope::of("Client apps", page).answer(StatusCode::OK))
}

/// Read a client app.
#[utoipa::path(
    get,
    path = "/api/organization/client-apps/{clientAppId}",
    operation_id = "getClientApp",
    tag = "Single sign-on: client apps",
    responses((status = 200, body = Envelope<ClientAppAnswer>))
)]
async fn read(found: ManagedApp<OrgRead>) -> Response {
    show(&found.app)
}

/// Replace what can be changed of a client app. Its key stays.
#[utoipa::path(
    put,
    path = "/api/organization/client-apps/{clientAppId}",
    operation_id = "replaceClientApp",
    tag = "Single sign-on: client apps",
    request_body = ClientAppSettings,
    responses((status = 200, body = Envelope<ClientAppAnswer>))
)]
async fn replace(
    State(app): State<App>,
    found: ManagedApp<OrgWrite>,
    JsonBody(settings): JsonBody<ClientAppSettings>,
) -> Result<Response, Problem> {
    Ok(show(&client_app::replace(app.context(), &found.scope, found.app.id, settings).await?))
}

/// Delete a client app with its users, whose sessions and tokens end. Where that is interrupted, ask again.
#[utoipa::path(
    delete,
    path = "/api/organization/client-apps/{clientAppId}",
    operation_id = "deleteClientApp",
    tag = "Single sign-on: client apps",
    responses((status = 200, body = Envelope<serde_json::Value>))
)]
async fn delete(State(app): State<App>, found: ManagedApp<OrgWrite>) -> Result<Response, Problem> {
    client_app::delete(app.context(), &found.scope, found.app.id).await?;
    Ok(done("The client app has been deleted"))
}

/// Give a client app another key, shown this once. The one before counts for the overlap; one that was before that ends
/// now. It answers once the change is in KV, or after 5 s with `published: false`.
#[utoipa::path(
    post,
    path = "/api/organization/client-apps/{clientAppId}/rotate-key",
    operation_id = "rotateClientAppKey",
    tag = "Single sign-on: client apps",
    request_body = Option<Rotation>,
    responses((status = 200, body = Envelope<ClientAppKeyAnswer>))
)]
async fn rotate_key(
    State(app): State<App>,
    found: ManagedApp<OrgWrite>,
    CreateWithDefaults(rotation, request): CreateWithDefaults<Rotation>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, found.scope.actor()).await?.of_a_secret();
    let (scope, id) = (&found.scope, found.app.id);
    let rotated = client_app::rotate_key(&mut creation.change, scope, id, rotation.overlap_seconds).await?;
    let wait = async |marks| client_app::wait_until_published(app.context(), marks).await;
    let answer = |published| {
        let answer = ClientAppKeyAnswer {
            client_app_api_key: rotated.key.expose(),
            previous_expires_at: rotated.previous_expires_at,
            published,
        };
        Envelope::of("The client app has another key", answer)
    };
    Ok(creation.finish_after(&app, None, wait, answer).await?)
}

fn show(app: &ClientApp) -> Response {
    Envelope::of("Client app", ClientAppAnswer::from(app)).answer(StatusCode::OK)
}

impl From<CreateAppError> for Problem {
    fn from(error: CreateAppError) -> Self {
        match error {
            CreateAppError::TooMany => {
                Problem::conflict("limit_reached", "There are too many", &error.to_string())
            }
            CreateAppError::Change(error) => error.into(),
        }
    }
}
