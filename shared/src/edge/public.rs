//! What everybody may read: key sets, metadata and the Worker's health.

use serde::Serialize;

use super::http::{Request, Response};
use super::platform::Platform;
use super::pool::Freshness;
use super::{Context, Edge};
use crate::id::PoolId;
use crate::oauth::OAuthError;
use crate::time::UnixTime;

/// How long verifiers and caches may keep a key set or metadata, in seconds.
const MAX_AGE: u64 = 300;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<PoolHealth>,
}

/// What the isolate that answered holds of a pool. Other isolates hold their own copies.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolHealth {
    version: u64,
    iat: UnixTime,
    next_update: Option<UnixTime>,
    age_seconds: u64,
    read_seconds_ago: u64,
    /// Of the oldest shard of the revocation list that it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_list_age_seconds: Option<u64>,
}

impl<P: Platform> Edge<P> {
    /// `GET /{pool}/.well-known/jwks.json` (RFC 7517).
    pub(super) async fn jwks(
        &self,
        context: &Context<'_, P>,
        pool: PoolId,
        request: &Request<'_>,
    ) -> Result<Response, OAuthError> {
        let loaded = self.load_pool(context, pool, Freshness::Verifiable).await?;
        Ok(Response::public(request, loaded.pool.jwks(context)?, MAX_AGE))
    }

    /// The issuer's metadata (RFC 8414), the same document under each of its URLs.
    pub(super) async fn metadata(
        &self,
        context: &Context<'_, P>,
        pool: PoolId,
        request: &Request<'_>,
    ) -> Result<Response, OAuthError> {
        let loaded = self.load_pool(context, pool, Freshness::Verifiable).await?;
        Ok(Response::public(request, loaded.pool.metadata(context)?, MAX_AGE))
    }

    /// `GET /healthz`: the Worker's version, and with `?pool=` the age of what this isolate holds of a pool. Reads
    /// nothing.
    pub(super) fn healthz(&self, context: &Context<'_, P>, request: &Request<'_>) -> Response {
        let pool = request.query.split('&').find_map(|parameter| parameter.strip_prefix("pool="));
        let held = pool.and_then(|pool| pool.parse().ok()).and_then(|pool| self.pools.peek(pool));
        let pool = held.map(|(pool, read_at)| PoolHealth {
            version: pool.stamp.version,
            iat: pool.stamp.iat,
            next_update: pool.stamp.next_update,
            age_seconds: context.now.since(pool.stamp.iat),
            read_seconds_ago: context.now.since(read_at),
            revocation_list_age_seconds: self
                .shards
                .oldest(pool.id, pool.document.revocation_shards)
                .map(|iat| context.now.since(iat)),
        });
        let health = Health { status: "ok", version: env!("CARGO_PKG_VERSION"), pool };
        // Numbers and plain strings always serialise.
        Response::secret_json(200, serde_json::to_vec(&health).unwrap_or_default())
            .with("access-control-allow-origin", "*")
    }
}
