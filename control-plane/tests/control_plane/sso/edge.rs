//! People's tokens at the edge, by what the control plane has published: what client apps ask and revoke there, and what the
//! control plane makes of it.

use std::time::Duration;

use keypost::store::sso::session::Which;
use keypost_shared::document::{ClientDocument, Revoked, RevokedDocument};
use keypost_shared::id::ClientId;
use keypost_shared::kv_key::KvKey;
use serde_json::{Value, json};

use super::people::{ClientApp, People, access};
use crate::support::{TestApp, TestEdge, eventually};

/// By when a change is known everywhere, in seconds.
const BOUND: u64 = 121;

/// An organization with two client apps, all of it published.
async fn acme(app: &TestApp) -> (People<'_>, ClientApp, ClientApp) {
    let people = People::of_acme(app).await;
    let (a, b) = (people.client_app("A").await, people.client_app("B").await);
    people.settle(0).await;
    (people, a, b)
}

fn revocations(people: &People<'_>) -> String {
    format!("/api/internal/{}/revocations", people.pool)
}

fn claims(token: &str) -> Value {
    use base64ct::{Base64UrlUnpadded, Encoding};
    let payload = Base64UrlUnpadded::decode_vec(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_app_is_a_client_of_the_pool_for_as_long_as_its_keys_count() {
    let app = TestApp::start().await;
    let (people, a, _) = acme(&app).await;
    let key = people.client_key(&a);
    let document = app.kv.verified::<ClientDocument>(&app.publisher.root, &key).await.unwrap().document;
    assert_eq!((document.secrets.len(), document.scopes.to_string().as_str()), (1, "introspect"));
    assert_eq!(document.status_block, None, "it has no tokens of its own");
    let first = app.kv.get(&key).unwrap();

    let edge = TestEdge::new(&app);
    let ask = async |app: &ClientApp| people.post(&edge, app, "introspect", "x").await;
    assert_eq!(ask(&a).await, (200, json!({"active": false})));
    let wrong = ClientApp { key: "app_wrong".to_owned(), ..a.clone() };
    assert_eq!(ask(&wrong).await.0, 401);

    // Rotated: the old key goes on for the overlap, and then counts no longer, whatever is put back into KV.
    let rotated = people.rotate_key(&a, time::Duration::hours(1)).await;
    people.settle(BOUND).await;
    assert_eq!((ask(&a).await.0, ask(&rotated).await.0), (200, 200));
    app.clock.advance(Duration::from_secs(3600));
    let id: ClientId = a.client_id().parse().unwrap();
    let list = KvKey::Revoked(people.pool, RevokedDocument::shard_of(id.as_str(), 8).unwrap());
    eventually("the list says that the old document counts no longer", async || {
        let list = app.kv.verified::<RevokedDocument>(&app.publisher.root, &list).await.unwrap().document;
        matches!(list.clients.get(&id), Some(Revoked::Least(least)) if *least > first.metadata.version)
    })
    .await;
    people.settle(BOUND).await;
    assert_eq!((ask(&a).await.0, ask(&rotated).await.0), (401, 200));
    app.kv.replay(&key, &first);
    let cold = TestEdge::new(&app);
    assert_eq!(people.post(&cold, &a, "introspect", "x").await.0, 503, "KV is behind the revocation list");

    people.delete_app(&a).await;
    people.settle(BOUND).await;
    assert_eq!(app.kv.get(&key), None);
    assert_eq!(ask(&rotated).await.0, 401);
    app.kv.replay(&key, &first);
    assert_eq!(people.post(&TestEdge::new(&app), &a, "introspect", "x").await.0, 401, "it is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_finds_and_mends_the_documents_of_client_apps() {
    let app = TestApp::start().await;
    let (people, a, b) = acme(&app).await;
    app.kv.delete(&people.client_key(&a));
    // As by a statement by hand.
    app.database
        .execute("update sso_key set hash = sha256(hash) where client_app_id is not null")
        .await
        .unwrap();
    let started = app.call("POST", "/api/internal/sync/verify", None).await;
    assert_eq!(started.status, 202, "{}", started.text);
    let mut job = Value::Null;
    eventually("the job is done", async || {
        let sync = app.call("GET", "/api/internal/sync", None).await.json();
        job = sync["jobs"][0].clone();
        job["published"] == true
    })
    .await;
    assert_eq!((&job["missing"], &job["differing"]), (&json!(1), &json!(1)), "{job}");
    for client in [&a, &b] {
        let key = people.client_key(client);
        app.kv.verified::<ClientDocument>(&app.publisher.root, &key).await.unwrap();
    }
    people.settle(BOUND).await;
    assert_eq!(
        people.post(&TestEdge::new(&app), &b, "introspect", "x").await.0,
        401,
        "its key is another now"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_app_of_the_organization_sees_a_persons_token_until_the_session_ends() {
    let app = TestApp::start().await;
    let (people, a, b) = acme(&app).await;
    let ada = people.user(Some(&a), "ada").await;
    let owner = people.user(None, "olga").await;
    let (mine, others) = (people.sign_in(&ada).await, people.sign_in(&owner).await);
    people.settle(0).await;
    let edge = TestEdge::new(&app);
    let (status, answer) = people.post(&edge, &b, "introspect", access(&mine)).await;
    let said = claims(access(&mine));
    assert_eq!(
        (status, answer),
        (
            200,
            json!({
                "active": true, "token_type": "Bearer", "username": "ada", "sub": ada.id.to_string(),
                "iss": people.issuer(), "aud": [a.client_id(), "acme"], "client_id": a.client_id(),
                "userType": "CLIENT_USER", "organizationId": "acme", "clientAppId": a.client_id(),
                "sid": said["sid"], "jti": said["jti"], "iat": said["iat"], "exp": said["exp"],
            })
        )
    );
    assert!(people.is_active(&edge, &b, access(&others)).await);

    people.log_out(mine.session.id).await;
    people.settle(BOUND).await;
    assert!(!people.is_active(&edge, &b, access(&mine)).await);
    assert!(people.is_active(&edge, &a, access(&others)).await, "another's session goes on");
    people.end(Which::OfUser(owner.id)).await;
    people.settle(BOUND).await;
    assert!(!people.is_active(&edge, &a, access(&others)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_revokes_at_the_edge_ends_at_the_control_plane_and_the_session_goes_on() {
    let app = TestApp::start().await;
    let (people, a, b) = acme(&app).await;
    let ada = people.user(Some(&a), "ada").await;
    let pair = people.sign_in(&ada).await;
    people.settle(0).await;
    let edge = TestEdge::new(&app);
    let token = access(&pair);

    assert_eq!(people.post(&edge, &b, "revoke", token).await, (200, Value::Null), "another app's");
    assert_eq!(people.post(&edge, &a, "revoke", pair.refresh_token.expose()).await, (200, Value::Null));
    people.settle(0).await;
    assert!(people.is_active(&edge, &b, token).await && people.counts(token).await);

    assert_eq!(people.post(&edge, &a, "revoke", token).await, (200, Value::Null));
    assert!(!people.is_active(&edge, &b, token).await, "at once");
    assert!(people.counts(token).await, "not heard of yet");
    people.settle(0).await;
    assert!(!people.counts(token).await);

    // The session goes on, with the next bit.
    let next = people.refresh(&pair.refresh_token).await.unwrap();
    let place = |pair| claims(access(pair))["status"]["status_list"]["idx"].as_u64().unwrap();
    assert_eq!(place(&next), place(&pair) + 1);
    assert!(people.counts(access(&next)).await);
    people.settle(BOUND).await;
    assert!(people.is_active(&edge, &b, access(&next)).await);
    assert!(!people.is_active(&TestEdge::new(&app), &b, token).await);

    let listed = app.call("GET", &revocations(&people), None).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["clientId"], pair.session.id.to_string());
    assert_eq!(listed["items"][0]["revokedBy"], "client");
    let events = app.call("GET", "/api/internal/audit?action=sso_session.revoke_tokens", None).await.json();
    assert_eq!(events["items"].as_array().unwrap().len(), 1, "{events}");
    // Sessions have no documents, and nothing of them is ever put back.
    let wrong =
        "select (select count(*) from revoked_record) + (select count(*) from publication where key like
                 'v1/client/%/' || (select id::text from sso_session))";
    assert_eq!(app.database.number(wrong).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_which_eight_tokens_were_revoked_goes_on_in_another_block() {
    let app = TestApp::start().await;
    let (people, a, _) = acme(&app).await;
    let ada = people.user(Some(&a), "ada").await;
    let mut pair = people.sign_in(&ada).await;
    let mut places = Vec::new();
    for _ in 0..10 {
        let token = access(&pair).to_owned();
        let place = claims(&token)["status"]["status_list"]["idx"].as_u64().unwrap();
        places.push(place);
        let answer = app.call("POST", &revocations(&people), Some(json!({"token": token}))).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert!(!people.counts(&token).await);
        pair = people.refresh(&pair.refresh_token).await.unwrap();
    }
    let blocks: Vec<u64> = places.iter().map(|place| place / 8).collect();
    assert_eq!(blocks[..8], [blocks[0]; 8]);
    assert_eq!((blocks[8] == blocks[0], blocks[8]), (false, blocks[9]));
    people.settle(BOUND).await;
    assert!(people.is_active(&TestEdge::new(&app), &a, access(&pair)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_revoke_peoples_tokens_by_token_session_or_id() {
    let app = TestApp::start().await;
    let (people, a, b) = acme(&app).await;
    let ada = people.user(Some(&a), "ada").await;
    let (one, two, three) =
        (people.sign_in(&ada).await, people.sign_in(&ada).await, people.sign_in(&ada).await);
    people.settle(0).await;
    let path = revocations(&people);
    let revoke = async |body: Value| {
        let answer = app.call("POST", &path, Some(body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()
    };
    let done = revoke(json!({"token": access(&one)})).await;
    assert_eq!(done["clientId"], one.session.id.to_string());
    let again = revoke(json!({"token": access(&one)})).await;
    assert_eq!(again["id"], done["id"], "it stays as it is");
    let said = claims(access(&two));
    let session = two.session.id.to_string();
    revoke(json!({"jti": said["jti"], "exp": said["exp"], "clientId": session})).await;
    revoke(json!({"clientId": three.session.id.to_string()})).await;
    people.settle(BOUND).await;
    let edge = TestEdge::new(&app);
    for pair in [&one, &two, &three] {
        assert!(!people.counts(access(pair)).await);
        assert!(!people.is_active(&edge, &b, access(pair)).await);
        // Tokens are revoked, not sessions.
        let next = people.refresh(&pair.refresh_token).await.unwrap();
        assert!(people.counts(access(&next)).await);
    }

    for (body, field) in [
        (json!({"clientId": ada.id.to_string()}), "clientId"),
        (json!({"clientId": a.client_id()}), "clientId"),
        (json!({"token": one.refresh_token.expose()}), "token"),
        (json!({"token": "x.y.z"}), "token"),
    ] {
        let answer = app.call("POST", &path, Some(body.clone())).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["errors"][0]["field"]),
            (400, &json!(field)),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_people_is_its_organizations_alone() {
    let app = TestApp::start().await;
    let (people, ..) = acme(&app).await;
    app.create("/api/internal/org", json!({"id": "other", "name": "Other"})).await;
    let (own, stranger) = (app.key(Some("acme"), None).await, app.key(Some("other"), None).await);
    let path = revocations(&people);
    assert_eq!(app.call_with(&own, "GET", &path, None).await.status, 200);
    app.call_with(&stranger, "GET", &path, None).await.assert_problem(404, "not_found");
    app.call_with(&stranger, "POST", &path, Some(json!({"token": "x"})))
        .await
        .assert_problem(404, "not_found");
    let narrow = app.key(Some("acme"), Some(&[keypost::service::access::Permission::OrgRead])).await;
    app.call_with(&narrow, "GET", &path, None).await.assert_problem(403, "forbidden");
    // What else there is of pools is of environments'.
    app.call("GET", &format!("/api/internal/{}/certificates", people.pool), None)
        .await
        .assert_problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pools_document_says_where_people_sign_in() {
    let app = TestApp::start().await;
    let (people, ..) = acme(&app).await;
    let edge = TestEdge::new(&app);
    let response = edge.get(&format!("/{}/.well-known/openid-configuration", people.pool)).await;
    let metadata: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(metadata["issuer"], people.issuer());
    assert_eq!(metadata["token_endpoint"], "https://keypost.test/api/auth/token");
    let key = KvKey::Pool(people.pool);
    let text = app.kv.get(&key).unwrap().value;
    assert!(!claims(&text).to_string().contains("signing_key"), "nothing there can sign");
    let form = [("grant_type", "client_credentials"), ("client_id", "x"), ("client_secret", "y")];
    let (status, answer) = edge.post(&format!("/{}/oauth2/token", people.pool), &form).await;
    assert_eq!((status, &answer["error"]), (400, &json!("unsupported_grant_type")));
}
