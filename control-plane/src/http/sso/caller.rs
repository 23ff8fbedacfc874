//! Extractors of who asks: the header `apikey`, and an access token as a Bearer token (RFC 6750 §2.1).

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use keypost_shared::id::SsoAppId;
use keypost_shared::secret::SecretText;

use super::super::App;
use super::super::access::request_source;
use super::super::problem::Problem;
use crate::service::audit::{Actor, ActorKind, RequestSource};
use crate::service::sso::caller::{self, CallerError, SignedIn};
use crate::service::sso::session::{SessionError, SignInFrom};
use crate::store::sso::key::KeyHolder;

const API_KEY: &str = "apikey";

/// The header `apikey`, whose kind says on whose behalf is asked.
pub(super) enum SsoKey {
    /// There is none: an owner, or somebody who wants to be one.
    Absent,
    /// An organization's: its owner's rights.
    Organization(KeyHolder),
    /// A client app's: its users. With the key itself, which signing in echoes.
    App(KeyHolder, SsoAppId, SecretText),
}

impl FromRequestParts<App> for SsoKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(API_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self::Absent) };
        let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or_else(invalid_key)?;
        let holder = find_key(app, text).await?;
        if let Some(id) = holder.app {
            // Not counted: whoever has seen the app's page has its key, and could use its quota up for everybody else.
            return Ok(Self::App(holder, id, SecretText::new(text.to_owned())));
        }
        app.0.surroundings.count_key(&parts.extensions, holder.key_id)?;
        Ok(Self::Organization(holder))
    }
}

/// The client app whose key this is, which came otherwise than in the header.
pub(super) async fn app_of_key(app: &App, text: &str) -> Result<(KeyHolder, SsoAppId), Problem> {
    let holder = find_key(app, text).await?;
    let id = holder.app.ok_or_else(invalid_key)?;
    Ok((holder, id))
}

async fn find_key(app: &App, text: &str) -> Result<KeyHolder, Problem> {
    caller::key_holder(app.context(), text).await.map_err(|error| match error {
        CallerError::NotValid => {
            app.context().metrics.authentication_failed();
            invalid_key()
        }
        CallerError::Store(error) => error.into(),
    })
}

/// Whoever is signed in.
pub(super) struct Bearer(pub(super) SignedIn);

impl FromRequestParts<App> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let OptionalBearer(signed_in) = OptionalBearer::from_request_parts(parts, app).await?;
        signed_in.map(Self).ok_or_else(invalid_token)
    }
}

/// Whoever is signed in, if a token was sent. One that does not count is refused all the same.
pub(super) struct OptionalBearer(pub(super) Option<SignedIn>);

impl FromRequestParts<App> for OptionalBearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Some(token) = bearer_token(&parts.headers)? else { return Ok(Self(None)) };
        match caller::signed_in(app.context(), token).await {
            Ok(signed_in) => Ok(Self(Some(signed_in))),
            Err(CallerError::NotValid) => {
                app.context().metrics.authentication_failed();
                Err(invalid_token())
            }
            Err(CallerError::Store(error)) => Err(error.into()),
        }
    }
}

/// The one Bearer token of a request, if there is any.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or_else(invalid_token)?;
    let (scheme, token) = text.split_once(' ').ok_or_else(invalid_token)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(Some(token))
    } else {
        Err(invalid_token())
    }
}

/// From where somebody signs in.
pub(super) struct SignInSource(pub(super) SignInFrom, pub(super) RequestSource);

impl FromRequestParts<App> for SignInSource {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let source = request_source(parts, app);
        let user_agent = parts.headers.get("user-agent").and_then(|value| value.to_str().ok());
        let from = SignInFrom {
            user_agent: user_agent.map(ToOwned::to_owned),
            address: Some(source.address.to_string()),
        };
        Ok(Self(from, source))
    }
}

/// Whoever holds a key of single sign-on, as audit events name them.
pub(super) fn key_actor(holder: &KeyHolder, source: RequestSource) -> Actor {
    source.actor(ActorKind::SsoKey, Some(holder.key_id.to_string()), None)
}

/// 401 for a header `apikey` that does not count.
pub(super) fn invalid_key() -> Problem {
    let detail = "the header apikey must hold one key that counts: org_… or app_…";
    Problem::of(StatusCode::UNAUTHORIZED, "invalid_api_key", "The key does not count", detail)
}

/// 401 for an access token that is missing or does not count.
pub(super) fn invalid_token() -> Problem {
    let detail = "send an access token that counts as Authorization: Bearer";
    Problem::of(StatusCode::UNAUTHORIZED, "invalid_token", "The access token does not count", detail)
}

/// 403 for a key that may not do this, whoever it belongs to.
pub(super) fn forbidden(detail: &str) -> Problem {
    Problem::of(StatusCode::FORBIDDEN, "forbidden", "It is not allowed", detail)
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Over => {
                let detail = "the token is wrong, has been used, or its session has ended";
                Problem::of(StatusCode::UNAUTHORIZED, "invalid_token", "The session is over", detail)
            }
            SessionError::WiderScope => Problem::invalid_field("scope", "must be of those that were granted"),
            SessionError::Sign(error) => {
                tracing::error!(%error, "no token can be signed");
                Problem::unavailable()
            }
            SessionError::Store(error) => error.into(),
        }
    }
}
