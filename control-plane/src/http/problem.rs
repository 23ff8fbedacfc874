//! Errors as they are answered: `application/problem+json` (RFC 9457).
//!
//! This is the one place where what went wrong inside becomes what is said outside.

use std::time::Duration;

use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use keypost_shared::certificate::root_upload::RootUploadError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::service::access::Denied;
use crate::service::activation::ActivationError;
use crate::service::api_key::{ApiKeyError, AuthenticationError};
use crate::service::attempts::TooMany;
use crate::service::denied_certificate::DenyError;
use crate::service::trust_anchor::UploadError;
use crate::service::{ChangeError, CreateError};
use crate::store::StoreError;

/// How soon to come back when the database is away, in seconds.
const DATABASE_RETRY_SECONDS: u64 = 5;

/// How many wrong fields an answer lists.
const MOST_ERRORS: usize = 50;
/// How many characters of a field's name an answer repeats.
const LONGEST_FIELD: usize = 200;

/// Why a request was not carried out. Its answer carries it along, for who tells it in another shape.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    /// For programs; never changes.
    code: &'static str,
    /// The kind of problem, for people.
    title: &'static str,
    /// This occurrence of it, for people.
    detail: String,
    errors: Vec<FieldError>,
    retry_after_seconds: Option<u64>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// Its name, with dots and brackets for what is inside of it; a path parameter's name for an id in the path.
    pub(super) field: String,
    /// What is wrong.
    pub(super) detail: String,
}

