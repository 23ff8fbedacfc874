//! The client of the REST API (api.md §1): one request, its answer or what the server had against it.
//!
//! A server that is busy (429, 503) is asked again after the time that it names, a bounded number of times. That is done
//! with what may safely arrive twice: reads, PUT, PATCH and DELETE, and creations, which carry an `Idempotency-Key`.

use std::time::Duration;

use keypost_shared::secret::ApiKey;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::error::{CommandError, Refusal};
use super::output::tell;
use crate::entropy::{Entropy, SystemEntropy, random_uuid};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server gives up after half a minute.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A server that asks for more than this is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The most that an answer may hold: a page of 500 devices with all that they may carry has some 20 MB.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The most of an error that is kept.
const MAX_ERROR_BYTES: usize = 1 << 20;

/// A control plane and a key to it.
#[derive(Debug)]
pub(super) struct Api {
    http: reqwest::Client,
    base: Url,
    key: ApiKey,
    retries: u8,
}

/// Where something is, below `/api/internal`, and the query.
///
/// Segments are ids that were parsed, or words: none of them can be `..` or empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    segments: Vec<String>,
    query: Vec<(String, String)>,
}

/// An answer of the API's: JSON, or nothing.
#[derive(Debug)]
pub(super) struct Answer {
    /// The version, for `If-Match`.
    pub(super) etag: Option<HeaderValue>,
    body: String,
}

/// A page of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    pub(super) items: Vec<Box<RawValue>>,
    pub(super) next_cursor: Option<String>,
}

/// What happens when a request is sent twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twice {
    /// The same as when it is sent once.
    Same,
    /// Something else. So it is repeated only where the server said that it did nothing.
    Different,
}

/// A request in the making.
struct Call<'a> {
    method: Method,
    place: &'a Place,
    body: Option<Vec<u8>>,
    content_type: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    twice: Twice,
}

impl Place {
    /// `/api/internal/` and these.
    pub(super) fn of<'a>(segments: impl IntoIterator<Item = &'a str>) -> Self {
        Self { segments: segments.into_iter().map(str::to_owned).collect(), query: Vec::new() }
    }

    /// Something below it.
    pub(super) fn then(mut self, segment: &str) -> Self {
        self.segments.push(segment.to_owned());
        self
    }

    /// With a parameter of the query.
    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// With a parameter of the query, if there is a value for it.
    pub(super) fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

impl Answer {
    /// The JSON as it came.
    pub(super) fn json(&self) -> &str {
        self.body.trim_end()
    }

    /// Whether there is anything in it.
    pub(super) fn is_empty(&self) -> bool {
        self.json().is_empty()
    }

    /// What it says.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, CommandError> {
        serde_json::from_str(&self.body).map_err(|error| CommandError::Answer(error.to_string()))
    }
}

impl Api {
    /// A client that repeats a request at most `retries` times.
    pub(super) fn new(base: Url, key: ApiKey, retries: u8) -> Result<Self, CommandError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("keypost/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // The key goes to the server that was named, and to no other that this one names.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| CommandError::HttpClient(describe(error)))?;
        Ok(Self { http, base, key, retries })
    }

    /// Reads something.
    pub(super) async fn get(&self, place: &Place) -> Result<Answer, CommandError> {
        self.call(Call::new(Method::GET, place)).await
    }

    /// Reads something of any length, which the caller takes piece by piece.
    pub(super) async fn stream(&self, place: &Place) -> Result<Response, CommandError> {
        self.send(Call::new(Method::GET, place), None).await
    }

    /// Creates something, or a secret of it. That is done once, even if the request has to be repeated.
    pub(super) async fn create(&self, place: &Place, body: Vec<u8>) -> Result<Answer, CommandError> {
        let key = random_uuid(&mut SystemEntropy.rng()).hyphenated().to_string();
        let key = HeaderValue::try_from(key).map_err(|error| CommandError::HttpClient(error.to_string()))?;
        let mut call = Call::new(Method::POST, place).body(body);
        call.headers.push((IDEMPOTENCY_KEY, key));
        self.call(call).await
    }

    /// Creates something from a form, once, as [`create`](Self::create) does.
    pub(super) async fn create_by_form(
        &self,
        place: &Place,
        content_type: &'static str,
        form: Vec<u8>,
    ) -> Result<Answer, CommandError> {
        let key = random_uuid(&mut SystemEntropy.rng()).hyphenated().to_string();
        let key = HeaderValue::try_from(key).map_err(|error| CommandError::HttpClient(error.to_string()))?;
        let mut call = Call::new(Method::POST, place).body(form);
        call.content_type = content_type;
        call.headers.push((IDEMPOTENCY_KEY, key));
        self.call(call).await
    }

    /// Asks something that takes a body, and changes nothing.
    pub(super) async fn ask(&self, place: &Place, body: Vec<u8>) -> Result<Answer, CommandError> {
        self.call(Call::new(Method::POST, place).body(body)).await
    }

    /// Brings something into a state in which it may be already.
    pub(super) async fn settle(&self, place: &Place) -> Result<Answer, CommandError> {
        self.call(Call::new(Method::POST, place)).await
    }

    /// Replaces something, if it is still of this version.
    pub(super) async fn replace(
        &self,
        place: &Place,
        version: HeaderValue,
        body: Vec<u8>,
    ) -> Result<Answer, CommandError> {
        let mut call = Call::new(Method::PUT, place).body(body);
        call.headers.push((IF_MATCH, version));
        // The second time the version is another. What the first one did would look like somebody else's doing.
        call.twice = Twice::Different;
        self.call(call).await
    }

    /// Changes some fields of something (RFC 7396).
    pub(super) async fn patch(&self, place: &Place, body: Vec<u8>) -> Result<Answer, CommandError> {
        self.call(Call::new(Method::PATCH, place).body(body)).await
    }

