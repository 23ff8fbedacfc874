//! `/api/internal/{clientPoolId}/denied-certificates`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use keypost_shared::certificate::Fingerprint;
use keypost_shared::device_certificate::{DeniedCertificate as Denial, HexSerial, IssuerName};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::{CertificateWrite, DeviceRead, InDenial, InPool};
use super::body::{Fields, FromFields, Invalid};
use super::creation::{Create, Interrupted};
use super::precondition::{IfMatch, tagged};
use super::problem::Problem;
use super::query::{Page, PageRequest, Query};
use super::{App, answer, fields};
use crate::service::denied_certificate::{self, NewDenial};
use crate::store::denied_certificate::DeniedCertificate;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read, remove))
}

/// A certificate to deny: by its fingerprint, or by issuer and serial number.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = NewDeniedCertificate)]
#[expect(dead_code, reason = "it describes what is read by hand")]
struct DenialRequest {
    /// SHA-256 of the TBSCertificate or of the whole certificate, in hexadecimal.
    fingerprint: Option<String>,
    /// The certificate's serial number, in hexadecimal.
    serial_number: Option<String>,
    /// The distinguished name of who issued it.
    issuer: Option<String>,
    /// Why.
    #[schema(min_length = 1, max_length = 2000)]
    reason: String,
}

impl FromFields for NewDenial {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let fingerprint = fields.optional("fingerprint", fields::parsed::<Fingerprint>);
        let serial = fields.optional("serialNumber", fields::parsed::<HexSerial>);
        let issuer = fields.optional("issuer", fields::parsed::<IssuerName>);
        let reason = fields.required("reason", reason);
        let denial = match (fingerprint?, issuer?, serial?) {
            (Some(fingerprint), None, None) => Denial::Fingerprint(fingerprint),
            (None, Some(issuer), Some(serial)) => Denial::IssuerAndSerial { issuer, serial },
            (Some(_), ..) => {
                fields.wrong("fingerprint", "must not come with issuer and serialNumber");
                return None;
            }
            (None, None, Some(_)) => {
                fields.wrong("issuer", "is required with serialNumber");
                return None;
            }
            (None, Some(_), None) => {
                fields.wrong("serialNumber", "is required with issuer");
                return None;
            }
            (None, None, None) => {
                fields.wrong("fingerprint", "is required, or issuer and serialNumber");
                return None;
            }
        };
        Some(Self { denial, reason: reason? })
    }
}

fn reason(value: Value) -> Result<String, Invalid> {
    let reason = fields::description(value)?;
    if reason.trim().is_empty() { Err(Invalid::new("must not be empty")) } else { Ok(reason) }
}

/// A certificate that is denied.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeniedCertificate)]
struct DenialAnswer {
    id: String,
    client_pool_id: String,
    fingerprint: Option<String>,
    serial_number: Option<String>,
    issuer: Option<String>,
    reason: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

fn shown(pool: impl ToString) -> impl Fn(DeniedCertificate) -> DenialAnswer {
    let client_pool_id = pool.to_string();
    move |denied| {
        let (fingerprint, serial_number, issuer) = match denied.denial {
            Denial::Fingerprint(fingerprint) => (Some(fingerprint.to_string()), None, None),
            Denial::IssuerAndSerial { issuer, serial } => {
                (None, Some(serial.to_string()), Some(issuer.to_string()))
            }
        };
        DenialAnswer {
            id: denied.id.hyphenated().to_string(),
            client_pool_id: client_pool_id.clone(),
            fingerprint,
            serial_number,
            issuer,
            reason: denied.reason,
            created_at: denied.created_at,
        }
    }
}

/// Deny a certificate: no chain with it gets anybody in, whether it is a device's, an intermediate's or a root's.
#[utoipa::path(
    post,
    path = "/api/internal/{clientPoolId}/denied-certificates",
    operation_id = "denyCertificate",
    tag = "Certificates",
    request_body = DenialRequest,
    responses((status = 201, body = DenialAnswer))
)]
async fn create(
    State(app): State<App>,
    pool: InPool<CertificateWrite>,
    Create(new, request): Create<NewDenial>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, pool.scope.actor()).await?;
    let denied = denied_certificate::create(&mut creation.change, &pool.scope, new).await?;
    let created_at = denied.created_at;
    Ok(creation.finish(&shown(pool.scope.pool())(denied), Some(created_at)).await?)
}

/// List what is denied, by id.
#[utoipa::path(
    get,
    path = "/api/internal/{clientPoolId}/denied-certificates",
    operation_id = "listDeniedCertificates",
    tag = "Certificates",
    responses((status = 200, body = Page<DenialAnswer>))
)]
async fn list(
    State(app): State<App>,
    pool: InPool<DeviceRead>,
    Query(page): Query<PageRequest<Uuid>>,
) -> Result<Response, Problem> {
    let found = denied_certificate::list(app.context(), &pool.scope, page.after, page.rows()).await?;
    Ok(answer(&page.page(found, |denied| denied.id.to_string(), shown(pool.scope.pool()))))
}

/// Read a denial.
#[utoipa::path(
    get,
    path = "/api/internal/{clientPoolId}/denied-certificates/{deniedCertificateId}",
    operation_id = "getDeniedCertificate",
    tag = "Certificates",
    responses((status = 200, body = DenialAnswer))
)]
async fn read(denial: InDenial<DeviceRead>) -> Response {
    let created_at = denial.denied.created_at;
    tagged(answer(&shown(denial.scope.pool())(denial.denied)), created_at)
}

/// Take a denial back.
#[utoipa::path(
    delete,
    path = "/api/internal/{clientPoolId}/denied-certificates/{deniedCertificateId}",
    operation_id = "allowCertificate",
    tag = "Certificates",
    responses((status = 204))
)]
async fn remove(
    State(app): State<App>,
    denial: InDenial<CertificateWrite>,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    denied_certificate::delete(app.context(), &denial.scope, denial.denied.id, &precondition).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
