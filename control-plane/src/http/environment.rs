//! `/api/internal/org/{orgId}/env`

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use time::OffsetDateTime;

use super::access::{InEnv, InOrg, OrgRead, OrgWrite};
use super::body::{Fields, FromFields, JsonBody};
use super::problem::{Problem, not_created};
use super::{App, answer, fields};
use crate::service::environment::{self, NewEnvironment};
use crate::service::pool_urls::PoolUrls;
use crate::store::environment::Environment;

impl FromFields for NewEnvironment {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let id = fields.required("id", fields::parsed);
        let name = fields.required("name", fields::name);
        let description = fields.optional("description", fields::description);
        let tag_defaults = fields.optional("tagDefaults", fields::tags);
        let primary_server_url = fields.optional("primaryServerUrl", fields::server_url);
        let server_urls = fields.optional("serverUrls", fields::server_urls);
        Some(Self {
            id: id?,
            name: name?,
            description: description?,
            tag_defaults: tag_defaults?,
            primary_server_url: primary_server_url?,
            server_urls: server_urls?.unwrap_or_default(),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EnvironmentAnswer<'a> {
    id: &'a str,
    org_id: &'a str,
    name: &'a str,
    description: Option<&'a str>,
    tag_defaults: &'a BTreeMap<String, String>,
    primary_server_url: Option<&'a str>,
    server_urls: &'a [String],
    client_pool_id: String,
    issuer: String,
    token_endpoint: String,
    jwks_uri: String,
    /// Whether the pool's document has reached KV.
    published: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// `POST /api/internal/org/{orgId}/env`
pub(super) async fn create(
    State(app): State<App>,
    org: InOrg<OrgWrite>,
    JsonBody(new): JsonBody<NewEnvironment>,
) -> Result<Response, Problem> {
    let (created, published) = environment::create(app.context(), &org.scope, new)
        .await
        .map_err(|error| not_created(error, "an environment", "organization"))?;
    Ok((StatusCode::CREATED, show(&app, &created, published)).into_response())
}

/// `GET /api/internal/org/{orgId}/env/{envId}`
pub(super) async fn read(State(app): State<App>, env: InEnv<OrgRead>) -> Result<Response, Problem> {
    let published = environment::is_published(app.context(), &env.environment).await?;
    Ok(show(&app, &env.environment, published))
}

fn show(app: &App, environment: &Environment, published: bool) -> Response {
    let urls = PoolUrls::new(&app.context().edge_url, environment.pool_id);
    answer(&EnvironmentAnswer {
        id: environment.id.as_str(),
        org_id: environment.org_id.as_str(),
        name: &environment.name,
        description: environment.description.as_deref(),
        tag_defaults: &environment.tag_defaults,
        primary_server_url: environment.primary_server_url.as_deref(),
        server_urls: &environment.server_urls,
        client_pool_id: environment.pool_id.to_string(),
        issuer: urls.issuer,
        token_endpoint: urls.token_endpoint,
        jwks_uri: urls.jwks_uri,
        published,
        created_at: environment.created_at,
        updated_at: environment.updated_at,
    })
}
