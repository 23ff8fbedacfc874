//! `/api/internal/{clientPoolId}/certificates`: the roots that a pool's devices come under.

use axum::body::Body;
use axum::extract::multipart::{Multipart, MultipartError};
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64ct::{Base64, Encoding};
use keypost_shared::certificate::Fingerprint;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{CertificateWrite, DeviceRead, InPool, InRoot};
use super::body::read_at_most;
use super::creation::{CreateHead, CreateRequest, Interrupted};
use super::precondition::{IfMatch, tagged};
use super::problem::{FieldError, Problem};
use super::query::{Page, PageRequest, Query};
use super::{App, answer};
use crate::service::has_control;
use crate::service::trust_anchor::{self, RootUpload};
use crate::store::trust_anchor::TrustAnchor;

/// The most bytes of an upload: a root has 128 KiB at most, and around it stands a form.
const MAX_UPLOAD_BYTES: usize = 160 * 1024;
/// The most characters of a file's name.
const MAX_FILENAME: usize = 200;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(upload, list)).routes(routes!(read, remove))
}

/// A form with a file.
struct Uploaded(RootUpload, CreateRequest);

/// A root to upload.
#[derive(ToSchema)]
#[schema(as = CertificateUpload)]
#[expect(dead_code, reason = "it describes what is read by hand")]
struct UploadForm {
    /// A PEM file with one root certificate.
    #[schema(format = Binary, content_media_type = "application/x-pem-file")]
    certificate: String,
    /// The fingerprint of the root that this one takes the place of: devices that are pinned to that one may come with
    /// this one.
    replaces: Option<String>,
}

impl FromRequest<App> for Uploaded {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let head = CreateHead::read(&request)?;
        let content_type =
            request.headers().get(CONTENT_TYPE).cloned().unwrap_or(HeaderValue::from_static(""));
        let is_form = content_type.to_str().is_ok_and(|text| {
            text.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("multipart/form-data"))
        });
        if !is_form {
            return Err(Problem::unsupported_media_type("multipart/form-data"));
        }
        // All of it at once, so that the limits are those of every other body.
        let bytes = read_at_most(request, MAX_UPLOAD_BYTES).await?;
        let mut whole = Request::new(Body::from(bytes));
        whole.headers_mut().insert(CONTENT_TYPE, content_type);
        let form = Multipart::from_request(whole, app).await;
        let upload = read_form(form.map_err(|_| malformed())?).await?;
        // The form's boundary is another each time: what counts is what it holds.
        let mut content =
            upload.replaces.map(|replaced| replaced.to_string()).unwrap_or_default().into_bytes();
        content.push(b'\n');
        content.extend_from_slice(&upload.pem);
        Ok(Self(upload, CreateRequest::of(head, content)))
    }
}

async fn read_form(mut form: Multipart) -> Result<RootUpload, Problem> {
    let (mut file, mut replaces) = (None, None);
    let mut errors = Vec::new();
    let mut wrong = |field: &str, detail: &str| {
        errors.push(FieldError { field: field.to_owned(), detail: detail.to_owned() });
    };
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        let filename = field.file_name().map(base_name);
        let bytes = field.bytes().await.map_err(broken)?;
        match name.as_str() {
            "certificate" if file.is_none() => {
                if filename.as_ref().is_some_and(|name| !is_good_name(name)) {
                    wrong(
                        "certificate",
                        "must have a file name of at most 200 characters, none of them control characters",
                    );
                }
                file = Some((bytes.to_vec(), filename));
            }
            "replaces" if replaces.is_none() => {
                let read = std::str::from_utf8(&bytes).ok().map(|text| text.trim().parse::<Fingerprint>());
                match read {
                    Some(Ok(fingerprint)) => replaces = Some(fingerprint),
                    _ => wrong(
                        "replaces",
                        "must be a SHA-256 in hexadecimal: 64 digits, with or without colons",
                    ),
                }
            }
            "certificate" | "replaces" => wrong(&name, "is repeated"),
            _ => wrong(&name, "is unknown"),
        }
    }
    if file.is_none() {
        wrong("certificate", "is required");
    }
    match file {
        Some((pem, filename)) if errors.is_empty() => {
            Ok(RootUpload { pem, filename: filename.filter(|name| !name.is_empty()), replaces })
        }
        _ => Err(Problem::invalid(errors)),
    }
}

/// The name without the folders that some clients send.
fn base_name(name: &str) -> String {
    name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned()
}

