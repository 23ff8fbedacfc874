use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use keypost::clock::{Clock, unix};
use keypost::config::{Mode, RateLimitConfig};
use keypost::crypto_at_rest::MasterKey;
use keypost::edge_reports::EdgeReports;
use keypost::entropy::SystemEntropy;
use keypost::http::{self, App, PeerAddress};
use keypost::key_maker::KeyMaker;
use keypost::kv::KvApi;
use keypost::root::RootPlace;
use keypost::service::access::Permission;
use keypost::service::api_key_use::ApiKeyUses;
use keypost::service::sso::SsoSettings;
use keypost::service::sso::password::{PasswordCost, Passwords};
use keypost::service::{self, Context};
use keypost_shared::edge_report::{EdgeReport, SharedSecret, SignedReport};
use keypost_shared::secret::{ApiKey, KeyKind};
use keypost_shared::signing_key::Times;
use rand_core::OsRng;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::publisher::{Around, EDGE_URL, Patience};
use super::{KvServer, TestClock, TestDatabase, TestPublisher, secret};

/// The whole control plane but the sockets: router, services, publisher, database, KV.
pub(crate) struct TestApp {
    pub(crate) clock: Arc<TestClock>,
    pub(crate) context: Context,
    pub(crate) admin: String,
    pub(crate) router: Router,
    pub(crate) publisher: TestPublisher,
    pub(crate) kv: KvServer,
    // Last, so that it is dropped last.
    pub(crate) database: TestDatabase,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The fields that a problem names.
    pub(crate) fn wrong_fields(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }

