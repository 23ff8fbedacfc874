use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use keypost::config::KvConfig;
use keypost::kv::Metadata;
use keypost_shared::crypto::Crypto;
use keypost_shared::document::{Document, TrustDocument, UnverifiedDocument, Verified};
use keypost_shared::host::HostCrypto;
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::SecretText;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A KV server on a port of its own: the bulk calls of Cloudflare's API, and faults on demand.
pub(crate) struct KvServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<KvState>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct KvState {
    entries: BTreeMap<String, Stored>,
    faults: VecDeque<Fault>,
    /// What was sent in calls that were never answered.
    lost: Vec<BTreeMap<String, Stored>>,
    calls: Vec<Call>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) value: String,
    pub(crate) metadata: Metadata,
}

/// A call that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) keys: Vec<String>,
    pub(crate) delete: bool,
    pub(crate) authorization: Option<String>,
}

/// What happens to the next call.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Not answered, not carried out; [`KvServer::land_lost_calls`] carries it out later.
    Hang,
    /// Carried out, then answered with this status and no body.
    CarriedOutThen(u16),
    /// Carried out and answered well, after a while.
    Slow(Duration),
    /// Refused with this status.
    Status(u16),
    /// Refused with 429 and this `Retry-After`.
    RateLimited(u64),
    /// 200 with `success: false`.
    NoSuccess,
    /// 200 with something that is not JSON, not carried out.
    Rubbish,
    /// 200, but keys that contain this text are listed as failed and not written.
    Unsuccessful(&'static str),
    /// Refused with 400 if a key contains this text; the fault stays.
    RefuseEach(&'static str),
}

#[derive(Deserialize)]
struct IncomingPair {
    key: String,
    value: String,
    metadata: Metadata,
}

impl KvServer {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(KvState::default()));
        let base = "/client/v4/accounts/test/storage/kv/namespaces/test-namespace";
        let router = Router::new()
            .route(&format!("{base}/bulk"), put(bulk_put))
            .route(&format!("{base}/bulk/delete"), post(bulk_delete))
            .route(&format!("{base}/bulk/get"), post(bulk_get))
            .route(&format!("{base}/keys"), get(list))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(state.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, task }
    }

    pub(crate) fn config(&self) -> KvConfig {
        KvConfig {
            api_url: format!("http://{}/client/v4/accounts/test", self.address).parse().unwrap(),
            namespace_id: "test-namespace".to_owned(),
            api_token: Some(SecretText::new("kv-api-token".to_owned())),
            batch_size: 500,
        }
    }

    /// What happens to the next calls, one after the other.
    pub(crate) fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.extend(faults);
    }

    /// From now on every call is carried out.
    pub(crate) fn recover(&self) {
        self.lock().faults.clear();
    }

    /// Carries out, late, all calls that hung.
    pub(crate) fn land_lost_calls(&self) {
        let mut state = self.lock();
        for lost in std::mem::take(&mut state.lost) {
            state.entries.extend(lost);
        }
    }

    pub(crate) fn get(&self, key: &KvKey) -> Option<Stored> {
        self.lock().entries.get(&key.to_string()).cloned()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.lock().entries.keys().cloned().collect()
    }

    /// Writes a value as the edge does.
    pub(crate) fn write(&self, key: &str, value: &str) {
        let metadata = Metadata { version: 0, digest: String::new() };
        self.lock().entries.insert(key.to_owned(), Stored { value: value.to_owned(), metadata });
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// The document at `key`, if everything from the root down verifies, as the edge would have it.
    pub(crate) async fn verified<T: Document>(
        &self,
        root: &EcPublicJwk,
        key: &KvKey,
    ) -> Result<Verified<T>, String> {
        let text = |key: &KvKey| self.get(key).map(|stored| stored.value).ok_or(format!("{key} is missing"));
        let trust_text = text(&KvKey::Trust)?;
        let trust: Verified<TrustDocument> = verify(&trust_text, root, &KvKey::Trust).await?;
        let document_text = text(key)?;
        let kid =
            UnverifiedDocument::<T>::parse(&document_text).map_err(|error| error.to_string())?.kid().clone();
        let signer = trust.document.publisher_keys.iter().find(|listed| listed.thumbprint() == kid);
        verify(&document_text, signer.ok_or("its signer is not trusted")?, key).await
    }

    /// The trust document.
    pub(crate) async fn trust(&self, root: &EcPublicJwk) -> Result<Verified<TrustDocument>, String> {
        let stored = self.get(&KvKey::Trust).ok_or("v1/trust is missing")?;
        verify(&stored.value, root, &KvKey::Trust).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, KvState> {
        self.state.lock().unwrap()
    }
}

impl Drop for KvServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn verify<T: Document>(text: &str, signer: &EcPublicJwk, key: &KvKey) -> Result<Verified<T>, String> {
    let verifying_key = HostCrypto.import_public(signer).await.map_err(|error| error.to_string())?;
    let document = UnverifiedDocument::<T>::parse(text).map_err(|error| error.to_string())?;
    document.verify(&HostCrypto, &verifying_key, key).await.map_err(|error| error.to_string())
}

async fn bulk_put(State(state): State<Arc<Mutex<KvState>>>, headers: HeaderMap, body: Bytes) -> Response {
    let pairs: Vec<IncomingPair> = serde_json::from_slice(&body).unwrap();
    let pairs: BTreeMap<String, Stored> = pairs
        .into_iter()
        .map(|pair| (pair.key, Stored { value: pair.value, metadata: pair.metadata }))
        .collect();
    let keys: Vec<String> = pairs.keys().cloned().collect();
    let fault = arrive(&state, &headers, &keys, false);
    let store = |except: &str| {
        let kept = pairs.clone().into_iter().filter(|(key, _)| except.is_empty() || !key.contains(except));
        state.lock().unwrap().entries.extend(kept);
    };
    match fault {
        Some(Fault::Hang) => {
            state.lock().unwrap().lost.push(pairs);
            hang().await
        }
        Some(Fault::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            store("");
            success(Vec::new())
        }
        Some(Fault::CarriedOutThen(status)) => {
            store("");
            StatusCode::from_u16(status).unwrap().into_response()
        }
        Some(Fault::Unsuccessful(part)) => {
            store(part);
            success(keys.iter().filter(|key| key.contains(part)).collect())
        }
        Some(fault) => refuse(fault),
        None => {
            store("");
            success(Vec::new())
        }
    }
}

async fn bulk_delete(State(state): State<Arc<Mutex<KvState>>>, headers: HeaderMap, body: Bytes) -> Response {
    let keys: Vec<String> = serde_json::from_slice(&body).unwrap();
    match arrive(&state, &headers, &keys, true) {
        Some(Fault::Hang) => hang().await,
        Some(fault) => refuse(fault),
        None => {
            state.lock().unwrap().entries.retain(|key, _| !keys.contains(key));
            success(Vec::new())
        }
    }
}

#[derive(Deserialize)]
struct ListQuery {
    prefix: String,
    limit: usize,
    cursor: Option<String>,
}

/// Pages of three, whatever is asked for, so that there is more than one.
async fn list(State(state): State<Arc<Mutex<KvState>>>, Query(query): Query<ListQuery>) -> Response {
    assert!(query.limit <= 1000);
    let state = state.lock().unwrap();
    let after = query.cursor.unwrap_or_default();
    let names = state.entries.keys().filter(|key| key.starts_with(&query.prefix) && **key > after);
    let names: Vec<&String> = names.take(4).collect();
    let page = &names[..names.len().min(3)];
    let cursor = if names.len() > 3 { page[2].as_str() } else { "" };
    let result: Vec<Value> = page.iter().map(|name| json!({"name": name})).collect();
    Json(json!({"success": true, "errors": [], "result": result, "result_info": {"cursor": cursor}}))
        .into_response()
}

#[derive(Deserialize)]
struct WantedValues {
    keys: Vec<String>,
}

async fn bulk_get(State(state): State<Arc<Mutex<KvState>>>, Json(wanted): Json<WantedValues>) -> Response {
    assert!(wanted.keys.len() <= 100);
    let state = state.lock().unwrap();
    let value = |key: &String| state.entries.get(key).map(|stored| stored.value.clone());
    let values: BTreeMap<&String, Option<String>> = wanted.keys.iter().map(|key| (key, value(key))).collect();
    Json(json!({"success": true, "errors": [], "result": {"values": values}})).into_response()
}

fn arrive(state: &Mutex<KvState>, headers: &HeaderMap, keys: &[String], delete: bool) -> Option<Fault> {
    let mut state = state.lock().unwrap();
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    state.calls.push(Call { at: Instant::now(), keys: keys.to_vec(), delete, authorization });
    if let Some(Fault::RefuseEach(part)) = state.faults.front().cloned() {
        return keys.iter().any(|key| key.contains(part)).then_some(Fault::RefuseEach(part));
    }
    state.faults.pop_front()
}

fn refuse(fault: Fault) -> Response {
    let failure = |status, message: &str| {
        let errors = json!([{"code": 10013, "message": message}]);
        (status, Json(json!({"success": false, "errors": errors, "messages": [], "result": null})))
            .into_response()
    };
    match fault {
        Fault::RateLimited(seconds) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())]).into_response()
        }
        Fault::Status(status) => failure(StatusCode::from_u16(status).unwrap(), "refused on demand"),
        Fault::RefuseEach(_) => failure(StatusCode::BAD_REQUEST, "a value is wrong"),
        Fault::NoSuccess => failure(StatusCode::OK, "refused on demand"),
        Fault::Rubbish => "<html>".into_response(),
        other => panic!("{other:?} is no refusal"),
    }
}

fn success(unsuccessful: Vec<&String>) -> Response {
    let result: Value = json!({"successful_key_count": 1, "unsuccessful_keys": unsuccessful});
    Json(json!({"success": true, "errors": [], "messages": [], "result": result})).into_response()
}

/// Longer than any client waits.
async fn hang() -> Response {
    tokio::time::sleep(Duration::from_secs(3600)).await;
    StatusCode::OK.into_response()
}
