//! `POST /api/auth/signup`

use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use keypost_shared::id::SsoAppId;
use keypost_shared::secret::SecretText;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::body::{Fields, FromFields, Invalid};
use super::super::creation::{Create, CreateRequest, Creation, Interrupted};
use super::super::fields;
use super::super::problem::{Problem, not_created};
use super::caller::{SignInSource, SsoKey, forbidden, invalid_key, key_actor};
use super::envelope::Envelope;
use super::sign_in::{busy, own_task};
use super::token_pair::TokenPairAnswer;
use crate::service::audit::{Actor, ActorKind, RequestSource};
use crate::service::sso::name::{Email, Username};
use crate::service::sso::password::{Password, PasswordError};
use crate::service::sso::session::{SessionError, SignInFrom};
use crate::service::sso::sign_up::{self, NewAppUser, NewOwner, SignUpError};
use crate::service::sso::user_metadata;
use crate::store::publication::Mark;
use crate::store::sso::key::KeyHolder;

/// How long after an owner should expect the edge to know the organization's pool, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(sign_up))
}

/// Without `apikey`: an owner and their organization. With a client app's: a user of that app. Each has fields that the other
/// has not.
#[derive(ToSchema)]
#[schema(as = SignUp)]
#[expect(dead_code, reason = "tells what is sent, which is read as one of the two")]
struct SignUpRequest {
    /// Compared in Unicode's form NFKC and in lower case. An owner's that contains an @ must be their own address.
    #[schema(min_length = 1, max_length = 200)]
    username: String,
    #[schema(min_length = 8, max_length = 256)]
    password: String,
    #[schema(min_length = 3, max_length = 254)]
    email: String,
    /// Of an owner.
    #[schema(rename = "firstName", min_length = 1, max_length = 200)]
    first_name: Option<String>,
    /// Of an owner.
    #[schema(rename = "lastName", min_length = 1, max_length = 200)]
    last_name: Option<String>,
    /// Of an owner, who must send it.
    #[schema(rename = "organizationName", min_length = 1, max_length = 200)]
    organization_name: Option<String>,
    /// Of an owner.
    #[schema(rename = "organizationDescription", max_length = 2000)]
    organization_description: Option<String>,
    /// Of a user of a client app: at most 16 KiB, without the names of claims. Every token carries it.
    #[schema(value_type = Option<Object>)]
    user_metadata: Option<Box<RawValue>>,
}

/// What all who sign up say of themselves.
struct Person {
    username: Username,
    email: Email,
    password: Password,
}

impl Person {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let username = fields.required("username", username);
        let email = fields.required("email", email);
        let typed = fields.required("password", fields::text).map(SecretText::new);
        let names: Vec<&str> =
            (username.iter().map(Username::as_str)).chain(email.iter().map(Email::as_str)).collect();
        let password = typed.and_then(|typed| {
            Password::choose(typed.expose(), &names)
                .inspect_err(|reason| fields.wrong("password", reason))
                .ok()
        });
        Some(Self { username: username?, email: email?, password: password? })
    }
}

impl FromFields for NewOwner {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let person = Person::from_fields(fields);
        let first_name = fields.optional("firstName", fields::name);
        let last_name = fields.optional("lastName", fields::name);
        let organization_name = fields.required("organizationName", fields::name);
        let organization_description = fields.optional("organizationDescription", fields::description);
        let Person { username, email, password } = person?;
        Some(Self {
            username,
            email,
            password,
            first_name: first_name?,
            last_name: last_name?,
            organization_name: organization_name?,
            organization_description: organization_description?,
        })
    }
}

impl FromFields for NewAppUser {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let person = Person::from_fields(fields);
        let metadata = fields.verbatim("user_metadata", "{}", metadata);
        let Person { username, email, password } = person?;
        Some(Self { username, email, password, metadata: metadata? })
    }
}

/// Sign up: without `apikey` as the owner of a new organization, with a client app's as a user of that app.
///
/// An owner is answered once the document of the organization's sso pool is in KV, or after 5 s with Retry-After.
#[utoipa::path(
    post,
    path = "/api/auth/signup",
    operation_id = "signUp",
    tag = "Single sign-on: signing in",
    request_body = SignUpRequest,
    responses((status = 201, body = Envelope<TokenPairAnswer>))
)]
async fn sign_up(
    State(app): State<App>,
    key: SsoKey,
    SignInSource(from, source): SignInSource,
    request: Request,
) -> Result<Response, Interrupted> {
    match key {
        SsoKey::Absent => {
            let asked = Create::from_request(request, &app).await?;
            own_task(async move { owner(&app, from, source, asked).await }).await?
        }
        SsoKey::App(holder, id, text) => {
            let asked = Create::from_request(request, &app).await?;
            own_task(async move { app_user(&app, from, source, (holder, id, text), asked).await }).await?
        }
        SsoKey::Organization(_) => {
            Err(forbidden("an organization's key signs nobody up; a client app's does").into())
        }
    }
}

