//! What each command does against the real API.

use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use super::{Server, finish, finish_with, keypost};
use crate::support::TestApp;

const IN_PROD: [&str; 4] = ["--org", "acme", "--env", "prod"];

/// A command within `acme`'s environment `prod`.
fn in_prod<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [words, &IN_PROD].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_made_and_activated_by_commands_alone() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    let made = server.run(&["org", "create", "acme", "--name", "Acme", "--json"]).await.json();
    assert_eq!((&made[0]["id"], made.len()), (&json!("acme"), 1));
    let tags = ["--tag-default", "country=*", "--tag-default", "site=none"];
    let made =
        [&["env", "create", "prod", "--org", "acme", "--name", "Production", "--json"], &tags[..]].concat();
    let made = server.run(&made).await.json();
    assert_eq!(made[0]["tagDefaults"], json!({"country": "*", "site": "none"}));
    assert_eq!(made[0]["published"], true);

    let device = [
        "device",
        "create",
        "till-1",
        "--name",
        "Till 1",
        "--tag",
        "country=US",
        "--metadata",
        r#"{"lane": 12345678901234567890123}"#,
        "--server-url",
        "http://localhost:1",
        "--json",
    ];
    let made = server.run(&in_prod(&device)).await;
    assert!(made.stdout.contains(r#""lane":12345678901234567890123"#), "to the digit: {made:?}");
    assert_eq!(made.json()[0]["serverUrls"], json!(["http://localhost:1"]));
    let made =
        server.run(&in_prod(&["app", "create", "client", "--device", "till-1", "--json"])).await.json();
    assert_eq!(made[0]["scopes"], json!(["device"]));

    let otp = server.run(&in_prod(&["otp", "create", "--device", "till-1"])).await;
    assert!(otp.stderr.contains("expiresAt") && !otp.stderr.contains(otp.stdout.trim()), "{otp:?}");
    let activated = app.activate(json!({"otp": otp.ok().trim_end(), "deviceId": "till-1"})).await;
    assert_eq!(activated.status, 200, "{}", activated.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_get_tables() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    let devices = "/api/internal/org/acme/env/prod/device";
    let metadata = json!({"note": "fragile", "deep": {"er": [1]}});
    let body =
        json!({"id": "till-1", "name": "Till ä漢", "tags": {"a": "1", "b": "2"}, "metadata": metadata});
    app.create(devices, body).await;
    let shown = server.run(&in_prod(&["device", "get", "till-1"])).await.ok();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.contains(&"name                    Till ä漢"), "{shown}");
    assert!(lines.contains(&r#"metadata                deep={"er":[1]}"#), "{shown}");
    assert!(lines.contains(&"                        note=fragile"), "{shown}");
    assert!(lines.contains(&"tags                    a=1"), "{shown}");
    assert!(lines.contains(&"lastActivatedAt         -"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_changed_field_by_field() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    let change = ["pool", "update", "--token-ttl", "1200", "--audience", "a", "--audience", "b", "--json"];
    let changed = server.run(&in_prod(&change)).await.json();
    assert_eq!((&changed[0]["tokenTtlSeconds"], &changed[0]["audience"]), (&json!(1200), &json!(["a", "b"])));
    let patch = r#"{"claimsProfile": "rfc9068"}"#;
    let change = ["pool", "update", "--clear", "audience", "--patch", patch, "--json"];
    let changed = server.run(&in_prod(&change)).await.json();
    assert_eq!((&changed[0]["tokenTtlSeconds"], &changed[0]["audience"]), (&json!(1200), &json!([])));
    assert_eq!(changed[0]["claimsProfile"], "rfc9068");
    let shown = server.run(&in_prod(&["pool", "get"])).await.ok();
    assert!(shown.contains("claimsProfile          rfc9068"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_say_what_went_wrong_and_errors_name_the_field() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    server.run(&["org", "get", "nobody"]).await.failed(4, "there is no such organization");
    server
        .run(&["org", "create", "acme", "--name", "Again"])
        .await
        .failed(5, "there is already such an organization");
    let create = ["device", "create", "till-1", "--name", "", "--server-url", "nowhere"];
    let refused = server.run(&in_prod(&create)).await;
    assert!(
        refused.stderr.contains("\n  name: ") && refused.stderr.contains("\n  serverUrls[0]: "),
        "{refused:?}"
    );
    refused.failed(1, "2 fields are wrong");
    // What no id can be is not even asked for.
    for id in ["..", "a/b", "", "%2e%2e"] {
        server.run(&in_prod(&["device", "get", id])).await.failed(2, "<DEVICE>");
    }
    server.run(&["org", "update", "acme"]).await.failed(2, "--name");

    let narrow = app.key(Some("acme"), Some(&[keypost::service::access::Permission::OrgRead])).await;
    let mut forbidden = server.command(&["org", "create", "--name", "Mine"]);
    finish(forbidden.env("KEYPOST_API_KEY", &narrow)).await.failed(3, "global admin key");
    let stranger = keypost_shared::secret::ApiKey::generate(
        keypost_shared::secret::KeyKind::Admin,
        &mut rand_core::OsRng,
    );
    let mut unknown = server.command(&["sync", "status"]);
    finish(unknown.env("KEYPOST_API_KEY", stranger.expose())).await.failed(3, "valid API key");
    let mut cut_off = server.command(&["sync", "status"]);
    let key = &server.key[..30];
    let done = finish(cut_off.env("KEYPOST_API_KEY", key)).await;
    assert!(!done.stderr.contains(key), "{done:?}");
    done.failed(3, "KEYPOST_API_KEY holds no API key");
    finish(server.command(&["sync", "status"]).env_remove("KEYPOST_API_KEY")).await.failed(3, "no API key");

    app.database.pool.close().await;
    let unavailable = server.run(&["sync", "status", "--retries", "0"]).await;
    assert!(unavailable.stderr.contains("5 s"), "{unavailable:?}");
    unavailable.failed(6, "the database is not available");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_comes_from_the_environment_a_file_or_standard_input_and_never_from_an_argument() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    let without = |arguments: &[&str]| {
        let mut command = server.command(arguments);
        command.env_remove("KEYPOST_API_KEY");
        command
    };
    let file = std::env::temp_dir().join(format!("keypost-cli-key-{}", std::process::id()));
    std::fs::write(&file, format!("{}\n", server.key)).unwrap();
    let status = ["sync", "status", "--json", "--api-key-file"];
    let from_file = finish(&mut without(&[&status[..], &[file.to_str().unwrap()]].concat())).await;
    std::fs::remove_file(&file).unwrap();
    assert!(from_file.json()[0]["pending"].is_number());
    let from_stdin = finish_with(&mut without(&[&status[..], &["-"]].concat()), &server.key).await;
    assert!(from_stdin.json()[0]["pending"].is_number());
    finish(&mut without(&["sync", "status", "--api-key-file", "/nowhere"])).await.failed(1, "/nowhere");
    finish(&mut without(&["sync", "status", "--api-key", &server.key])).await.failed(2, "--api-key");
}

#[tokio::test]
async fn every_level_explains_itself_and_shells_complete_it() {
    let help = finish(&mut keypost(&["--help"])).await.ok();
    for promised in ["Exit codes:", "KEYPOST_API_KEY", "device", "apikey"] {
        assert!(help.contains(promised), "{help}");
    }
    for words in [&["device"][..], &["device", "list"], &["org", "update"], &["otp"], &["completions"]] {
        let help = finish(&mut keypost(&[words, &["-h"]].concat())).await.ok();
        assert!(help.contains("Usage: keypost"), "{help}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = finish(&mut keypost(&["completions", shell])).await.ok();
        assert!(script.contains("tag-default") && script.contains("rotate-secret"), "{shell}");
    }
    let script = finish(&mut keypost(&["completions", "bash"])).await.ok();
    let complete = format!(
        "{script}\nCOMP_WORDS=(keypost dev); COMP_CWORD=1; _keypost keypost dev keypost; echo \"${{COMPREPLY[@]}}\"\n"
    );
    let completed = finish_with(Command::new("bash").stdout(Stdio::piped()), &complete).await;
    assert_eq!(completed.ok().trim(), "device");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_keys_are_made_used_rotated_and_deleted() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    let create = ["apikey", "create", "--name", "Nightly", "--org", "acme", "--permission", "org:read"];
    let made = server.run(&[&create[..], &["--expires-in-days", "90", "--json"]].concat()).await.json();
    let (id, key) = (made[0]["id"].as_str().unwrap(), made[0]["key"].as_str().unwrap());
    assert!(made[0]["expiresAt"].is_string());
    let get =
        async |key: &str| finish(server.command(&["org", "get", "acme"]).env("KEYPOST_API_KEY", key)).await;
    get(key).await.ok();
    let rotated = server.run(&["apikey", "rotate", id, "--overlap", "0"]).await.ok();
    get(key).await.failed(3, "valid API key");
    get(rotated.trim_end()).await.ok();
    let shown = server.run(&["apikey", "get", id]).await.ok();
    assert!(shown.contains("Nightly") && !shown.contains(rotated.trim_end()), "{shown}");
    assert_eq!(server.run(&["apikey", "list", "--json"]).await.json().len(), 2);
    server.run(&["apikey", "delete", id]).await.ok();
    get(rotated.trim_end()).await.failed(3, "valid API key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_clients_are_made_changed_rotated_and_deleted() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    let create = ["client", "create", "--name", "Billing", "--scope", "introspect", "--json"];
    let made = server.run(&in_prod(&create)).await.json();
    let id = made[0]["clientId"].as_str().unwrap();
    let update = ["client", "update", id, "--audience", "api", "--json"];
    let changed = server.run(&in_prod(&update)).await.json();
    assert_eq!((&changed[0]["name"], &changed[0]["audience"]), (&json!("Billing"), &json!(["api"])));
    let rotated = server.run(&in_prod(&["client", "rotate-secret", id, "--overlap", "60"])).await.ok();
    assert_ne!(rotated.trim_end(), made[0]["clientSecret"].as_str().unwrap());
    let table = server.run(&in_prod(&["client", "list"])).await.ok();
    assert!(table.lines().nth(1).unwrap().starts_with(id), "{table}");
    server.run(&in_prod(&["client", "delete", id])).await.ok();
    server.run(&in_prod(&["client", "get", id])).await.failed(4, "client");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_is_listed_and_exported() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    server.run(&["org", "update", "acme", "--name", "Acme Stores"]).await.ok();
    let table = server.run(&["audit", "list", "--org", "acme", "--target", "acme"]).await.ok();
    let actions: Vec<&str> =
        table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(actions, ["organization.update", "organization.create"], "{table}");
    let exported =
        server.run(&["audit", "export", "--org", "acme", "--action", "organization.update"]).await.json();
    assert_eq!(exported.len(), 1);
    assert_eq!(exported[0]["changes"]["after"], json!({"name": "Acme Stores"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn organizations_and_environments_are_listed_changed_and_deleted() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    server.run(&["org", "update", "acme", "--description", "Tills"]).await.ok();
    let changed = server.run(&["org", "update", "acme", "--name", "Acme Stores", "--json"]).await.json();
    assert_eq!((&changed[0]["name"], &changed[0]["description"]), (&json!("Acme Stores"), &json!("Tills")));
    let cleared = server.run(&["org", "update", "acme", "--clear", "description", "--json"]).await.json();
    assert_eq!(cleared[0]["description"], json!(null));
    let table = server.run(&["org", "list"]).await.ok();
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows.len() == 2 && rows[1].starts_with("acme  Acme Stores  -"), "{table}");

    let update = ["env", "update", "prod", "--org", "acme", "--server-url", "http://localhost:1", "--json"];
    let update = [&update[..], &["--tag-default", "site=none", "--remove-tag-default", "brand"]].concat();
    let changed = server.run(&update).await.json();
    let tags = changed[0]["tagDefaults"].as_object().unwrap();
    assert!(tags["site"] == "none" && !tags.contains_key("brand") && tags["country"] == "*", "{tags:?}");
    assert_eq!(changed[0]["serverUrls"], json!(["http://localhost:1"]));
    assert_eq!(server.run(&["env", "list", "--org", "acme", "--json"]).await.json()[0]["id"], "prod");

    server.run(&["org", "delete", "acme"]).await.failed(5, "cascade");
    let deleted = server.run(&["org", "delete", "acme", "--cascade"]).await.ok();
    assert_eq!(deleted, "Deleted the organization acme and all that is below it.\n");
    server.run(&["org", "get", "acme"]).await.failed(4, "organization");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_and_their_apps_are_found_changed_disabled_and_deleted() {
    let app = TestApp::start().await;
    let server = Server::of(&app).await;
    app.acme().await;
    for (id, state) in [("till-1", "NY"), ("till-2", "CA"), ("kiosk-1", "NY")] {
        let tag = format!("state={state}");
        server.run(&in_prod(&["device", "create", id, "--name", "A device", "--tag", &tag])).await.ok();
    }
    let ids = async |words: &[&str]| -> Vec<String> {
        let found = server.run(&in_prod(&[&["device", "list", "--json"], words].concat())).await.json();
        found.iter().map(|device| device["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&[]).await, ["kiosk-1", "till-1", "till-2"]);
    assert_eq!(ids(&["--tag", "state=NY", "--q", "TILL"]).await, ["till-1"]);
    assert_eq!(ids(&["--status", "disabled"]).await, [""; 0]);

    let change = ["device", "update", "till-1", "--remove-tag", "state", "--tag", "country=US", "--json"];
    let changed = server.run(&in_prod(&[&change[..], &["--metadata", r#"{"lane": 1.10}"#]].concat())).await;
    assert!(changed.stdout.contains(r#""metadata":{"lane":1.10}"#), "{changed:?}");
    assert_eq!(changed.json()[0]["tags"], json!({"country": "US"}));
    server.run(&in_prod(&["device", "disable", "till-1"])).await.ok();
    assert_eq!(ids(&["--status", "disabled"]).await, ["till-1"]);
    server.run(&in_prod(&["device", "enable", "till-1"])).await.ok();

    server.run(&in_prod(&["app", "create", "client", "--device", "till-1"])).await.ok();
    let update =
        ["app", "update", "client", "--device", "till-1", "--scope", "device", "--name", "Main", "--json"];
    assert_eq!(server.run(&in_prod(&update)).await.json()[0]["name"], "Main");
    let table = server.run(&in_prod(&["app", "list", "--device", "till-1"])).await.ok();
    assert!(table.lines().nth(1).unwrap().starts_with("client "), "{table}");
    server.run(&in_prod(&["device", "delete", "till-1"])).await.failed(5, "cascade");
    server.run(&in_prod(&["app", "delete", "client", "--device", "till-1"])).await.ok();
    server.run(&in_prod(&["device", "delete", "till-1"])).await.ok();
    assert_eq!(ids(&["--limit", "1"]).await, ["kiosk-1"]);
}
