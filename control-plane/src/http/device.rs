//! `/api/internal/org/{orgId}/env/{envId}/device`

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::access::{DeviceRead, DeviceWrite, InDevice, InEnv};
use super::body::{Fields, FromFields, JsonBody};
use super::problem::{Problem, not_created};
use super::{App, answer, fields};
use crate::service::device::{self, NewDevice};
use crate::store::device::Device;
use crate::store::environment::EnvScope;

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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceAnswer<'a> {
    id: &'a str,
    org_id: &'a str,
    env_id: &'a str,
    name: &'a str,
    description: Option<&'a str>,
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

/// `POST …/device`
pub(super) async fn create(
    State(app): State<App>,
    env: InEnv<DeviceWrite>,
    JsonBody(new): JsonBody<NewDevice>,
) -> Result<Response, Problem> {
    let created = device::create(app.context(), &env.scope, new)
        .await
        .map_err(|error| not_created(error, "a device", "environment"))?;
    Ok((StatusCode::CREATED, show(&env.scope, &created)).into_response())
}

/// `GET …/device/{deviceId}`
pub(super) async fn read(device: InDevice<DeviceRead>) -> Response {
    show(&device.scope, &device.device)
}

fn show(scope: &EnvScope, device: &Device) -> Response {
    answer(&DeviceAnswer {
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
    })
}
