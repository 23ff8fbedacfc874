//! `/api/auth/sessions`

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use keypost_shared::id::SessionId;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::access::PathIds;
use super::super::problem::Problem;
use super::caller::{Bearer, SignInSource};
use super::envelope::{Envelope, done};
use crate::service::sso::sign_out;
use crate::store::sso::session::Session;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read)).routes(routes!(end))
}

/// A sign-in that goes on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session)]
struct SessionAnswer {
    /// The claim `sid`.
    #[schema(format = "uuid")]
    sid: String,
    /// Where the person signed in; null for an owner.
    #[schema(format = "uuid")]
    client_app_id: Option<String>,
    user_agent: Option<String>,
    address: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When tokens were last got in it.
    #[serde(with = "time::serde::rfc3339")]
    last_used_at: OffsetDateTime,
    /// When it ends unless it is refreshed.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// Whether it is the one that asks.
    current: bool,
}

/// The sessions of a person.
#[derive(Serialize, ToSchema)]
#[schema(as = Sessions)]
struct SessionsAnswer {
    items: Vec<SessionAnswer>,
    /// There is no other page.
    #[serde(rename = "nextCursor")]
    next_cursor: Option<String>,
}

impl SessionAnswer {
    fn of(session: Session, current: SessionId) -> Self {
        Self {
            sid: session.id.to_string(),
            client_app_id: session.app.map(|app| app.to_string()),
            user_agent: session.user_agent,
            address: session.address,
            created_at: session.created_at,
            last_used_at: session.last_used_at,
            expires_at: session.expires_at,
            current: session.id == current,
        }
    }
}

/// The session that the path names; none where that is no id.
struct Sid(Option<SessionId>);

impl FromRequestParts<App> for Sid {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let mut ids = PathIds::read(parts, app).await?;
        let sid = ids.take::<SessionId>("sid");
        ids.finish()?;
        Ok(Self(sid))
    }
}

/// See one's own sessions, the latest 500.
#[utoipa::path(
    get,
    path = "/api/auth/sessions",
    operation_id = "getSessions",
    tag = "Single sign-on: signing in",
    responses((status = 200, body = Envelope<SessionsAnswer>))
)]
async fn read(State(app): State<App>, Bearer(signed_in): Bearer) -> Result<Response, Problem> {
    let sessions = sign_out::list(app.context(), &signed_in).await?;
    let current = signed_in.session.id;
    let items = sessions.into_iter().map(|session| SessionAnswer::of(session, current)).collect();
    let answer = SessionsAnswer { items, next_cursor: None };
    Ok(Envelope::of("Sessions", answer).answer(StatusCode::OK))
}

/// End one of one's own sessions, with all tokens of it.
#[utoipa::path(
    delete,
    path = "/api/auth/sessions/{sid}",
    operation_id = "endSession",
    tag = "Single sign-on: signing in",
    responses((status = 200, body = Envelope<serde_json::Value>))
)]
async fn end(
    State(app): State<App>,
    Bearer(signed_in): Bearer,
    SignInSource(_, source): SignInSource,
    Sid(sid): Sid,
) -> Result<Response, Problem> {
    let not_found = || Problem::not_found("session");
    let sid = sid.ok_or_else(not_found)?;
    if sign_out::end(app.context(), source, &signed_in, sid).await? {
        Ok(done("The session has ended"))
    } else {
        Err(not_found())
    }
}
