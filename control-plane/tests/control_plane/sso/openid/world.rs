//! An organization with two apps, browsers that visit them, and what the apps then ask.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::Request;
use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use keypost_shared::secret::{ApiKey, KeyKind};
use rand_core::OsRng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Answer, TestApp};

pub(super) const AUTHORIZE: &str = "/api/auth/authorize";
pub(super) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(super) const PASSWORD: &str = "four unlikely words together";
pub(super) const REDIRECT_URI: &str = "https://app.example/cb?tenant=1";
pub(super) const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The control plane, with `acme` and its apps A and B, and `other` with its app C.
pub(super) struct World {
    pub(super) app: TestApp,
    pub(super) a: Client,
    pub(super) b: Client,
    pub(super) c: Client,
}

/// A client app.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) key: String,
}

/// A browser: what it keeps is its cookies.
#[derive(Default)]
pub(super) struct Browser {
    pub(super) cookies: BTreeMap<String, String>,
}

impl World {
    pub(super) async fn start() -> Self {
        let app = TestApp::start().await;
        for org in ["acme", "other"] {
            app.create("/api/internal/org", json!({"id": org, "name": org})).await;
        }
        let a = client(&app, "acme", 'a').await;
        let b = client(&app, "acme", 'b').await;
        let c = client(&app, "other", 'c').await;
        Self { app, a, b, c }
    }

    /// A form to the token endpoint, with these credentials.
    pub(super) async fn token(&self, client: &Client, form: &[(&str, &str)]) -> Answer {
        let basic = Base64::encode_string(format!("{}:{}", client.id, client.key).as_bytes());
        self.post("/api/auth/token", &[("authorization", &format!("Basic {basic}"))], form).await
    }

    /// A form to the token endpoint from an app that shows its id alone.
    pub(super) async fn token_in_public(&self, client: &Client, form: &[(&str, &str)]) -> Answer {
        let mut form = form.to_vec();
        form.push(("client_id", &client.id));
        self.post("/api/auth/token", &[], &form).await
    }

    /// Redeems a code as it is meant to be.
    pub(super) async fn redeem(&self, client: &Client, code: &str) -> Answer {
        self.token(client, &redemption(code)).await
    }

    pub(super) async fn exchange(&self, client: &Client, subject_token: &str) -> Answer {
        let form = [
            ("grant_type", EXCHANGE),
            ("subject_token", subject_token),
            ("subject_token_type", ACCESS_TOKEN),
            ("scope", "openid offline_access"),
        ];
        self.token(client, &form).await
    }

    pub(super) async fn refresh(&self, client: &Client, refresh_token: &str) -> Answer {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        self.token(client, &form).await
    }

