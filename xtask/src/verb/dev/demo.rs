//! The demo: an organization, an environment, a device with an app, made through the REST API as an administrator
//! would, and activated as a device would. What is there from an earlier start is used again.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::token::{self, VerifiedToken};
use crate::{Error, files, progress::Step, stack::whole::Stack};

const ORGANIZATION: &str = "retail-corp";
const ENVIRONMENT: &str = "production";
const DEVICE: &str = "pos-terminal-001";
const APP: &str = "client";

/// How long the first token may take: what has just been written to KV, or is signed anew after a long rest, takes
/// a moment to be read.
const TOKEN_LIMIT: Duration = Duration::from_secs(60);

/// The demo device and its token.
#[derive(Debug)]
pub(super) struct Demo {
    pub(super) credentials: Credentials,
    pub(super) environment: Environment,
    pub(super) token: VerifiedToken,
}

/// Who the demo device is; kept, because a client secret is shown once.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Credentials {
    pub(super) organization_id: String,
    pub(super) environment_id: String,
    pub(super) client_pool_id: String,
    pub(super) device_id: String,
    pub(super) client_id: String,
    pub(super) client_secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// Where the pool answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Environment {
    client_pool_id: String,
    pub(super) issuer: String,
    pub(super) token_endpoint: String,
    pub(super) jwks_uri: String,
}

/// Makes the demo and gets a token for it.
///
/// # Errors
/// When the control plane or the edge refuses, or the token does not verify.
pub(super) async fn provision(stack: &Stack, kept_at: &Path) -> Result<Demo, Error> {
    let api = Api { stack };
    let step = Step::quiet("a demo organization, environment, device and app, through the REST API");
    let environment = api.ensure_fleet().await?;
    step.done();

    let kept =
        files::read_if_there(kept_at)?.and_then(|kept| serde_json::from_str::<Credentials>(&kept).ok());
    let kept = kept.filter(|kept| kept.client_pool_id == environment.client_pool_id);
    let (mut credentials, mut fresh) = match kept {
        Some(kept) => (kept, false),
        None => (api.activate(&environment, kept_at).await?, true),
    };

    let step = Step::quiet("a token, over HTTP as the device gets it");
    let started = Instant::now();
    let answer = loop {
        let last = match token::request(&stack.http, &environment.token_endpoint, &credentials).await {
            Ok(answer) => break answer,
            // Somebody has activated the device again since, or disabled the client that we knew.
            Err(Error::Answer { status: 401, .. }) if !fresh => {
                credentials = api.activate(&environment, kept_at).await?;
                fresh = true;
                continue;
            }
            Err(error) => error,
        };
        if started.elapsed() > TOKEN_LIMIT {
            return Err(last);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    step.done();
    let step = Step::quiet("verifying it against JWKS");
    let token = token::verify(&stack.http, &environment.jwks_uri, &environment.issuer, &answer).await?;
    step.done();
    Ok(Demo { credentials, environment, token })
}

struct Api<'a> {
    stack: &'a Stack,
}

impl Api<'_> {
    async fn ensure_fleet(&self) -> Result<Environment, Error> {
        let org = json!({"id": ORGANIZATION, "name": "Retail Corp", "description": "The demo of `cargo xtask dev`"});
        self.ensure("/api/internal/org", ORGANIZATION, org).await?;

        let environments = format!("/api/internal/org/{ORGANIZATION}/env");
        let body = json!({
            "id": ENVIRONMENT,
            "name": "Production",
            "primaryServerUrl": "http://localhost:6140",
            "serverUrls": ["http://localhost:6140", "http://localhost:6141"],
        });
        let environment = self.ensure(&environments, ENVIRONMENT, body).await?;
        let environment = serde_json::from_value(environment).map_err(Error::malformed("the environment"))?;

        let devices = format!("{environments}/{ENVIRONMENT}/device");
        let body = json!({
            "id": DEVICE,
            "name": "Checkout 3",
            "metadata": {"terminal_type": "kiosk", "location": "checkout-3"},
            "tags": {"country": "US", "state": "NY", "business_unit_id": "05243", "app_id": "pos"},
        });
        self.ensure(&devices, DEVICE, body).await?;
        let body = json!({"clientAppId": APP, "name": "Point of sale", "scopes": ["device"]});
        self.ensure(&format!("{devices}/{DEVICE}/app"), APP, body).await?;
        Ok(environment)
    }

    /// A one-time password as the administrator, then what the device does with it.
    async fn activate(&self, environment: &Environment, kept_at: &Path) -> Result<Credentials, Error> {
        let step = Step::quiet("activating the device with a one-time password");
        let path =
            format!("/api/internal/org/{ORGANIZATION}/env/{ENVIRONMENT}/device/{DEVICE}/app/{APP}/otp");
        let otp = expect(self.send(Method::POST, &path, Some(json!({}))).await?)?;
        let url = format!("{}/api/otp/activate", self.stack.control_plane_url());
        let request = format!("POST {url}");
        let body = json!({"otp": otp.get("otp"), "deviceId": DEVICE});
        let answer = self.stack.http.post(&url).json(&body).send().await.map_err(Error::request(&request))?;
        let activation = expect(Answer::read(request, answer).await?)?;
        let text = |name: &str| {
            activation.get(name).and_then(Value::as_str).map(ToOwned::to_owned).ok_or_else(|| {
                Error::Malformed {
                    what: "the answer to the activation".to_owned(),
                    detail: format!("it has no {name}"),
                }
            })
        };
        let credentials = Credentials {
            organization_id: ORGANIZATION.to_owned(),
            environment_id: ENVIRONMENT.to_owned(),
            client_pool_id: environment.client_pool_id.clone(),
            device_id: DEVICE.to_owned(),
            client_id: text("clientId")?,
            client_secret: text("clientSecret")?,
        };
        let kept = serde_json::to_string_pretty(&credentials).map_err(Error::malformed("the demo"))?;
        files::write_private(kept_at, kept.as_bytes())?;
        step.done();
        Ok(credentials)
    }

    /// Creates a thing in a collection, or reads the one that is there.
    async fn ensure(&self, collection: &str, id: &str, body: Value) -> Result<Value, Error> {
        let answer = self.send(Method::POST, collection, Some(body)).await?;
        if answer.status == StatusCode::CONFLICT {
            return expect(self.send(Method::GET, &format!("{collection}/{id}"), None).await?);
        }
        expect(answer)
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, Error> {
        let url = format!("{}{path}", self.stack.control_plane_url());
        let described = format!("{method} {url}");
        let key = &self.stack.control_plane_options.secrets.admin_api_key;
        let mut request = self.stack.http.request(method, &url).header("x-api-key", key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(Error::request(&described))?;
        Answer::read(described, answer).await
    }
}

/// What came back.
struct Answer {
    request: String,
    status: StatusCode,
    body: String,
}

impl Answer {
    async fn read(request: String, answer: reqwest::Response) -> Result<Self, Error> {
        let status = answer.status();
        let body = answer.text().await.map_err(Error::request(&request))?;
        Ok(Self { request, status, body })
    }
}

/// The JSON of an answer that is a success.
fn expect(answer: Answer) -> Result<Value, Error> {
    if !answer.status.is_success() {
        return Err(Error::Answer {
            request: answer.request,
            status: answer.status.as_u16(),
            body: answer.body,
        });
    }
    serde_json::from_str(&answer.body).map_err(Error::malformed(format!("the answer to {}", answer.request)))
}
