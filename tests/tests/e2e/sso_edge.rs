//! People's tokens at the edge, from signing up to logging out: verified, introspected, revoked and looked up in the status
//! list by libraries that other people wrote.

use std::time::Duration;

use keypost_tests::edge::{self, Reply};
use keypost_tests::stack::TestStack;
use keypost_tests::{clients, stack, wait};
use serde_json::{Value, json};

/// By when a change is known at the edge: flush, workerd's KV and the isolate's memory.
const BOUND: Duration = Duration::from_secs(75);

/// What a control plane answers to people.
struct People<'a> {
    stack: &'a TestStack,
    issuer: String,
    owner: Value,
}

/// A client app and its key.
struct ClientApp {
    id: String,
    key: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

impl<'a> People<'a> {
    /// An organization that its owner has signed up.
    async fn sign_up(stack: &'a TestStack, name: &str) -> Self {
        let body = json!({
            "username": name, "password": "correct horse battery", "email": format!("{name}@example.com"),
            "firstName": "Olga", "lastName": "Owner", "organizationName": name, "organizationDescription": "Tests",
        });
        let owner = send(stack, "signup", None, None, body).await;
        let claims = edge::claims(&text(&owner["accessToken"]));
        Self { stack, issuer: text(&claims["iss"]), owner }
    }

    /// A client app of the organization's, which the edge knows.
    async fn client_app(&self, name: &str) -> ClientApp {
        let org = text(&self.owner["userClaims"]["organizationId"]);
        let url = format!("{}/api/organization/{org}/client-apps", self.stack.control_plane_url());
        let request = edge::http().post(url).bearer_auth(text(&self.owner["accessToken"]));
        let made = data(request.json(&json!({"name": name}))).await;
        let app = ClientApp { id: text(&made["id"]), key: text(&made["clientAppApiKey"]) };
        wait::until("the app at the edge", BOUND, || async {
            let reply = self.ask(&app, "introspect", "x").await;
            if reply.status == 200 { Ok(()) } else { Err(format!("{reply:?}")) }
        })
        .await;
        app
    }

    /// Asks the edge as an app.
    async fn ask(&self, app: &ClientApp, endpoint: &str, token: &str) -> Reply {
        let url = format!("{}/oauth2/{endpoint}", self.issuer);
        let form = [("client_id", app.id.as_str()), ("client_secret", &app.key), ("token", token)];
        edge::send(edge::http().post(url).form(&form)).await
    }

    async fn is_active(&self, app: &ClientApp, token: &str) -> bool {
        let reply = self.ask(app, "introspect", token).await;
        reply.body["active"].as_bool().unwrap_or_else(|| panic!("{reply:?}"))
    }

    /// The status of an answer of `/api/auth/validate`.
    async fn validate(&self, app: &ClientApp, token: &str) -> u16 {
        let url = format!("{}/api/auth/validate", self.stack.control_plane_url());
        let request = edge::http().get(url).header("apikey", &app.key).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    }

    /// What a resource server makes of the token's status.
    async fn status(&self, token: &str) -> Value {
        let jwks_uri = format!("{}/.well-known/jwks.json", self.issuer);
        clients::run("status-list.mjs", json!({"token": token, "jwksUri": jwks_uri})).await
    }
}

/// Posts under `/api/auth`, and gives the envelope's data.
async fn send(stack: &TestStack, path: &str, key: Option<&str>, token: Option<&str>, body: Value) -> Value {
    let mut request = edge::http().post(format!("{}/api/auth/{path}", stack.control_plane_url())).json(&body);
    if let Some(key) = key {
        request = request.header("apikey", key);
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    data(request).await
}

async fn data(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.expect("the control plane answers");
    let (status, body) = (response.status(), response.text().await.unwrap());
    let envelope: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}"));
    assert!(status.is_success() && envelope["success"] == true, "{status}: {envelope}");
    envelope["data"].clone()
}

#[tokio::test]
async fn a_persons_token_is_good_at_the_edge_until_it_is_revoked_or_the_session_ends() {
    let stack = stack::shared().await;
    let people = People::sign_up(stack, "sso-edge").await;
    let (a, b) = (people.client_app("A").await, people.client_app("B").await);
    let user = json!({
        "username": "ada", "password": "correct horse battery", "email": "ada@example.com",
        "user_metadata": {"role": "DRIVER"},
    });
    let signed_up = send(stack, "signup", Some(&a.key), None, user).await;
    let token = text(&signed_up["accessToken"]);

    // Anybody verifies it by the issuer's key set.
    let input = json!({
        "token": token, "jwksUri": format!("{}/.well-known/jwks.json", people.issuer), "issuer": people.issuer,
        "requiredClaims": ["sid", "clientAppId", "status"],
    });
    let jose = clients::run("jose.mjs", input).await;
    assert_eq!(jose["header"]["typ"], "JWT");
    assert_eq!(jose["claims"]["user_metadata"], json!({"role": "DRIVER"}));
    assert_eq!(jose["claims"]["aud"][0], a.id);

    // Another app asks, revokes nothing of it, and validates it at the control plane.
    assert!(people.is_active(&b, &token).await);
    assert_eq!(people.ask(&b, "revoke", &token).await.status, 200);
    assert!(people.is_active(&b, &token).await);
    assert_eq!(people.validate(&b, &token).await, 200);
    assert_eq!(people.status(&token).await["status"], 0);

    // Its own app ends it, by what the issuer's metadata says.
    let input = json!({"issuer": people.issuer, "clientId": a.id, "clientSecret": a.key, "token": token});
    let seen = clients::run("openid-client-people.mjs", input).await;
    let url = stack.control_plane_url();
    for (member, path) in [
        ("authorization_endpoint", "authorize"),
        ("token_endpoint", "token"),
        ("userinfo_endpoint", "userinfo"),
    ] {
        assert_eq!(seen["metadata"][member], format!("{url}/api/auth/{path}"));
    }
    assert_eq!((&seen["before"]["active"], &seen["before"]["username"]), (&json!(true), &json!("ada")));
    assert_eq!(seen["before"]["sub"], signed_up["userClaims"]["userId"]);
    assert_eq!(seen["after"], json!({"active": false}), "at once");
    wait::until("the control plane has heard of it", Duration::from_secs(60), || async {
        let status = people.validate(&b, &token).await;
        if status == 401 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    wait::until("so has who checks offline", BOUND, || async {
        let seen = people.status(&token).await;
        if seen["status"] == 1 { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;

    // The session goes on, until the person logs out.
    let refresh = json!({"refreshToken": signed_up["refreshToken"]});
    let next = send(stack, "refresh", None, None, refresh).await;
    let token = text(&next["accessToken"]);
    assert!(people.is_active(&b, &token).await);
    assert_eq!(people.status(&token).await["status"], 0);
    send(stack, "logout", None, None, json!({"refreshToken": next["refreshToken"]})).await;
    assert_eq!(people.validate(&b, &token).await, 401);
    wait::until("the edge has heard of it", BOUND, || async {
        if people.is_active(&b, &token).await { Err("active".to_owned()) } else { Ok(()) }
    })
    .await;
    assert_eq!(people.status(&token).await["status"], 1);

    // Nothing is issued at the edge.
    let form = [("grant_type", "client_credentials"), ("client_id", &a.id), ("client_secret", &a.key)];
    let reply = edge::send(edge::http().post(format!("{}/oauth2/token", people.issuer)).form(&form)).await;
    assert_eq!(reply.outcome(), "400 unsupported_grant_type");
}
