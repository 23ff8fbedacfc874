//! `/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/app`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::access::{DeviceRead, DeviceWrite, InApp, InDevice};
use super::body::{Fields, FromFields, JsonBody};
use super::problem::{Problem, not_created};
use super::{App, answer, fields};
use crate::service::device_app::{self, NewDeviceApp};
use crate::store::device_app::DeviceApp;

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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceAppAnswer<'a> {
    id: String,
    device_id: &'a str,
    client_app_id: &'a str,
    client_id: &'a str,
    name: Option<&'a str>,
    description: Option<&'a str>,
    scopes: Vec<&'a str>,
    jwks: Option<&'a Value>,
    activated: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// `POST …/device/{deviceId}/app`
pub(super) async fn create(
    State(app): State<App>,
    device: InDevice<DeviceWrite>,
    JsonBody(new): JsonBody<NewDeviceApp>,
) -> Result<Response, Problem> {
    let created = device_app::create(app.context(), &device.scope, &device.device.id, new)
        .await
        .map_err(|error| not_created(error, "an app", "device"))?;
    Ok((StatusCode::CREATED, show(&created)).into_response())
}

/// `GET …/device/{deviceId}/app/{appId}`
pub(super) async fn read(app: InApp<DeviceRead>) -> Response {
    show(&app.app)
}

fn show(app: &DeviceApp) -> Response {
    answer(&DeviceAppAnswer {
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
    })
}
