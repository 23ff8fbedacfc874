//! `POST /api/auth/password`, `POST /api/auth/password-reset`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keypost_shared::secret::SecretText;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::body::{Fields, FromFields, JsonBody};
use super::super::fields;
use super::super::problem::Problem;
use super::caller::{Bearer, SignInSource};
use super::envelope::Envelope;
use super::envelope::done;
use super::sign_in::own_task;
use crate::service::sso::new_password::{self, NewPasswordError};
use crate::service::sso::password::Password;
use crate::service::sso::sign_in::SignInError;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(change)).routes(routes!(reset))
}

/// Another password.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = PasswordChange)]
struct ChangeRequest {
    #[schema(value_type = String)]
    current_password: SecretText,
    #[schema(value_type = String, min_length = 8, max_length = 256)]
    new_password: SecretText,
}

impl FromFields for ChangeRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let current_password = fields.required("currentPassword", fields::text).map(SecretText::new);
        let new_password = fields.required("newPassword", fields::text).map(SecretText::new);
        Some(Self { current_password: current_password?, new_password: new_password? })
    }
}

/// Another password, by a code.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = PasswordReset)]
struct ResetRequest {
    /// As an owner of the organization has got it.
    #[schema(value_type = String)]
    code: SecretText,
    #[schema(value_type = String, min_length = 8, max_length = 256)]
    new_password: SecretText,
}

impl FromFields for ResetRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let code = fields.required("code", fields::text).map(SecretText::new);
        let new_password = fields.required("newPassword", fields::text).map(SecretText::new);
        Some(Self { code: code?, new_password: new_password? })
    }
}

/// Change one's own password. One's other sessions end.
#[utoipa::path(
    post,
    path = "/api/auth/password",
    operation_id = "changePassword",
    tag = "Single sign-on: signing in",
    request_body = ChangeRequest,
    responses((status = 200, body = Envelope<serde_json::Value>))
)]
async fn change(
    State(app): State<App>,
    Bearer(signed_in): Bearer,
    SignInSource(_, source): SignInSource,
    JsonBody(request): JsonBody<ChangeRequest>,
) -> Result<Response, Problem> {
    let changed = own_task(async move {
        let current = Password::typed(request.current_password.expose());
        let new = request.new_password.expose();
        let attempts = &app.0.sign_in_attempts;
        new_password::change(app.context(), attempts, source, &signed_in, current, new).await
    });
    changed.await?.map_err(|error| match error {
        NewPasswordError::SignIn(SignInError::Wrong) => Problem::of(
            StatusCode::UNAUTHORIZED,
            "invalid_credentials",
            "The password is not changed",
            "the current password is wrong",
        ),
        other => other.into(),
    })?;
    Ok(done("The password has been changed"))
}

/// Set another password by a one-time code. All sessions of the person end.
#[utoipa::path(
    post,
    path = "/api/auth/password-reset",
    operation_id = "resetPassword",
    tag = "Single sign-on: signing in",
    request_body = ResetRequest,
    responses((status = 200, body = Envelope<serde_json::Value>))
)]
async fn reset(
    State(app): State<App>,
    SignInSource(_, source): SignInSource,
    JsonBody(request): JsonBody<ResetRequest>,
) -> Result<Response, Problem> {
    let done_so = own_task(async move {
        let ResetRequest { code, new_password } = request;
        let attempts = &app.0.sign_in_attempts;
        new_password::reset(app.context(), attempts, source, code.expose(), new_password.expose()).await
    });
    done_so.await?.map_err(|error| match error {
        NewPasswordError::SignIn(SignInError::Wrong) => Problem::of(
            StatusCode::UNAUTHORIZED,
            "invalid_code",
            "The code is not valid",
            "the code is wrong, has been used, or has expired",
        ),
        other => other.into(),
    })?;
    Ok(done("The password has been changed"))
}

impl From<NewPasswordError> for Problem {
    fn from(error: NewPasswordError) -> Self {
        match error {
            NewPasswordError::Policy(reason) => Problem::invalid_field("newPassword", reason),
            NewPasswordError::SignIn(error) => error.into(),
        }
    }
}
