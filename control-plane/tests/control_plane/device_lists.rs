//! Lists of devices, and their filters.

use serde_json::{Value, json};

use crate::support::TestApp;

const DEVICES: &str = "/api/internal/org/acme/env/prod/device";

async fn started() -> TestApp {
    let app = TestApp::start().await;
    app.acme().await;
    for (id, name, tags) in [
        ("a-1", "Till one", json!({"country": "NZ", "lane": "1"})),
        ("a-2", "Till TWO", json!({"country": "NZ", "lane": "2"})),
        ("b_1", "Kiosk Größe 100%", json!({"country": "US", "lane": "1"})),
        ("c\u{2d}9", "back\\slash", json!({})),
    ] {
        app.create(DEVICES, json!({"id": id, "name": name, "tags": tags})).await;
    }
    app.create("/api/internal/org/acme/env", json!({"id": "test", "name": "Test"})).await;
    let other = json!({"id": "a-1", "name": "Till one", "tags": {"country": "NZ", "lane": "1"}});
    app.create("/api/internal/org/acme/env/test/device", other).await;
    app
}

async fn ids(app: &TestApp, query: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut path = format!("{DEVICES}?limit=1&{query}");
    loop {
        let answer = app.call("GET", &path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        let page = answer.json();
        let items = page["items"].as_array().unwrap();
        found.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match &page["nextCursor"] {
            Value::String(cursor) => path = format!("{DEVICES}?limit=1&{query}&cursor={cursor}"),
            _ => return found,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_find_what_they_say_page_by_page() {
    let app = started().await;
    app.call("POST", &format!("{DEVICES}/a-2/disable"), None).await;
    for (query, expected) in [
        ("", vec!["a-1", "a-2", "b_1", "c-9"]),
        ("tag.country=NZ", vec!["a-1", "a-2"]),
        ("tag.country=NZ&tag.lane=1", vec!["a-1"]),
        ("tag.country=US&tag.lane=2", vec![]),
        ("tag.country=*", vec![]),
        ("tag.absent=x", vec![]),
        ("status=disabled", vec!["a-2"]),
        ("status=registered&tag.lane=1", vec!["a-1", "b_1"]),
        ("q=TILL", vec!["a-1", "a-2"]),
        ("q=till+two", vec!["a-2"]),
        ("q=gr%C3%96%C3%9Fe", vec!["b_1"]),
        ("q=1", vec!["a-1", "b_1"]),
        ("q=B_", vec!["b_1"]),
        ("q=b_1", vec!["b_1"]),
        ("q=%25", vec!["b_1"]),
        ("q=100%25", vec!["b_1"]),
        ("q=_", vec!["b_1"]),
        ("q=%5C", vec!["c-9"]),
        ("q=back%5Cs", vec!["c-9"]),
        ("q=1Till", vec![]),
        ("q=nowhere", vec![]),
        ("q=till&status=disabled&tag.country=NZ", vec!["a-2"]),
    ] {
        assert_eq!(ids(&app, query).await, expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_changes_is_found_as_it_is_now() {
    let app = started().await;
    let patch = json!({"tags": {"country": "US", "lane": null, "new": "=&/?"}});
    app.call("PATCH", &format!("{DEVICES}/a-1"), Some(patch)).await;
    assert_eq!(ids(&app, "tag.country=NZ").await, ["a-2"]);
    assert_eq!(ids(&app, "tag.country=US").await, ["a-1", "b_1"]);
    assert_eq!(ids(&app, "tag.lane=1").await, ["b_1"]);
    assert_eq!(ids(&app, "tag.new=%3D%26%2F%3F").await, ["a-1"]);
    app.call("DELETE", &format!("{DEVICES}/a-1"), None).await;
    assert_eq!(ids(&app, "tag.country=US").await, ["b_1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_is_wrong_is_refused_by_name() {
    let app = started().await;
    let long = format!("q={}", "x".repeat(201));
    let long_tag = format!("tag.a={}", "x".repeat(257));
    for (query, field) in [
        ("status=asleep", "status"),
        ("status=ACTIVE", "status"),
        ("q=", "q"),
        ("q=a%00b", "q"),
        ("q=a%0Ab", "q"),
        (&long, "q"),
        ("q=a&q=b", "q"),
        ("tag.=x", "tag."),
        ("tag.a%00=x", "tag.a\u{0}"),
        ("tag.a=x%00", "tag.a"),
        ("tag.a%20b=x", "tag.a b"),
        (&long_tag, "tag.a"),
        ("tag.a=1&tag.a=2", "tag.a"),
        ("tag=x", "tag"),
        ("cursor=AA", "cursor"),
        ("cursor=Li4vLi4", "cursor"),
        ("order=name", "order"),
    ] {
        let answer = app.call("GET", &format!("{DEVICES}?{query}"), None).await;
        answer.assert_problem(400, "invalid_request");
        assert_eq!(answer.wrong_fields(), [field], "{query}");
    }
    let many = (0..65).map(|n| format!("tag.t{n}=x")).collect::<Vec<_>>().join("&");
    let answer = app.call("GET", &format!("{DEVICES}?{many}"), None).await;
    assert_eq!(answer.wrong_fields(), ["tag"], "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tags_can_be_asked_for_at_once() {
    let app = started().await;
    let tags: serde_json::Map<String, Value> = (0..64).map(|n| (format!("t{n}"), json!("x"))).collect();
    app.create(DEVICES, json!({"id": "many", "name": "Many", "tags": tags})).await;
    let query = (0..64).map(|n| format!("tag.t{n}=x")).collect::<Vec<_>>().join("&");
    assert_eq!(ids(&app, &query).await, ["many"]);
}