    /// Fails the test unless this is a problem of that status and code, in the right dress.
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text);
        assert!(self.header("x-request-id").is_some());
        let problem = self.json();
        assert_eq!(problem["code"], code, "{}", self.text);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:keypost:problem:{code}"));
        assert!(problem["title"].is_string() && problem["detail"].is_string());
    }

    /// A problem of one field, whose detail holds a text.
    pub(crate) fn assert_field(&self, status: u16, field: &str, told: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let errors = self.json()["errors"].clone();
        let detail = errors.as_array().into_iter().flatten().find(|error| error["field"] == field);
        let detail = detail.unwrap_or_else(|| panic!("{field} is not named: {}", self.text));
        assert!(detail["detail"].as_str().unwrap().contains(told), "{}", self.text);
    }
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::start_behind(&[]).await
    }

    /// With something else in the context.
    pub(crate) async fn start_changed(change: impl FnOnce(&mut Context)) -> Self {
        let mut app = Self::start().await;
        change(&mut app.context);
        app.router = http::router(App::new(app.context.clone(), Vec::new(), RateLimitConfig::default()));
        app
    }

    /// Behind these trusted proxies.
    pub(crate) async fn start_behind(proxies: &[&str]) -> Self {
        Self::start_with(proxies, RateLimitConfig::default()).await
    }

    /// Behind these trusted proxies, with these limits.
    pub(crate) async fn start_with(proxies: &[&str], limits: RateLimitConfig) -> Self {
        Self::start_on(TestDatabase::create().await, proxies, limits).await
    }

    /// On a database that may have been used before, whose administrator gets one more key.
    pub(crate) async fn start_on(database: TestDatabase, proxies: &[&str], limits: RateLimitConfig) -> Self {
        Self::start_whole(database, proxies, limits, Around::default()).await
    }

    /// With short patience, both with KV and while an answer waits for its documents.
    pub(crate) async fn start_impatient() -> Self {
        let around = Around { patience: Patience::Short, ..Around::default() };
        Self::start_whole(TestDatabase::create().await, &[], RateLimitConfig::default(), around).await
    }

    /// With AWS KMS at this URL.
    pub(crate) async fn start_with_kms(url: &str) -> Self {
        Self::start_with_root(url, RootPlace::Local).await
    }

    /// With AWS KMS at this URL, and the root in its place.
    pub(crate) async fn start_with_root(url: &str, root: RootPlace) -> Self {
        let around = Around { kms_url: Some(url), root, ..Around::default() };
        Self::start_whole(TestDatabase::create().await, &[], RateLimitConfig::default(), around).await
    }

    async fn start_whole(
        database: TestDatabase,
        proxies: &[&str],
        limits: RateLimitConfig,
        around: Around<'_>,
    ) -> Self {
        let kv = KvServer::start().await;
        let clock = Arc::new(TestClock::default());
        let publisher = TestPublisher::start_amid(&database, &kv, &clock, around).await;
        let kms = publisher.kms.clone();
        let context = Context {
            db: database.pool.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            master_key: MasterKey::parse(&secret(1)).unwrap(),
            key_maker: KeyMaker {
                master_key: MasterKey::parse(&secret(1)).unwrap(),
                entropy: Arc::new(SystemEntropy),
                clock: clock.clone(),
                kms: kms.clone(),
                db: database.pool.clone(),
            },
            key_times: Times::default(),
            kms,
            publications: publisher.publications.clone(),
            metrics: publisher.metrics.clone(),
            passwords: Passwords::new(PasswordCost::new(64, 1).unwrap(), publisher.metrics.clone()),
            api_key_uses: ApiKeyUses::default(),
            edge_url: EDGE_URL.to_owned(),
            public_url: "https://keypost.test".to_owned(),
            mode: Mode::Dev,
            edge_secrets: SharedSecret::parse_list(&secret(3)).unwrap(),
            late_after: Duration::from_secs(300),
            sso: SsoSettings::default(),
        };
        let key = ApiKey::generate(KeyKind::Admin, &mut OsRng);
        service::api_key::ensure_first(&context, Some(&key)).await.unwrap();
        let proxies = proxies.iter().map(|network| network.parse().unwrap()).collect();
        let router = http::router(App::new(context.clone(), proxies, limits));
        Self { clock, context, admin: key.expose().to_owned(), router, publisher, kv, database }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.into()).unwrap(),
        }
    }

    /// A report of the edge, signed now.
    pub(crate) fn sign_report(&self, report: &EdgeReport) -> SignedReport {
        let secret = &SharedSecret::parse_list(&secret(3)).unwrap()[0];
        SignedReport::sign(secret, report, unix(self.clock.now())).unwrap()
    }

    /// Posts a report, as the edge does.
    pub(crate) async fn post_report(&self, signed: &SignedReport) -> Answer {
        let request = Request::builder()
            .method("POST")
            .uri("/api/edge/report")
            .header("content-type", "application/json")
            .header("keypost-timestamp", signed.timestamp.to_string())
            .header("keypost-signature", &signed.signature)
            .body(Body::from(signed.body.clone()));
        self.send(request.unwrap()).await
    }

    /// The search for reports in KV.
    pub(crate) fn edge_reports(&self) -> EdgeReports {
        EdgeReports {
            context: self.context.clone(),
            kv: KvApi::new(&self.kv.config(), Patience::Long.for_kv()).unwrap(),
            interval: Duration::from_secs(3600),
        }
    }

    /// A request with the admin key.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_with(&self.admin, method, path, body).await
    }

    pub(crate) async fn call_with(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("x-api-key", key);
        let request = match body {
            Some(body) => {
                request.header("content-type", "application/json").body(Body::from(body.to_string()))
            }
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }

    /// A creation that must succeed.
    pub(crate) async fn create(&self, path: &str, body: Value) -> Value {
        let answer = self.call("POST", path, Some(body)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()
    }

    /// An organization `acme` with an environment `prod`, which is answered.
    pub(crate) async fn acme(&self) -> Value {
        self.create("/api/internal/org", json!({"id": "acme", "name": "Acme"})).await;
        self.create("/api/internal/org/acme/env", json!({"id": "prod", "name": "Production"})).await
    }

    /// A device of `acme`'s with an app `client`, whose path is answered.
    pub(crate) async fn device(&self, id: &str) -> String {
        let devices = "/api/internal/org/acme/env/prod/device";
        self.create(devices, json!({"id": id, "name": "A device"})).await;
        let apps = format!("{devices}/{id}/app");
        self.create(&apps, json!({"clientAppId": "client", "scopes": ["device"]})).await;
        format!("{apps}/client")
    }

    /// Uploads a root to a client pool.
    pub(crate) async fn upload(&self, pool: &str, pem: &str) -> Answer {
        let file = format!(
            "--b\r\nContent-Disposition: form-data; name=\"certificate\"; filename=\"root-ca.crt\"\r\n\r\n{pem}\r\n--b--\r\n"
        );
        self.post_form(&format!("/api/internal/{pool}/certificates"), file).await
    }

    /// Sends a form with the boundary `b`.
    pub(crate) async fn post_form(&self, path: &str, form: String) -> Answer {
        let request = Request::builder()
            .method("POST")
            .uri(path)
            .header("x-api-key", &self.admin)
            .header("content-type", "multipart/form-data; boundary=b")
            .body(Body::from(form));
        self.send(request.unwrap()).await
    }

    /// A one-time password for the app at this path.
    pub(crate) async fn otp(&self, app: &str) -> String {
        let answer = self.call("POST", &format!("{app}/otp"), None).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["otp"].as_str().unwrap().to_owned()
    }

    /// An attempt to activate, from this address.
    pub(crate) async fn activate_from(&self, address: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method("POST")
            .uri("/api/otp/activate")
            .header("content-type", "application/json")
            .extension(PeerAddress(address.parse::<IpAddr>().unwrap()))
            .body(Body::from(body.to_string()));
        self.send(request.unwrap()).await
    }

    pub(crate) async fn activate(&self, body: Value) -> Answer {
        self.activate_from("192.0.2.1", body).await
    }

    /// A key that is not a global one, or is narrowed.
    pub(crate) async fn key(&self, org: Option<&str>, permissions: Option<&[Permission]>) -> String {
        let kind = if org.is_some() { KeyKind::Organization } else { KeyKind::Admin };
        let key = ApiKey::generate(kind, &mut OsRng);
        let permissions: Option<Vec<String>> =
            permissions.map(|names| names.iter().map(ToString::to_string).collect());
        sqlx::query(
            "insert into api_key (id, name, org_id, permissions, key_hash, prefix, created_at)
             values (gen_random_uuid(), 'test', $1, $2, $3, $4, now())",
        )
        .bind(org)
        .bind(permissions)
        .bind(key.hash().as_bytes().as_slice())
        .bind(key.display_prefix())
        .execute(&self.database.pool)
        .await
        .unwrap();
        key.expose().to_owned()
    }
}
