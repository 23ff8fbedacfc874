//! `/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/app/{appId}/otp`

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{InApp, OtpCreate};
use super::body::{Fields, FromFields};
use super::creation::{CreateWithDefaults, Interrupted};
use super::problem::not_created;
use super::{App, fields};
use crate::service::otp::{self, DEFAULT_TTL_SECONDS};

/// A password is for a person who stands before the device, or for an installer who comes today.
pub(super) const SHORTEST_TTL_SECONDS: u32 = 60;
pub(super) const LONGEST_TTL_SECONDS: u32 = 86_400;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create))
}

/// What may be asked of a password.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = NewOtp)]
struct OtpRequest {
    /// How long it is good for, in seconds; 900 where nothing is given.
    #[schema(value_type = Option<u32>, minimum = 60, maximum = 86400)]
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

/// A one-time password, shown this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Otp)]
struct OtpAnswer<'a> {
    otp: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    activation_url: String,
}

/// Make a one-time password for the activation of an app. An earlier one of the app ends.
#[utoipa::path(
    post,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/app/{appId}/otp",
    operation_id = "createOtp",
    tag = "Devices",
    request_body = Option<OtpRequest>,
    responses((status = 201, body = OtpAnswer))
)]
async fn create(
    State(app): State<App>,
    target: InApp<OtpCreate>,
    CreateWithDefaults(otp, request): CreateWithDefaults<OtpRequest>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, target.scope.actor()).await?;
    let created = otp::create(&mut creation.change, &target.scope, &target.app, otp.ttl_seconds)
        .await
        .map_err(|error| not_created(error, "a one-time password", "app"))?;
    let answer = OtpAnswer {
        otp: created.otp.expose(),
        expires_at: created.expires_at,
        activation_url: format!("{}/api/otp/activate", app.context().public_url),
    };
    Ok(creation.finish(&answer, None).await?)
}
