//! ETag and If-Match (RFC 9110 §8.8.3, §13.1.1).

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::response::Response;
use time::OffsetDateTime;

use super::App;
use super::problem::Problem;
use crate::service::precondition::{Precondition, Version};

/// What a request asks of the state that it changes.
pub(super) struct IfMatch(pub(super) Precondition);

impl FromRequestParts<App> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let mut tags = Vec::new();
        for value in parts.headers.get_all(IF_MATCH) {
            let text = value.to_str().map_err(|_| malformed())?;
            tags.extend(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()));
        }
        match tags.as_slice() {
            [] if parts.headers.contains_key(IF_MATCH) => Err(malformed()),
            // What is not there gets 404 in any case, so that it is there is all that is asked.
            [] | ["*"] => Ok(Self(Precondition::None)),
            tags => {
                let versions: Result<Vec<Option<Version>>, Problem> =
                    tags.iter().map(|tag| read(tag)).collect();
                Ok(Self(Precondition::OneOf(versions?.into_iter().flatten().collect())))
            }
        }
    }
}

/// A weak tag never matches (RFC 9110 §13.1.1), and neither does a tag that Keypost has not made.
fn read(tag: &str) -> Result<Option<Version>, Problem> {
    let weak = tag.starts_with("W/");
    let quoted = tag.strip_prefix("W/").unwrap_or(tag);
    let opaque = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(malformed)?;
    if opaque.contains('"') {
        return Err(malformed());
    }
    Ok(if weak { None } else { opaque.parse().ok() })
}

fn malformed() -> Problem {
    Problem::invalid_field("If-Match", "must be * or entity tags, such as \"5f2a\"")
}

/// Adds the ETag of a thing that was last changed at this time.
pub(super) fn tagged(mut response: Response, updated_at: OffsetDateTime) -> Response {
    if let Ok(value) = HeaderValue::from_str(&etag(updated_at)) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

/// The ETag of a thing that was last changed at this time.
pub(super) fn etag(updated_at: OffsetDateTime) -> String {
    format!("\"{}\"", Version::since(updated_at))
}
