//! Organizations, client apps and users, as owners manage them.

use axum::body::Body;
use axum::http::Request;
use base64ct::{Base64UrlUnpadded, Encoding};
use keypost::entropy::random_uuid;
use keypost::service::audit::{Actor, RequestSource};
use keypost::service::change::Change;
use keypost::service::sso::session::{self, PairFor, SessionError, SignInFrom, TokenPair};
use keypost::store::sso::user::{self, NameKeys, User, UserStatus};
use keypost::store::sso::{owner, pool};
use keypost_shared::document::{ClientDocument, PoolDocument};
use keypost_shared::id::{PoolId, SsoAppId, UserId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::SecretText;
use keypost_shared::status_list::{StatusBits, StatusListClaims};
use rand_core::OsRng;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp, eventually};

const ORG: &str = "/api/organization";
const APPS: &str = "/api/organization/acme/client-apps";
const APP: &str = "/api/organization/client-apps";
const USERS: &str = "/api/organization/acme/users";

/// With which credentials somebody asks.
#[derive(Clone)]
enum By<'a> {
    Nobody,
    Admin,
    Key(&'a str),
    Token(&'a str),
}

async fn ask(app: &TestApp, by: By<'_>, method: &str, path: &str, body: Option<Value>) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = match by {
        By::Nobody => request,
        By::Admin => request.header("x-api-key", &app.admin),
        By::Key(key) => request.header("apikey", key),
        By::Token(token) => request.header("authorization", format!("Bearer {token}")),
    };
    let request = match body {
        Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    };
    app.send(request.unwrap()).await
}

/// What was asked for, which must have been done.
fn data(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    let envelope = answer.json();
    assert_eq!((&envelope["success"], &envelope["error"]), (&json!(true), &Value::Null), "{}", answer.text);
    assert!(envelope["message"].is_string());
    envelope["data"].clone()
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text);
    let envelope = answer.json();
    assert_eq!((&envelope["success"], &envelope["data"]), (&json!(false), &Value::Null), "{}", answer.text);
    assert_eq!(envelope["error"]["code"], code, "{}", answer.text);
}

fn wrong_fields(answer: &Answer) -> Vec<String> {
    assert_refused(answer, 400, "invalid_request");
    let details = answer.json()["error"]["details"].as_array().unwrap().clone();
    details.iter().map(|detail| detail["field"].as_str().unwrap().to_owned()).collect()
}

/// An organization `acme` with its owner.
struct Acme {
    app: TestApp,
    /// The organization's key.
    key: String,
    owner: User,
    /// The owner's access token.
    token: String,
    pool: PoolId,
}

