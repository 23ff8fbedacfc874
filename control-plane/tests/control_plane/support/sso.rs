//! People, their organizations and client apps, through the API.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::Request;
use base64ct::{Base64UrlUnpadded, Encoding};
use keypost::http::PeerAddress;
use serde_json::{Value, json};

use super::{Answer, TestApp};

/// What everybody's password is who does not say otherwise.
pub(crate) const PASSWORD: &str = "a long way to Tipperary";

/// An owner who has signed up.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) org: String,
    /// The key `org_…`.
    pub(crate) key: String,
    pub(crate) access_token: String,
}

/// A client app.
#[derive(Clone, Debug)]
pub(crate) struct ClientApp {
    pub(crate) id: String,
    /// The key `app_…`.
    pub(crate) key: String,
}

/// A control plane with the owner `ada`, her client app, and its user `bob` with what signing up has answered.
pub(crate) async fn bob() -> (TestApp, Owner, ClientApp, Value) {
    let app = TestApp::start().await;
    let owner = app.owner("ada").await;
    let till = app.client_app(&owner, "Till").await;
    let bob = app.app_user(&till, "bob").await;
    (app, owner, till, bob)
}

/// A request to single sign-on.
#[derive(Clone, Debug, Default)]
pub(crate) struct SsoRequest<'a> {
    method: &'a str,
    path: String,
    key: Option<&'a str>,
    bearer: Option<&'a str>,
    address: Option<&'a str>,
    body: Option<Value>,
}

impl<'a> SsoRequest<'a> {
    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), ..Self::default() }
    }

    pub(crate) fn delete(path: &str) -> Self {
        Self { method: "DELETE", path: path.to_owned(), ..Self::default() }
    }

    pub(crate) fn post(path: &str, body: Value) -> Self {
        Self { method: "POST", path: path.to_owned(), body: Some(body), ..Self::default() }
    }

    /// With this key in `apikey`.
    pub(crate) fn key(self, key: &'a str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// With this access token.
    pub(crate) fn bearer(self, token: &'a str) -> Self {
        Self { bearer: Some(token), ..self }
    }

    /// From this address.
    pub(crate) fn from(self, address: &'a str) -> Self {
        Self { address: Some(address), ..self }
    }

    fn build(self) -> Request<Body> {
        let address: IpAddr = self.address.unwrap_or("192.0.2.1").parse().unwrap();
        let mut request =
            Request::builder().method(self.method).uri(self.path).extension(PeerAddress(address));
        if let Some(key) = self.key {
            request = request.header("apikey", key);
        }
        if let Some(token) = self.bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        match self.body {
            Some(body) => {
                request.header("content-type", "application/json").body(Body::from(body.to_string()))
            }
            None => request.body(Body::empty()),
        }
        .unwrap()
    }
}

impl Answer {
    /// The `data` of an answer that must be a success of this status, in its envelope.
    pub(crate) fn data(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let envelope = self.json();
        assert_eq!((&envelope["success"], &envelope["error"]), (&json!(true), &Value::Null), "{}", self.text);
        assert!(envelope["message"].is_string(), "{}", self.text);
        envelope["data"].clone()
    }

    /// Fails the test unless this is a failure of that status and code, in its envelope.
    pub(crate) fn assert_failed(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text);
        let envelope = self.json();
        assert_eq!((&envelope["success"], &envelope["data"]), (&json!(false), &Value::Null), "{}", self.text);
        assert_eq!(envelope["error"]["code"], code, "{}", self.text);
        assert!(envelope["error"]["details"].is_array() && envelope["message"].is_string(), "{}", self.text);
    }

    /// The fields that a failure names.
    pub(crate) fn failed_fields(&self) -> Vec<String> {
        let details = self.json()["error"]["details"].as_array().cloned().unwrap_or_default();
        details.iter().map(|detail| detail["field"].as_str().unwrap().to_owned()).collect()
    }
}

impl TestApp {
    /// Sends a request to single sign-on.
    pub(crate) async fn sso(&self, request: SsoRequest<'_>) -> Answer {
        self.send(request.build()).await
    }

    /// Signs an owner up, with an organization of theirs.
    pub(crate) async fn owner(&self, username: &str) -> Owner {
        let answer = self.sso(SsoRequest::post("/api/auth/signup", owner_fields(username))).await;
        let data = answer.data(201);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Owner {
            org: text(&data["userClaims"]["organizationId"]),
            key: text(&data["orgOwnerApiKey"]),
            access_token: text(&data["accessToken"]),
        }
    }

    /// Makes a client app of an owner's organization.
    pub(crate) async fn client_app(&self, owner: &Owner, name: &str) -> ClientApp {
        self.client_app_with(owner, json!({"name": name})).await
    }

    pub(crate) async fn client_app_with(&self, owner: &Owner, settings: Value) -> ClientApp {
        let path = format!("/api/organization/{}/client-apps", owner.org);
        let data = self.sso(SsoRequest::post(&path, settings).key(&owner.key)).await.data(201);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        ClientApp { id: text(&data["id"]), key: text(&data["clientAppApiKey"]) }
    }

    /// Signs a user of a client app up; the `data` of the answer.
    pub(crate) async fn app_user(&self, app: &ClientApp, username: &str) -> Value {
        self.sso(SsoRequest::post("/api/auth/signup", user_fields(username)).key(&app.key)).await.data(201)
    }

    /// An attempt of a user to sign in to a client app.
    pub(crate) async fn log_in(&self, app: &ClientApp, username: &str, password: &str) -> Answer {
        self.sso(SsoRequest::post("/api/auth/login", credentials(username, password)).key(&app.key)).await
    }

    /// An attempt to refresh.
    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        self.sso(SsoRequest::post("/api/auth/refresh", json!({"refreshToken": token}))).await
    }

    /// Whether an access token counts here.
    pub(crate) async fn counts(&self, token: &str) -> bool {
        self.sso(SsoRequest::get("/api/auth/sessions").bearer(token)).await.status == 200
    }
}

/// What an owner sends to sign up.
pub(crate) fn owner_fields(username: &str) -> Value {
    json!({"username": username, "password": PASSWORD, "email": format!("{username}@owners.test"),
        "firstName": "Ada", "lastName": "Lovelace", "organizationName": format!("{username}'s"),
        "organizationDescription": "Tills"})
}

/// What a user of a client app sends to sign up.
pub(crate) fn user_fields(username: &str) -> Value {
    json!({"username": username, "password": PASSWORD, "email": format!("{username}@users.test"),
        "user_metadata": {"role": "DRIVER", "empID": "E26241", "department": "Operations"}})
}

/// What somebody sends to sign in.
pub(crate) fn credentials(username: &str, password: &str) -> Value {
    json!({"username": username, "password": password})
}

/// The claims of a token, unverified.
pub(crate) fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(payload).unwrap()).unwrap()
}
