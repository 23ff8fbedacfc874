//! People sign in at the hosted page: a standard OpenID Connect client, and a real Chromium that runs no scripts.

use keypost_tests::{clients, stack};
use serde_json::{Value, json};

const SCOPE: &str = "openid profile email offline_access";

async fn client_app(organization: &str, name: &str) -> Value {
    let admin = stack::shared().await.admin();
    let body = json!({"name": name, "redirectUris": ["http://127.0.0.1/callback"]});
    let answer = admin.create(&format!("/organization/{organization}/client-apps"), body).await;
    let app = &answer["data"];
    json!({"id": app["id"], "key": app["clientAppApiKey"]})
}

async fn organization(id: &str) -> String {
    let admin = stack::shared().await.admin();
    admin.create("/internal/org", json!({"id": id, "name": "Tech Solutions"})).await;
    let answer = admin.get(&format!("/organization/{id}")).await;
    answer["data"]["ssoIssuer"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn openid_client_signs_people_in_with_chromium() {
    let issuer = organization("openid").await;
    let (a, b) = (client_app("openid", "Driver app").await, client_app("openid", "Dispatch").await);
    // The issuer is at the edge as soon as its document is in KV.
    wait_for(&issuer).await;
    let seen = clients::run(
        "openid-connect.mjs",
        json!({
            "issuer": issuer, "chromium": stack::test_env().chromium, "apps": {"a": a, "b": b},
            "username": "ada", "email": "ada@example.org", "password": "four unlikely words together",
        }),
    )
    .await;

    // The pages, as a screen reader tells of them.
    assert_eq!(seen["signInPage"]["heading"], "Sign in to Driver app");
    assert_eq!(seen["signInPage"]["title"], "Sign in to Driver app");
    assert_eq!(seen["signInPage"]["focused"], "username");
    assert_eq!(seen["signUpPage"]["heading"], "Create an account for Driver app");
    assert_eq!(seen["commonPassword"]["invalid"], json!(["password"]), "{seen}");
    let described = seen["commonPassword"]["described"].to_string();
    assert!(described.contains("common"), "{described}");
    assert_eq!(seen["commonPassword"]["focused"], "password");
    assert_eq!(seen["hinted"]["username"], "ada");
    assert_eq!(seen["hinted"]["focused"], "password");
    let wrong = &seen["wrongPassword"];
    assert_eq!(wrong["alert"], "The username or the password is wrong.");
    assert_eq!(wrong["title"], "Error: Sign in to Driver app");
    assert_eq!(wrong["invalid"], json!(["username", "password"]));
    assert_eq!(wrong["described"], json!([[wrong["alert"]], [wrong["alert"]]]));

    // What came of it.
    let signed_in = &seen["signedIn"]["claims"];
    assert_eq!(seen["signedIn"]["scope"], SCOPE);
    assert_eq!(signed_in["preferred_username"], "ada");
    assert_eq!(signed_in["email"], "ada@example.org");
    assert_eq!(signed_in["sub"], seen["signedUp"]["sub"], "the same person");
    assert_ne!(signed_in["sid"], seen["signedUp"]["sid"], "in another browser");
    assert_eq!(seen["verified"]["header"]["alg"], "ES256");
    assert_eq!(seen["verified"]["claims"], *signed_in);
    assert_eq!(seen["accessToken"]["clientAppId"], a["id"]);
    assert_eq!(seen["accessToken"]["aud"], json!([a["id"], "openid"]));
    assert_eq!(seen["userInfo"]["email"], "ada@example.org");
    for silent in ["atB", "silently"] {
        assert_eq!(seen[silent]["sid"], signed_in["sid"], "{silent}");
        assert_eq!(seen[silent]["sub"], signed_in["sub"], "{silent}");
        assert_eq!(seen[silent]["aud"], b["id"], "{silent}");
    }
    assert_eq!(seen["insisted"]["heading"], "Sign in to Dispatch");
    assert_eq!(seen["stranger"], "login_required");
    assert_eq!(seen["refreshed"]["another"], true);
    assert_eq!(seen["refreshed"]["claims"]["sid"], signed_in["sid"]);
    let exchanged = &seen["exchanged"];
    assert_eq!(exchanged["claims"]["sid"], signed_in["sid"]);
    assert_eq!(exchanged["claims"]["clientAppId"], b["id"]);
    assert_eq!(exchanged["issuedTokenType"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(exchanged["hasRefreshToken"], true);
}

async fn wait_for(issuer: &str) {
    use keypost_tests::{edge, wait};
    let url = format!("{issuer}/.well-known/openid-configuration");
    wait::until("the issuer at the edge", std::time::Duration::from_secs(75), || async {
        let answer = edge::http().get(&url).send().await.map_err(|error| error.to_string())?;
        if answer.status() == 200 { Ok(()) } else { Err(answer.status().to_string()) }
    })
    .await;
}
