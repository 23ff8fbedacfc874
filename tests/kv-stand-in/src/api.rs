//! Cloudflare's calls: paths, checks, envelopes.
//!
//! <https://developers.cloudflare.com/api/resources/kv/> and <https://developers.cloudflare.com/kv/platform/limits/>. A
//! code in an error is Cloudflare's where its documents name one, else 10000 + the status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, Response};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::account::{Account, Bulk, CallKind, Pair, unix_now};
use crate::{ACCOUNT, Fault, NAMESPACE};

const KEY_BYTES: usize = 512;
const VALUE_BYTES: usize = 25 << 20;
const METADATA_BYTES: usize = 1_024;
const LEAST_LIFETIME: u64 = 60;
/// The keys of a bulk read, and the bytes of its answer.
const GET_KEYS: usize = 100;
const GET_BYTES: usize = 25 << 20;
const LIST_LIMITS: std::ops::RangeInclusive<usize> = 10..=1_000;

/// What a call comes to.
pub(crate) enum Answer {
    Response(Response<Full<Bytes>>),
    Reset,
    Never,
}

/// An error as Cloudflare says it.
struct Refusal {
    status: u16,
    code: u32,
    message: String,
}

impl Refusal {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, code: 10_000 + u32::from(status), message: message.into() }
    }
}

pub(crate) async fn answer(account: &Arc<Mutex<Account>>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if let Some(verb) = path.strip_prefix("/stand-in/") {
        return control(account, &head.method, verb, body).await;
    }
    let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !lock(account).takes_token(authorization) {
        lock(account).note_exceeded("a call without the right bearer token".to_owned());
        return refuse(&Refusal { status: 401, code: 10_000, message: "Authentication error".to_owned() });
    }
    let base = format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces/{NAMESPACE}/");
    let Some(call) = path.strip_prefix(&base) else {
        let message = "namespace not found".to_owned();
        return refuse(&Refusal { status: 404, code: 10_013, message });
    };
    let query = head.uri.query().unwrap_or_default();
    match (head.method, call) {
        (Method::PUT, "bulk") => bulk(account, body, parse_pairs).await,
        (Method::POST, "bulk/delete") => bulk(account, body, parse_keys).await,
        (Method::POST, "bulk/get") => {
            read(account, read_body(account, body).await.and_then(|body| get(account, &body)))
        }
        (Method::GET, "keys") => read(account, list(account, query)),
        (Method::GET, call) if call.starts_with("values/") => value(account, &call["values/".len()..]),
        _ => refuse(&Refusal::new(405, "method not allowed")),
    }
}

fn lock(account: &Mutex<Account>) -> std::sync::MutexGuard<'_, Account> {
    account.lock().expect("nobody panics with the account")
}

async fn read_body(account: &Mutex<Account>, body: Incoming) -> Result<Bytes, Refusal> {
    let limit = lock(account).limits().bytes;
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => Err(exceeded(account, Refusal::new(413, "the request is larger than 100 MB"))),
    }
}

/// Notes that a caller went beyond a limit.
fn exceeded(account: &Mutex<Account>, refusal: Refusal) -> Refusal {
    lock(account).note_exceeded(refusal.message.clone());
    refusal
}

