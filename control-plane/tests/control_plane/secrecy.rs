//! No secret is ever logged or printed.

use std::collections::BTreeSet;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_shared::secret::{ApiKey, KeyKind, SecretHash};
use rand_core::OsRng;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::support::{
    Collector, Fault, KvServer, Serving, Stopped, TestApp, TestDatabase, command_secrets, keypost, secret,
};

/// What must not be in a log, and what it is.
type Secret = (&'static str, String);

/// The first line of the log that contains a secret: as it is, or as its bytes are printed in hex or as a list.
fn leak<'a>(log: &'a str, secrets: &'a [Secret]) -> Option<(&'static str, &'a str)> {
    secrets.iter().find_map(|(what, secret)| {
        assert!(secret.len() >= 6, "{what} is too short to be looked for");
        let decoded = Base64UrlUnpadded::decode_vec(secret).ok().filter(|bytes| bytes.len() >= 16);
        let mut spellings = vec![secret.clone()];
        for bytes in [Some(secret.as_bytes().to_vec()), decoded].into_iter().flatten() {
            spellings.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
            spellings.push(format!("{bytes:?}"));
        }
        let line =
            log.lines().find(|line| spellings.iter().any(|spelling| line.contains(spelling.as_str())))?;
        Some((*what, line))
    })
}

#[test]
fn the_search_finds_a_secret_however_it_is_spelt() {
    let secret = secret(0xa5);
    let secrets = [("a secret", secret.clone())];
    let bytes = [0xa5_u8; 32];
    for spelling in [secret, "a5".repeat(32), format!("{bytes:?}")] {
        let log = format!("{{\"message\":\"hello\"}}\n{{\"message\":\"it is {spelling}!\"}}\n");
        assert!(leak(&log, &secrets).is_some(), "{log}");
    }
    assert!(leak("{\"message\":\"nothing here\"}", &secrets).is_none());
}

/// Asks a control plane for things, as an administrator and as a device.
struct Caller<'a> {
    serving: &'a Serving,
    http: Client,
    admin: String,
}

impl Caller<'_> {
    async fn call(&self, method: Method, path: &str, body: Option<String>) -> Value {
        let request = self.http.request(method, self.serving.url(path)).header("x-api-key", &self.admin);
        let request = request.header("x-request-id", CANARY);
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body),
            None => request,
        };
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Imports a device with an app and what activates it, which is answered in this field.
    async fn import(&self, issue: &str, field: &str) -> String {
        let path = IMPORT.replace("{orgId}", "acme").replace("{envId}", "prod");
        let url = self.serving.url(&format!("{path}?app=client&issue={issue}"));
        let row = json!({"id": format!("imported-{issue}"), "name": "Imported"}).to_string();
        let request = self.http.post(url).header("x-api-key", &self.admin);
        let request = request.header("content-type", "application/x-ndjson").body(row);
        let answer = request.send().await.unwrap().text().await.unwrap();
        let mut lines = answer.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find_map(|line| line[field].as_str().map(str::to_owned)).unwrap_or_else(|| panic!("{answer}"))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, Some(body.to_string())).await
    }
}

/// A text that is logged, so that the search can be seen to find what is there.
const CANARY: &str = "canary-kp_admin_0123456789abcdef";

/// Who knows it can open the answer that is kept for it.
const IDEMPOTENCY_KEY: &str = "idempotency-0123456789";

/// The fields of answers that hold a secret.
const SECRET_FIELDS: [&str; 8] = [
    "otp",
    "clientSecret",
    "key",
    "accessToken",
    "refreshToken",
    "orgOwnerApiKey",
    "clientAppApiKey",
    "access_token",
];
/// Where the app is that people sign in to.
const CALLBACK: &str = "https://app.example/cb";
const API_KEYS: &str = "/api/internal/api-key";
const IMPORT: &str = "/api/internal/org/{orgId}/env/{envId}/device/import";
const SERVICE_CLIENTS: &str = "/api/internal/org/{orgId}/env/{envId}/client";

