//! That the stand-in is as strict as what it stands for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on ends there")]

use std::time::Duration;

use kv_stand_in::{Fault, KvStandIn, Limits, Options};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

struct Caller {
    stand_in: KvStandIn,
    http: reqwest::Client,
}

impl Caller {
    fn new(limits: Limits) -> Self {
        let stand_in = KvStandIn::start(Options { limits, ..Options::default() });
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        Self { stand_in, http }
    }

    fn lenient() -> Self {
        Self::new(Limits { write_interval: Duration::ZERO, ..Limits::default() })
    }

    fn request(&self, method: Method, call: &str, body: &Value) -> reqwest::RequestBuilder {
        let url =
            format!("{}/storage/kv/namespaces/{}/{call}", self.stand_in.api_url(), kv_stand_in::NAMESPACE);
        let request = self.http.request(method, url).bearer_auth(self.stand_in.token());
        if body.is_null() { request } else { request.json(body) }
    }

    async fn send(&self, method: Method, call: &str, body: Value) -> (StatusCode, Value) {
        let response = self.request(method, call, &body).send().await.unwrap();
        (response.status(), response.json().await.unwrap_or(Value::Null))
    }

    async fn put(&self, pairs: Value) -> (StatusCode, Value) {
        self.send(Method::PUT, "bulk", pairs).await
    }
}

fn pair(key: &str, version: u64) -> Value {
    json!({"key": key, "value": "v", "metadata": {"version": version}})
}

#[tokio::test]
async fn what_exceeds_a_limit_is_refused_whole_and_reported() {
    let caller = Caller::lenient();
    let many = |count: usize| (0..count).map(|n| pair(&format!("k{n}"), 1)).collect::<Value>();
    let long_key = "k".repeat(513);
    for (what, body, status) in [
        ("no pairs", json!([]), 400),
        ("too many pairs", many(10_001), 400),
        ("a long key", json!([pair(&long_key, 1)]), 414),
        ("an empty key", json!([pair("", 1)]), 400),
        ("a large value", json!([{"key": "k", "value": "v".repeat((25 << 20) + 1)}]), 413),
        ("large metadata", json!([{"key": "k", "value": "v", "metadata": "m".repeat(1_023)}]), 413),
        ("a short life", json!([{"key": "k", "value": "v", "expiration_ttl": 59}]), 400),
        ("an end that is near", json!([{"key": "k", "value": "v", "expiration": 1}]), 400),
        ("one key twice", json!([pair("k", 1), pair("k", 2)]), 400),
        ("no value", json!([{"key": "k"}]), 400),
    ] {
        let before = caller.stand_in.report().exceeded.len();
        let (answered, body) = caller.put(body).await;
        assert_eq!(answered.as_u16(), status, "{what}: {body}");
        assert_eq!(body["success"], false, "{what}");
        assert!(
            body["errors"][0]["code"].is_u64() && body["errors"][0]["message"].is_string(),
            "{what}: {body}"
        );
        assert_eq!(caller.stand_in.report().exceeded.len(), before + 1, "{what}");
    }
    assert_eq!(caller.stand_in.report().keys, 0, "nothing of it was written");
    assert_eq!(caller.put(many(10_000)).await.0, 200);
    assert_eq!(caller.stand_in.report().keys, 10_000);
}

#[tokio::test]
async fn a_caller_needs_the_token_and_the_namespace() {
    let caller = Caller::lenient();
    let list = |request: reqwest::RequestBuilder| async { request.send().await.unwrap().status().as_u16() };
    assert_eq!(list(caller.request(Method::GET, "keys", &Value::Null)).await, 200);
    let url =
        |namespace: &str| format!("{}/storage/kv/namespaces/{namespace}/keys", caller.stand_in.api_url());
    assert_eq!(list(caller.http.get(url(kv_stand_in::NAMESPACE))).await, 401);
    assert_eq!(list(caller.http.get(url(kv_stand_in::NAMESPACE)).bearer_auth("other")).await, 401);
    assert_eq!(list(caller.http.get(url("other")).bearer_auth(caller.stand_in.token())).await, 404);
}

