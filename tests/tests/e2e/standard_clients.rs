//! Libraries that other people wrote get tokens and verify them.

use keypost_tests::{admin::Credentials, clients, edge, stack};
use serde_json::{Value, json};

async fn credentials(organization: &str) -> Credentials {
    stack::shared().await.admin().fleet(organization).await.activated("pos-terminal-001").await
}

/// Verifies a token with npm `jose`, PyJWT and Authlib, and gives back its claims.
async fn verify(credentials: &Credentials, token: &str) -> Value {
    let input = json!({"token": token, "jwksUri": credentials.jwks_uri, "issuer": credentials.issuer});
    let jose = clients::run("jose.mjs", input.clone()).await;
    assert_eq!(jose["header"]["alg"], "ES256");
    assert_eq!(jose["header"]["typ"], "JWT");
    let python = clients::run("verify.py", input).await;
    assert_eq!(python["pyjwt"], jose["claims"]);
    assert_eq!(python["authlib"], jose["claims"]);
    jose["claims"].clone()
}

#[tokio::test]
async fn a_token_verifies_with_jose_pyjwt_and_authlib() {
    let credentials = credentials("verifiers").await;
    let reply = edge::token(&credentials).await;
    let claims = verify(&credentials, reply.access_token()).await;
    assert_eq!(claims["sub"], "pos-terminal-001");
    assert_eq!(claims["scope"], json!(["device"]));
}

#[tokio::test]
async fn openid_client_gets_tokens_through_discovery_by_basic_and_by_post() {
    let credentials = credentials("openid-client").await;
    for method in ["basic", "post"] {
        for algorithm in ["oidc", "oauth2"] {
            let input = json!({
                "issuer": credentials.issuer, "clientId": credentials.client_id,
                "clientSecret": credentials.client_secret, "method": method, "algorithm": algorithm,
            });
            let response = clients::run("openid-client.mjs", input).await;
            assert_eq!(response["scope"], "device", "{method} {algorithm}");
            verify(&credentials, response["access_token"].as_str().unwrap()).await;
        }
    }
}

#[tokio::test]
async fn oauth4webapi_gets_a_token_with_form_encoded_basic() {
    let credentials = credentials("oauth4webapi").await;
    let input = json!({
        "issuer": credentials.issuer, "clientId": credentials.client_id, "clientSecret": credentials.client_secret,
    });
    let response = clients::run("oauth4webapi.mjs", input).await;
    verify(&credentials, response["access_token"].as_str().unwrap()).await;
}

#[tokio::test]
async fn authlib_gets_tokens_with_raw_basic_and_with_post() {
    let credentials = credentials("authlib").await;
    for method in ["client_secret_basic", "client_secret_post"] {
        let input = json!({
            "tokenEndpoint": credentials.token_endpoint, "clientId": credentials.client_id,
            "clientSecret": credentials.client_secret, "method": method,
        });
        let response = clients::run("authlib_client.py", input).await;
        verify(&credentials, response["access_token"].as_str().unwrap()).await;
    }
}
