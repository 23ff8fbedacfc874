//! `/api/internal/org/{orgId}/env/{envId}/device`

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keypost_shared::id::DeviceId;
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{DeviceRead, DeviceWrite, InDevice, InEnv};
use super::body::{Fields, FromFields, JsonBody, NoBody};
use super::creation::{Create, Interrupted};
use super::deletion::Deletion;
use super::precondition::{IfMatch, tagged};
use super::problem::{Problem, not_created};
use super::query::{FromQuery, Page, PageRequest, Query, QueryFields};
use super::{App, answer, fields};
use crate::service::device::{self, DevicePatch, DeviceReplacement, MAX_TAGS, NewDevice};
use crate::store::device::{Device, DeviceStatus};
use crate::store::device_list::DeviceFilter;
use crate::store::environment::EnvScope;

/// The longest text to look for: as long as a name may be.
const MAX_TEXT: usize = 200;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, replace, change, delete))
        .routes(routes!(disable))
        .routes(routes!(enable))
}

impl FromFields for NewDevice {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let id = fields.required("id", fields::device_id);
        let rest = rest_of(fields)?;
        Some(Self {
            id: id?,
            name: rest.name,
            description: rest.description,
            metadata: rest.metadata,
            tags: rest.tags,
            primary_server_url: rest.primary_server_url,
            server_urls: rest.server_urls,
        })
    }
}

impl FromFields for DeviceReplacement {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        fields.read_only(&READ_ONLY);
        rest_of(fields)
    }
}

impl FromFields for DevicePatch {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        fields.read_only(&READ_ONLY);
        let name = fields.replace("name", fields::name);
        let description = fields.patch("description", None, |value| fields::description(value).map(Some));
        let metadata = fields.verbatim_patch("metadata", fields::metadata_patch);
        let tags = fields.patch("tags", device::TagsPatch::Reset, fields::tags_patch);
        let primary_server_url =
            fields.patch("primaryServerUrl", None, |value| fields::server_url(value).map(Some));
        let server_urls = fields.patch("serverUrls", Vec::new(), fields::server_urls);
        Some(Self {
            name: name?,
            description: description?,
            metadata: metadata?,
            tags: tags?,
            primary_server_url: primary_server_url?,
            server_urls: server_urls?,
        })
    }
}

const READ_ONLY: [&str; 7] = ["id", "orgId", "envId", "status", "lastActivatedAt", "createdAt", "updatedAt"];

fn rest_of(fields: &mut Fields) -> Option<DeviceReplacement> {
    let name = fields.required("name", fields::name);
    let description = fields.optional("description", fields::description);
    let metadata = fields.verbatim("metadata", "{}", fields::metadata);
    let tags = fields.optional("tags", fields::tags);
    let primary_server_url = fields.optional("primaryServerUrl", fields::server_url);
    let server_urls = fields.optional("serverUrls", fields::server_urls);
    Some(DeviceReplacement {
        name: name?,
        description: description?,
        metadata: metadata?,
        tags: tags?.unwrap_or_default(),
        primary_server_url: primary_server_url?,
        server_urls: server_urls?.unwrap_or_default(),
    })
}

/// Which devices, and which page of them.
struct DeviceQuery {
    filter: DeviceFilter,
    page: PageRequest<DeviceId>,
}

impl FromQuery for DeviceQuery {
    fn from_query(query: &mut QueryFields) -> Option<Self> {
        let status = query.optional("status");
        let text = query.checked("q", |text| fields::search_text(text, MAX_TEXT));
        let tags = tags_from(query);
        let page = query.page();
        Some(Self { filter: DeviceFilter { status: status?, tags: tags?, text: text? }, page: page? })
    }
}

