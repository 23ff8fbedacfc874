//! `POST /api/auth/login`

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keypost_shared::secret::SecretText;
use tokio::task::spawn;
use tracing::Instrument;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::body::{Fields, FromFields, JsonBody};
use super::super::fields;
use super::super::problem::Problem;
use super::caller::{SignInSource, SsoKey};
use super::envelope::Envelope;
use super::token_pair::TokenPairAnswer;
use crate::service::sso::password::Password;
use crate::service::sso::sign_in::{Door, SignInError, sign_in};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(log_in))
}

/// Who signs in.
#[derive(ToSchema)]
#[schema(as = LogIn)]
struct LogInRequest {
    /// An owner's may be their address.
    username: String,
    #[schema(value_type = String)]
    password: SecretText,
}

impl FromFields for LogInRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let username = fields.required("username", fields::sign_in_name);
        let password = fields.required("password", fields::text).map(SecretText::new);
        Some(Self { username: username?, password: password? })
    }
}

/// Sign in: without `apikey` as an owner, with a client app's as a user of that app, with an organization's as one of its
/// owners.
///
/// Whether there is no such user, the password is wrong, the user is disabled or too much has been guessed lately: the
/// answer is the same.
#[utoipa::path(
    post,
    path = "/api/auth/login",
    operation_id = "logIn",
    tag = "Single sign-on: signing in",
    request_body = LogInRequest,
    responses((status = 200, body = Envelope<TokenPairAnswer>))
)]
async fn log_in(
    State(app): State<App>,
    key: SsoKey,
    SignInSource(from, source): SignInSource,
    JsonBody(request): JsonBody<LogInRequest>,
) -> Result<Response, Problem> {
    let (door, text) = match key {
        SsoKey::Absent => (Door::Owner(None), None),
        SsoKey::Organization(holder) => (Door::Owner(Some(holder.org)), None),
        SsoKey::App(holder, id, text) => (Door::App(holder.org, id), Some(text)),
    };
    let pair = own_task(async move {
        let LogInRequest { username, password } = request;
        let password = Password::typed(password.expose());
        let attempts = &app.0.sign_in_attempts;
        sign_in(app.context(), attempts, source, from, &door, &username, password).await
    })
    .await??;
    let answer = TokenPairAnswer::of(&pair).echoing(text.as_ref());
    Ok(Envelope::of("Signed in", answer).answer(StatusCode::OK))
}

/// Goes on with something to its end even if whoever asked goes away meanwhile: a guess counts all the same.
pub(super) async fn own_task<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Problem> {
    spawn(work.in_current_span()).await.map_err(|lost| Problem::internal(&lost))
}

/// 503 where too many passwords wait to be checked.
pub(super) fn busy(retry_after: Duration) -> Problem {
    let detail = "too many are signing in at the moment";
    Problem::of(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many are signing in", detail)
        .retry_after(retry_after.as_secs())
}

impl From<SignInError> for Problem {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Wrong => Problem::of(
                StatusCode::UNAUTHORIZED,
                "invalid_credentials",
                "Nobody is signed in",
                "the username or the password is wrong",
            ),
            SignInError::TooMany(too_many) => too_many.into(),
            SignInError::Busy { retry_after } => busy(retry_after),
            SignInError::Broken(error) => Problem::internal(&error),
            SignInError::Session(error) => error.into(),
            SignInError::Store(error) => error.into(),
        }
    }
}
