//! `/api/otp/activate`: for devices, without an API key.

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::RETRY_AFTER;
use axum::response::Response;
use keypost_shared::id::DeviceId;
use keypost_shared::secret::SecretText;
use serde::Serialize;

use super::address::ClientAddress;
use super::body::{Fields, FromFields, JsonBody};
use super::problem::Problem;
use super::{App, answer, fields};
use crate::service::activation::{self, Activation};
use crate::service::pool_urls::PoolUrls;

/// How long after a client should come back whose document is not in KV yet, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// What a device sends.
pub(super) struct ActivationRequest {
    otp: SecretText,
    device_id: Option<DeviceId>,
}

impl FromFields for ActivationRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let otp = fields.required("otp", fields::text);
        let device_id = fields.optional("deviceId", fields::parsed);
        Some(Self { otp: SecretText::new(otp?), device_id: device_id? })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
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

/// `POST /api/otp/activate`
pub(super) async fn activate(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    JsonBody(request): JsonBody<ActivationRequest>,
) -> Result<Response, Problem> {
    let attempts = &app.0.activation_attempts;
    let device = request.device_id.as_ref();
    let done = activation::activate(app.context(), attempts, address, request.otp.expose(), device).await?;
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