async fn person(app: &TestApp, org: &str, of: Option<SsoAppId>, name: &str) -> User {
    let mut change = Change::begin(&app.context, &Actor::system()).await.unwrap();
    let now = change.now();
    let user = User {
        id: UserId(random_uuid(&mut OsRng)),
        org: org.parse().unwrap(),
        app: of,
        username: name.to_owned(),
        email: format!("{name}@example.com"),
        first_name: None,
        last_name: None,
        metadata: RawValue::from_string(r#"{"role":"DRIVER"}"#.to_owned()).unwrap(),
        status: UserStatus::Enabled,
        last_login_at: None,
        created_at: now,
        updated_at: now,
    };
    let keys = NameKeys { username: user.username.clone(), email: user.email.clone() };
    user::insert(change.tx(), &user, &keys, &SecretText::new("x".to_owned())).await.unwrap();
    if of.is_none() {
        owner::insert(change.tx(), &user.org, user.id, now).await.unwrap();
    }
    change.commit().await.unwrap();
    user
}

async fn sign_in(app: &TestApp, user: &User) -> TokenPair {
    let mut change = Change::begin(&app.context, &Actor::system()).await.unwrap();
    let (pool, started) = session::begin(&mut change, user, SignInFrom::default()).await.unwrap();
    let pair = PairFor { app: user.app, extends_session: true, scope: None, narrowed: None };
    let pair = session::issue(&mut change, &pool, &started, user, pair).await.unwrap();
    change.commit().await.unwrap();
    pair
}

impl Acme {
    async fn start() -> Self {
        let app = TestApp::start().await;
        let made = ask(&app, By::Admin, "POST", ORG, Some(json!({"id": "acme", "name": "Acme"}))).await;
        let made = data(&made, 201);
        let key = made["orgOwnerApiKey"].as_str().unwrap().to_owned();
        let owner = person(&app, "acme", None, "olga").await;
        let token = sign_in(&app, &owner).await.access_token.expose().to_owned();
        let pool = made["ssoPoolId"].as_str().unwrap().parse().unwrap();
        Self { app, key, owner, token, pool }
    }

    fn by_token(&self) -> By<'_> {
        By::Token(&self.token)
    }

    async fn owner_asks(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        ask(&self.app, self.by_token(), method, path, body).await
    }

    /// A client app: its id and its key.
    async fn client_app(&self, name: &str) -> (SsoAppId, String) {
        let made = data(&self.owner_asks("POST", APPS, Some(json!({"name": name}))).await, 201);
        let id = made["id"].as_str().unwrap().parse().unwrap();
        (id, made["clientAppApiKey"].as_str().unwrap().to_owned())
    }

    async fn nothing_waits(&self) {
        let waits = "select count(*) from publication where generation > published_generation";
        eventually("nothing waits", async || self.app.database.number(waits).await == 0).await;
    }

    /// Whether the bit that a token carries is set in the status list in KV.
    async fn is_revoked(&self, token: &str) -> bool {
        self.nothing_waits().await;
        let claims: Value = serde_json::from_slice(&payload(token)).unwrap();
        let index = claims["status"]["status_list"]["idx"].as_u64().unwrap();
        let list = self.app.kv.value(&format!("v1/status/{}/0", self.pool)).unwrap();
        let list: StatusListClaims = serde_json::from_slice(&payload(&list)).unwrap();
        let bits = StatusBits::decompress(&list.status_list).unwrap().block((index / 8) as u32);
        bits & (1 << (index % 8)) != 0
    }
}

