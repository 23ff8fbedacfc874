//! An administrator, who uses the REST API with a key.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::wait;

/// An administrator of a running control plane.
#[derive(Clone)]
pub struct Admin {
    /// Where the control plane answers.
    pub url: String,
    /// The `X-API-Key`.
    pub key: String,
    http: reqwest::Client,
}

/// An answer: its status, its headers and its JSON (null where it has none).
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub body: Value,
}

impl Admin {
    /// An administrator with this key.
    pub fn new(url: &str, key: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { url: url.to_owned(), key: key.to_owned(), http }
    }

    /// Sends a request under `/api`, with a JSON body unless that is null.
    pub async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = self.http.request(method, format!("{}/api{path}", self.url));
        let request = request.header("x-api-key", &self.key);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.expect("the control plane answers");
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: no JSON ({error}): {text}"))
        };
        Answer { status, headers, body }
    }

    /// POSTs and expects 201.
    pub async fn create(&self, path: &str, body: Value) -> Value {
        let answer = self.send(Method::POST, path, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "POST {path}: {}", answer.body);
        answer.body
    }

    /// GETs and expects 200.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.send(Method::GET, path, Value::Null).await;
        assert_eq!(answer.status, StatusCode::OK, "GET {path}: {}", answer.body);
        answer.body
    }

    /// PATCHes and expects 200.
    pub async fn patch(&self, path: &str, body: Value) -> Value {
        let answer = self.send(Method::PATCH, path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "PATCH {path}: {}", answer.body);
        answer.body
    }

    /// Waits until what an answer says is in KV. On a busy machine `published` may be false at first.
    pub async fn published(&self, answer: &Value) {
        let answered = Instant::now();
        if answer["published"] == true {
            return;
        }
        assert_eq!(answer["published"], false, "{answer}");
        // Other tests may mark documents all the time: what has waited for less long is theirs.
        wait::until("what was answered to be published", Duration::from_secs(180), || async {
            let sync = self.get("/internal/sync").await;
            let oldest = sync["oldestPendingSeconds"].as_u64();
            let later = oldest.is_none_or(|oldest| oldest + 1 < answered.elapsed().as_secs());
            if later { Ok(()) } else { Err(sync.to_string()) }
        })
        .await;
    }

    /// Activates with an OTP, as a device would: without a key.
    pub async fn activate(&self, body: Value) -> Answer {
        let anonymous = Self { key: String::new(), ..self.clone() };
        anonymous.send(Method::POST, "/otp/activate", body).await
    }

    /// Makes an organization of this id with an environment `production`.
    pub async fn fleet(&self, organization: &str) -> Fleet {
        self.create("/internal/org", json!({"id": organization, "name": organization})).await;
        let path = format!("/internal/org/{organization}/env");
        let environment = self.create(&path, json!({"id": "production", "name": "Production"})).await;
        self.published(&environment).await;
        Fleet { admin: self.clone(), path: format!("{path}/production"), environment }
    }
}

/// An environment and what is in it.
pub struct Fleet {
    /// Whose it is.
    pub admin: Admin,
    /// Its path under `/api`.
    pub path: String,
    /// What its creation was answered with.
    pub environment: Value,
}

impl Fleet {
    /// The id of its client pool.
    pub fn pool(&self) -> &str {
        self.environment["clientPoolId"].as_str().unwrap()
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        self.environment["issuer"].as_str().unwrap()
    }

    /// Makes a device with an app `client`, which may have the scope `device`.
    pub async fn device(&self, device: &str) {
        self.admin.create(&format!("{}/device", self.path), json!({"id": device, "name": device})).await;
        self.app(device).await;
    }

    /// Makes the app `client` of a device.
    pub async fn app(&self, device: &str) {
        let path = format!("{}/device/{device}/app", self.path);
        self.admin.create(&path, json!({"clientAppId": "client", "scopes": ["device"]})).await;
    }

    /// Makes a one-time password for the app `client` of a device.
    pub async fn otp(&self, device: &str) -> String {
        let path = format!("{}/device/{device}/app/client/otp", self.path);
        self.admin.create(&path, Value::Null).await["otp"].as_str().unwrap().to_owned()
    }

    /// Activates the app `client` of a device, which must exist; the credentials are in KV.
    pub async fn activate(&self, device: &str) -> Credentials {
        let otp = self.otp(device).await;
        let answer = self.admin.activate(json!({"otp": otp, "deviceId": device})).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        self.admin.published(&answer.body).await;
        Credentials::of(&answer.body)
    }

    /// A new device, activated.
    pub async fn activated(&self, device: &str) -> Credentials {
        self.device(device).await;
        self.activate(device).await
    }
}

/// What a device has after its activation.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The pool's issuer.
    pub issuer: String,
    /// Where it gets tokens.
    pub token_endpoint: String,
    /// Where verifiers find the keys.
    pub jwks_uri: String,
    /// Its client id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
}

impl Credentials {
    /// Reads the answer of an activation.
    pub fn of(activation: &Value) -> Self {
        let text = |name: &str| activation[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
        Self {
            issuer: text("issuer"),
            token_endpoint: text("tokenEndpoint"),
            jwks_uri: text("jwksUri"),
            client_id: text("clientId"),
            client_secret: text("clientSecret"),
        }
    }
}
