//! JSON bodies: read within limits, and taken apart field by field, so that one answer names everything that is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body as HttpBody, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::App;
use super::json::{RawObject, compact, strict};
use super::problem::{FieldError, Problem};

/// The most bytes of a body (api.md).
const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// What a request says in its body.
pub(super) trait FromFields: Sized {
    /// Takes the fields that it knows. `None` where one of them is wrong, which `fields` has noted.
    fn from_fields(fields: &mut Fields) -> Option<Self>;
}

/// A body that must be there.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: FromFields> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        Ok(Self(read_json(request).await?.0))
    }
}

/// A body that says nothing: absent, or an empty object.
pub(super) struct NoBody;

impl FromFields for NoBody {
    fn from_fields(_: &mut Fields) -> Option<Self> {
        Some(Self)
    }
}

impl FromRequest<App> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        Ok(read_optional_json(request).await?.0)
    }
}

/// Reads a body that must be there. Answers with its bytes too.
pub(super) async fn read_json<T: FromFields>(request: Request) -> Result<(T, Vec<u8>), Problem> {
    check_content_type(&request)?;
    let bytes = read(request).await?;
    Ok((parse(&bytes)?, bytes))
}

/// Reads a body that may be absent, which is the same as an empty object. Answers with its bytes too.
pub(super) async fn read_optional_json<T: FromFields>(request: Request) -> Result<(T, Vec<u8>), Problem> {
    let content_type = check_content_type(&request);
    let bytes = read(request).await?;
    if bytes.is_empty() || bytes.trim_ascii() == b"null" {
        return Ok((parse(b"{}")?, bytes));
    }
    content_type?;
    Ok((parse(&bytes)?, bytes))
}

/// `application/json`, which is always UTF-8 (RFC 8259 §8.1), or a merge patch (RFC 7396 §4).
fn check_content_type(request: &Request) -> Result<(), Problem> {
    match media_type(request.headers()).as_deref() {
        Some("application/json" | "application/merge-patch+json") => Ok(()),
        _ => Err(Problem::unsupported_media_type("application/json")),
    }
}

/// The media type of a body, in lower case and without its parameters; none where it is not given, or not in UTF-8.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
    let (essence, parameters) = text.split_once(';').unwrap_or((&text, ""));
    let utf8 = parameters
        .split(';')
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.trim() == "charset")
        .all(|(_, value)| value.trim().trim_matches('"') == "utf-8");
    utf8.then(|| essence.trim().to_owned())
}

async fn read(request: Request<HttpBody>) -> Result<Vec<u8>, Problem> {
    read_at_most(request, MAX_BODY_BYTES).await
}

/// Reads a body of at most so many bytes.
pub(super) async fn read_at_most(request: Request<HttpBody>, most: usize) -> Result<Vec<u8>, Problem> {
    let too_large = || Problem::body_too_large(most);
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > most as u64) {
        return Err(too_large());
    }
    let reading = to_bytes(request.into_body(), most);
    match timeout(BODY_TIMEOUT, reading).await {
        Err(_) => Err(Problem::slow_body()),
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::malformed_body("the body broke off")),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn parse<T: FromFields>(bytes: &[u8]) -> Result<T, Problem> {
    let object: RawObject = serde_json::from_slice(bytes).map_err(|error| {
        // What serde_json says of its own about broken texts, and this module about the rest, repeats no value.
        let reason = match error.classify() {
            serde_json::error::Category::Data => "must be a JSON object with each field once".to_owned(),
            _ => format!("is not JSON: {error}"),
        };
        Problem::malformed_body(format!("the body {reason}"))
    })?;
    read_fields(object).map_err(Problem::invalid)
}

/// Reads an object, each field of which must be known. The error is all that is wrong.
pub(super) fn read_fields<T: FromFields>(object: RawObject) -> Result<T, Vec<FieldError>> {
    let mut fields = Fields { values: object.0, errors: Vec::new() };
    let read = T::from_fields(&mut fields);
    let unknown =
        fields.values.keys().map(|name| FieldError { field: name.clone(), detail: "is unknown".into() });
    fields.errors.extend(unknown);
    match read {
        Some(read) if fields.errors.is_empty() => Ok(read),
        _ => Err(fields.errors),
    }
}

/// The fields of a JSON object. Each is taken once; what is left over is unknown.
pub(super) struct Fields {
    values: BTreeMap<String, Box<RawValue>>,
    errors: Vec<FieldError>,
}

