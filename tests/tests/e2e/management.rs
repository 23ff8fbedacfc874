//! The management API, as far as the first token needs it: who may, and what is said to whom.

use keypost_tests::admin::Admin;
use keypost_tests::stack;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn without_a_key_nothing_is_reached() {
    let stack = stack::shared().await;
    let nearly = format!("{}x", &stack.admin().key[..stack.admin().key.len() - 1]);
    for key in ["", "nonsense", "kp_admin_short", &nearly] {
        let stranger = Admin::new(&stack.control_plane_url(), key);
        for path in ["/internal/org/any", "/internal/org/any/env/any", "/internal/sync"] {
            let answer = stranger.send(Method::GET, path, Value::Null).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} with {key:?}: {}", answer.body);
            assert_eq!(answer.headers["content-type"], "application/problem+json");
        }
    }
}

#[tokio::test]
async fn bad_input_is_told_which_field_is_wrong() {
    let fleet = stack::shared().await.admin().fleet("bad-input").await;
    let (org, device) = ("/internal/org".to_owned(), format!("{}/device", fleet.path));
    fleet.device("pos-1").await;
    let app = format!("{device}/pos-1/app");
    let long = "x".repeat(201);
    let cases = [
        (&org, json!({"id": "UPPER", "name": "n"}), "id"),
        (&org, json!({"id": "x".repeat(64), "name": "n"}), "id"),
        (&org, json!({"id": "fine"}), "name"),
        (&org, json!({"id": "fine", "name": ""}), "name"),
        (&org, json!({"id": "fine", "name": long}), "name"),
        (&org, json!({"id": "fine", "name": "a\u{0}b"}), "name"),
        (&org, json!({"id": "fine", "name": "n", "nmae": "n"}), "nmae"),
        (&device, json!({"id": "a/b", "name": "n"}), "id"),
        (&device, json!({"id": "fine", "name": "n", "metadata": []}), "metadata"),
        (&device, json!({"id": "fine", "name": "n", "metadata": {"x": "x".repeat(17_000)}}), "metadata"),
        (&device, json!({"id": "fine", "name": "n", "tags": {"a": 1}}), "tags"),
        (&device, json!({"id": "fine", "name": "n", "serverUrls": ["not a url"]}), "serverUrls"),
        (&app, json!({"clientAppId": "Client", "scopes": ["device"]}), "clientAppId"),
        (&app, json!({"clientAppId": "other", "scopes": ["two words"]}), "scopes"),
    ];
    for (path, body, field) in cases {
        let answer = fleet.admin.send(Method::POST, path, body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert!(answer.body["errors"].to_string().contains(field), "{path} {body}: {}", answer.body);
        for member in ["type", "title", "status", "detail", "code"] {
            assert!(answer.body.get(member).is_some(), "no {member}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn duplicates_are_conflicts_and_unknown_parents_are_not_found() {
    let fleet = stack::shared().await.admin().fleet("duplicates").await;
    fleet.device("pos-1").await;
    let admin = &fleet.admin;
    let device = json!({"id": "pos-1", "name": "again"});
    for (path, body) in [
        ("/internal/org".to_owned(), json!({"id": "duplicates", "name": "again"})),
        ("/internal/org/duplicates/env".to_owned(), json!({"id": "production", "name": "again"})),
        (format!("{}/device", fleet.path), device.clone()),
        (format!("{}/device/pos-1/app", fleet.path), json!({"clientAppId": "client", "scopes": ["device"]})),
    ] {
        let answer = admin.send(Method::POST, &path, body).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{path}: {}", answer.body);
    }
    for path in ["/internal/org/nobody/env/production/device", "/internal/org/duplicates/env/nowhere/device"]
    {
        assert_eq!(
            admin.send(Method::POST, path, device.clone()).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_probes_need_no_key() {
    let stack = stack::shared().await;
    for path in ["/healthz", "/readyz"] {
        let reply = keypost_tests::edge::get(&format!("{}{path}", stack.control_plane_url())).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    }
}