async fn owner(
    app: &App,
    from: SignInFrom,
    source: RequestSource,
    Create(new, request): Create<NewOwner>,
) -> Result<Response, Interrupted> {
    let name = new.username.as_str().to_owned();
    let actor = Arc::new(source.clone().actor(ActorKind::User, None, Some(name.clone())));
    let prepared = sign_up::prepare_owner(app.context(), new).await;
    let mut creation = begin(app, &source, request, &actor, &["owner", &name]).await?;
    // Only now: who asks again has the name already.
    let (pair, key) = sign_up::add_owner(&mut creation.change, source, from, prepared?).await?;
    let mut published = false;
    let wait = async |marks: Vec<Mark>| {
        published = app.context().publications.published(&marks).await;
        published
    };
    let answer = |_| {
        let answer = TokenPairAnswer::of(&pair).with_owner_key(key.expose());
        Envelope::of("The owner has signed up", answer)
    };
    let mut response = creation.finish_after(app, None, wait, answer).await?;
    if !published {
        response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    }
    Ok(response)
}

async fn app_user(
    app: &App,
    from: SignInFrom,
    source: RequestSource,
    (holder, id, key): (KeyHolder, SsoAppId, SecretText),
    Create(new, request): Create<NewAppUser>,
) -> Result<Response, Interrupted> {
    let name = new.username.as_str().to_owned();
    let actor = Arc::new(key_actor(&holder, source.clone()));
    let whose = (&holder.org, id);
    let prepared = sign_up::prepare_app_user(app.context(), whose, new).await;
    let caller = [&*holder.key_id.to_string(), &name];
    let mut creation = begin(app, &source, request, &actor, &caller).await?;
    let pair = sign_up::add_app_user(&mut creation.change, from, whose, prepared?).await?;
    let answer = TokenPairAnswer::of(&pair).echoing(Some(&key));
    Ok(creation.finish(&Envelope::of("The user has signed up", answer), None).await?)
}

/// Begins to sign somebody up, unless the request has been answered before. Its `Idempotency-Key` is good for one key and
/// one name: whoever shares an app's key with others shares no answers with them. Another body with the same key may be a
/// guess of the password in the first: it counts as a failure to sign in.
async fn begin(
    app: &App,
    source: &RequestSource,
    request: CreateRequest,
    actor: &Arc<Actor>,
    caller: &[&str],
) -> Result<Creation, Interrupted> {
    if !request.has_key() {
        return request.begin_with_password(app, actor, caller).await;
    }
    let now = app.context().now();
    let attempt = app.0.sign_in_attempts.begin(source.address, now).map_err(Problem::from)?;
    let begun = request.begin_with_password(app, actor, caller).await;
    if matches!(&begun, Err(Interrupted::Problem(problem)) if problem.is_idempotency_key_reused()) {
        attempt.failed(now);
    }
    begun
}

fn username(value: Value) -> Result<Username, Invalid> {
    Username::parse(&fields::text(value)?).map_err(Invalid::new)
}

fn email(value: Value) -> Result<Email, Invalid> {
    Email::parse(&fields::text(value)?).map_err(Invalid::new)
}

fn metadata(value: Value, text: String) -> Result<Box<RawValue>, Invalid> {
    user_metadata::parse(&value, text).map_err(|wrong| Invalid(wrong.0))
}

impl From<SignUpError> for Problem {
    fn from(error: SignUpError) -> Self {
        match error {
            SignUpError::Closed => {
                let detail = "not everybody may sign up here";
                Problem::of(StatusCode::FORBIDDEN, "signup_closed", "Signing up is closed", detail)
            }
            SignUpError::AppGone | SignUpError::Session(SessionError::Over) => invalid_key(),
            SignUpError::Taken(field) => Problem::taken(field),
            SignUpError::ForeignAddress => {
                Problem::invalid_field("username", "must not be an address other than the owner's own")
            }
            SignUpError::Metadata(names) => Problem::invalid(
                names
                    .into_iter()
                    .map(|name| super::super::problem::FieldError {
                        field: format!("user_metadata.{name}"),
                        detail: "is not among those that users of this client app may bring along".to_owned(),
                    })
                    .collect(),
            ),
            SignUpError::Password(PasswordError::Busy { retry_after }) => busy(retry_after),
            SignUpError::Password(error) => Problem::internal(&error),
            SignUpError::Session(error) => error.into(),
            SignUpError::Create(error) => not_created(error, "an organization", "organization"),
            SignUpError::Store(error) => error.into(),
        }
    }
}