/// What is wrong with a value: where in it (empty for the value itself, else `.name` or `[index]`), and what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) Vec<(String, String)>);

impl Invalid {
    /// The value itself is wrong.
    pub(super) fn new(detail: impl ToString) -> Self {
        Self(vec![(String::new(), detail.to_string())])
    }
}

impl Fields {
    /// A field that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(Value) -> Result<T, Invalid>,
    ) -> Option<T> {
        match self.take(name) {
            Some(sent) => self.check(name, &sent, check),
            None => {
                self.errors.push(FieldError { field: name.to_owned(), detail: "is required".to_owned() });
                None
            }
        }
    }

    /// A field that may be absent, or `null`, which is the same. The outer `None` is an error.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(Value) -> Result<T, Invalid>,
    ) -> Option<Option<T>> {
        match self.take(name) {
            Some(sent) => self.check(name, &sent, check).map(Some),
            None => Some(None),
        }
    }

    /// A field to be kept as it was sent, without the white space between its parts; as if `default` had been sent where
    /// it is absent or `null`.
    pub(super) fn verbatim<T>(
        &mut self,
        name: &str,
        default: &str,
        check: impl FnOnce(Value, String) -> Result<T, Invalid>,
    ) -> Option<T> {
        let text = self.take(name).map_or_else(|| default.to_owned(), |sent| compact(sent.get()));
        let checked = strict(&text).map_err(Invalid::new).and_then(|value| check(value, text));
        self.note(name, checked)
    }

    /// A field of a merge patch (RFC 7396) that is kept as it was sent, without the white space between its parts: absent, it
    /// leaves things as they are; what `null` does, `check` says.
    pub(super) fn verbatim_patch<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(Value, String) -> Result<T, Invalid>,
    ) -> Option<Option<T>> {
        let Some(sent) = self.values.remove(name) else { return Some(None) };
        let text = compact(sent.get());
        let checked = strict(&text).map_err(Invalid::new).and_then(|value| check(value, text));
        self.note(name, checked).map(Some)
    }

    /// Fields that are there to be read: whoever sends one wants to change it, and must be told.
    pub(super) fn read_only(&mut self, names: &[&str]) {
        for name in names {
            if self.values.remove(*name).is_some() {
                let detail = "cannot be changed".to_owned();
                self.errors.push(FieldError { field: (*name).to_owned(), detail });
            }
        }
    }

    /// A field of a merge patch (RFC 7396): absent, it leaves things as they are; `null` resets them to `default`.
    pub(super) fn patch<T>(
        &mut self,
        name: &str,
        default: T,
        check: impl FnOnce(Value) -> Result<T, Invalid>,
    ) -> Option<Option<T>> {
        match self.values.remove(name) {
            None => Some(None),
            Some(sent) if is_null(&sent) => Some(Some(default)),
            Some(sent) => self.check(name, &sent, check).map(Some),
        }
    }

    /// A field of a merge patch (RFC 7396) that there always is: absent, it leaves things as they are; `null`, which would
    /// remove it, is wrong.
    pub(super) fn replace<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(Value) -> Result<T, Invalid>,
    ) -> Option<Option<T>> {
        match self.values.remove(name) {
            None => Some(None),
            Some(sent) => self.check(name, &sent, check).map(Some),
        }
    }

    /// Notes that a field is wrong for a reason that lies in several.
    pub(super) fn wrong(&mut self, name: &str, detail: impl ToString) {
        self.errors.push(FieldError { field: name.to_owned(), detail: detail.to_string() });
    }

    fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.values.remove(name).filter(|sent| !is_null(sent))
    }

    fn check<T>(
        &mut self,
        name: &str,
        sent: &RawValue,
        check: impl FnOnce(Value) -> Result<T, Invalid>,
    ) -> Option<T> {
        let checked = strict(sent.get()).map_err(Invalid::new).and_then(check);
        self.note(name, checked)
    }

    fn note<T>(&mut self, name: &str, checked: Result<T, Invalid>) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(Invalid(errors)) => {
                let errors = errors
                    .into_iter()
                    .map(|(inside, detail)| FieldError { field: format!("{name}{inside}"), detail });
                self.errors.extend(errors);
                None
            }
        }
    }
}

fn is_null(sent: &RawValue) -> bool {
    sent.get() == "null"
}
