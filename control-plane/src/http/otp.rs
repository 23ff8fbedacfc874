//! `/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/app/{appId}/otp`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use time::OffsetDateTime;

use super::access::{InApp, OtpCreate};
use super::body::{Fields, FromFields, OptionalJsonBody};
use super::problem::{Problem, not_created};
use super::{App, answer, fields};
use crate::service::otp::{self, DEFAULT_TTL_SECONDS};

/// A password is for a person who stands before the device, or for an installer who comes today.
const SHORTEST_TTL_SECONDS: u32 = 60;
const LONGEST_TTL_SECONDS: u32 = 86_400;

/// What may be asked of a password.
pub(super) struct OtpRequest {
    ttl_seconds: u32,
}

impl FromFields for OtpRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let ttl_seconds = fields.optional("ttlSeconds", |value| {
            fields::integer(value, SHORTEST_TTL_SECONDS, LONGEST_TTL_SECONDS)
        });
        Some(Self { ttl_seconds: ttl_seconds?.unwrap_or(DEFAULT_TTL_SECONDS) })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OtpAnswer<'a> {
    otp: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    activation_url: String,
}

/// `POST …/otp`
pub(super) async fn create(
    State(app): State<App>,
    target: InApp<OtpCreate>,
    OptionalJsonBody(request): OptionalJsonBody<OtpRequest>,
) -> Result<Response, Problem> {
    let created = otp::create(app.context(), &target.scope, &target.app, request.ttl_seconds)
        .await
        .map_err(|error| not_created(error, "a one-time password", "app"))?;
    let shown = answer(&OtpAnswer {
        otp: created.otp.expose(),
        expires_at: created.expires_at,
        activation_url: format!("{}/api/otp/activate", app.context().public_url),
    });
    Ok((StatusCode::CREATED, shown).into_response())
}
