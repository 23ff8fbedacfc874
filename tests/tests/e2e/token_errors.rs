//! What the token endpoint answers to what it should not be sent: in real workerd, over real HTTP.

use base64ct::{Base64, Encoding};
use keypost_tests::{admin::Credentials, edge, stack};
use reqwest::{Method, RequestBuilder};

const FORM: &str = "application/x-www-form-urlencoded";

async fn credentials(organization: &str) -> Credentials {
    stack::shared().await.admin().fleet(organization).await.activated("pos-1").await
}

fn post(url: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    edge::http().post(url).header("content-type", FORM).body(body)
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", Base64::encode_string(format!("{id}:{secret}").as_bytes()))
}

#[tokio::test]
async fn every_error_of_rfc_6749_comes_with_its_status_and_headers() {
    let c = credentials("token-errors").await;
    let (id, secret, url) = (&c.client_id, &c.client_secret, &c.token_endpoint);
    let good = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    let unknown = "00000000-0000-5000-8000-000000000000";
    let cases = [
        ("nothing", post(url, ""), "400 invalid_request"),
        (
            "an unknown grant type",
            post(url, good.replace("client_credentials", "magic")),
            "400 unsupported_grant_type",
        ),
        ("no credentials", post(url, "grant_type=client_credentials"), "401 invalid_client"),
        ("a wrong secret", post(url, format!("{good}x")), "401 invalid_client"),
        ("an unknown client", post(url, good.replace(id.as_str(), unknown)), "401 invalid_client"),
        (
            "no secret",
            post(url, format!("grant_type=client_credentials&client_id={id}")),
            "401 invalid_client",
        ),
        ("a repeated parameter", post(url, format!("{good}&client_id={id}")), "400 invalid_request"),
        ("broken percent-encoding", post(url, format!("{good}&x=%4")), "400 invalid_request"),
        ("no UTF-8", post(url, format!("{good}&x=%C3")), "400 invalid_request"),
        (
            "binary rubbish",
            post(url, (0..=255_u8).cycle().take(4000).collect::<Vec<_>>()),
            "400 invalid_request",
        ),
        ("a scope not granted", post(url, format!("{good}&scope=device+admin")), "400 invalid_scope"),
        ("a malformed scope", post(url, format!("{good}&scope=%22")), "400 invalid_scope"),
        ("a body of 1 MiB", post(url, format!("{good}&x={}", "x".repeat(1 << 20))), "413 invalid_request"),
        (
            "JSON",
            edge::http().post(url).header("content-type", "application/json").body("{}"),
            "400 invalid_request",
        ),
        ("no content type", edge::http().post(url).body(good.clone()), "400 invalid_request"),
        (
            "credentials in two places",
            post(url, good.clone()).header("authorization", basic(id, secret)),
            "400 invalid_request",
        ),
        (
            "another client_id beside Basic",
            post(url, format!("grant_type=client_credentials&client_id={unknown}"))
                .header("authorization", basic(id, secret)),
            "400 invalid_request",
        ),
    ];
    for (what, request, expected) in cases {
        let reply = edge::send(request).await;
        assert_eq!(reply.outcome(), expected, "{what}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
        assert_eq!(reply.header("content-type"), Some("application/json"), "{what}");
        assert!(reply.header("x-request-id").is_some(), "{what}");
        assert!(reply.header("www-authenticate").is_none(), "{what}");
    }
    assert_eq!(edge::send(post(url, format!("{good}&empty=&unknown=1"))).await.outcome(), "200");
}

#[tokio::test]
async fn failed_basic_authentication_is_challenged() {
    let c = credentials("basic-errors").await;
    let request = |header: &str| {
        post(&c.token_endpoint, "grant_type=client_credentials").header("authorization", header)
    };
    assert_eq!(edge::send(request(&basic(&c.client_id, &c.client_secret))).await.outcome(), "200");
    let broken_encoding = basic(&c.client_id, "%zz");
    for header in
        [basic(&c.client_id, "wrong").as_str(), "Basic ???", "Basic YQ==", "Bearer abc", &broken_encoding]
    {
        let reply = edge::send(request(header)).await;
        assert_eq!(reply.outcome(), "401 invalid_client", "{header}");
        assert!(
            reply.header("www-authenticate").is_some_and(|value| value.starts_with("Basic ")),
            "{header}"
        );
    }
}

#[tokio::test]
async fn an_unknown_client_a_wrong_secret_and_a_stranger_look_the_same() {
    let fleet = stack::shared().await.admin().fleet("same-look").await;
    let c = fleet.activated("pos-1").await;
    fleet.device("never-activated").await;
    let app = fleet.admin.get(&format!("{}/device/never-activated/app/client", fleet.path)).await;
    let ask = async |client_id: &str| {
        let body = format!("grant_type=client_credentials&client_id={client_id}&client_secret=x");
        let reply = edge::send(post(&c.token_endpoint, body)).await;
        let mut names: Vec<String> = reply.headers.keys().map(|name| name.to_string()).collect();
        names.sort();
        (reply.status, reply.body, names)
    };
    let wrong = ask(&c.client_id).await;
    for other in ["00000000-0000-5000-8000-000000000000", "%2e%2e", app["clientId"].as_str().unwrap()] {
        assert_eq!(ask(other).await, wrong, "{other}");
    }
}

#[tokio::test]
async fn other_methods_get_405_and_unknown_places_404() {
    let c = credentials("methods").await;
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::DELETE] {
        let response = edge::http().request(method.clone(), &c.token_endpoint).send().await.unwrap();
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(response.headers()["allow"], "POST, OPTIONS", "{method}");
    }
    assert_eq!(edge::send(post(&c.jwks_uri, "")).await.status, 405);
    let edge_url = stack::shared().await.edge_url();
    let nobody = "00000000-0000-4000-8000-000000000000";
    for path in [
        "/",
        "/nowhere",
        "//",
        "/%2e%2e/etc",
        &format!("/{nobody}/.well-known/jwks.json"),
        &format!("/.well-known/oauth-authorization-server/{nobody}"),
    ] {
        assert_eq!(edge::get(&format!("{edge_url}{path}")).await.status, 404, "{path}");
    }
    let body = "grant_type=client_credentials&client_id=x&client_secret=y";
    assert_eq!(edge::send(post(&format!("{edge_url}/{nobody}/oauth2/token"), body)).await.status, 404);
}

#[tokio::test]
async fn another_pools_credentials_are_nobodys_here() {
    let (ours, theirs) = (credentials("tenant-a").await, credentials("tenant-b").await);
    let mixed = Credentials { token_endpoint: theirs.token_endpoint, ..ours };
    assert_eq!(edge::token(&mixed).await.outcome(), "401 invalid_client");
}
