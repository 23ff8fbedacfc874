//! The Cloudflare KV REST API: bulk writes and bulk deletes, which are all that publishing needs (design §5), and lists and
//! bulk reads, for what the edge leaves there.
//!
//! `wrangler dev` serves the same calls, so this is the only KV client there is.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::SecretText;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::KvConfig;

/// The most that an answer may hold: 10,000 keys of 100 bytes would be 1 MiB.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// The most that a `Retry-After` is obeyed for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A KV namespace behind the REST API.
#[derive(Clone, Debug)]
pub struct KvApi {
    http: reqwest::Client,
    put_url: Url,
    delete_url: Url,
    list_url: Url,
    get_url: Url,
    api_token: Option<SecretText>,
}

/// A document to write.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// Its key.
    #[serde(serialize_with = "as_text")]
    pub key: KvKey,
    /// The signed text.
    pub value: String,
    /// What a listing shows of it.
    pub metadata: Metadata,
}

/// What a listing of KV shows of a document, so that a comparison need not read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The document's version.
    pub version: u64,
    /// The digest of what it says, in base64url.
    pub digest: String,
}

/// A call that KV answered. Not all of it need have succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The keys that could not be written.
    pub unsuccessful: HashSet<String>,
}

/// A key as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedKey {
    /// Its name.
    pub name: String,
    /// What is said of the document; none where that is not what a publisher writes.
    pub metadata: Option<Metadata>,
}

/// A page of a list of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The keys.
    pub keys: Vec<ListedKey>,
    /// Where the next page begins; none where this is the last.
    pub cursor: Option<String>,
}

/// Why a call failed. What matters is whether it may still take effect.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// No connection: nothing was sent.
    #[error("KV cannot be reached: {0}")]
    NotSent(String),
    /// Too many calls: nothing was written.
    #[error("KV's rate limit is exceeded")]
    RateLimited {
        /// How long to wait, if KV said so.
        retry_after: Option<Duration>,
    },
    /// KV refused the call, and is done with it.
    #[error("KV refused with status {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What KV said.
        message: String,
    },
    /// Sent, and no answer that settles it: it may have taken effect, or may yet.
    #[error("the outcome of a call to KV is unknown: {0}")]
    Unknown(String),
}

impl KvError {
    /// Whether the call may still take effect.
    pub fn may_land(&self) -> bool {
        matches!(self, KvError::Unknown(_))
    }
}

/// The settings from which no client can be made.
#[derive(Debug, thiserror::Error)]
#[error("no KV client can be made: {0}")]
pub struct KvSetupError(String);

impl KvApi {
    /// A client that gives a call up after `timeout`.
    pub fn new(config: &KvConfig, timeout: Duration) -> Result<Self, KvSetupError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("keypost/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| KvSetupError(error.to_string()))?;
        let url = |call: &str| {
            let base = config.api_url.as_str().trim_end_matches('/');
            let text = format!("{base}/storage/kv/namespaces/{}/{call}", config.namespace_id);
            Url::parse(&text).map_err(|error| KvSetupError(error.to_string()))
        };
        Ok(Self {
            http,
            put_url: url("bulk")?,
            delete_url: url("bulk/delete")?,
            list_url: url("keys")?,
            get_url: url("bulk/get")?,
            api_token: config.api_token.clone(),
        })
    }

    /// Writes at most 10,000 documents (100 MB).
    pub async fn put(&self, pairs: &[Pair]) -> Result<Outcome, KvError> {
        Ok(self.call::<Written>(Method::PUT, &self.put_url, Some(pairs)).await?.result.into())
    }

    /// Deletes at most 10,000 keys.
    pub async fn delete(&self, keys: &[KvKey]) -> Result<Outcome, KvError> {
        let names: Vec<String> = keys.iter().map(KvKey::to_string).collect();
        self.delete_named(&names).await
    }

    /// Deletes at most 10,000 keys by their names.
    pub async fn delete_named(&self, names: &[String]) -> Result<Outcome, KvError> {
        let unsuccessful = self.call::<Written>(Method::POST, &self.delete_url, Some(names)).await?;
        Ok(unsuccessful.result.into())
    }

