//! `/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/app`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keypost_shared::id::ClientAppId;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{DeviceRead, DeviceWrite, InApp, InDevice};
use super::body::{Fields, FromFields, JsonBody};
use super::creation::{Create, Interrupted};
use super::precondition::{IfMatch, tagged};
use super::problem::{Problem, not_created};
use super::query::{Page, PageRequest, Query};
use super::{App, answer, fields};
use crate::service::device_app::{self, DeviceAppReplacement, NewDeviceApp};
use crate::store::device_app::DeviceApp;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read, replace, delete))
}

impl FromFields for NewDeviceApp {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let client_app_id = fields.required("clientAppId", fields::parsed);
        let name = fields.optional("name", fields::name);
        let description = fields.optional("description", fields::description);
        let scopes = fields.required("scopes", fields::scopes);
        let jwks = fields.optional("jwks", fields::public_jwks);
        Some(Self {
            client_app_id: client_app_id?,
            name: name?,
            description: description?,
            scopes: scopes?,
            jwks: jwks?,
        })
    }
}

impl FromFields for DeviceAppReplacement {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        fields.read_only(&["id", "deviceId", "clientId", "activated", "createdAt", "updatedAt"]);
        let client_app_id = fields.optional("clientAppId", fields::parsed);
        let name = fields.optional("name", fields::name);
        let description = fields.optional("description", fields::description);
        let scopes = fields.required("scopes", fields::scopes);
        let jwks = fields.optional("jwks", fields::public_jwks);
        Some(Self {
            client_app_id: client_app_id?,
            name: name?,
            description: description?,
            scopes: scopes?,
            jwks: jwks?,
        })
    }
}

/// An application on a device.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeviceApp)]
struct DeviceAppAnswer<'a> {
    id: String,
    device_id: &'a str,
    client_app_id: &'a str,
    client_id: &'a str,
    name: Option<&'a str>,
    description: Option<&'a str>,
    scopes: Vec<&'a str>,
    #[schema(value_type = Option<Object>)]
    jwks: Option<&'a Value>,
    /// Whether it has been activated: whether its client has a secret.
    activated: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// Put an application on a device.
#[utoipa::path(
    post,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/app",
    operation_id = "createApp",
    tag = "Devices",
    request_body = NewDeviceApp,
    responses((status = 201, body = DeviceAppAnswer))
)]
async fn create(
    State(app): State<App>,
    device: InDevice<DeviceWrite>,
    Create(new, request): Create<NewDeviceApp>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, device.scope.actor()).await?;
    let created = device_app::create(&mut creation.change, &device.scope, &device.device.id, new)
        .await
        .map_err(|error| not_created(error, "an app", "device"))?;
    Ok(creation.finish(&DeviceAppAnswer::from(&created), Some(created.updated_at)).await?)
}

/// Read an application on a device.
#[utoipa::path(
    get,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/app/{appId}",
    operation_id = "getApp",
    tag = "Devices",
    responses((status = 200, body = DeviceAppAnswer))
)]
async fn read(app: InApp<DeviceRead>) -> Response {
    show(&app.app)
}

/// List the applications on a device, by clientAppId.
#[utoipa::path(
    get,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/app",
    operation_id = "listApps",
    tag = "Devices",
    responses((status = 200, body = Page<DeviceAppAnswer>))
)]
async fn list(
    State(app): State<App>,
    device: InDevice<DeviceRead>,
    Query(page): Query<PageRequest<ClientAppId>>,
) -> Result<Response, Problem> {
    let InDevice { scope, device, .. } = device;
    let found = device_app::list(app.context(), &scope, &device.id, page.after.as_ref(), page.rows()).await?;
    let key = |app: &&DeviceApp| app.client_app_id.to_string();
    Ok(answer(&page.page(found.iter().collect(), key, DeviceAppAnswer::from)))
}

/// Replace what can be changed of an application on a device.
#[utoipa::path(
    put,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/app/{appId}",
    operation_id = "replaceApp",
    tag = "Devices",
    request_body = DeviceAppReplacement,
    responses((status = 200, body = DeviceAppAnswer))
)]
async fn replace(
    State(app): State<App>,
    target: InApp<DeviceWrite>,
    IfMatch(precondition): IfMatch,
    JsonBody(replacement): JsonBody<DeviceAppReplacement>,
) -> Result<Response, Problem> {
    let InApp { scope, app: before, .. } = target;
    Ok(show(&device_app::replace(app.context(), &scope, &before, &precondition, replacement).await?))
}

/// Delete an application on a device, with its client and its one-time password.
#[utoipa::path(
    delete,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/app/{appId}",
    operation_id = "deleteApp",
    tag = "Devices",
    responses((status = 204, description = "It is gone."))
)]
async fn delete(
    State(app): State<App>,
    target: InApp<DeviceWrite>,
    IfMatch(precondition): IfMatch,
    Query(()): Query<()>,
) -> Result<StatusCode, Problem> {
    device_app::delete(app.context(), &target.scope, &target.app, &precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn show(app: &DeviceApp) -> Response {
    tagged(answer(&DeviceAppAnswer::from(app)), app.updated_at)
}

impl<'a> From<&'a DeviceApp> for DeviceAppAnswer<'a> {
    fn from(app: &'a DeviceApp) -> Self {
        DeviceAppAnswer {
            id: app.id.hyphenated().to_string(),
            device_id: app.device_id.as_str(),
            client_app_id: app.client_app_id.as_str(),
            client_id: app.client_id.as_str(),
            name: app.name.as_deref(),
            description: app.description.as_deref(),
            scopes: app.scopes.iter().collect(),
            jwks: app.jwks.as_ref(),
            activated: app.activated,
            created_at: app.created_at,
            updated_at: app.updated_at,
        }
    }
}
