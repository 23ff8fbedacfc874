//! `/api/internal/sync/publisher-keys`

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Everything, InPublisherKey, SyncWrite};
use super::problem::Problem;
use super::{App, answer};
use crate::service::publisher_key;
use crate::store::publisher_key::{PublisherKeyState, StoredPublisherKey};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(remove))
}

/// The keys that sign what stands in KV.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PublisherKeys)]
struct KeysAnswer<'a> {
    items: Vec<KeyAnswer<'a>>,
    /// The version of `v1/trust` as it was written last.
    trust_version: Option<u64>,
}

/// A key that signs what stands in KV.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PublisherKey)]
struct KeyAnswer<'a> {
    kid: &'a str,
    /// `waiting` for its turn, `signing`, `leaving` once nothing that it signed is left, or `removed`.
    state: &'static str,
    /// How many documents it has signed that have not been signed anew.
    documents: i64,
    /// When `v1/trust` first listed it.
    #[serde(with = "time::serde::rfc3339::option")]
    listed_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    signs_since: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    removed_at: Option<OffsetDateTime>,
}

/// A key that was removed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PublisherKeyRemoved)]
struct RemovedAnswer<'a> {
    kid: &'a str,
    /// Whether the `v1/trust` without it has been written.
    published: bool,
    /// What to set the Worker's `MIN_TRUST_VERSION` to, so that no older `v1/trust` counts any more.
    min_trust_version: u64,
}

/// See the keys that sign what stands in KV.
#[utoipa::path(
    get,
    path = "/api/internal/sync/publisher-keys",
    operation_id = "getPublisherKeys",
    tag = "Publishing",
    responses((status = 200, body = KeysAnswer))
)]
async fn list(State(app): State<App>, everything: Everything<SyncWrite>) -> Result<Response, Problem> {
    let found = publisher_key::list(app.context(), &everything.scope).await?;
    let items = found.keys.iter().map(shown).collect();
    Ok(answer(&KeysAnswer { items, trust_version: found.trust_version }))
}

/// Remove a key before its time, because it may have been stolen: what it signed counts no more, and is signed anew.
#[utoipa::path(
    delete,
    path = "/api/internal/sync/publisher-keys/{publisherKid}",
    operation_id = "removePublisherKey",
    tag = "Publishing",
    responses((status = 200, body = RemovedAnswer))
)]
async fn remove(
    State(app): State<App>,
    InPublisherKey { scope, kid, .. }: InPublisherKey<SyncWrite>,
) -> Result<Response, Problem> {
    match publisher_key::remove(app.context(), &scope, &kid).await? {
        Some(removed) => Ok(answer(&RemovedAnswer {
            kid: kid.as_str(),
            published: removed.published,
            min_trust_version: removed.min_trust_version,
        })),
        None => Err(Problem::not_found("publisher key")),
    }
}

fn shown(key: &StoredPublisherKey) -> KeyAnswer<'_> {
    KeyAnswer {
        kid: key.kid.as_str(),
        state: match key.state {
            PublisherKeyState::Waiting => "waiting",
            PublisherKeyState::Signing => "signing",
            PublisherKeyState::Leaving => "leaving",
            PublisherKeyState::Removed => "removed",
        },
        documents: key.documents,
        listed_at: key.listed_at,
        signs_since: key.signs_since,
        removed_at: key.removed_at,
    }
}
