//! Libraries that other people wrote get tokens and verify them.

use std::time::Duration;

use keypost_tests::openssl::{Authority, Kind};
use keypost_tests::{admin::Credentials, clients, edge, stack, wait};
use serde_json::{Value, json};

use crate::certificates::upload;

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
async fn openid_client_proves_itself_by_a_key_that_was_registered() {
    let fleet = stack::shared().await.admin().fleet("openid-client-key").await;
    for (kind, algs) in
        [(Kind::Rsa, &["RS256", "PS256"][..]), (Kind::P256, &["ES256"]), (Kind::P384, &["ES384"])]
    {
        let authority = Authority::new(kind);
        let keys = authority.device("05243", "somebody");
        let body = json!({"name": "Reports", "scopes": ["reports"], "jwks": {"keys": [keys.public_jwk()]}});
        let client = fleet.admin.create(&format!("{}/client", fleet.path), body).await;
        fleet.admin.published(&client).await;
        let credentials = Credentials {
            issuer: fleet.issuer().to_owned(),
            token_endpoint: format!("{}/oauth2/token", fleet.issuer()),
            jwks_uri: fleet.environment["jwksUri"].as_str().unwrap().to_owned(),
            client_id: client["clientId"].as_str().unwrap().to_owned(),
            client_secret: client["clientSecret"].as_str().unwrap().to_owned(),
        };
        for (alg, algorithm) in algs.iter().flat_map(|alg| [(alg, "oidc"), (alg, "oauth2")]) {
            let input = json!({
                "issuer": credentials.issuer, "clientId": credentials.client_id, "method": "key",
                "privateKey": keys.key_pem(), "alg": alg, "algorithm": algorithm,
            });
            let response = clients::run("openid-client.mjs", input).await;
            assert_eq!(response["scope"], "reports", "{alg} {algorithm}");
            let claims = verify(&credentials, response["access_token"].as_str().unwrap()).await;
            assert_eq!(claims["sub"], client["clientId"]);
        }

        // An assertion that is good by itself, and a secret that is good by itself.
        let now = stack::unix_now();
        let assertion = |jti: &str| {
            let claims = json!({
                "iss": credentials.client_id, "sub": credentials.client_id, "aud": credentials.issuer,
                "exp": now + 60, "jti": jti,
            });
            keys.sign(&json!({"alg": algs[0]}), &claims)
        };
        let form = |assertion: String| {
            [
                ("grant_type", "client_credentials".to_owned()),
                (
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned(),
                ),
                ("client_assertion", assertion),
            ]
        };
        let request = edge::http().post(&credentials.token_endpoint).form(&form(assertion("1")));
        let both = request.basic_auth(&credentials.client_id, Some(&credentials.client_secret));
        assert_eq!(edge::send(both).await.outcome(), "400 invalid_request");
        for (jti, outcome) in [("2", "200"), ("2", "401 invalid_client"), ("3", "200")] {
            let request = edge::http().post(&credentials.token_endpoint).form(&form(assertion(jti)));
            assert_eq!(edge::send(request).await.outcome(), outcome, "{jti}");
        }
    }
}

#[tokio::test]
async fn openid_client_proves_itself_by_its_devices_certificate() {
    let fleet = stack::shared().await.admin().fleet("openid-client-x5c").await;
    for (kind, alg) in [(Kind::Rsa, "RS256"), (Kind::P256, "ES256")] {
        let authority = Authority::new(kind);
        upload(&fleet, &authority, None).await;
        let name = format!("pos-{alg}");
        let device = authority.device("05243", &name);
        let credentials = fleet.activated(&name).await;
        let mut input = json!({
            "issuer": credentials.issuer, "clientId": credentials.client_id, "method": "key",
            "privateKey": device.key_pem(), "alg": alg, "algorithm": "oauth2", "x5c": device.x5c,
        });
        // The root is at the edge after a while.
        wait::until("the root at the edge", Duration::from_secs(75), || async {
            let reply = edge::send(edge::http().post(&credentials.token_endpoint).form(&[
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ("assertion", &device.assertion(alg, &credentials.issuer, stack::unix_now())),
            ]))
            .await;
            if reply.status == 200 { Ok(()) } else { Err(format!("{reply:?}")) }
        })
        .await;
        let response = clients::run("openid-client.mjs", input.clone()).await;
        assert_eq!(response["scope"], "device", "{alg}");
        let claims = verify(&credentials, response["access_token"].as_str().unwrap()).await;
        assert_eq!(claims["sub"], name);
        assert_eq!(claims["client_id"], credentials.client_id);

        // Without the chain its key is nobody's: the client has registered none.
        input.as_object_mut().unwrap().remove("x5c");
        let refused = clients::fails("openid-client.mjs", input).await;
        assert!(refused.contains("invalid_client"), "{refused}");
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