    pub(super) async fn user_info(&self, token: &str) -> Answer {
        let request = Request::get("/api/auth/userinfo").header("authorization", format!("Bearer {token}"));
        self.app.send(request.body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> Answer {
        let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.app.send(request.body(Body::from(encode(form))).unwrap()).await
    }

    /// Somebody makes an account at app A, in a browser of their own, and is sent back with a code.
    pub(super) async fn signed_up(&self, username: &str) -> (Browser, String) {
        let mut browser = Browser::default();
        let query = request(&self.a, &[]);
        let answer = browser.sign_up(self, &query, username, PASSWORD).await;
        let code = code(&answer);
        (browser, code)
    }

    /// Tokens of app A for somebody new.
    pub(super) async fn tokens(&self, username: &str) -> Value {
        let (_, code) = self.signed_up(username).await;
        let answer = self.redeem(&self.a, &code).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }
}

async fn client(app: &TestApp, org: &str, name: char) -> Client {
    let key = ApiKey::generate(KeyKind::SsoApp, &mut OsRng);
    let id = format!("00000000-0000-4000-8000-00000000000{name}");
    sqlx::query(
        "insert into client_app (id, org_id, name, redirect_uris, created_at, updated_at)
         values ($1::uuid, $2, $3, $4, now(), now())",
    )
    .bind(&id)
    .bind(org)
    .bind(format!("App <{name}>"))
    .bind(vec![REDIRECT_URI.to_owned(), "http://127.0.0.1/cb".to_owned()])
    .execute(&app.database.pool)
    .await
    .unwrap();
    sqlx::query(
        "insert into sso_key (id, org_id, client_app_id, hash, created_at)
         values (gen_random_uuid(), $1, $2::uuid, $3, now())",
    )
    .bind(org)
    .bind(&id)
    .bind(key.hash().as_bytes().as_slice())
    .execute(&app.database.pool)
    .await
    .unwrap();
    Client { id, key: key.expose().to_owned() }
}

/// The form that redeems a code.
pub(super) fn redemption(code: &str) -> [(&str, &str); 4] {
    [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ]
}

/// The query of an authorization request, with some parameters instead of, or beside, the usual ones.
pub(super) fn request(client: &Client, other: &[(&str, &str)]) -> String {
    let challenge = Base64UrlUnpadded::encode_string(&Sha256::digest(VERIFIER.as_bytes()));
    let mut parameters = BTreeMap::from([
        ("response_type", "code"),
        ("client_id", &client.id),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "openid profile email offline_access"),
        ("state", "some state"),
        ("nonce", "some nonce"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    parameters.extend(other.iter().copied());
    encode(&parameters.into_iter().collect::<Vec<_>>())
}

pub(super) fn encode(form: &[(&str, &str)]) -> String {
    let url = reqwest::Url::parse_with_params("http://a/", form).unwrap();
    url.query().unwrap_or_default().to_owned()
}

/// What is sent back to the app, if it is this answer.
pub(super) fn sent_back(answer: &Answer) -> BTreeMap<String, String> {
    assert_eq!(answer.status, 303, "{}", answer.text);
    let location = answer.header("location").unwrap();
    assert!(location.starts_with(REDIRECT_URI), "{location}");
    reqwest::Url::parse(location).unwrap().query_pairs().into_owned().collect()
}

/// The code that is sent back to the app.
pub(super) fn code(answer: &Answer) -> String {
    sent_back(answer).remove("code").unwrap_or_else(|| panic!("{:?}", answer.headers))
}

/// The error that is sent back to the app.
pub(super) fn error(answer: &Answer) -> String {
    sent_back(answer).remove("error").unwrap_or_else(|| panic!("{:?}", answer.headers))
}

/// What a token says, unverified.
pub(super) fn claims(token: &Value) -> Value {
    let payload = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(payload).unwrap()).unwrap()
}

impl Browser {
    fn keep(&mut self, answer: &Answer) {
        for set in answer.headers.get_all("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }

    fn cookie(&self) -> String {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    /// Goes to a path of the control plane.
    pub(super) async fn go(&mut self, world: &World, path: &str) -> Answer {
        let request = Request::get(path).header("cookie", self.cookie()).body(Body::empty()).unwrap();
        let answer = world.app.send(request).await;
        self.keep(&answer);
        answer
    }

    /// Begins at an app.
    pub(super) async fn begin(&mut self, world: &World, query: &str) -> Answer {
        self.go(world, &format!("{AUTHORIZE}?{query}")).await
    }

    pub(super) async fn submit(&mut self, world: &World, path: &str, form: &[(&str, &str)]) -> Answer {
        let answer = world.post(path, &[("cookie", &self.cookie())], form).await;
        self.keep(&answer);
        answer
    }

    pub(super) async fn sign_up(
        &mut self,
        world: &World,
        query: &str,
        username: &str,
        password: &str,
    ) -> Answer {
        let path = format!("{AUTHORIZE}/sign-up?{query}");
        let token = form_token(&self.go(world, &path).await);
        let email = format!("{username}@example.org");
        let form =
            [("form_token", &*token), ("username", username), ("email", &email), ("password", password)];
        self.submit(world, &path, &form).await
    }

    pub(super) async fn sign_in(
        &mut self,
        world: &World,
        query: &str,
        username: &str,
        password: &str,
    ) -> Answer {
        let path = format!("{AUTHORIZE}/sign-in?{query}");
        let token = form_token(&self.go(world, &path).await);
        let form = [("form_token", &*token), ("username", username), ("password", password)];
        self.submit(world, &path, &form).await
    }
}

/// The token in a page's form.
pub(super) fn form_token(answer: &Answer) -> String {
    let (_, rest) =
        answer.text.split_once(r#"name="form_token" value=""#).unwrap_or_else(|| panic!("{}", answer.text));
    rest.split('"').next().unwrap().to_owned()
}
