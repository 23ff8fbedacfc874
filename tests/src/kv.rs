//! KV as somebody sees it who has got hold of the API token: it can be read, written and emptied.

use serde_json::{Value, json};

/// The KV namespace of a stack, by the API that Cloudflare and `wrangler dev` share.
#[derive(Clone)]
pub struct Kv {
    namespace_url: String,
    http: reqwest::Client,
}

impl Kv {
    /// The namespace at this API.
    pub fn new(api_url: &str, namespace_id: &str) -> Self {
        // A connection each: wrangler closes idle ones, and may do so in the moment in which one is used again.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        Self { namespace_url: format!("{api_url}/storage/kv/namespaces/{namespace_id}"), http }
    }

    /// The value of a key.
    pub async fn get(&self, key: &str) -> Option<String> {
        let response = self.http.get(self.value_url(key)).send().await.unwrap();
        match response.status().as_u16() {
            404 => None,
            200 => Some(response.text().await.unwrap()),
            other => panic!("GET {key}: {other}"),
        }
    }

    /// The value of a key that must be there.
    pub async fn must_get(&self, key: &str) -> String {
        self.get(key).await.unwrap_or_else(|| panic!("{key} is not in KV"))
    }

    /// Writes a value.
    pub async fn put(&self, key: &str, value: &str) {
        let url = format!("{}/bulk", self.namespace_url);
        let response = self.http.put(url).json(&json!([{"key": key, "value": value}])).send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert!(status.is_success() && body["success"] == true, "PUT {key}: {status} {body}");
    }

    /// Deletes a key.
    pub async fn delete(&self, key: &str) {
        let url = format!("{}/bulk/delete", self.namespace_url);
        let response = self.http.post(url).json(&json!([key])).send().await.unwrap();
        assert!(response.status().is_success(), "DELETE {key}: {}", response.status());
    }

    fn value_url(&self, key: &str) -> String {
        format!("{}/values/{}", self.namespace_url, key.replace('/', "%2F"))
    }
}
