//! Which pages may call (CORS).

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use crate::support::{Answer, TestApp};

const PAGE: &str = "https://a.example";
const APPS: &str = "/api/organization/acme/client-apps";

/// An app of `acme`'s that lists [`PAGE`], and one that lists nothing: their keys.
async fn two_apps(app: &TestApp) -> [String; 2] {
    app.create("/api/organization", json!({"id": "acme", "name": "Acme"})).await;
    let key = async |body| {
        let made = app.create(APPS, body).await;
        made["data"]["clientAppApiKey"].as_str().unwrap().to_owned()
    };
    [key(json!({"name": "A", "origins": [PAGE]})).await, key(json!({"name": "B"})).await]
}

async fn ask(app: &TestApp, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(Body::empty()).unwrap()).await
}

async fn preflight(app: &TestApp, path: &str, origin: &str) -> Answer {
    let headers = [("origin", origin), ("access-control-request-method", "POST")];
    ask(app, "OPTIONS", path, &headers).await
}

fn allowed(answer: &Answer) -> Option<&str> {
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    answer.header("access-control-allow-origin")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preflight_is_answered_for_every_origin_that_an_app_lists_and_no_other() {
    let app = TestApp::start().await;
    two_apps(&app).await;
    for path in ["/api/auth/login", "/api/auth/token", "/api/organization"] {
        let answer = preflight(&app, path, PAGE).await;
        assert_eq!((answer.status.as_u16(), allowed(&answer)), (204, Some(PAGE)), "{path}");
        assert!(answer.header("access-control-allow-headers").unwrap().contains("apikey"));
        assert!(answer.header("vary").unwrap().to_lowercase().contains("origin"));
        for other in ["https://b.example", "https://a.example.evil.example", "null", ""] {
            let answer = preflight(&app, path, other).await;
            assert_eq!((answer.status.as_u16(), allowed(&answer)), (204, None), "{path} {other}");
        }
    }
    for path in ["/api/internal/org", "/api/auth/authorize", "/api/authority", "/healthz"] {
        assert_eq!(allowed(&preflight(&app, path, PAGE).await), None, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_be_read_by_pages_of_the_app_whose_key_was_sent() {
    let app = TestApp::start().await;
    let [a, b] = two_apps(&app).await;
    let path = "/api/organization/me";
    let by =
        async |key: &str, origin: &str| ask(&app, "GET", path, &[("origin", origin), ("apikey", key)]).await;
    // A refusal may be read too: the page is told why.
    let answer = by(&a, PAGE).await;
    assert_eq!((answer.status.as_u16(), allowed(&answer)), (403, Some(PAGE)));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("x-request-id"));
    for (key, origin) in
        [(a.as_str(), "https://b.example"), (&b, PAGE), ("app_wrong", PAGE), (&app.admin, PAGE)]
    {
        assert_eq!(allowed(&by(key, origin).await), None, "{origin}");
    }
    // What nobody is known by is the owners', and they have no origin here.
    assert_eq!(allowed(&ask(&app, "GET", path, &[("origin", PAGE)]).await), None);
    // Without a page there is nothing to say.
    assert_eq!(allowed(&ask(&app, "GET", path, &[("apikey", &a)]).await), None);
    let two = [("origin", PAGE), ("origin", PAGE), ("apikey", &a)];
    assert_eq!(allowed(&ask(&app, "GET", path, &two).await), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_the_body_alone_may_be_read_by_pages_of_any_app() {
    let app = TestApp::start().await;
    two_apps(&app).await;
    for path in ["/api/auth/refresh", "/api/auth/logout", "/api/auth/sso-exchange", "/api/auth/token"] {
        let read = async |origin: &str| {
            allowed(&ask(&app, "POST", path, &[("origin", origin)]).await).map(str::to_owned)
        };
        assert_eq!(read(PAGE).await.as_deref(), Some(PAGE), "{path}");
        assert_eq!(read("https://b.example").await, None, "{path}");
    }
}
