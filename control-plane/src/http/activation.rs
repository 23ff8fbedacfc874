//! `/api/otp/activate`: for devices, without an API key.

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::RETRY_AFTER;
use axum::response::Response;
use keypost_shared::id::DeviceId;
use keypost_shared::secret::SecretText;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Source;
use super::body::{Fields, FromFields, JsonBody};
use super::problem::Problem;
use super::{App, answer, fields};
use crate::service::activation::{self, Activation};
use crate::service::pool_urls::PoolUrls;

/// How long after a client should come back whose document is not in KV yet, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(activate))
}

/// What a device sends.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = Activation)]
struct ActivationRequest {
    /// The one-time password.
    #[schema(value_type = String)]
    otp: SecretText,
    /// The device that it is for: where it is sent, it must be right.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
    device_id: Option<DeviceId>,
}

impl FromFields for ActivationRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let otp = fields.required("otp", fields::text);
        let device_id = fields.optional("deviceId", fields::parsed);
        Some(Self { otp: SecretText::new(otp?), device_id: device_id? })
    }
}

/// What a device gets, once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Activated)]
struct ActivationAnswer<'a> {
    client_id: &'a str,
    client_secret: &'a str,
    token_endpoint: String,
    issuer: String,
    jwks_uri: String,
    revocation_endpoint: String,
    device_id: &'a str,
    organization_id: &'a str,
    environment_id: &'a str,
    client_app_id: &'a str,
    scopes: Vec<&'a str>,
    published: bool,
}

/// Turn a one-time password into a client id and a secret.
#[utoipa::path(
    post,
    path = "/api/otp/activate",
    operation_id = "activate",
    tag = "Devices",
    request_body = ActivationRequest,
    responses((status = 200, body = ActivationAnswer))
)]
async fn activate(
    State(app): State<App>,
    Source(source): Source,
    JsonBody(request): JsonBody<ActivationRequest>,
) -> Result<Response, Problem> {
    let attempts = &app.0.activation_attempts;
    let device = request.device_id.as_ref();
    let done = activation::activate(app.context(), attempts, source, request.otp.expose(), device).await?;
    let Activation { client, client_secret, published } = &done;
    let urls = PoolUrls::new(&app.context().edge_url, client.pool_id);
    let mut response = answer(&ActivationAnswer {
        client_id: client.client_id.as_str(),
        client_secret: client_secret.expose(),
        token_endpoint: urls.token_endpoint,
        issuer: urls.issuer,
        jwks_uri: urls.jwks_uri,
        revocation_endpoint: urls.revocation_endpoint,
        device_id: client.device_id.as_str(),
        organization_id: client.org_id.as_str(),
        environment_id: client.env_id.as_str(),
        client_app_id: client.client_app_id.as_str(),
        scopes: client.scopes.iter().collect(),
        published: *published,
    });
    if !published {
        response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    }
    Ok(response)
}
