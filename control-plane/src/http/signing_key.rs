//! `/api/internal/{clientPoolId}/keys`

use axum::extract::State;
use axum::response::Response;
use keypost_shared::id::Kid;
use keypost_shared::jwk::SigningAlg;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{DeviceRead, InPool, InSigningKey, KeyRotate};
use super::body::{Fields, FromFields};
use super::creation::{CreateWithDefaults, Interrupted};
use super::problem::Problem;
use super::query::{Page, PageRequest, Query};
use super::{App, answer};
use crate::service::signing_key::{self, Bounds, KeyTimes, Revocation, Rotation};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(rotate)).routes(routes!(revoke))
}

/// A key of a client pool.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SigningKey)]
struct KeyAnswer {
    /// The public half's thumbprint, which its tokens and the key set name.
    kid: String,
    #[schema(value_type = String)]
    alg: SigningAlg,
    /// `local` or `aws_kms`.
    backend: String,
    /// `envelope` or `kms_sign`, for `aws_kms`.
    mode: Option<String>,
    /// `next`, `active`, `retiring`, `gone` or `revoked`.
    state: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Since when it has been in the key set at the edge.
    #[serde(with = "time::serde::rfc3339::option")]
    published_at: Option<OffsetDateTime>,
    /// When it began to sign, or will.
    #[serde(with = "time::serde::rfc3339::option")]
    activates_at: Option<OffsetDateTime>,
    /// When it stopped signing, or will.
    #[serde(with = "time::serde::rfc3339::option")]
    retires_at: Option<OffsetDateTime>,
    /// When it left the key set, or will.
    #[serde(with = "time::serde::rfc3339::option")]
    removed_at: Option<OffsetDateTime>,
}

impl From<KeyTimes> for KeyAnswer {
    fn from(times: KeyTimes) -> Self {
        let KeyTimes { key, activates_at, retires_at, removed_at } = times;
        Self {
            kid: key.kid.into(),
            alg: key.alg,
            backend: key.backend,
            mode: key.key_mode,
            state: key.state,
            created_at: key.created_at,
            published_at: key.published_at,
            activates_at,
            retires_at,
            removed_at,
        }
    }
}

/// When the next key signs.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KeyRotation)]
struct RotationAnswer {
    /// The key that signs next; null where it has yet to be made.
    kid: Option<String>,
    /// When it signs. Where that is not certain, it is not earlier.
    #[serde(with = "time::serde::rfc3339")]
    signs_at: OffsetDateTime,
    /// Whether it does already.
    signs: bool,
    /// Whether the time is certain: the key is in the key set at the edge, so that its hour has begun.
    certain: bool,
}

impl From<Rotation> for RotationAnswer {
    fn from(rotation: Rotation) -> Self {
        let Rotation { kid, signs_at, done, certain } = rotation;
        Self { kid: kid.map(String::from), signs_at, signs: done, certain }
    }
}

/// By when a revoked key is out of use.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KeyRevocation)]
struct RevocationAnswer {
    kid: String,
    state: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    revoked_at: OffsetDateTime,
    /// Whether the pool's new document is in KV. If not, it will be, and the two times that follow are later by as much.
    published: bool,
    /// By when no edge issues with it or has it in its key set.
    #[serde(with = "time::serde::rfc3339")]
    out_of_use_by: OffsetDateTime,
    /// By when no cache that keeps to the key set's `max-age` has it either: from then on no verifier takes its tokens.
    #[serde(with = "time::serde::rfc3339")]
    out_of_caches_by: OffsetDateTime,
    /// Whatever happens to the publishing: when the last document that lets it sign, and the last of its tokens, have ended.
    /// Null for a key that never signed.
    #[serde(with = "time::serde::rfc3339::option")]
    at_the_latest: Option<OffsetDateTime>,
    /// The key that signs now. Null where the pool has no other: its tokens stand still until one has been made.
    active_kid: Option<String>,
    /// Whether that key signs before it has been in the key set for an hour: a verifier that keeps key sets and does not
    /// ask again for a key that it does not know may refuse its tokens for some minutes.
    active_is_young: bool,
}

/// A request without a body.
pub(super) struct NoFields;

impl FromFields for NoFields {
    fn from_fields(_: &mut Fields) -> Option<Self> {
        Some(Self)
    }
}

/// List the keys of a client pool, newest first, also those that are gone.
#[utoipa::path(
    get,
    path = "/api/internal/{clientPoolId}/keys",
    operation_id = "listSigningKeys",
    tag = "Signing keys",
    responses((status = 200, body = Page<KeyAnswer>))
)]
async fn list(
    State(app): State<App>,
    pool: InPool<DeviceRead>,
    Query(page): Query<PageRequest<Kid>>,
) -> Result<Response, Problem> {
    let found = signing_key::list(app.context(), &pool.scope, page.after.as_ref(), page.rows()).await?;
    Ok(answer(&page.page(found, |times| times.key.kid.to_string(), KeyAnswer::from)))
}

/// Let the next key of a client pool sign: at once where it has been in the key set for an hour, else as soon as it has.
#[utoipa::path(
    post,
    path = "/api/internal/{clientPoolId}/keys/rotate",
    operation_id = "rotateSigningKeys",
    tag = "Signing keys",
    responses((status = 200, body = RotationAnswer))
)]
async fn rotate(
    State(app): State<App>,
    pool: InPool<KeyRotate>,
    CreateWithDefaults(NoFields, request): CreateWithDefaults<NoFields>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, pool.scope.actor()).await?.with_message();
    let rotation = signing_key::rotate(&mut creation.change, &pool.scope).await?;
    Ok(creation.finish(&RotationAnswer::from(rotation), None).await?)
}

/// Revoke a key: it is out of use and out of the key set at once, and every token that it has signed is worthless once
/// verifiers have the new key set. Where it signed, another key does from now on.
#[utoipa::path(
    post,
    path = "/api/internal/{clientPoolId}/keys/{kid}/revoke",
    operation_id = "revokeSigningKey",
    tag = "Signing keys",
    responses((status = 200, body = RevocationAnswer))
)]
async fn revoke(
    State(app): State<App>,
    target: InSigningKey<KeyRotate>,
    CreateWithDefaults(NoFields, request): CreateWithDefaults<NoFields>,
) -> Result<Response, Interrupted> {
    let InSigningKey { scope, kid, .. } = &target;
    // Before anything is locked: it may take its time.
    let spare = signing_key::spare(app.context(), scope, kid).await?;
    let mut creation = request.begin(&app, scope.actor()).await?.with_message();
    let revocation = signing_key::revoke(&mut creation.change, scope, kid, spare).await?;
    let revoked_at = revocation.revoked_at;
    let wait = async |marks| signing_key::wait_until_published(app.context(), marks).await;
    let shown = |published| shown(revocation.clone(), published, app.context().clock.now());
    Ok(creation.finish_after(&app, Some(revoked_at), wait, shown).await?)
}

fn shown(revocation: Revocation, published: bool, now: OffsetDateTime) -> RevocationAnswer {
    let Revocation { kid, revoked_at, documents_until, active, young } = revocation;
    let Bounds { edges, caches } = Bounds::of_document_written(now);
    RevocationAnswer {
        kid: kid.into(),
        state: "revoked",
        revoked_at,
        published,
        out_of_use_by: edges,
        out_of_caches_by: caches,
        at_the_latest: documents_until,
        active_kid: active.map(String::from),
        active_is_young: young,
    }
}