async fn bulk(
    account: &Arc<Mutex<Account>>,
    body: Incoming,
    parse: fn(&[u8], usize) -> Result<Bulk, Refusal>,
) -> Answer {
    let body = match read_body(account, body).await {
        Ok(body) => body,
        Err(refusal) => return refuse(&refusal),
    };
    let most = lock(account).limits().pairs;
    let bulk = match parse(&body, most) {
        Ok(bulk) => bulk,
        Err(refusal) => return refuse(&exceeded(account, refusal)),
    };
    drop(body);
    let kind = if matches!(bulk, Bulk::Put(_)) { CallKind::Put } else { CallKind::Delete };
    let keys = bulk.keys().into_iter().cloned().collect();
    if !lock(account).arrive(kind, keys) {
        return too_many(Some(60));
    }
    let fault = lock(account).next_fault(&bulk);
    let carry_out = |except: Option<&str>| match lock(account).carry_out(&bulk, except, false) {
        Ok(()) => {
            let failed: Vec<&String> =
                bulk.keys().into_iter().filter(|key| except.is_some_and(|part| key.contains(part))).collect();
            let done = bulk.keys().len() - failed.len();
            success(json!({"successful_key_count": done, "unsuccessful_keys": failed}), Value::Null)
        }
        Err(_) => too_many(Some(1)),
    };
    match fault {
        None => carry_out(None),
        Some(Fault::Unsuccessful(part)) => carry_out(Some(&part)),
        Some(Fault::CarriedOutThen(status)) => {
            carry_out(None);
            respond(status, Vec::new())
        }
        Some(Fault::ResetAfter) => {
            carry_out(None);
            Answer::Reset
        }
        Some(Fault::CarriedOutThenHang) => {
            carry_out(None);
            Answer::Never
        }
        Some(Fault::Hang) => {
            lock(account).lose(bulk);
            Answer::Never
        }
        Some(Fault::Stall(milliseconds)) => {
            // Not this request's task, which ends where the caller hangs up.
            let (account, pause) = (account.clone(), Duration::from_millis(milliseconds));
            let keys = bulk.keys().len();
            let stalled = tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                lock(&account).carry_out(&bulk, None, true)
            });
            let _ = stalled.await;
            success(json!({"successful_key_count": keys, "unsuccessful_keys": []}), Value::Null)
        }
        Some(Fault::ResetBefore) => Answer::Reset,
        Some(Fault::RateLimited(retry_after)) => too_many(retry_after),
        Some(Fault::Status(status)) => refuse(&Refusal::new(status, "refused on demand")),
        Some(Fault::RefuseEach(_)) => refuse(&Refusal::new(400, "a value is wrong")),
        Some(Fault::NoSuccess) => envelope(200, &Refusal::new(500, "refused on demand"), None),
        Some(Fault::Rubbish) => respond(200, b"<html>".to_vec()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IncomingPair {
    key: String,
    value: String,
    #[serde(default)]
    metadata: Value,
    expiration: Option<u64>,
    expiration_ttl: Option<u64>,
    #[serde(default)]
    base64: bool,
}

fn parse_pairs(body: &[u8], most: usize) -> Result<Bulk, Refusal> {
    let pairs: Vec<IncomingPair> = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, format!("could not parse the request body: {error}")))?;
    check_count(pairs.len(), most)?;
    let mut seen = std::collections::HashSet::new();
    let now = unix_now();
    let mut checked = Vec::with_capacity(pairs.len());
    for pair in pairs {
        check_key(&pair.key)?;
        if pair.base64 {
            return Err(Refusal::new(400, "base64 values are not made for this stand-in"));
        }
        if pair.value.len() > VALUE_BYTES {
            return Err(Refusal::new(413, format!("the value of {} is larger than 25 MiB", pair.key)));
        }
        if !pair.metadata.is_null() && pair.metadata.to_string().len() > METADATA_BYTES {
            return Err(Refusal::new(413, format!("the metadata of {} is larger than 1024 bytes", pair.key)));
        }
        if pair.expiration_ttl.is_some_and(|ttl| ttl < LEAST_LIFETIME)
            || pair.expiration.is_some_and(|at| at < now + LEAST_LIFETIME)
        {
            return Err(Refusal::new(400, format!("{} must not expire within 60 seconds", pair.key)));
        }
        if !seen.insert(pair.key.clone()) {
            return Err(Refusal::new(400, format!("{} is in the call twice", pair.key)));
        }
        let expiration = pair.expiration_ttl.map(|ttl| now + ttl).or(pair.expiration);
        checked.push(Pair { key: pair.key, value: pair.value, metadata: pair.metadata, expiration });
    }
    Ok(Bulk::Put(checked))
}

fn parse_keys(body: &[u8], most: usize) -> Result<Bulk, Refusal> {
    let keys: Vec<String> = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, format!("could not parse the request body: {error}")))?;
    check_count(keys.len(), most)?;
    keys.iter().try_for_each(|key| check_key(key))?;
    Ok(Bulk::Delete(keys))
}