/// `tag.KEY=VALUE`, each key once.
fn tags_from(query: &mut QueryFields) -> Option<Vec<(String, String)>> {
    let sent = query.prefixed("tag.");
    if sent.len() > MAX_TAGS {
        query.wrong("tag", format!("must not be asked for more than {MAX_TAGS} times"));
        return None;
    }
    let mut good = true;
    for (position, (name, value)) in sent.iter().enumerate() {
        let repeated = sent.iter().take(position).any(|(earlier, _)| earlier == name);
        let checked = if repeated { Err("is repeated") } else { fields::check_tag_text(name, value) };
        if let Err(detail) = checked {
            query.wrong(&format!("tag.{name}"), detail);
            good = false;
        }
    }
    good.then_some(sent)
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
    #[schema(inline)]
    status: DeviceStatus,
    #[serde(with = "time::serde::rfc3339::option")]
    last_activated_at: Option<OffsetDateTime>,
    /// `certificate`, where the device has come to exist by it; none where somebody registered it.
    provisioned_by: Option<&'a str>,
    #[serde(with = "time::serde::rfc3339::option")]
    provisioned_at: Option<OffsetDateTime>,
    /// SHA-256 of the certificate that the device was first seen with.
    certificate_fingerprint: Option<String>,
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

/// List the devices of an environment to which all filters apply, by id.
#[utoipa::path(
    get,
    path = "/api/internal/org/{orgId}/env/{envId}/device",
    operation_id = "listDevices",
    tag = "Devices",
    params(
        ("status" = Option<DeviceStatus>, Query, description = "Where they stand."),
        ("q" = Option<String>, Query, min_length = 1, max_length = 200,
         description = "What stands in their id or name, in capitals or not."),
    ),
    responses((status = 200, body = Page<DeviceAnswer>))
)]
async fn list(
    State(app): State<App>,
    env: InEnv<DeviceRead>,
    Query(query): Query<DeviceQuery>,
) -> Result<Response, Problem> {
    let DeviceQuery { filter, page } = query;
    let found = device::list(app.context(), &env.scope, &filter, page.after.as_ref(), page.rows()).await?;
    let show = |device| DeviceAnswer::new(&env.scope, device);
    Ok(answer(&page.page(found.iter().collect(), |device: &&Device| device.id.to_string(), show)))
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

/// Replace what can be changed of a device. Its next token is different.
#[utoipa::path(
    put,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}",
    operation_id = "replaceDevice",
    tag = "Devices",
    request_body = DeviceReplacement,
    responses((status = 200, body = DeviceAnswer))
)]
async fn replace(
    State(app): State<App>,
    target: InDevice<DeviceWrite>,
    IfMatch(precondition): IfMatch,
    JsonBody(replacement): JsonBody<DeviceReplacement>,
) -> Result<Response, Problem> {
    let InDevice { scope, device, .. } = target;
    let replaced = device::replace(app.context(), &scope, &device.id, &precondition, replacement).await?;
    Ok(show(&scope, &replaced))
}

/// Change a device by a merge patch (RFC 7396), which reaches into metadata and tags. Its next token is different.
#[utoipa::path(
    patch,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}",
    operation_id = "changeDevice",
    tag = "Devices",
    request_body = DevicePatch,
    responses((status = 200, body = DeviceAnswer))
)]
async fn change(
    State(app): State<App>,
    target: InDevice<DeviceWrite>,
    IfMatch(precondition): IfMatch,
    JsonBody(patch): JsonBody<DevicePatch>,
) -> Result<Response, Problem> {
    let InDevice { scope, device, .. } = target;
    Ok(show(&scope, &device::patch(app.context(), &scope, &device.id, &precondition, patch).await?))
}

/// Delete a device. With `cascade`, its apps go with it.
#[utoipa::path(
    delete,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}",
    operation_id = "deleteDevice",
    tag = "Devices",
    params(("cascade" = Option<bool>, Query, description = "Whether to delete its apps too.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete(
    State(app): State<App>,
    target: InDevice<DeviceWrite>,
    deletion: Deletion,
) -> Result<StatusCode, Problem> {
    let Deletion { precondition, cascade } = deletion;
    device::delete(app.context(), &target.scope, &target.device.id, &precondition, cascade).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Disable a device: it gets no tokens until it is enabled.
#[utoipa::path(
    post,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/disable",
    operation_id = "disableDevice",
    tag = "Devices",
    responses((status = 200, body = DeviceAnswer))
)]
async fn disable(
    State(app): State<App>,
    target: InDevice<DeviceWrite>,
    IfMatch(precondition): IfMatch,
    _: NoBody,
) -> Result<Response, Problem> {
    let InDevice { scope, device, .. } = target;
    Ok(show(&scope, &device::disable(app.context(), &scope, &device.id, &precondition).await?))
}

/// Enable a device that has been disabled.
#[utoipa::path(
    post,
    path = "/api/internal/org/{orgId}/env/{envId}/device/{deviceId}/enable",
    operation_id = "enableDevice",
    tag = "Devices",
    responses((status = 200, body = DeviceAnswer))
)]
async fn enable(
    State(app): State<App>,
    target: InDevice<DeviceWrite>,
    IfMatch(precondition): IfMatch,
    _: NoBody,
) -> Result<Response, Problem> {
    let InDevice { scope, device, .. } = target;
    Ok(show(&scope, &device::enable(app.context(), &scope, &device.id, &precondition).await?))
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
            status: device.status,
            last_activated_at: device.last_activated_at,
            provisioned_by: device.certificate.provisioned_by.as_deref(),
            provisioned_at: device.certificate.provisioned_at,
            certificate_fingerprint: device
                .certificate
                .fingerprint
                .map(|fingerprint| fingerprint.to_string()),
            created_at: device.created_at,
            updated_at: device.updated_at,
        }
    }
}
