//! `/api/auth/sessions`

use std::str::FromStr;

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
use super::super::query::{Page, PageRequest, Query};
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

/// Where a session stands in the list, the latest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// When it began, in nanoseconds since 1970.
    created_at: i128,
    sid: SessionId,
}

impl Place {
    fn of(session: &Session) -> Self {
        Self { created_at: session.created_at.unix_timestamp_nanos(), sid: session.id }
    }

    fn is_before(self, other: Self) -> bool {
        (other.created_at, self.sid) < (self.created_at, other.sid)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.created_at, self.sid)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (created_at, sid) = text.split_once(' ').ok_or(())?;
        Ok(Self { created_at: created_at.parse().map_err(drop)?, sid: sid.parse().map_err(drop)? })
    }
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

/// List one's own sessions, the latest first and at most the latest 500.
#[utoipa::path(
    get,
    path = "/api/auth/sessions",
    operation_id = "listSessions",
    tag = "Single sign-on: signing in",
    responses((status = 200, body = Envelope<Page<SessionAnswer>>))
)]
async fn read(
    State(app): State<App>,
    Bearer(signed_in): Bearer,
    Query(page): Query<PageRequest<Place>>,
) -> Result<Response, Problem> {
    let sessions = sign_out::list(app.context(), &signed_in).await?;
    let current = signed_in.session.id;
    // They are not many; and a page goes on rightly after a session that has ended meanwhile.
    let is_due = |session: &Session| page.after.is_none_or(|after| after.is_before(Place::of(session)));
    let sessions = sessions.into_iter().filter(is_due).collect();
    let key = |session: &Session| Place::of(session).to_string();
    let page = page.page(sessions, key, |session| SessionAnswer::of(session, current));
    Ok(Envelope::of("Sessions", page).answer(StatusCode::OK))
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