    /// Lists keys that begin with `prefix`: at most 1,000, from where the page before ended.
    pub async fn list(&self, prefix: &str, cursor: Option<&str>) -> Result<Listed, KvError> {
        let mut url = self.list_url.clone();
        url.query_pairs_mut().append_pair("prefix", prefix).append_pair("limit", "1000");
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let answered = self.call::<Vec<AnsweredKey>>(Method::GET, &url, None::<&()>).await?;
        let keys = answered.result.unwrap_or_default().into_iter().map(AnsweredKey::read).collect();
        let cursor = answered.result_info.map(|info| info.cursor).filter(|cursor| !cursor.is_empty());
        Ok(Listed { keys, cursor })
    }

    /// The values of at most 100 keys, as far as they are there.
    pub async fn values(&self, names: &[String]) -> Result<BTreeMap<String, String>, KvError> {
        let body = serde_json::json!({"keys": names, "type": "text"});
        let answered = self.call::<Values>(Method::POST, &self.get_url, Some(&body)).await?;
        let values = answered.result.map(|result| result.values).unwrap_or_default();
        Ok(values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
    }

    async fn call<R: DeserializeOwned>(
        &self,
        method: Method,
        url: &Url,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<Answer<R>, KvError> {
        let mut request = self.http.request(method, url.clone());
        if let Some(body) = body {
            let body = serde_json::to_vec(body).map_err(|error| KvError::NotSent(error.to_string()))?;
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body);
        }
        if let Some(token) = &self.api_token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| KvError::NotSent("the API token is no header value".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) if error.is_connect() || error.is_builder() => Err(KvError::NotSent(describe(error))),
            Err(error) => Err(KvError::Unknown(describe(error))),
        }
    }
}

/// The envelope of Cloudflare's API.
#[derive(Deserialize)]
struct Answer<R> {
    success: bool,
    #[serde(default)]
    errors: Vec<AnswerError>,
    #[serde(default = "Option::default")]
    result: Option<R>,
    #[serde(default)]
    result_info: Option<AnswerInfo>,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct AnswerInfo {
    #[serde(default)]
    cursor: String,
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    unsuccessful_keys: Vec<String>,
}

#[derive(Deserialize)]
struct AnsweredKey {
    name: String,
    #[serde(default)]
    metadata: serde_json::Value,
}

impl AnsweredKey {
    /// Whoever can write to KV can put any metadata there.
    fn read(self) -> ListedKey {
        ListedKey { name: self.name, metadata: serde_json::from_value(self.metadata).ok() }
    }
}

#[derive(Deserialize)]
struct Values {
    values: BTreeMap<String, Option<String>>,
}

impl From<Option<Written>> for Outcome {
    fn from(written: Option<Written>) -> Self {
        let unsuccessful = written.map(|written| written.unsuccessful_keys).unwrap_or_default();
        Self { unsuccessful: unsuccessful.into_iter().collect() }
    }
}

async fn read<R: DeserializeOwned>(response: Response) -> Result<Answer<R>, KvError> {
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(KvError::RateLimited { retry_after: retry_after(&response) });
    }
    // Behind a gateway's error the call may still be at work.
    if status.is_server_error() {
        return Err(KvError::Unknown(format!("status {}", status.as_u16())));
    }
    let body = match read_body(response).await {
        Ok(body) => body,
        // Whatever the body says, a call that was refused with a status of its own is over.
        Err(reason) if status.is_success() => return Err(KvError::Unknown(reason)),
        Err(reason) => return Err(KvError::Refused { status: status.as_u16(), message: reason }),
    };
    match serde_json::from_slice::<Answer<R>>(&body) {
        Ok(answer) if answer.success && status.is_success() => Ok(answer),
        Ok(answer) => {
            Err(KvError::Refused { status: status.as_u16(), message: error_message(&answer.errors) })
        }
        Err(_) if status.is_success() => {
            Err(KvError::Unknown("an answer that is not Cloudflare's".to_owned()))
        }
        Err(_) => {
            Err(KvError::Refused { status: status.as_u16(), message: "without an explanation".to_owned() })
        }
    }
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(describe)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            return Err("an answer without end".to_owned());
        }
    }
    Ok(body)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// What went wrong, for the log and for `GET /api/internal/sync`: bounded, and without control characters.
fn error_message(errors: &[AnswerError]) -> String {
    let text: Vec<String> = errors.iter().map(|error| format!("{} {}", error.code, error.message)).collect();
    let text = if text.is_empty() { "without an explanation".to_owned() } else { text.join("; ") };
    text.chars().filter(|c| !c.is_control()).take(300).collect()
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
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn as_text<S: serde::Serializer>(key: &KvKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}