/// The operations that answer with a secret, by the OpenAPI document.
fn secret_operations(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let answers = operation["responses"].as_object().into_iter().flatten();
            let good = answers.filter(|(status, _)| status.starts_with('2')).map(|(_, answer)| answer);
            if good.into_iter().any(|answer| holds_a_secret(document, answer, 0)) {
                found.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    found
}

/// Whether a schema, or one that it refers to, has a field for a secret.
fn holds_a_secret(document: &Value, part: &Value, depth: usize) -> bool {
    assert!(depth < 50, "a schema within itself");
    match part {
        Value::Object(fields) => fields.iter().any(|(name, value)| match (name.as_str(), value) {
            ("$ref", Value::String(target)) => {
                let target =
                    document.pointer(target.trim_start_matches('#')).expect("what is referred to is there");
                holds_a_secret(document, target, depth + 1)
            }
            // An example is none.
            ("example" | "examples", _) => false,
            ("properties", Value::Object(properties))
                if SECRET_FIELDS.iter().any(|name| properties.contains_key(*name)) =>
            {
                true
            }
            _ => holds_a_secret(document, value, depth + 1),
        }),
        Value::Array(parts) => parts.iter().any(|part| holds_a_secret(document, part, depth + 1)),
        _ => false,
    }
}

/// Everything that handles a secret, done well and badly. Answers with the secrets.
async fn use_secrets(caller: &Caller<'_>, kv: &KvServer) -> Vec<Secret> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut secrets: Vec<Secret> = Vec::new();
    let env = "/api/internal/org/acme/env";
    caller.post("/api/internal/org", json!({"id": "acme", "name": "Acme"})).await;
    caller.post(env, json!({"id": "prod", "name": "Production"})).await;
    caller.post(&format!("{env}/prod/device"), json!({"id": "pos-1", "name": "Till"})).await;
    let app = format!("{env}/prod/device/pos-1/app");
    caller.post(&app, json!({"clientAppId": "client", "scopes": ["device"]})).await;

    // Asked for twice, it is kept under a key that only the Idempotency-Key gives, and given again.
    let repeated = async || {
        let request = caller.http.post(caller.serving.url(&format!("{app}/client/otp")));
        let request = request.header("x-api-key", &caller.admin).header("idempotency-key", IDEMPOTENCY_KEY);
        text(&request.send().await.unwrap().json::<Value>().await.unwrap()["otp"])
    };
    let kept = repeated().await;
    assert_eq!(repeated().await, kept);

    let otp = async || text(&caller.post(&format!("{app}/client/otp"), json!({})).await["otp"]);
    let used = otp().await;
    kv.fail_next([Fault::Status(401), Fault::Status(500), Fault::Rubbish]);
    let activated = caller.post("/api/otp/activate", json!({"otp": used, "deviceId": "pos-1"})).await;
    let client_secret = text(&activated["clientSecret"]);
    let hash = String::from(SecretHash::of(client_secret.as_bytes()));
    let unused = otp().await;
    caller.post("/api/otp/activate", json!({"otp": unused, "deviceId": "pos-2"})).await;
    for body in [format!("{{\"otp\": \"{unused}\""), format!("\"{unused}\""), format!("{{\"{unused}\": 1}}")]
    {
        assert_eq!(caller.call(Method::POST, "/api/otp/activate", Some(body)).await["status"], 400);
    }
    let admin = &caller.admin;
    caller.call(Method::GET, &format!("/api/internal/org/{admin}?key={admin}"), None).await;
    caller.call(Method::GET, &format!("/{admin}"), None).await;
    let mut used_operations =
        vec![format!("POST {SERVICE_CLIENTS}").replace("/client", "/device/{deviceId}/app/{appId}/otp")];
    used_operations.push("POST /api/otp/activate".to_owned());
    let document = caller.call(Method::GET, "/openapi.json", None).await;
    let made = caller.post(API_KEYS, json!({"name": "Script", "orgId": "acme"})).await;
    let rotate = format!("{API_KEYS}/{}/rotate", made["id"].as_str().unwrap());
    let rotated = caller.post(&rotate, json!({"overlapSeconds": 60})).await;
    secrets.extend([("an API key", text(&made["key"])), ("a rotated API key", text(&rotated["key"]))]);
    used_operations.extend([format!("POST {API_KEYS}"), format!("POST {API_KEYS}/{{apiKeyId}}/rotate")]);

    let clients = format!("{env}/prod/client");
    let made = caller.post(&clients, json!({"name": "Service", "scopes": ["introspect"]})).await;
    let rotate = format!("{clients}/{}/secret", made["clientId"].as_str().unwrap());
    let rotated = caller.post(&rotate, json!({"overlapSeconds": 60})).await;
    secrets.extend([
        ("a service client's secret", text(&made["clientSecret"])),
        ("a service client's next secret", text(&rotated["clientSecret"])),
    ]);
    used_operations
        .extend([format!("POST {SERVICE_CLIENTS}"), format!("POST {SERVICE_CLIENTS}/{{clientId}}/secret")]);

    let owned = "/api/organization";
    let made = caller.post(owned, json!({"id": "owned", "name": "Owned"})).await;
    let rotated = caller.post(&format!("{owned}/owned/rotate-key"), json!({"overlapSeconds": 60})).await;
    let apps = format!("{owned}/owned/client-apps");
    let client_app = caller.post(&apps, json!({"name": "An app"})).await;
    let rotate = format!("{owned}/client-apps/{}/rotate-key", client_app["data"]["id"].as_str().unwrap());
    let next = caller.post(&rotate, json!({"overlapSeconds": 60})).await;
    secrets.extend([
        ("an organization's key", text(&made["data"]["orgOwnerApiKey"])),
        ("an organization's next key", text(&rotated["data"]["orgOwnerApiKey"])),
        ("a client app's key", text(&client_app["data"]["clientAppApiKey"])),
        ("a client app's next key", text(&next["data"]["clientAppApiKey"])),
    ]);
    used_operations.extend([
        format!("POST {owned}"),
        format!("POST {owned}/{{orgId}}/rotate-key"),
        format!("POST {owned}/{{orgId}}/client-apps"),
        format!("POST {owned}/client-apps/{{clientAppId}}/rotate-key"),
    ]);

    secrets.extend([
        ("an imported one-time password", caller.import("otp", "otp").await),
        ("an imported client secret", caller.import("client", "clientSecret").await),
    ]);
    used_operations.push(format!("POST {IMPORT}"));
    let (of_people, operations) = use_secrets_of_people(caller).await;
    secrets.extend(of_people);
    used_operations.extend(operations);
    // Whoever adds an operation that answers with a secret must use it here. What reads or replaces a thing may share the
    // description of its answer with what creates it, and leaves the secret out.
    let mut with_secrets = secret_operations(&document);
    with_secrets.retain(|operation| operation.starts_with("POST "));
    assert_eq!(with_secrets, used_operations.into_iter().collect());
    secrets.extend([
        ("a one-time password that was kept", kept),
        ("a used one-time password", used),
        ("an unused one-time password", unused),
        ("a client secret", client_secret),
        ("the hash of a client secret", hash),
    ]);
    secrets
}

/// Makes an account by the hosted page, gets tokens for the code, and fresh ones. Answers with the secrets.
async fn sign_in_by_browser(caller: &Caller<'_>, app: &str, key: &str, password: &str) -> Vec<Secret> {
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let query = format!(
        "response_type=code&client_id={app}&redirect_uri={CALLBACK}&scope=openid+offline_access&state=s\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
    );
    let cookies = |answer: &reqwest::Response| -> String {
        let set = answer.headers().get_all("set-cookie").iter();
        set.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned()).collect()
    };
    let form = async |path: &str, cookie: &str, body: String| {
        let request = http.post(caller.serving.url(path)).header("cookie", cookie).body(body);
        request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap()
    };
    let sign_up = format!("/api/auth/authorize/sign-up?{query}");
    let page = http.get(caller.serving.url(&sign_up)).send().await.unwrap();
    let cookie = cookies(&page);
    let page = page.text().await.unwrap();
    let (_, token) = page.split_once(r#"name="form_token" value=""#).unwrap();
    let token = token.split('"').next().unwrap();
    let body = format!(
        "form_token={token}&username=cid&email=cid@users.test&password={}",
        password.replace(' ', "+")
    );
    let answer = form(&sign_up, &cookie, body).await;
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let code = location.split_once("code=").unwrap().1.split('&').next().unwrap().to_owned();
    let signed_in = cookies(&answer);
    let client = format!("client_id={app}&client_secret={key}");
    let body = format!(
        "{client}&grant_type=authorization_code&code={code}&redirect_uri={CALLBACK}&code_verifier={VERIFIER}"
    );
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let tokens: Value = form("/api/auth/token", "", body).await.json().await.unwrap();
    let body = format!("{client}&grant_type=refresh_token&refresh_token={}", text(&tokens["refresh_token"]));
    let fresh: Value = form("/api/auth/token", "", body).await.json().await.unwrap();
    let hinted = format!("/api/auth/authorize?{query}&id_token_hint={}", text(&fresh["id_token"]));
    http.get(caller.serving.url(&hinted)).header("cookie", &signed_in).send().await.unwrap();

    let value = |cookie: &str| cookie.split_once('=').unwrap().1.to_owned();
    let mut secrets = vec![
        ("an authorization code", code),
        ("a form's cookie", value(&cookie)),
        ("a browser's cookie", value(&signed_in)),
        ("a code verifier", VERIFIER.to_owned()),
    ];
    for tokens in [&tokens, &fresh] {
        secrets.extend([
            ("an access token", text(&tokens["access_token"])),
            ("a refresh token", text(&tokens["refresh_token"])),
            ("an ID token", text(&tokens["id_token"])),
        ]);
    }
    secrets
}

/// Everything of single sign-on that handles a secret. Answers with the secrets, and with the operations.
async fn use_secrets_of_people(caller: &Caller<'_>) -> (Vec<Secret>, Vec<String>) {
    const PASSWORD: &str = "a long way to Tipperary";
    const OTHER: &str = "farewell to Leicester Square";
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    let post = async |path: &str, header: (&str, &str), body: Value| -> Value {
        let request = caller.http.post(caller.serving.url(path)).header(header.0, header.1);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["success"], true, "{path}: {answer}");
        answer["data"].clone()
    };
    let (nobody, admin) = (("accept", "*/*"), ("x-api-key", caller.admin.as_str()));
    let mut secrets: Vec<Secret> =
        vec![("a password", PASSWORD.to_owned()), ("another password", OTHER.to_owned())];

    let owner = json!({"username": "ada", "password": PASSWORD, "email": "ada@owners.test", "organizationName": "Ada's"});
    let owner = post("/api/auth/signup", nobody, owner).await;
    let org = text(&owner["userClaims"]["organizationId"]);
    let rotated =
        post(&format!("/api/organization/{org}/rotate-key"), admin, json!({"overlapSeconds": 60})).await;
    let other = post("/api/organization", admin, json!({"name": "Another"})).await;
    let apps = format!("/api/organization/{org}/client-apps");
    let (a, b) = (
        post(&apps, admin, json!({"name": "A", "redirectUris": [CALLBACK]})).await,
        post(&apps, admin, json!({"name": "B"})).await,
    );
    let rotate = format!("/api/organization/client-apps/{}/rotate-key", text(&b["id"]));
    let b_rotated = post(&rotate, admin, json!({"overlapSeconds": 60})).await;
    let (a_key, b_key) = (text(&a["clientAppApiKey"]), text(&b["clientAppApiKey"]));

    let bob = json!({"username": "bob", "password": PASSWORD, "email": "bob@users.test"});
    let bob = post("/api/auth/signup", ("apikey", &a_key), bob).await;
    let wrong = json!({"username": "bob", "password": OTHER}).to_string();
    caller.call(Method::POST, "/api/auth/login", Some(wrong)).await;
    let login = json!({"username": "bob", "password": PASSWORD});
    let signed_in = post("/api/auth/login", ("apikey", &a_key), login).await;
    let refreshed = json!({"refreshToken": signed_in["refreshToken"]});
    let refreshed = post("/api/auth/refresh", nobody, refreshed).await;
    let exchange = json!({"currentAccessToken": refreshed["accessToken"], "targetClientAppApiKey": b_key});
    let exchanged = post("/api/auth/sso-exchange", nobody, exchange).await;
    let bearer = format!("Bearer {}", text(&refreshed["accessToken"]));
    let change = json!({"currentPassword": PASSWORD, "newPassword": OTHER});
    post("/api/auth/password", ("authorization", &bearer), change).await;

    secrets.extend(sign_in_by_browser(caller, &text(&a["id"]), &a_key, PASSWORD).await);
    for pair in [&owner, &bob, &signed_in, &refreshed, &exchanged] {
        secrets.extend([
            ("an access token", text(&pair["accessToken"])),
            ("a refresh token", text(&pair["refreshToken"])),
        ]);
    }
    for made in [&owner, &rotated, &other] {
        secrets.push(("an organization's key", text(&made["orgOwnerApiKey"])));
    }
    secrets.extend([
        ("an app's key", a_key),
        ("another app's key", b_key),
        ("an app's next key", text(&b_rotated["clientAppApiKey"])),
    ]);
    let operations = [
        "/api/auth/signup",
        "/api/auth/login",
        "/api/auth/refresh",
        "/api/auth/sso-exchange",
        "/api/auth/token",
        "/api/organization",
        "/api/organization/{orgId}/rotate-key",
        "/api/organization/{orgId}/client-apps",
        "/api/organization/client-apps/{clientAppId}/rotate-key",
    ];
    (secrets, operations.iter().map(|path| format!("POST {path}")).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_at_its_most_talkative_contains_no_secret() {
    let (database, kv) = (TestDatabase::create().await, KvServer::start().await);
    let admin = ApiKey::generate(KeyKind::Admin, &mut OsRng).expose().to_owned();
    let collector = Collector::default();
    let mut command = keypost(&database, &kv, &["serve"]);
    command
        .env("KEYPOST_LOG", "json,trace")
        .env("KEYPOST_ADMIN_API_KEY", &admin)
        .env("KEYPOST_KV_API_TOKEN", "kv-api-token")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.start().await)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer collector-token");
    let serving = Serving::start(command).await;
    let caller = Caller { serving: &serving, http: Client::new(), admin: admin.clone() };
    let mut secrets = use_secrets(&caller, &kv).await;
    let Stopped { log, .. } = serving.stop().await;

    assert!(log.contains("\"request_id\":") && log.contains("a device has been activated"));
    assert!(log.contains("\"level\":\"TRACE\"") && log.contains("publishing failed"));
    let [master_key, sealing_key, shared_secret] = command_secrets();
    let url = std::env::var("KEYPOST_TEST_DATABASE_URL").unwrap();
    secrets.extend([
        ("an admin key", admin),
        ("an Idempotency-Key", IDEMPOTENCY_KEY.to_owned()),
        ("the KV token", "kv-api-token".to_owned()),
        ("the collector's token", "collector-token".to_owned()),
        ("the master key", master_key),
        ("the sealing key", sealing_key),
        ("the shared secret", shared_secret),
        ("the database's password", password(&url).to_owned()),
    ]);
    assert!(leak(&log, &[("the canary", CANARY.to_owned())]).is_some(), "the search works");
    if let Some((what, line)) = leak(&log, &secrets) {
        panic!("{what} stands in the log: {line}");
    }
    // Nor in the traces, which were sent all the same.
    let traces = collector.received();
    assert!(traces.iter().all(|call| call.authorization.as_deref() == Some("Bearer collector-token")));
    let texts: Vec<String> =
        traces.iter().map(|call| String::from_utf8_lossy(&call.body).into_owned()).collect();
    assert!(leak(&texts.concat(), &[("the canary", CANARY.to_owned())]).is_some(), "the search works");
    if let Some((what, line)) = leak(&texts.concat(), &secrets) {
        panic!("{what} stands in a trace: {line}");
    }
    // Private keys in KV are sealed, but their texts have no place in a log either.
    assert!(!log.contains("\"jwe\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_key_is_shown_and_not_logged_nor_what_a_lost_collector_was_to_get() {
    let (database, kv) = (TestDatabase::create().await, KvServer::start().await);
    let mut command = keypost(&database, &kv, &["serve"]);
    command
        .env("KEYPOST_LOG", "json,trace")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer collector-token");
    let Stopped { log, shown, .. } = Serving::start(command).await.stop().await;
    let key = shown.split_whitespace().find(|word| word.starts_with("kp_admin_")).expect("it is shown");
    assert!(log.contains("the collector of traces cannot be reached"));
    let secrets =
        [("the first key", key.to_owned()), ("the collector's token", "collector-token".to_owned())];
    assert_eq!(leak(&log, &secrets), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_holds_secrets_does_not_print_them() {
    let app = TestApp::start().await;
    let url = std::env::var("KEYPOST_TEST_DATABASE_URL").unwrap();
    let printed = format!("{:?} {:?} {:?}", app.kv.config(), app.context.master_key, app.database.config);
    for text in ["kv-api-token", &secret(1), password(&url)] {
        assert!(!printed.contains(text), "{printed}");
    }
}

/// The password in a database URL.
fn password(url: &str) -> &str {
    let (_, after_scheme) = url.split_once("://").unwrap();
    let (user, _) = after_scheme.split_once('@').unwrap();
    user.split_once(':').unwrap().1
}