/// What went wrong (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemAnswer<'a> {
    /// A URN made of the code.
    r#type: String,
    /// The kind of problem, for people.
    title: &'a str,
    /// The status of the answer.
    status: u16,
    /// This occurrence of it, for people.
    detail: &'a str,
    /// For programs; never changes.
    code: &'a str,
    /// The fields that are wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, title, detail: detail.into(), errors: Vec::new(), retry_after_seconds: None }
    }

    /// A problem that only one resource has.
    pub(super) fn of(status: StatusCode, code: &'static str, title: &'static str, detail: &str) -> Self {
        Self::new(status, code, title, detail)
    }

    /// The same, with when to come back.
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// 400 for fields that are wrong. The first [`MOST_ERRORS`] are listed, each with at most [`LONGEST_FIELD`] characters
    /// of its name: names may be the caller's own.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        let count = errors.len();
        let errors = bounded(errors);
        let detail = match errors.as_slice() {
            [FieldError { field, detail }] => format!("{field} {detail}"),
            _ => format!("{count} fields are wrong"),
        };
        Self {
            errors,
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_request", "The request is wrong", detail)
        }
    }

    /// 400 for one field that is wrong.
    pub(super) fn invalid_field(field: &str, detail: impl ToString) -> Self {
        Self::invalid(vec![FieldError { field: field.to_owned(), detail: detail.to_string() }])
    }

    /// 400 for a body that is not JSON, or not what it must be.
    pub(super) fn malformed_body(detail: impl Into<String>) -> Self {
        let title = "The body cannot be read";
        Self::new(StatusCode::BAD_REQUEST, "malformed_body", title, detail)
    }

    /// 408 for a body that does not come.
    pub(super) fn slow_body() -> Self {
        let title = "The body did not arrive";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", title, "the body took too long to arrive")
    }

    /// 413.
    pub(super) fn body_too_large(most: usize) -> Self {
        let title = "The body is too large";
        let detail = format!("a body may have at most {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", title, detail)
    }

    /// 415.
    pub(super) fn unsupported_media_type(expected: &str) -> Self {
        let title = "The content type is not supported";
        let detail = format!("Content-Type must be {expected}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", title, detail)
    }

    /// 415 for a body that is compressed.
    pub(super) fn encoded_body() -> Self {
        let title = "The content encoding is not supported";
        let detail = "send the body as it is, without Content-Encoding";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding", title, detail)
    }

    /// Its code, its detail and the fields that are wrong, for an answer that has begun and can have no other status.
    pub(super) fn tell(&self) -> (&'static str, &str, &[FieldError]) {
        (self.code, &self.detail, &self.errors)
    }

    /// 401.
    pub(super) fn unauthenticated() -> Self {
        let title = "Authentication is required";
        let detail = "send a valid API key in the header X-API-Key";
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", title, detail)
    }

    /// Whether it is [`unauthenticated`](Self::unauthenticated).
    pub(super) fn is_unauthenticated(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// 404 for a thing that is not there, or not the caller's: there is no telling which.
    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", format!("there is no such {what}"))
    }

    /// 409.
    pub(super) fn already_exists(what: &str) -> Self {
        let title = "It exists already";
        Self::new(StatusCode::CONFLICT, "already_exists", title, format!("there is already such {what}"))
    }

    /// 409 for a name that somebody else has.
    pub(super) fn taken(field: &str) -> Self {
        let errors = vec![FieldError { field: field.to_owned(), detail: "is taken".to_owned() }];
        Self {
            errors,
            ..Self::conflict("already_exists", "It exists already", &format!("the {field} is taken"))
        }
    }

    /// 429 for a rate limit; `whose` is used up.
    pub(super) fn rate_limited(whose: &str, retry_after: Duration) -> Self {
        let title = "Too many requests";
        let detail = format!("the request rate of this {whose} is used up");
        // The longest wait is one minute divided by the quota.
        let seconds = retry_after.as_secs().saturating_add(u64::from(retry_after.subsec_nanos() > 0));
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", title, detail).retry_after(seconds)
    }

    /// 409 for what others still belong to.
    pub(super) fn has_children(children: &str) -> Self {
        let title = "Something belongs to it";
        let detail = format!("it has {children}; delete them first, or with it by ?cascade=true");
        Self::new(StatusCode::CONFLICT, "has_children", title, detail)
    }

    /// 409 for what the state of a thing forbids.
    pub(super) fn conflict(code: &'static str, title: &'static str, detail: &str) -> Self {
        Self::new(StatusCode::CONFLICT, code, title, detail)
    }

    /// 412.
    pub(super) fn outdated() -> Self {
        let title = "It has been changed";
        let detail = "it is not in the state that If-Match names; read it again";
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", title, detail)
    }

    /// 409 for what a pool has as many of as it may have.
    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "too_many", "There are too many", detail)
    }

    /// 400 for a file that is no root, with a code of its own for each reason.
    pub(super) fn no_root(code: &'static str, detail: &str) -> Self {
        let errors = vec![FieldError { field: "certificate".to_owned(), detail: detail.to_owned() }];
        let title = "The file cannot be a root";
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, code, title, detail) }
    }

    /// 422.
    pub(super) fn idempotency_key_reused() -> Self {
        let title = "The Idempotency-Key has been used";
        let detail = "another request came with this Idempotency-Key; send a new one";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", title, detail)
    }

    /// Whether it is [that](Self::idempotency_key_reused).
    pub(super) fn is_idempotency_key_reused(&self) -> bool {
        self.code == "idempotency_key_reused"
    }

    /// 500, for what is nobody's fault outside. The cause goes into the log, not into the answer.
    pub(super) fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        let title = "Something went wrong";
        let detail = "the request could not be carried out; its X-Request-Id says where to look in the log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, detail)
    }

    /// 503 for an answer that takes too long.
    pub(super) fn timed_out() -> Self {
        let title = "It took too long";
        let detail = "the request could not be carried out in time";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", title, detail)
            .retry_after(DATABASE_RETRY_SECONDS)
    }

    /// 503 for a database that is away.
    /// AWS KMS, which must be asked, does not answer.
    pub(super) fn kms_unavailable(reason: &str) -> Self {
        let title = "AWS KMS cannot be asked";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "kms_unavailable", title, reason).retry_after(5)
    }

    pub(super) fn unavailable() -> Self {
        let title = "The service is not available";
        let detail = "the database is not available";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail)
            .retry_after(DATABASE_RETRY_SECONDS)
    }

    /// The fallback for paths that nothing is at.
    pub(super) async fn no_such_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", "there is nothing at this path")
    }

    /// The fallback for methods that a path does not have. The router adds `Allow`.
    pub(super) async fn method_not_allowed() -> Self {
        let title = "The method is not allowed";
        let detail = "this path has other methods; Allow lists them";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", title, detail)
    }
}

/// As many errors as an answer lists, with field names as long as it repeats.
pub(super) fn bounded(mut errors: Vec<FieldError>) -> Vec<FieldError> {
    errors.truncate(MOST_ERRORS);
    for error in &mut errors {
        error.field = error.field.chars().take(LONGEST_FIELD).collect();
    }
    errors
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemAnswer {
            r#type: format!("urn:keypost:problem:{}", self.code),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            errors: &self.errors,
        };
        // Nothing in it can fail to serialise: texts and a number.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey realm=\"keypost\""));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        debug_assert!(!headers.contains_key(ALLOW), "the router says what is allowed");
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                tracing::warn!(%cause, "the database is not available");
                Self::unavailable()
            }
            other => Self::internal(&other),
        }
    }
}

