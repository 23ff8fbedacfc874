//! `/api/internal/{clientPoolId}/revocations`

use axum::extract::State;
use axum::response::Response;
use keypost_shared::id::{ClientId, TokenId};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::{InAnyPool, TokenRevoke};
use super::body::{Fields, FromFields, Invalid};
use super::creation::{Create, Interrupted};
use super::problem::Problem;
use super::query::{Page, PageRequest, Query};
use super::{App, answer, fields};
use crate::service::revocation::{self, ToRevoke};
use crate::store::revoked_token::{RevokedBy, RevokedToken};

/// Longer than any token of ours: its metadata has at most 16 KiB.
const MAX_TOKEN: usize = 128 * 1024;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list))
}

/// What to revoke: a `token`, all tokens of a client by `clientId` alone, or one by `jti`, `exp` and `clientId`. In the pool
/// of an organization's people `clientId` is the session, the claim `sid`.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = NewRevocation)]
#[expect(dead_code, reason = "it describes what is read by hand")]
struct RevocationRequest {
    /// An access token of the pool.
    token: Option<String>,
    /// The client, or for people the session: alone, all tokens that it has had so far.
    client_id: Option<String>,
    /// The token's id, its claim `jti`.
    jti: Option<String>,
    /// When that token expires, its claim `exp`, in Unix seconds.
    exp: Option<i64>,
}

impl FromFields for ToRevoke {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let token = fields.optional("token", token);
        let client_id = fields.optional("clientId", fields::parsed::<ClientId>);
        let jti = fields.optional("jti", fields::parsed::<TokenId>);
        let exp = fields.optional("exp", unix_time);
        match (token?, client_id?, jti?, exp?) {
            (Some(token), None, None, None) => Some(Self::Token(token)),
            (Some(_), ..) => {
                fields.wrong("token", "must come alone");
                None
            }
            (None, Some(client_id), None, None) => Some(Self::Client(client_id)),
            (None, Some(client_id), Some(jti), Some(expires_at)) => {
                Some(Self::Jti { jti, expires_at, client_id })
            }
            (None, None, None, None) => {
                fields.wrong("token", "is required, or clientId, or jti, exp and clientId");
                None
            }
            (None, client_id, jti, exp) => {
                let named =
                    [("clientId", client_id.is_some()), ("jti", jti.is_some()), ("exp", exp.is_some())];
                for (name, _) in named.into_iter().filter(|(_, is_there)| !is_there) {
                    fields.wrong(name, "is required where a token is named by its jti");
                }
                None
            }
        }
    }
}

fn token(value: Value) -> Result<String, Invalid> {
    let token = fields::text(value)?;
    if token.len() > MAX_TOKEN { Err(Invalid::new("is not an access token of the pool")) } else { Ok(token) }
}

fn unix_time(value: Value) -> Result<OffsetDateTime, Invalid> {
    let wrong = || Invalid::new("must be a time in Unix seconds");
    let seconds = value.as_i64().ok_or_else(wrong)?;
    let time = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| wrong())?;
    if (1970..=9999).contains(&time.year()) { Ok(time) } else { Err(wrong()) }
}

/// A revocation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Revocation)]
struct RevocationAnswer {
    id: String,
    client_pool_id: String,
    /// Whose tokens: a client's, or for people a session's.
    client_id: String,
    /// The token; null for all that the client had.
    jti: Option<String>,
    /// When the last of what was revoked expires. The revocation is forgotten then.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    revoked_at: OffsetDateTime,
    /// By when it is revoked everywhere, apart from outages.
    #[serde(with = "time::serde::rfc3339")]
    effective_by: OffsetDateTime,
    /// `client`, at the edge (RFC 7009), or `administrator`.
    #[schema(value_type = String)]
    revoked_by: RevokedBy,
}

fn shown(pool: impl ToString) -> impl Fn(RevokedToken) -> RevocationAnswer {
    let client_pool_id = pool.to_string();
    move |revoked| RevocationAnswer {
        id: revoked.id.hyphenated().to_string(),
        client_pool_id: client_pool_id.clone(),
        client_id: revoked.client_id.to_string(),
        jti: revoked.jti.map(|jti| jti.to_string()),
        expires_at: revoked.expires_at,
        revoked_at: revoked.revoked_at,
        effective_by: revocation::effective_by(revoked.revoked_at),
        revoked_by: revoked.revoked_by,
    }
}

/// Revoke a token, or all tokens that a client has had so far. The client may have new ones.
#[utoipa::path(
    post,
    path = "/api/internal/{clientPoolId}/revocations",
    operation_id = "revokeTokens",
    tag = "Revocation",
    request_body = RevocationRequest,
    responses((status = 201, body = RevocationAnswer))
)]
async fn create(
    State(app): State<App>,
    pool: InAnyPool<TokenRevoke>,
    Create(to_revoke, request): Create<ToRevoke>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, &pool.actor).await?;
    let revoked = revocation::revoke(&mut creation.change, &pool.owner, to_revoke).await?;
    Ok(creation.finish(&shown(pool.owner.pool())(revoked), None).await?)
}

/// List what has been revoked and has not expired, by id.
#[utoipa::path(
    get,
    path = "/api/internal/{clientPoolId}/revocations",
    operation_id = "listRevocations",
    tag = "Revocation",
    responses((status = 200, body = Page<RevocationAnswer>))
)]
async fn list(
    State(app): State<App>,
    pool: InAnyPool<TokenRevoke>,
    Query(page): Query<PageRequest<Uuid>>,
) -> Result<Response, Problem> {
    let found = revocation::list(app.context(), &pool.owner, page.after, page.rows()).await?;
    Ok(answer(&page.page(found, |revoked| revoked.id.to_string(), shown(pool.owner.pool()))))
}
