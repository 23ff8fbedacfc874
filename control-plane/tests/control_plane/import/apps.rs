//! Imports that also make apps, and what activates them.

use keypost::service::access::Permission;
use keypost_shared::secret::SecretText;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{DEVICES, IMPORT, csv, device, lines, ndjson, send, summary, told};
use crate::support::TestApp;

fn rows(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{{\"id\":\"d-{n}\",\"name\":\"Device {n}\"}}\n")).collect()
}

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_time_passwords_come_with_the_answer_and_activate() {
    let app = TestApp::start().await;
    app.acme().await;
    let (made, counts) = ndjson(&app, "?app=client&scopes=device,report&ttlSeconds=3600", rows(0..3)).await;
    assert_eq!(counts, summary([3, 0, 0, 0, 0]));
    assert_eq!(told(&made), [(1, "created", vec![]), (2, "created", vec![]), (3, "created", vec![])]);
    let activated = app.activate(json!({"otp": text(&made[0], "otp"), "deviceId": "d-0"})).await;
    assert_eq!(activated.status, 200, "{}", activated.text);
    let activated = activated.json();
    assert_eq!(activated["clientId"], made[0]["clientId"]);
    assert_eq!((&activated["scopes"], &activated["published"]), (&json!(["device", "report"]), &json!(true)));
    let ttl = "select count(*) from otp where expires_at - created_at = interval '1 hour'";
    assert_eq!(app.database.number(ttl).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_is_finished_by_repeating_it_and_takes_nothing_from_what_is_activated() {
    let app = TestApp::start().await;
    app.acme().await;
    let (made, _) = ndjson(&app, "?app=client", rows(0..3)).await;
    let first = app.activate(json!({"otp": text(&made[0], "otp")})).await;
    assert_eq!(first.status, 200);
    // As if an answer had been lost: what has not been activated gets something new, and the old password ends.
    let (again, counts) = ndjson(&app, "?app=client", rows(0..4)).await;
    assert_eq!(
        told(&again),
        [(1, "unchanged", vec![]), (2, "issued", vec![]), (3, "issued", vec![]), (4, "created", vec![])]
    );
    assert_eq!(counts, summary([1, 2, 1, 0, 0]));
    let old = app.activate(json!({"otp": text(&made[1], "otp")})).await;
    old.assert_problem(400, "invalid_otp");
    assert_eq!(app.activate(json!({"otp": text(&again[1], "otp")})).await.status, 200);
    let secrets = "select count(*) from oauth_client where previous_secret_hash is not null";
    assert_eq!(app.database.number(secrets).await, 0, "no secret was replaced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_row_does_not_end_the_password_of_the_first() {
    let app = TestApp::start().await;
    app.acme().await;
    // The second d-0 is in the same batch, the third in another.
    let body = format!("{}{}{}{}", rows(0..1), rows(0..1), rows(1..1200), rows(0..1));
    let (made, counts) = ndjson(&app, "?app=client", body).await;
    assert_eq!(counts, summary([1200, 0, 2, 0, 0]));
    assert_eq!((&made[1]["status"], &made[1201]["status"]), (&json!("unchanged"), &json!("unchanged")));
    assert_eq!(app.activate(json!({"otp": text(&made[0], "otp")})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_with_their_secrets_and_are_published() {
    let app = TestApp::start().await;
    let environment = app.acme().await;
    let (made, counts) = ndjson(&app, "?app=client&issue=client", rows(0..2)).await;
    assert_eq!(counts, summary([2, 0, 0, 0, 0]));
    for line in &made {
        let client = text(line, "clientId");
        let hash = SecretText::new(text(line, "clientSecret").to_owned()).hash();
        let stored: Vec<u8> = sqlx::query_scalar("select secret_hash from oauth_client where client_id = $1")
            .bind(client)
            .fetch_one(&app.database.pool)
            .await
            .unwrap();
        assert_eq!(stored, hash.as_bytes());
        assert!(line.get("otp").is_none());
        let key = format!("v1/client/{}/{client}", environment["clientPoolId"].as_str().unwrap());
        crate::support::eventually("the client is published", async || {
            app.kv.get(&key.parse().unwrap()).is_some()
        })
        .await;
    }
    assert_eq!(device(&app, "d-0").await["status"], "active");
    // Nobody can tell whether a secret is in use, so a repetition leaves it alone.
    let (again, counts) = ndjson(&app, "?app=client&issue=client", rows(0..2)).await;
    assert_eq!(
        (told(&again), counts),
        (vec![(1, "unchanged", vec![]), (2, "unchanged", vec![])], summary([0, 0, 2, 0, 0]))
    );
    assert_eq!(ndjson(&app, "?app=client", rows(0..2)).await.1, summary([0, 0, 2, 0, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_are_there_get_what_they_lack() {
    let app = TestApp::start().await;
    app.acme().await;
    assert_eq!(ndjson(&app, "", rows(0..4)).await.1, summary([4, 0, 0, 0, 0]));
    app.create(&format!("{DEVICES}/d-1/app"), json!({"clientAppId": "client", "scopes": ["device"]})).await;
    app.create(&format!("{DEVICES}/d-2/app"), json!({"clientAppId": "client", "scopes": ["other"]})).await;
    app.database.execute("update device set status = 'disabled' where id = 'd-3'").await.unwrap();
    let body = format!("{}{{\"id\":\"d-0\",\"name\":\"other\"}}\n", rows(0..4));
    for (query, credential) in [("?app=client&issue=client", "clientSecret"), ("?app=second", "otp")] {
        let (made, _) = ndjson(&app, query, body.clone()).await;
        let expected = vec![
            (1, "issued", vec![]),
            (2, "issued", vec![]),
            if query == "?app=second" { (3, "issued", vec![]) } else { (3, "conflict", vec!["scopes"]) },
            (4, "unchanged", vec![]),
            (5, "conflict", vec!["name"]),
        ];
        assert_eq!(told(&made), expected, "{query}");
        assert!(made[..2].iter().all(|line| !text(line, credential).is_empty()));
    }
    assert_eq!(device(&app, "d-0").await["status"], "active");
    assert_eq!(device(&app, "d-3").await["status"], "disabled");
    assert_eq!(app.database.number("select count(*) from device_app where device_id = 'd-3'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_make_no_passwords_may_import_devices_alone() {
    let app = TestApp::start().await;
    app.acme().await;
    let narrow = app.key(Some("acme"), Some(&[Permission::DeviceWrite])).await;
    let wide = app.key(Some("acme"), Some(&[Permission::DeviceWrite, Permission::OtpCreate])).await;
    let ask = async |key: &str, query: &str| {
        let request = axum::http::Request::builder()
            .method("POST")
            .uri(format!("{IMPORT}{query}"))
            .header("x-api-key", key)
            .header("content-type", "text/csv");
        app.send(request.body(axum::body::Body::from("id,name\nd-0,Device\n")).unwrap()).await
    };
    for query in ["?app=client", "?app=client&issue=client"] {
        ask(&narrow, query).await.assert_problem(403, "forbidden");
    }
    assert_eq!(lines(&ask(&narrow, "").await).1, summary([1, 0, 0, 0, 0]));
    assert_eq!(lines(&ask(&wide, "?app=client").await).1, summary([0, 1, 0, 0, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_batch_leaves_one_audit_event_with_its_digest() {
    let app = TestApp::start().await;
    app.acme().await;
    let heading = "id,name,tags.t,metadata.m,serverUrls\n";
    let row = |n: u32| format!("d-{n:04},Device {n},v,w,http://a|http://b\n");
    let body: String = std::iter::once(heading.to_owned()).chain((0..1500).map(row)).collect();
    assert_eq!(csv(&app, "?app=client", body.clone()).await.1, summary([1500, 0, 0, 0, 0]));
    let events = async || -> Vec<Value> {
        sqlx::query_scalar(
            "select changes::jsonb from audit_event where action = 'device.import' order by seq",
        )
        .fetch_all(&app.database.pool)
        .await
        .unwrap()
    };
    let told = events().await;
    let counted: Vec<Value> = told
        .iter()
        .map(|event| {
            json!([
                event["after"]["devices"],
                event["after"]["otps"],
                event["after"]["firstLine"],
                event["after"]["lastLine"]
            ])
        })
        .collect();
    assert_eq!(counted, [json!([1000, 1000, 2, 1001]), json!([500, 500, 1002, 1501])]);

    // From the rows as they are stored, by what is documented.
    let stored: Vec<(String, String, String, String)> = sqlx::query_as(
        "select d.id, d.name, d.metadata::text, c.client_id
           from device d join device_app a on a.device_id = d.id join oauth_client c on c.device_app_id = a.id
          where d.id >= 'd-1000' order by d.id",
    )
    .fetch_all(&app.database.pool)
    .await
    .unwrap();
    let mut hash = Sha256::new();
    for (id, name, metadata, _) in &stored {
        let urls = ["http://a", "http://b"];
        hash.update(format!("{}\n", json!([id, name, null, metadata, {"t": "v"}, null, urls])));
    }
    for (id, _, _, client) in &stored {
        hash.update(format!("{}\n", json!([id, "client", client, ["device"]])));
    }
    assert_eq!(told[1]["after"]["digest"], format!("{:x}", hash.finalize()));

    // What makes nothing leaves none.
    let answer = send(&app, "", "text/csv", body).await;
    assert_eq!(lines(&answer).1, summary([0, 0, 1500, 0, 0]));
    assert_eq!(events().await.len(), 2);
    let secrets = "select count(*) from audit_event e where exists
        (select from otp o where position(encode(o.code_hmac, 'hex') in e.changes::text) > 0)";
    assert_eq!(app.database.number(secrets).await, 0);
}