    /// Deletes something.
    pub(super) async fn delete(&self, place: &Place) -> Result<Answer, CommandError> {
        self.call(Call::new(Method::DELETE, place)).await
    }

    /// Posts a stream, and answers before it is at its end. Nothing is repeated: the stream is gone.
    pub(super) async fn upload(
        &self,
        place: &Place,
        content_type: &'static str,
        body: reqwest::Body,
    ) -> Result<Response, CommandError> {
        let request = self
            .request(Method::POST, place)?
            .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
            .body(body);
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    async fn call(&self, call: Call<'_>) -> Result<Answer, CommandError> {
        let mut response = self.send(call, Some(REQUEST_TIMEOUT)).await?;
        let etag = response.headers().get(ETAG).cloned();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(CommandError::Answer(format!("it has more than {MAX_ANSWER_BYTES} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        let body = String::from_utf8(bytes).map_err(|error| CommandError::Answer(error.to_string()))?;
        Ok(Answer { etag, body })
    }

    /// Sends a request until it is answered with something that counts.
    async fn send(&self, call: Call<'_>, within: Option<Duration>) -> Result<Response, CommandError> {
        let mut tried = 0;
        loop {
            let mut request = self.request(call.method.clone(), call.place)?;
            if let Some(within) = within {
                request = request.timeout(within);
            }
            for (name, value) in &call.headers {
                request = request.header(name, value);
            }
            if let Some(body) = &call.body {
                request = request
                    .header(CONTENT_TYPE, HeaderValue::from_static(call.content_type))
                    .body(body.clone());
            }
            let (wait, failure) = match request.send().await {
                Ok(response) if response.status().is_success() => return Ok(response),
                // The first time it did what it could not answer to.
                Ok(response) if tried > 0 && call.is_deleted(response.status()) => return Ok(response),
                Ok(response) => {
                    let wait = call.wait_after(&response, tried);
                    (wait, refusal(response).await)
                }
                Err(error) => (call.wait_without_answer(&error, tried), self.unreachable(error)),
            };
            match wait {
                Some(wait) if tried < self.retries && wait <= LONGEST_WAIT => {
                    tried += 1;
                    let seconds = wait.as_secs_f32();
                    tell(&format!(
                        "keypost: {failure}\nkeypost: trying again in {seconds} s ({tried} of {})",
                        self.retries
                    ));
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(failure),
            }
        }
    }

    fn request(&self, method: Method, place: &Place) -> Result<RequestBuilder, CommandError> {
        let mut url = self.base.clone();
        // Not for http and https, which is all that a base can be.
        let mut path = url.path_segments_mut().map_err(|()| CommandError::Usage("the URL has no path"))?;
        path.pop_if_empty().extend(["api", "internal"]).extend(&place.segments);
        drop(path);
        if !place.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&place.query);
        }
        let mut key = HeaderValue::from_str(self.key.expose())
            .map_err(|error| CommandError::HttpClient(error.to_string()))?;
        key.set_sensitive(true);
        Ok(self.http.request(method, url).header(API_KEY, key))
    }

    /// What a failed exchange means.
    pub(super) fn unreachable(&self, error: reqwest::Error) -> CommandError {
        CommandError::Unreachable { url: self.base.to_string(), reason: describe(error) }
    }
}

impl<'a> Call<'a> {
    fn new(method: Method, place: &'a Place) -> Self {
        Self {
            method,
            place,
            body: None,
            content_type: "application/json",
            headers: Vec::new(),
            twice: Twice::Same,
        }
    }

    fn body(self, body: Vec<u8>) -> Self {
        Self { body: Some(body), ..self }
    }

    fn is_deleted(&self, status: StatusCode) -> bool {
        self.method == Method::DELETE && status == StatusCode::NOT_FOUND
    }

    /// How long to wait before this is sent again, or never.
    fn wait_after(&self, response: &Response, tried: u8) -> Option<Duration> {
        let again = match response.status() {
            // A limit is checked before anything is done.
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                self.twice == Twice::Same
            }
            _ => false,
        };
        let asked = retry_after(response).map(Duration::from_secs);
        again.then(|| asked.unwrap_or_else(|| backoff(tried)))
    }

    /// The same for a request that got no answer. Where nobody listens, nobody will a second later.
    fn wait_without_answer(&self, error: &reqwest::Error, tried: u8) -> Option<Duration> {
        let again = self.twice == Twice::Same && !error.is_connect() && !error.is_timeout();
        again.then(|| backoff(tried))
    }
}

/// Half a second, then twice as long each time.
fn backoff(tried: u8) -> Duration {
    Duration::from_millis(500).saturating_mul(1 << u32::from(tried).min(16))
}

fn retry_after(response: &Response) -> Option<u64> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// What the server had against a request.
async fn refusal(mut response: Response) -> CommandError {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
        #[serde(default)]
        errors: Vec<FieldError>,
    }
    #[derive(Deserialize)]
    struct FieldError {
        field: String,
        detail: String,
    }

    let status = response.status();
    let request_id = response.headers().get(REQUEST_ID);
    let request_id = request_id.and_then(|id| id.to_str().ok()).map(str::to_owned);
    let retry_after = retry_after(&response);
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ERROR_BYTES {
            break;
        }
    }
    // What is no problem comes from a proxy in between, or from another kind of server.
    let (detail, fields) = match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => {
            let fields = problem.errors.into_iter().map(|error| (error.field, error.detail)).collect();
            (problem.detail, fields)
        }
        Err(_) => (format!("the server answered {status}, and nothing that a Keypost says"), Vec::new()),
    };
    Refusal { status, detail, fields, request_id, retry_after }.into()
}

/// An error with its causes, without the URL.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