impl From<AuthenticationError> for Problem {
    fn from(error: AuthenticationError) -> Self {
        match error {
            AuthenticationError::NotValid => Self::unauthenticated(),
            AuthenticationError::Store(error) => error.into(),
        }
    }
}

impl From<ApiKeyError> for Problem {
    fn from(error: ApiKeyError) -> Self {
        match error {
            ApiKeyError::CallerGone => Self::unauthenticated(),
            ApiKeyError::Denied(reason) => denied(reason, "organization"),
            ApiKeyError::OrganizationGone => Self::not_found("organization"),
            ApiKeyError::Gone => Self::not_found("API key"),
            ApiKeyError::Outdated(_) => Self::outdated(),
            ApiKeyError::ExpiresInThePast => Self::invalid_field("expiresAt", "must be in the future"),
            ApiKeyError::Expired => {
                let detail = "it has expired, so another secret for it would be good for nothing";
                Self::conflict("expired", "The API key has expired", detail)
            }
            ApiKeyError::LastAdmin => {
                let detail = "it is the last global admin key that is not narrowed; make another one first";
                Self::conflict("last_admin_key", "It is the last admin key", detail)
            }
            ApiKeyError::Store(error) => error.into(),
        }
    }
}

/// What a caller is told that may not do something with `what`.
pub(super) fn denied(denied: Denied, what: &str) -> Problem {
    let title = "It is not allowed";
    match denied {
        Denied::NotTheirs => Problem::not_found(what),
        Denied::Lacks(_)
        | Denied::GlobalOnly
        | Denied::LacksSome
        | Denied::LacksUnknown
        | Denied::Outlived(_) => Problem::new(StatusCode::FORBIDDEN, "forbidden", title, denied.to_string()),
    }
}

/// What a caller is told whose `what`, to belong to `parent`, was not created.
pub(super) fn not_created(error: CreateError, what: &str, parent: &str) -> Problem {
    match error {
        CreateError::IdTaken => Problem::already_exists(what),
        CreateError::ParentGone => Problem::not_found(parent),
        CreateError::Store(error) => error.into(),
        CreateError::Seal(error) => Problem::internal(&error),
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Wrong { field, detail } => Self::invalid_field(field, detail),
            ChangeError::WrongFields(fields) => Self::invalid(
                fields.into_iter().map(|(field, detail)| FieldError { field, detail }).collect(),
            ),
            ChangeError::Taken { field, detail } => Self {
                errors: vec![FieldError { field: field.to_owned(), detail: detail.to_owned() }],
                ..Self::conflict("kms_key_taken", "The KMS key is another's", &format!("{field} {detail}"))
            },
            ChangeError::GlobalOnly(_) => denied(Denied::GlobalOnly, "thing"),
            ChangeError::KmsUnavailable(reason) => Self::kms_unavailable(&reason),
            ChangeError::Gone => Self::not_found("thing"),
            ChangeError::Outdated(_) => Self::outdated(),
            ChangeError::HasChildren(children) => Self::has_children(children),
            // What it belongs to has been deleted in the meantime.
            ChangeError::Store(error) if error.is_dangling() => Self::not_found("thing"),
            ChangeError::Store(error) => error.into(),
        }
    }
}

impl From<ActivationError> for Problem {
    fn from(error: ActivationError) -> Self {
        match error {
            ActivationError::InvalidOtp => {
                let title = "The one-time password is not valid";
                let detail = "it is wrong, has been used, or has expired";
                Self::new(StatusCode::BAD_REQUEST, "invalid_otp", title, detail)
            }
            ActivationError::TooMany(too_many) => too_many.into(),
            ActivationError::Store(error) => error.into(),
        }
    }
}

impl From<TooMany> for Problem {
    fn from(too_many: TooMany) -> Self {
        let title = "Too many failed attempts";
        let detail = "too many failed attempts from this address";
        let seconds = too_many.retry_after.as_secs_f64().ceil();
        // Bounded by a minute.
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", title, detail)
            .retry_after(seconds as u64)
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Root(RootUploadError::Crypto(error)) => Self::internal(&error),
            UploadError::Root(error) => Self::no_root(error.code(), &error.to_string()),
            UploadError::TooMany => Self::too_many(error.to_string()),
            UploadError::UnknownReplaced => {
                Self::invalid_field("replaces", "must be the fingerprint of another root of the pool")
            }
            UploadError::Create(error) => not_created(error, "a certificate", "client pool"),
        }
    }
}

impl From<DenyError> for Problem {
    fn from(error: DenyError) -> Self {
        match error {
            DenyError::TooMany => Self::too_many(error.to_string()),
            DenyError::Create(error) => not_created(error, "a denial", "client pool"),
        }
    }
}