fn is_good_name(name: &str) -> bool {
    name.chars().count() <= MAX_FILENAME && !has_control(name)
}

fn malformed() -> Problem {
    Problem::malformed_body("the body is not multipart/form-data with a boundary")
}

fn broken(_: MultipartError) -> Problem {
    malformed()
}

/// A root, as its upload is answered.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UploadedCertificate)]
struct UploadAnswer<'a> {
    success: bool,
    message: &'a str,
    client_pool_id: String,
    filename: Option<&'a str>,
    fingerprint: String,
    subject: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    not_after: OffsetDateTime,
}

/// A root that a pool's devices come under.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Certificate)]
struct RootAnswer {
    /// SHA-256 of the certificate.
    fingerprint: String,
    client_pool_id: String,
    subject: String,
    filename: Option<String>,
    /// The root that this one takes the place of.
    replaces: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    not_before: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    not_after: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// Upload a root: a PEM file. Each thing that is wrong with it has a code of its own.
#[utoipa::path(
    post,
    path = "/api/internal/{clientPoolId}/certificates",
    operation_id = "uploadCertificate",
    tag = "Certificates",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same request with the same key gets the same answer, for 24 hours.", pattern = "^[!-~]{1,255}$")),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, body = UploadAnswer),
        (status = 409, description = "The pool has it already, or as many as it may have.", body = super::problem::ProblemAnswer, content_type = "application/problem+json"),
        (status = 422, description = "The Idempotency-Key came with another request before.", body = super::problem::ProblemAnswer, content_type = "application/problem+json"),
    )
)]
async fn upload(
    State(app): State<App>,
    pool: InPool<CertificateWrite>,
    Uploaded(upload, request): Uploaded,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, pool.scope.actor()).await?;
    let root = trust_anchor::upload(&mut creation.change, &pool.scope, upload).await?;
    let uploaded = UploadAnswer {
        success: true,
        message: "Certificate uploaded successfully",
        client_pool_id: pool.scope.pool().to_string(),
        filename: root.filename.as_deref(),
        fingerprint: root.fingerprint.to_string(),
        subject: &root.subject,
        not_after: root.not_after,
    };
    Ok(creation.with_message().finish(&uploaded, None).await?)
}

/// List the pool's roots, by fingerprint.
#[utoipa::path(
    get,
    path = "/api/internal/{clientPoolId}/certificates",
    operation_id = "listCertificates",
    tag = "Certificates",
    responses((status = 200, body = Page<RootAnswer>))
)]
async fn list(
    State(app): State<App>,
    pool: InPool<DeviceRead>,
    Query(page): Query<PageRequest<Fingerprint>>,
) -> Result<Response, Problem> {
    let found = trust_anchor::list(app.context(), &pool.scope, page.after.as_ref(), page.rows()).await?;
    let show = |root: TrustAnchor| RootAnswer {
        fingerprint: root.fingerprint.to_string(),
        client_pool_id: pool.scope.pool().to_string(),
        subject: root.subject,
        filename: root.filename,
        replaces: root.replaces.map(|replaced| replaced.to_string()),
        not_before: root.not_before,
        not_after: root.not_after,
        created_at: root.created_at,
    };
    Ok(answer(&page.page(found, |root| root.fingerprint.to_string(), show)))
}

/// Download a root as PEM.
#[utoipa::path(
    get,
    path = "/api/internal/{clientPoolId}/certificates/{fingerprint}",
    operation_id = "getCertificate",
    tag = "Certificates",
    responses((status = 200, body = String, content_type = "application/x-pem-file"))
)]
async fn read(root: InRoot<DeviceRead>) -> Response {
    let mut response = pem(root.root.certificate.as_bytes()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-pem-file"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    tagged(response, root.root.created_at)
}

/// Remove a root: chains to it are refused from now on.
#[utoipa::path(
    delete,
    path = "/api/internal/{clientPoolId}/certificates/{fingerprint}",
    operation_id = "deleteCertificate",
    tag = "Certificates",
    responses((status = 204))
)]
async fn remove(
    State(app): State<App>,
    root: InRoot<CertificateWrite>,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    trust_anchor::delete(app.context(), &root.scope, &root.root.fingerprint, &precondition).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// RFC 7468, with lines of 64 characters.
fn pem(der: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (position, letter) in Base64::encode_string(der).chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text + "\n-----END CERTIFICATE-----\n"
}