fn check_count(count: usize, most: usize) -> Result<(), Refusal> {
    if count == 0 || count > most {
        return Err(Refusal::new(400, format!("{count} keys in a bulk call: 1 to {most} are taken")));
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() || key == "." || key == ".." {
        return Err(Refusal::new(400, "a key must not be empty, '.' or '..'"));
    }
    if key.len() > KEY_BYTES {
        let message = format!("a key of {} bytes exceeds the limit of {KEY_BYTES}", key.len());
        return Err(Refusal { status: 414, code: 10_030, message });
    }
    Ok(())
}

/// Counts a call that writes nothing.
fn read(account: &Mutex<Account>, answer: Result<(Value, Value), Refusal>) -> Answer {
    if !lock(account).arrive(CallKind::Read, Vec::new()) {
        return too_many(Some(60));
    }
    match answer {
        Ok((result, info)) => success(result, info),
        Err(refusal) => refuse(&refusal),
    }
}

fn list(account: &Mutex<Account>, query: &str) -> Result<(Value, Value), Refusal> {
    let (mut prefix, mut limit, mut after) = (String::new(), 1_000, String::new());
    for (name, value) in query.split('&').filter_map(|part| part.split_once('=')) {
        let plus_is_space = value.replace('+', " ");
        let value = percent_decode_str(&plus_is_space).decode_utf8_lossy().into_owned();
        match name {
            "prefix" => prefix = value,
            "limit" => {
                limit =
                    value.parse().ok().filter(|limit| LIST_LIMITS.contains(limit)).ok_or_else(bad_limit)?
            }
            "cursor" => after = open_cursor(&value)?,
            _ => return Err(Refusal::new(400, format!("the parameter {name} is unknown"))),
        }
    }
    let account = lock(account);
    let (page, more) = account.list(&prefix, &after, limit.min(account.limits().page));
    let cursor = page.last().filter(|_| more).map(|(key, _)| cursor(key)).unwrap_or_default();
    let count = page.len();
    let result = page.into_iter().map(|(name, entry)| {
        let mut key = json!({"name": name});
        if !entry.metadata.is_null() {
            key["metadata"] = entry.metadata;
        }
        if let Some(expiration) = entry.expiration {
            key["expiration"] = json!(expiration);
        }
        key
    });
    Ok((result.collect(), json!({"count": count, "cursor": cursor})))
}

fn bad_limit() -> Refusal {
    Refusal { status: 400, code: 10_019, message: "limit must be from 10 to 1000".to_owned() }
}

/// Cursors are opaque: whoever makes one up is refused.
fn cursor(after: &str) -> String {
    after.bytes().map(|byte| format!("{:02x}", byte ^ 0x5a)).collect()
}

fn open_cursor(cursor: &str) -> Result<String, Refusal> {
    let refused = || Refusal { status: 400, code: 10_025, message: "invalid cursor".to_owned() };
    let digits = cursor.as_bytes().chunks(2).map(|two| {
        let two = std::str::from_utf8(two).ok()?;
        Some(u8::from_str_radix(two, 16).ok()? ^ 0x5a)
    });
    let bytes: Option<Vec<u8>> = digits.collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(refused)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    keys: Vec<String>,
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    with_metadata: bool,
}

fn get(account: &Mutex<Account>, body: &[u8]) -> Result<(Value, Value), Refusal> {
    let wanted: Wanted = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, format!("could not parse the request body: {error}")))?;
    if wanted.with_metadata || wanted.r#type.is_some_and(|kind| kind != "text") {
        return Err(Refusal::new(400, "only texts without metadata are made for this stand-in"));
    }
    if wanted.keys.is_empty() || wanted.keys.len() > GET_KEYS {
        let message = format!("{} keys in a bulk read: 1 to {GET_KEYS} are taken", wanted.keys.len());
        return Err(exceeded(account, Refusal::new(400, message)));
    }
    let account = lock(account);
    let values: BTreeMap<&String, Option<String>> =
        wanted.keys.iter().map(|key| (key, account.get(key).map(|entry| entry.value))).collect();
    let bytes: usize = values.values().flatten().map(String::len).sum();
    if bytes > GET_BYTES {
        return Err(Refusal::new(413, "the values are larger than 25 MiB together"));
    }
    Ok((json!({"values": values}), Value::Null))
}

/// A value as it is, without an envelope.
fn value(account: &Mutex<Account>, key: &str) -> Answer {
    if !lock(account).arrive(CallKind::Read, Vec::new()) {
        return too_many(Some(60));
    }
    let key = percent_decode_str(key).decode_utf8_lossy();
    match lock(account).get(&key) {
        Some(entry) => respond(200, entry.value.into_bytes()),
        None => refuse(&Refusal { status: 404, code: 10_009, message: "get: 'key not found'".to_owned() }),
    }
}

/// What a test asks of a stand-in that runs as a process.
async fn control(account: &Mutex<Account>, method: &Method, verb: &str, body: Incoming) -> Answer {
    match (method, verb) {
        (&Method::POST, "faults") => {
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            match serde_json::from_slice::<Vec<Fault>>(&body) {
                Ok(faults) => {
                    lock(account).fail_next(faults);
                    respond(204, Vec::new())
                }
                Err(error) => respond(400, error.to_string().into_bytes()),
            }
        }
        (&Method::DELETE, "faults") => {
            lock(account).recover();
            respond(204, Vec::new())
        }
        (&Method::GET, "report") => {
            let report = lock(account).report();
            respond(200, serde_json::to_vec_pretty(&report).unwrap_or_default())
        }
        _ => respond(404, Vec::new()),
    }
}

fn success(result: Value, info: Value) -> Answer {
    let mut body = json!({"success": true, "errors": [], "messages": [], "result": result});
    if !info.is_null() {
        body["result_info"] = info;
    }
    respond(200, body.to_string().into_bytes())
}

fn too_many(retry_after: Option<u64>) -> Answer {
    envelope(
        429,
        &Refusal { status: 429, code: 10_048, message: "Too many requests".to_owned() },
        retry_after,
    )
}

fn refuse(refusal: &Refusal) -> Answer {
    envelope(refusal.status, refusal, None)
}

fn envelope(status: u16, refusal: &Refusal, retry_after: Option<u64>) -> Answer {
    let errors = json!([{"code": refusal.code, "message": refusal.message}]);
    let body = json!({"success": false, "errors": errors, "messages": [], "result": null});
    let mut answer = respond(status, body.to_string().into_bytes());
    if let (Answer::Response(response), Some(seconds)) = (&mut answer, retry_after) {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

fn respond(status: u16, body: Vec<u8>) -> Answer {
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    Answer::Response(response.body(Full::new(Bytes::from(body))).expect("a status and a header"))
}