#[tokio::test]
async fn rates_are_limited_by_key_and_by_call() {
    let caller = Caller::new(Limits { calls: 3, ..Limits::default() });
    assert_eq!(caller.put(json!([pair("a", 1)])).await.0, 200);
    let (status, _) = caller.put(json!([pair("a", 2), pair("b", 1)])).await;
    assert_eq!((status.as_u16(), caller.stand_in.report().keys), (429, 1), "a was written a moment ago");
    assert_eq!(caller.put(json!([pair("b", 1)])).await.0, 200);
    let refused = caller.request(Method::PUT, "bulk", &json!([pair("c", 1)])).send().await.unwrap();
    assert_eq!(refused.status(), 429, "the fourth call");
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(caller.stand_in.report().exceeded.len(), 2);
}

#[tokio::test]
async fn lists_come_in_pages_in_order_with_metadata() {
    let caller = Caller::lenient();
    let keys: Vec<String> = (0..2_500).map(|n| format!("v1/{n:05}")).collect();
    caller.put(keys.iter().rev().map(|key| pair(key, 7)).collect()).await;
    caller.put(json!([pair("v2/other", 1)])).await;
    let (mut found, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (_, body) =
            caller.send(Method::GET, &format!("keys?prefix=v1%2F&cursor={cursor}"), Value::Null).await;
        let page = body["result"].as_array().unwrap();
        assert!(page.len() <= 1_000 && page.iter().all(|key| key["metadata"]["version"] == 7));
        found.extend(page.iter().map(|key| key["name"].as_str().unwrap().to_owned()));
        pages += 1;
        cursor = body["result_info"]["cursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!((found, pages), (keys, 3));
    for wrong in ["limit=5", "limit=1001", "cursor=x", "order=desc"] {
        assert_eq!(caller.send(Method::GET, &format!("keys?{wrong}"), Value::Null).await.0, 400, "{wrong}");
    }
    let (_, body) =
        caller.send(Method::POST, "bulk/get", json!({"keys": ["v1/00000", "none"], "type": "text"})).await;
    assert_eq!(body["result"]["values"], json!({"v1/00000": "v", "none": null}));
    let (status, _) = caller.send(Method::POST, "bulk/get", json!({"keys": vec!["k"; 101]})).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn faults_happen_in_their_order_and_what_they_leave_can_be_told() {
    let caller = Caller::lenient();
    caller.stand_in.fail_next([
        Fault::RateLimited(Some(9)),
        Fault::Status(500),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::CarriedOutThen(502),
        Fault::Unsuccessful("b".to_owned()),
    ]);
    let send = |version: u64| {
        caller.request(Method::PUT, "bulk", &json!([pair("a", version), pair("b", version)])).send()
    };
    let limited = send(1).await.unwrap();
    assert_eq!((limited.status().as_u16(), &limited.headers()["retry-after"]), (429, &"9".parse().unwrap()));
    assert_eq!(send(2).await.unwrap().status(), 500);
    let version =
        |key: &str| caller.stand_in.get(key).map(|entry| entry.metadata["version"].as_u64().unwrap());
    assert!(send(3).await.is_err());
    assert_eq!(version("a"), None);
    assert!(send(4).await.is_err());
    assert_eq!(version("a"), Some(4));
    assert_eq!(send(5).await.unwrap().status(), 502);
    assert_eq!(version("a"), Some(5));
    let partial: Value = send(6).await.unwrap().json().await.unwrap();
    assert_eq!(partial["result"]["unsuccessful_keys"], json!(["b"]));
    assert_eq!((version("a"), version("b")), (Some(6), Some(5)));
    assert_eq!(caller.stand_in.faults_left(), 0);
    assert!(caller.stand_in.report().older_over_newer.is_empty());
    caller.put(json!([pair("a", 1)])).await;
    let report = caller.stand_in.report();
    assert_eq!(report.older_over_newer, ["a"]);
    assert_eq!(report.not_the_newest, ["a"]);
}
