//! Cross-origin requests (Fetch §3.2) to `/api/auth` and `/api/organization`.
//!
//! A preflight carries neither key nor body, so it is answered for every origin that anybody lists. The answer to the request
//! itself may be read by pages of the origins that this deployment lists, or that the client app does which the request is
//! made for. No cookie is ever sent along: who calls has a key or a token.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION,
    ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_shared::id::SsoAppId;
use serde::Deserialize;

use super::super::App;
use super::envelope::is_single_sign_on;
use crate::service::sso::origin::{CalledFor, may_call};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("apikey, authorization, content-type, idempotency-key, x-request-id");
const EXPOSED: HeaderValue = HeaderValue::from_static("x-request-id, retry-after");
/// How long a browser may remember a preflight, in seconds: so long an origin that is taken away may go on asking.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// What is called with what stands in the body alone.
const BY_BODY: [&str; 5] = [
    "/api/auth/refresh",
    "/api/auth/logout",
    "/api/auth/sso-exchange",
    "/api/auth/password-reset",
    "/api/auth/token",
];
/// Pages are for people, not for other pages.
const FOR_PEOPLE: &str = "/api/auth/authorize";
/// No origin is longer: a scheme, a host name and a port.
const MAX_ORIGIN: usize = 300;

/// Lets pages of other origins read what is theirs to read.
pub(in crate::http) async fn cors(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !is_single_sign_on(path) || path.starts_with(FOR_PEOPLE) {
        return next.run(request).await;
    }
    let origin = one_text(request.headers(), &ORIGIN)
        .filter(|origin| origin.len() <= MAX_ORIGIN)
        .map(ToOwned::to_owned);
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let caller = if is_preflight { Caller::Unknown } else { Caller::of(&request) };
    let mut response = next.run(request).await;
    // Whoever asks too often is not looked up either.
    let is_limited = response.status() == StatusCode::TOO_MANY_REQUESTS;
    let allowed = match &origin {
        Some(origin) if !is_limited => {
            may_call(app.context(), origin, caller.called_for()).await.unwrap_or(false)
        }
        _ => false,
    };
    if is_preflight && !is_limited {
        response = StatusCode::NO_CONTENT.into_response();
    }
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(Ok(origin)) = origin.filter(|_| allowed).map(|origin| HeaderValue::from_str(&origin)) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if is_preflight {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        } else {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
    response
}

/// Whom a request is made for, as it says.
enum Caller {
    Unknown,
    Key(String),
    App(SsoAppId),
    /// An owner, or somebody who wants to be one.
    Owner,
}

impl Caller {
    fn of(request: &Request) -> Self {
        let headers = request.headers();
        if let Some(key) = headers.get("apikey") {
            return key.to_str().map_or(Self::Owner, |key| Self::Key(key.to_owned()));
        }
        if let Some(token) = one_text(headers, &AUTHORIZATION) {
            return named_app(token).map_or(Self::Owner, Self::App);
        }
        if BY_BODY.contains(&request.uri().path()) { Self::Unknown } else { Self::Owner }
    }

    fn called_for(&self) -> CalledFor<'_> {
        match self {
            Caller::Unknown => CalledFor::Unknown,
            Caller::Key(key) => CalledFor::Key(key),
            Caller::App(app) => CalledFor::App(*app),
            Caller::Owner => CalledFor::Owner,
        }
    }
}

/// The client app that a Bearer token names, verified or not.
fn named_app(authorization: &str) -> Option<SsoAppId> {
    #[derive(Deserialize)]
    struct Claims {
        #[serde(rename = "clientAppId")]
        app: SsoAppId,
    }
    let (_, token) = authorization.split_once(' ')?;
    let payload = Base64UrlUnpadded::decode_vec(token.trim().split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims>(&payload).ok().map(|claims| claims.app)
}

fn one_text<'a>(headers: &'a HeaderMap, name: &axum::http::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}
