//! `/api/internal/org/{orgId}/env/{envId}/pool`

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use keypost_shared::document::ClaimsProfile;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{InEnv, OrgRead, OrgWrite};
use super::body::{Fields, FromFields, Invalid, JsonBody};
use super::precondition::{IfMatch, tagged};
use super::problem::Problem;
use super::{App, answer, fields};
use crate::key_maker::KmsMode;
use crate::service::client_pool::{self, PoolChange};
use crate::service::pool_keys::Backend;
use crate::store::client_pool::{ClientPool, backend_name, mode_name, mode_of_kms, profile_name};

/// The longest name of a KMS key: AWS allows 2048 characters, and no ARN or alias comes near 512.
const MAX_KMS_KEY_ID: usize = 512;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read, change))
}

impl FromFields for PoolChange {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        // What a number may be depends on the deployment, so the service says.
        let token_ttl_seconds = fields.replace("tokenTtlSeconds", any_integer);
        let max_staleness_seconds = fields.replace("maxStalenessSeconds", any_integer);
        let rotation_period_seconds = fields.replace("rotationPeriodSeconds", any_integer);
        let claims_profile = fields.patch("claimsProfile", ClaimsProfile::Device, claims_profile);
        let audience = fields.patch("audience", Vec::new(), fields::audience);
        let cors_origins = fields.patch("corsOrigins", Vec::new(), fields::origins);
        let provisioning = fields.patch("provisioning", Value::Null, |patch| match patch {
            Value::Object(_) => Ok(patch),
            _ => Err(Invalid::new("must be an object")),
        });
        let bind_to_certificate = fields.patch("bindToCertificate", false, |value| {
            value.as_bool().ok_or_else(|| Invalid::new("must be true or false"))
        });
        let backend = fields.replace("keyBackend", backend);
        let mode = fields.patch("keyMode", None, |value| kms_mode(value).map(Some));
        let kms_key_id = fields.patch("kmsKeyId", None, |value| kms_key_id(value).map(Some));
        fields.read_only(&["clientPoolId", "createdAt", "updatedAt"]);
        Some(Self {
            token_ttl_seconds: token_ttl_seconds?,
            max_staleness_seconds: max_staleness_seconds?,
            rotation_period_seconds: rotation_period_seconds?,
            claims_profile: claims_profile?,
            audience: audience?,
            cors_origins: cors_origins?,
            provisioning: provisioning?,
            bind_to_certificate: bind_to_certificate?,
            key_backend: backend?,
            key_mode: mode?,
            kms_key_id: kms_key_id?,
        })
    }
}

fn any_integer(value: Value) -> Result<u32, Invalid> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| Invalid::new("must be a whole number of seconds"))
}

fn backend(value: Value) -> Result<Backend, Invalid> {
    match value.as_str() {
        Some("local") => Ok(Backend::Local),
        Some("aws_kms") => Ok(Backend::AwsKms),
        _ => Err(Invalid::new("must be local or aws_kms")),
    }
}

fn kms_mode(value: Value) -> Result<KmsMode, Invalid> {
    match value.as_str() {
        Some("envelope") => Ok(KmsMode::Envelope),
        Some("kms_sign") => Ok(KmsMode::KmsSign),
        _ => Err(Invalid::new("must be envelope or kms_sign")),
    }
}

/// An ARN, an id or an alias: KMS says which key it is, and that is kept by its ARN.
fn kms_key_id(value: Value) -> Result<String, Invalid> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":/_-".contains(&byte);
    match value.as_str() {
        Some(text) if !text.is_empty() && text.len() <= MAX_KMS_KEY_ID && text.bytes().all(allowed) => {
            Ok(text.to_owned())
        }
        _ => Err(Invalid::new("must be the ARN, the id or the alias of a key in AWS KMS")),
    }
}

fn claims_profile(value: Value) -> Result<ClaimsProfile, Invalid> {
    match value.as_str() {
        Some("device") => Ok(ClaimsProfile::Device),
        Some("rfc9068") => Ok(ClaimsProfile::Rfc9068),
        _ => Err(Invalid::new("must be device or rfc9068")),
    }
}

/// The rules of an environment's client pool.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Pool)]
struct PoolAnswer<'a> {
    client_pool_id: String,
    token_ttl_seconds: u32,
    claims_profile: &'a str,
    audience: &'a [String],
    cors_origins: &'a [String],
    key_backend: &'a str,
    key_mode: Option<&'a str>,
    kms_key_id: Option<&'a str>,
    rotation_period_seconds: u32,
    max_staleness_seconds: u32,
    provisioning: ProvisioningAnswer<'a>,
    bind_to_certificate: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// Which devices may come with a certificate.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Provisioning)]
struct ProvisioningAnswer<'a> {
    mode: &'a str,
    r#match: Option<Value>,
    client_app_id: &'a str,
    scopes: Vec<&'a str>,
    device_id_template: String,
    tags: BTreeMap<&'a str, String>,
    max_per_hour: u32,
}

/// Read the rules of the environment's client pool.
#[utoipa::path(
    get,
    path = "/api/internal/org/{orgId}/env/{envId}/pool",
    operation_id = "getPool",
    tag = "Environments",
    responses((status = 200, body = PoolAnswer))
)]
async fn read(State(app): State<App>, env: InEnv<OrgRead>) -> Result<Response, Problem> {
    let pool = client_pool::find(app.context(), &env.scope).await?;
    Ok(show(&pool.ok_or_else(|| Problem::not_found("environment"))?))
}

/// Change rules of the environment's client pool: a merge patch (RFC 7396).
#[utoipa::path(
    patch,
    path = "/api/internal/org/{orgId}/env/{envId}/pool",
    operation_id = "changePool",
    tag = "Environments",
    request_body = PoolChange,
    responses((status = 200, body = PoolAnswer))
)]
async fn change(
    State(app): State<App>,
    env: InEnv<OrgWrite>,
    IfMatch(precondition): IfMatch,
    JsonBody(change): JsonBody<PoolChange>,
) -> Result<Response, Problem> {
    let everything = env.everything.as_ref();
    Ok(show(&client_pool::change(app.context(), &env.scope, &precondition, change, everything).await?))
}

fn show(pool: &ClientPool) -> Response {
    let provisioning = &pool.provisioning;
    let answered = answer(&PoolAnswer {
        client_pool_id: pool.id.to_string(),
        token_ttl_seconds: pool.token_ttl_seconds,
        claims_profile: profile_name(pool.claims_profile),
        audience: &pool.audience,
        cors_origins: &pool.cors_origins,
        key_backend: backend_name(&pool.keys),
        key_mode: pool.keys.mode().map(mode_of_kms),
        kms_key_id: pool.keys.kms_key_id(),
        rotation_period_seconds: pool.rotation_period_seconds,
        max_staleness_seconds: pool.max_staleness_seconds,
        provisioning: ProvisioningAnswer {
            mode: mode_name(provisioning.mode),
            // Texts and lists of texts: it serialises.
            r#match: provisioning.matching.as_ref().and_then(|matching| serde_json::to_value(matching).ok()),
            client_app_id: provisioning.client_app_id.as_str(),
            scopes: provisioning.scopes.iter().collect(),
            device_id_template: provisioning.device_id_template.to_string(),
            tags: provisioning.tags.iter().map(|(name, tag)| (name.as_str(), tag.to_string())).collect(),
            max_per_hour: provisioning.max_per_hour,
        },
        bind_to_certificate: pool.bind_to_certificate,
        created_at: pool.created_at,
        updated_at: pool.updated_at,
    });
    tagged(answered, pool.updated_at)
}
