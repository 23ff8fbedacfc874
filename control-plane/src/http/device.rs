//! `/api/internal/org/{orgId}/env/{envId}/device`

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{DeviceRead, DeviceWrite, InDevice, InEnv};
use super::body::{Fields, FromFields};
use super::creation::{Create, Interrupted};
use super::precondition::tagged;
use super::problem::not_created;
use super::{App, answer, fields};
use crate::service::device::{self, NewDevice};
use crate::store::device::Device;
use crate::store::environment::EnvScope;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(read))
}

impl FromFields for NewDevice {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let id = fields.required("id", fields::parsed);
        let name = fields.required("name", fields::name);
        let description = fields.optional("description", fields::description);
        let metadata = fields.verbatim("metadata", "{}", fields::metadata);
        let tags = fields.optional("tags", fields::tags);
        let primary_server_url = fields.optional("primaryServerUrl", fields::server_url);
        let server_urls = fields.optional("serverUrls", fields::server_urls);
        Some(Self {
            id: id?,
            name: name?,
            description: description?,
            metadata: metadata?,
            tags: tags?.unwrap_or_default(),
            primary_server_url: primary_server_url?,
            server_urls: server_urls?.unwrap_or_default(),
        })
    }
}

/// A device.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Device)]
struct DeviceAnswer<'a> {
    id: &'a str,
    org_id: &'a str,
    env_id: &'a str,
    name: &'a str,
    description: Option<&'a str>,
    #[schema(value_type = Object)]
    metadata: &'a RawValue,
    tags: &'a BTreeMap<String, String>,
    primary_server_url: Option<&'a str>,
    server_urls: &'a [String],
    status: &'a str,
    #[serde(with = "time::serde::rfc3339::option")]
    last_activated_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// Register a device.
#[utoipa::path(
    post,
    path = "/api/internal/org/{orgId}/env/{envId}/device",
    operation_id = "createDevice",
    tag = "Devices",
    request_body = NewDevice,
    responses((status = 201, body = DeviceAnswer))
)]
async fn create(
    State(app): State<App>,
    env: InEnv<DeviceWrite>,
    Create(new, request): Create<NewDevice>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, env.scope.actor()).await?;
    let created = device::create(&mut creation.change, &env.scope, new)
        .await
        .map_err(|error| not_created(error, "a device", "environment"))?;
    Ok(creation.finish(&DeviceAnswer::new(&env.scope, &created), Some(created.updated_at)).await?)
}

/// Read a device.
#[utoipa::path(
    get,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}",
    operation_id = "getDevice",
    tag = "Devices",
    responses((status = 200, body = DeviceAnswer))
)]
async fn read(device: InDevice<DeviceRead>) -> Response {
    show(&device.scope, &device.device)
}

fn show(scope: &EnvScope, device: &Device) -> Response {
    tagged(answer(&DeviceAnswer::new(scope, device)), device.updated_at)
}

impl<'a> DeviceAnswer<'a> {
    fn new(scope: &'a EnvScope, device: &'a Device) -> Self {
        DeviceAnswer {
            id: device.id.as_str(),
            org_id: scope.org().as_str(),
            env_id: scope.env().as_str(),
            name: &device.name,
            description: device.description.as_deref(),
            metadata: &device.metadata,
            tags: &device.tags,
            primary_server_url: device.primary_server_url.as_deref(),
            server_urls: &device.server_urls,
            status: device.status.as_str(),
            last_activated_at: device.last_activated_at,
            created_at: device.created_at,
            updated_at: device.updated_at,
        }
    }
}
