//! The database is lost, and a backup of it is restored as docs/operations.md says: devices go on.

use std::path::Path;
use std::process::Command;

use keypost_tests::lone_control_plane::run_job;
use keypost_tests::{edge, stack};
use reqwest::Method;
use serde_json::{Value, json};

/// Runs one of PostgreSQL's programs on this database.
fn run(programs: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(programs.join(program)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn after_the_loss_of_everything_a_backup_and_a_rebuild_bring_the_devices_back() {
    let mut stack = stack::with_own_postgres("restore").await;
    let fleet = stack.admin().fleet("restore").await;
    let kept = fleet.activated("kept").await;
    let disabled = fleet.activated("disabled-before").await;
    let disable = format!("{}/device/disabled-before/disable", fleet.path);
    fleet.admin.send(Method::POST, &disable, Value::Null).await;

    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("keypost.dump");
    let url = stack.control_plane_options.database_url.clone();
    let programs = stack.postgres().programs().to_owned();
    run(&programs, "pg_dump", &["--format=custom", "--file", dump.to_str().unwrap(), "--dbname", &url]);

    // What comes after the backup is lost with the database, and its documents are nobody's.
    let late = fleet.activated("late").await;
    fleet.admin.patch(&format!("{}/device/kept", fleet.path), json!({"metadata": {"after": "backup"}})).await;
    assert_eq!(edge::token(&late).await.outcome(), "200");
    stack.stop_control_plane();
    stack.postgres().server().recreate_database("keypost").await.unwrap();
    assert_eq!(edge::token(&kept).await.outcome(), "200", "the edge needs no database");

    run(
        &programs,
        "pg_restore",
        &["--exit-on-error", "--no-owner", "--dbname", &url, dump.to_str().unwrap()],
    );
    stack.start_control_plane().await;
    let rebuilt = run_job(&fleet.admin, "rebuild").await;
    assert!(rebuilt["marked"].as_i64().unwrap() > 0, "{rebuilt}");
    let verified = run_job(&fleet.admin, "verify").await;
    assert_eq!((&verified["missing"], &verified["differing"]), (&json!(0), &json!(0)), "{verified}");
    // The client and the device that came after the backup.
    assert_eq!(verified["unowned"], 2, "{verified}");

    stack.restart_worker().await;
    let token = edge::token(&kept).await;
    assert_eq!(token.outcome(), "200");
    assert!(edge::claims(token.access_token())["metadata"]["after"].is_null());
    assert_eq!(edge::token(&disabled).await.outcome(), "401 invalid_client");
    assert_eq!(edge::token(&late).await.outcome(), "401 invalid_client");
    assert_eq!(edge::token(&fleet.activated("new").await).await.outcome(), "200");
}
