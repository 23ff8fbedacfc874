//! `/api/organization/{orgId}/users`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keypost_shared::id::{SsoAppId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::access::{OrgRead, OrgWrite};
use super::super::body::NoBody;
use super::super::creation::{CreateWithDefaults, Interrupted};
use super::super::problem::Problem;
use super::super::query::{FromQuery, Page, PageRequest, Query, QueryFields};
use super::envelope::{Envelope, done};
use super::managed::{ManagedOrg, ManagedUser};
use crate::service::sso::app_user;
use crate::store::sso::user::{User, UserStatus};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(read, delete))
        .routes(routes!(disable))
        .routes(routes!(enable))
        .routes(routes!(password_reset))
}

struct UserQuery {
    app: Option<SsoAppId>,
    page: PageRequest<UserId>,
}

impl FromQuery for UserQuery {
    fn from_query(query: &mut QueryFields) -> Option<Self> {
        let app = query.optional("clientAppId");
        let page = query.page();
        Some(Self { app: app?, page: page? })
    }
}

/// A user of a client app.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = User)]
struct UserAnswer<'a> {
    #[schema(format = "uuid")]
    id: String,
    username: &'a str,
    email: &'a str,
    #[schema(format = "uuid")]
    client_app_id: Option<String>,
    #[schema(value_type = String)]
    status: UserStatus,
    #[serde(rename = "user_metadata")]
    #[schema(value_type = Object)]
    user_metadata: &'a RawValue,
    #[serde(with = "time::serde::rfc3339::option")]
    last_login_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// With what a user sets another password: POST /api/auth/password-reset.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PasswordResetCode)]
struct PasswordResetAnswer<'a> {
    /// Shown this once.
    code: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
}

impl<'a> From<&'a User> for UserAnswer<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            id: user.id.to_string(),
            username: &user.username,
            email: &user.email,
            client_app_id: user.app.map(|app| app.to_string()),
            status: user.status,
            user_metadata: &user.metadata,
            last_login_at: user.last_login_at,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

/// List the users of an organization's client apps, by id. Its owners are not among them.
#[utoipa::path(
    get,
    path = "/api/organization/{orgId}/users",
    operation_id = "listUsers",
    tag = "Single sign-on: users",
    params(("clientAppId" = Option<String>, Query, description = "Those of this client app alone.")),
    responses((status = 200, body = Envelope<Page<UserAnswer>>))
)]
async fn list(
    State(app): State<App>,
    org: ManagedOrg<OrgRead>,
    Query(query): Query<UserQuery>,
) -> Result<Response, Problem> {
    let UserQuery { app: of, page } = query;
    let found = app_user::list(app.context(), &org.scope, of, page.after, page.rows()).await?;
    let key = |user: &&User| user.id.to_string();
    let page = page.page(found.iter().collect(), key, |user: &User| UserAnswer::from(user));
    Ok(Envelope::of("Users", page).answer(StatusCode::OK))
}

/// Read a user.
#[utoipa::path(
    get,
    path = "/api/organization/{orgId}/users/{userId}",
    operation_id = "getUser",
    tag = "Single sign-on: users",
    responses((status = 200, body = Envelope<UserAnswer>))
)]
async fn read(found: ManagedUser<OrgRead>) -> Response {
    show("User", &found.user)
}

/// Delete a user. Their sessions end, and their tokens.
#[utoipa::path(
    delete,
    path = "/api/organization/{orgId}/users/{userId}",
    operation_id = "deleteUser",
    tag = "Single sign-on: users",
    responses((status = 200, body = Envelope<serde_json::Value>))
)]
async fn delete(State(app): State<App>, found: ManagedUser<OrgWrite>) -> Result<Response, Problem> {
    app_user::delete(app.context(), &found.scope, found.user.id).await?;
    Ok(done("The user has been deleted"))
}

/// Disable a user: their sessions end, and nobody signs in as them until they are enabled.
#[utoipa::path(
    post,
    path = "/api/organization/{orgId}/users/{userId}/disable",
    operation_id = "disableUser",
    tag = "Single sign-on: users",
    responses((status = 200, body = Envelope<UserAnswer>))
)]
async fn disable(
    State(app): State<App>,
    found: ManagedUser<OrgWrite>,
    _: NoBody,
) -> Result<Response, Problem> {
    let user = app_user::set_status(app.context(), &found.scope, found.user.id, UserStatus::Disabled).await?;
    Ok(show("The user has been disabled", &user))
}

/// Enable a user who has been disabled.
#[utoipa::path(
    post,
    path = "/api/organization/{orgId}/users/{userId}/enable",
    operation_id = "enableUser",
    tag = "Single sign-on: users",
    responses((status = 200, body = Envelope<UserAnswer>))
)]
async fn enable(
    State(app): State<App>,
    found: ManagedUser<OrgWrite>,
    _: NoBody,
) -> Result<Response, Problem> {
    let user = app_user::set_status(app.context(), &found.scope, found.user.id, UserStatus::Enabled).await?;
    Ok(show("The user has been enabled", &user))
}

/// Make a code with which a user who has forgotten their password sets another one, once, within a day. The one before is
/// good no more.
#[utoipa::path(
    post,
    path = "/api/organization/{orgId}/users/{userId}/password-reset",
    operation_id = "makePasswordResetCode",
    tag = "Single sign-on: users",
    responses((status = 201, body = Envelope<PasswordResetAnswer>))
)]
async fn password_reset(
    State(app): State<App>,
    found: ManagedUser<OrgWrite>,
    CreateWithDefaults(NoBody, request): CreateWithDefaults<NoBody>,
) -> Result<Response, Interrupted> {
    let mut creation = request.begin(&app, found.scope.actor()).await?;
    let (code, expires_at) =
        app_user::make_reset_code(&mut creation.change, &found.scope, found.user.id).await?;
    let answer = PasswordResetAnswer { code: code.expose(), expires_at };
    Ok(creation
        .finish(&Envelope::of("The user can set another password with this code", answer), None)
        .await?)
}

fn show(message: &str, user: &User) -> Response {
    Envelope::of(message, UserAnswer::from(user)).answer(StatusCode::OK)
}