fn payload(jws: &str) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(jws.split('.').nth(1).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_founds_reads_changes_and_deletes_organizations() {
    let acme = Acme::start().await;
    let new = json!({"id": "second", "name": "Second", "description": "Another one"});
    let made = data(&acme.owner_asks("POST", ORG, Some(new.clone())).await, 201);
    assert!(made["orgOwnerApiKey"].as_str().unwrap().starts_with("org_"));
    assert_eq!(made["published"], true);
    let pool = made["ssoPoolId"].as_str().unwrap();
    assert_eq!(made["ssoIssuer"], format!("https://edge.test/{pool}"));
    let key = KvKey::Pool(pool.parse().unwrap());
    acme.app.kv.verified::<PoolDocument>(&acme.app.publisher.root, &key).await.unwrap();
    assert_refused(&acme.owner_asks("POST", ORG, Some(new)).await, 409, "already_exists");

    let page = data(&acme.owner_asks("GET", &format!("{ORG}?limit=1"), None).await, 200);
    assert_eq!(page["items"][0]["id"], "acme");
    let path = format!("{ORG}?limit=1&cursor={}", page["nextCursor"].as_str().unwrap());
    let page = data(&acme.owner_asks("GET", &path, None).await, 200);
    assert_eq!((&page["items"][0]["id"], &page["nextCursor"]), (&json!("second"), &Value::Null));
    assert_eq!(data(&acme.owner_asks("GET", &format!("{ORG}/me"), None).await, 200)["id"], "acme");

    let path = format!("{ORG}/second");
    let changed = data(&acme.owner_asks("PUT", &path, Some(json!({"name": "New"}))).await, 200);
    assert_eq!((&changed["name"], &changed["description"]), (&json!("New"), &Value::Null));
    assert_eq!(data(&acme.owner_asks("GET", &path, None).await, 200), changed);
    assert_eq!(data(&acme.owner_asks("DELETE", &path, None).await, 200), json!({}));
    assert_refused(&acme.owner_asks("GET", &path, None).await, 404, "not_found");
    // The owner signs in elsewhere, and goes on.
    assert_eq!(data(&acme.owner_asks("GET", &format!("{ORG}/me"), None).await, 200)["id"], "acme");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_loses_the_organization_where_they_sign_in_owns_the_other_one() {
    let acme = Acme::start().await;
    data(&acme.owner_asks("POST", ORG, Some(json!({"id": "second", "name": "Second"}))).await, 201);
    data(&acme.owner_asks("DELETE", &format!("{ORG}/acme"), None).await, 200);
    assert_refused(&acme.owner_asks("GET", ORG, None).await, 401, "invalid_token");
    let again = User { org: "second".parse().unwrap(), ..acme.owner.clone() };
    let token = sign_in(&acme.app, &again).await.access_token;
    let own = ask(&acme.app, By::Token(token.expose()), "GET", &format!("{ORG}/me"), None).await;
    assert_eq!(data(&own, 200)["id"], "second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_manage_what() {
    let acme = Acme::start().await;
    let made = ask(&acme.app, By::Admin, "POST", ORG, Some(json!({"id": "other", "name": "Other"}))).await;
    let other_key = data(&made, 201)["orgOwnerApiKey"].as_str().unwrap().to_owned();
    let stranger = person(&acme.app, "other", None, "otto").await;
    let stranger = sign_in(&acme.app, &stranger).await.access_token;
    let (app, app_key) = acme.client_app("A").await;
    let user = person(&acme.app, "acme", Some(app), "ulla").await;
    let user_token = sign_in(&acme.app, &user).await.access_token;
    let management_key = acme.app.key(Some("acme"), None).await;

    let paths = [
        format!("{ORG}/acme"),
        APPS.to_owned(),
        format!("{APP}/{app}"),
        USERS.to_owned(),
        format!("{USERS}/{}", user.id),
    ];
    for path in &paths {
        let get = async |by| ask(&acme.app, by, "GET", path, None).await;
        for by in [By::Admin, By::Key(&acme.key), acme.by_token()] {
            data(&get(by).await, 200);
        }
        assert_refused(&get(By::Key(&other_key)).await, 404, "not_found");
        assert_refused(&get(By::Token(stranger.expose())).await, 404, "not_found");
        assert_refused(&get(By::Key(&app_key)).await, 403, "forbidden");
        assert_refused(&get(By::Token(user_token.expose())).await, 403, "forbidden");
        assert_refused(&get(By::Nobody).await, 401, "invalid_token");
        assert_refused(&get(By::Key("org_wrong")).await, 401, "invalid_api_key");
        assert_refused(&get(By::Key(&acme.app.admin)).await, 401, "invalid_api_key");
        assert_refused(&get(By::Token("wrong")).await, 401, "invalid_token");
        let request = Request::builder().uri(path).header("x-api-key", &management_key).body(Body::empty());
        assert_refused(&acme.app.send(request.unwrap()).await, 403, "forbidden");
    }
    // An organization's key founds no other, and opens nothing of management.
    let found = ask(&acme.app, By::Key(&acme.key), "POST", ORG, Some(json!({"name": "x"}))).await;
    assert_refused(&found, 403, "forbidden");
    acme.app
        .call_with(&acme.key, "GET", "/api/internal/org/acme", None)
        .await
        .assert_problem(401, "unauthenticated");
    // All of them, for who has all.
    let all = data(&ask(&acme.app, By::Admin, "GET", ORG, None).await, 200);
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    assert_refused(&ask(&acme.app, By::Admin, "GET", &format!("{ORG}/me"), None).await, 404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_apps_are_made_listed_replaced_and_deleted() {
    let acme = Acme::start().await;
    let settings = json!({"name": "A", "description": "The app", "redirectUris": ["https://a.example/cb", "http://127.0.0.1:3000/cb"],
        "origins": ["https://a.example"], "publicSignup": false, "signupMetadataKeys": ["role"]});
    let made = data(&acme.owner_asks("POST", APPS, Some(settings.clone())).await, 201);
    assert!(made["clientAppApiKey"].as_str().unwrap().starts_with("app_"));
    assert_eq!((&made["published"], &made["organizationId"]), (&json!(true), &json!("acme")));
    let (second, _) = acme.client_app("B").await;
    let path = format!("{APP}/{}", made["id"].as_str().unwrap());
    let read = data(&acme.owner_asks("GET", &path, None).await, 200);
    for (name, value) in settings.as_object().unwrap() {
        assert_eq!(&read[name], value, "{name}");
    }
    assert_eq!(read.get("clientAppApiKey"), None);
    let listed = data(&acme.owner_asks("GET", APPS, None).await, 200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);

    let replaced = data(&acme.owner_asks("PUT", &path, Some(json!({"name": "A2"}))).await, 200);
    assert_eq!((&replaced["name"], &replaced["publicSignup"]), (&json!("A2"), &json!(true)));
    assert_eq!((&replaced["redirectUris"], &replaced["signupMetadataKeys"]), (&json!([]), &Value::Null));
    data(&acme.owner_asks("DELETE", &path, None).await, 200);
    assert_refused(&acme.owner_asks("GET", &path, None).await, 404, "not_found");
    let listed = data(&acme.owner_asks("GET", APPS, None).await, 200);
    assert_eq!(listed["items"][0]["id"], second.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named_and_answered_in_the_envelope() {
    let acme = Acme::start().await;
    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": "A", "colour": "red"}), "colour"),
        (json!({"name": "A", "redirectUris": ["http://a.example/cb"]}), "redirectUris[0]"),
        (json!({"name": "A", "redirectUris": ["https://a.example/cb#here"]}), "redirectUris[0]"),
        (json!({"name": "A", "redirectUris": ["http://localhost.evil.example/"]}), "redirectUris[0]"),
        (json!({"name": "A", "redirectUris": ["javascript:alert(1)"]}), "redirectUris[0]"),
        (json!({"name": "A", "redirectUris": vec!["https://a.example/"; 33]}), "redirectUris"),
        (json!({"name": "A", "origins": ["https://a.example/"]}), "origins[0]"),
        (json!({"name": "A", "origins": ["*"]}), "origins[0]"),
        (json!({"name": "A", "publicSignup": "no"}), "publicSignup"),
        (json!({"name": "A", "signupMetadataKeys": [""]}), "signupMetadataKeys[0]"),
    ] {
        assert_eq!(wrong_fields(&acme.owner_asks("POST", APPS, Some(body)).await), [field]);
    }
    for id in ["me", "client-apps", "Not A Slug"] {
        let refused = acme.owner_asks("POST", ORG, Some(json!({"id": id, "name": "x"}))).await;
        assert_eq!(wrong_fields(&refused), ["id"]);
    }
    assert_eq!(wrong_fields(&acme.owner_asks("GET", &format!("{APP}/no-uuid"), None).await), ["clientAppId"]);
    assert_eq!(wrong_fields(&acme.owner_asks("GET", &format!("{USERS}?limit=0"), None).await), ["limit"]);
    let missing = format!("{USERS}/{}", random_uuid(&mut OsRng));
    assert_refused(&acme.owner_asks("GET", &missing, None).await, 404, "not_found");
    assert_refused(&acme.owner_asks("GET", &format!("{ORG}/acme/nothing"), None).await, 404, "not_found");
    assert_refused(&acme.owner_asks("PATCH", &format!("{ORG}/acme"), None).await, 405, "method_not_allowed");
    // The owner is none of the users.
    let owner = format!("{USERS}/{}", acme.owner.id);
    for (method, path) in
        [("GET", owner.clone()), ("DELETE", owner.clone()), ("POST", format!("{owner}/disable"))]
    {
        assert_refused(&acme.owner_asks(method, &path, None).await, 404, "not_found");
    }
    assert_eq!(data(&acme.owner_asks("GET", &format!("{ORG}/me"), None).await, 200)["id"], "acme");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_rotated_counts_for_the_overlap_and_no_longer() {
    let acme = Acme::start().await;
    let read = async |key: &str| ask(&acme.app, By::Key(key), "GET", &format!("{ORG}/me"), None).await.status;
    let rotate = async |key: &str, overlap: u32| {
        let body = Some(json!({"overlapSeconds": overlap}));
        let answer = ask(&acme.app, By::Key(key), "POST", &format!("{ORG}/acme/rotate-key"), body).await;
        data(&answer, 200)
    };
    let first = &acme.key;
    let second = rotate(first, 60).await;
    assert!(second["previousExpiresAt"].is_string());
    let second = second["orgOwnerApiKey"].as_str().unwrap();
    assert_eq!((read(first).await, read(second).await), (200.try_into().unwrap(), 200.try_into().unwrap()));
    acme.app.clock.advance(std::time::Duration::from_secs(61));
    assert_eq!((read(first).await.as_u16(), read(second).await.as_u16()), (401, 200));
    let third = rotate(second, 0).await;
    assert_eq!(third["previousExpiresAt"], Value::Null);
    let third = third["orgOwnerApiKey"].as_str().unwrap();
    assert_eq!((read(second).await.as_u16(), read(third).await.as_u16()), (401, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_apps_rotated_key_reaches_the_edge() {
    let acme = Acme::start().await;
    let (app, _) = acme.client_app("A").await;
    let path = format!("{APP}/{app}/rotate-key");
    let rotated = data(&acme.owner_asks("POST", &path, None).await, 200);
    assert!(rotated["clientAppApiKey"].as_str().unwrap().starts_with("app_"));
    assert_eq!(rotated["published"], true);
    let key = KvKey::Client(acme.pool, app.into());
    let document =
        acme.app.kv.verified::<ClientDocument>(&acme.app.publisher.root, &key).await.unwrap().document;
    assert_eq!(document.secrets.len(), 2);
    assert_eq!(document.secrets.iter().filter(|secret| secret.expires_at.is_some()).count(), 1);
    data(&acme.owner_asks("DELETE", &format!("{APP}/{app}"), None).await, 200);
    acme.nothing_waits().await;
    assert_eq!(acme.app.kv.get(&key), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_with_the_same_idempotency_key_makes_one_app() {
    let acme = Acme::start().await;
    let post = async || {
        let request = Request::builder()
            .method("POST")
            .uri(APPS)
            .header("apikey", &acme.key)
            .header("idempotency-key", "once")
            .header("content-type", "application/json")
            .body(Body::from(json!({"name": "A"}).to_string()));
        data(&acme.app.send(request.unwrap()).await, 201)
    };
    let first = post().await;
    assert_eq!(post().await, first);
    assert_eq!(acme.app.database.number("select count(*) from client_app").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_user_has_no_session_and_no_token_that_counts_until_enabled() {
    let acme = Acme::start().await;
    let (app, _) = acme.client_app("A").await;
    let user = person(&acme.app, "acme", Some(app), "ulla").await;
    let other = person(&acme.app, "acme", Some(app), "otto").await;
    let (pair, others) = (sign_in(&acme.app, &user).await, sign_in(&acme.app, &other).await);
    assert!(!acme.is_revoked(pair.access_token.expose()).await);
    let path = format!("{USERS}/{}", user.id);
    let disabled = data(&acme.owner_asks("POST", &format!("{path}/disable"), None).await, 200);
    assert_eq!(
        (&disabled["status"], &disabled["user_metadata"]),
        (&json!("disabled"), &json!({"role": "DRIVER"}))
    );
    assert!(acme.is_revoked(pair.access_token.expose()).await);
    assert!(!acme.is_revoked(others.access_token.expose()).await);
    let live = "select count(*) from sso_session where ended_at is null and client_app_id is not null";
    assert_eq!(acme.app.database.number(live).await, 1);
    let enabled = data(&acme.owner_asks("POST", &format!("{path}/enable"), None).await, 200);
    assert_eq!(enabled["status"], "enabled");
    let users = data(&acme.owner_asks("GET", &format!("{USERS}?clientAppId={app}"), None).await, 200);
    assert_eq!(users["items"].as_array().unwrap().len(), 2);

    data(&acme.owner_asks("DELETE", &path, None).await, 200);
    assert_refused(&acme.owner_asks("GET", &path, None).await, 404, "not_found");
    let users = data(&acme.owner_asks("GET", USERS, None).await, 200);
    assert_eq!(users["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_app_go_its_users_their_sessions_and_what_others_got_for_it() {
    let acme = Acme::start().await;
    let ((a, _), (b, _)) = (acme.client_app("A").await, acme.client_app("B").await);
    let (of_a, of_b) =
        (person(&acme.app, "acme", Some(a), "ulla").await, person(&acme.app, "acme", Some(b), "otto").await);
    let (at_a, at_b) = (sign_in(&acme.app, &of_a).await, sign_in(&acme.app, &of_b).await);
    // Ulla has got a pair for B by exchange.
    let mut change = Change::begin(&acme.app.context, &Actor::system()).await.unwrap();
    let sso_pool = pool::find(change.tx(), &of_a.org).await.unwrap().unwrap();
    let pair = PairFor { app: Some(b), extends_session: false, scope: None, narrowed: None };
    let exchanged = session::issue(&mut change, &sso_pool, &at_a.session, &of_a, pair).await.unwrap();
    change.commit().await.unwrap();

    data(&acme.owner_asks("DELETE", &format!("{APP}/{b}"), None).await, 200);
    assert!(acme.is_revoked(at_b.access_token.expose()).await);
    assert!(acme.is_revoked(exchanged.access_token.expose()).await);
    assert_eq!(
        acme.app.database.number("select count(*) from sso_user where client_app_id is not null").await,
        1
    );
    let left = "select count(*) from refresh_token where client_app_id is not null";
    assert_eq!(acme.app.database.number(left).await, 1);
    // Ulla goes on at A, with a token that counts.
    let mut change = Change::begin(&acme.app.context, &Actor::system()).await.unwrap();
    let pair = PairFor { app: Some(a), extends_session: true, scope: None, narrowed: None };
    let next = session::issue(&mut change, &sso_pool, &at_a.session, &of_a, pair).await.unwrap();
    change.commit().await.unwrap();
    assert!(!acme.is_revoked(next.access_token.expose()).await);

    data(&acme.owner_asks("DELETE", &format!("{ORG}/acme"), None).await, 200);
    assert!(acme.is_revoked(next.access_token.expose()).await);
    assert!(acme.is_revoked(&acme.token).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_refreshes_while_an_app_is_deleted_goes_on_or_is_told_that_it_is_over() {
    let acme = Acme::start().await;
    for round in 0..3 {
        let (app, _) = acme.client_app("A").await;
        let mut refreshing = Vec::new();
        for number in 0..6 {
            let user = person(&acme.app, "acme", Some(app), &format!("user-{round}-{number}")).await;
            let mut token = sign_in(&acme.app, &user).await.refresh_token;
            let context = acme.app.context.clone();
            refreshing.push(tokio::spawn(async move {
                loop {
                    let source = RequestSource { address: "192.0.2.1".parse().unwrap(), request_id: None };
                    match session::refresh(&context, source, token.expose(), session::Refreshing::default())
                        .await
                    {
                        Ok(pair) => token = pair.refresh_token,
                        Err(SessionError::Over) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }));
        }
        data(&acme.owner_asks("DELETE", &format!("{APP}/{app}"), None).await, 200);
        for task in refreshing {
            task.await.unwrap();
        }
    }
    let left = "select (select count(*) from sso_session where client_app_id is not null)
                     + (select count(*) from sso_user where client_app_id is not null)";
    assert_eq!(acme.app.database.number(left).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_run_out_is_forgotten_and_what_has_not_stays() {
    let acme = Acme::start().await;
    let (app, _) = acme.client_app("A").await;
    let user = person(&acme.app, "acme", Some(app), "ulla").await;
    let old = sign_in(&acme.app, &user).await;
    acme.app.clock.advance(std::time::Duration::from_secs(3 * 86_400));
    let new = sign_in(&acme.app, &user).await;
    let rotate = Some(json!({"overlapSeconds": 60}));
    data(&ask(&acme.app, By::Key(&acme.key), "POST", &format!("{ORG}/acme/rotate-key"), rotate).await, 200);
    let run = async || {
        let done = crate::housekeeping::run(&acme.app, None).await;
        done.into_iter().filter(|(kind, _)| kind.starts_with("sso_")).collect::<Vec<_>>()
    };
    assert_eq!(run().await, []);
    acme.app.clock.advance(std::time::Duration::from_secs(5 * 86_400));
    // Two sessions of before, of the owner and of the user, and the key that was rotated.
    assert_eq!(run().await, [("sso_sessions", 2), ("sso_keys", 1)]);
    assert_eq!(acme.app.database.number("select count(*) from sso_session").await, 1);
    assert_eq!(acme.app.database.number("select count(*) from refresh_token").await, 1);
    assert!(acme.is_revoked(old.access_token.expose()).await);
    assert!(!acme.is_revoked(new.access_token.expose()).await);
}
