//! Schemathesis makes requests of its own from the OpenAPI document and holds the answers against it: always the same ones,
//! and with `--long` more of them and new ones each time.

use std::path::Path;
use std::process::Stdio;

use keypost_tests::stack::{self, TestStack, is_long, test_env};

/// What every answer is held against.
///
/// `positive_data_acceptance` is not among them: a request that fits the schema may still be refused, for a one-time
/// password that is not valid, or an If-Match that has been overtaken.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,negative_data_rejection,unsupported_method,\
    allow_header_conformance,ignored_auth";

/// Runs Schemathesis with this configuration and these arguments, and fails with its report where it finds something.
async fn run(stack: &TestStack, folder: &Path, configuration: &str, arguments: &[&str]) {
    std::fs::create_dir_all(folder).unwrap();
    let config = folder.join("schemathesis.toml");
    std::fs::write(&config, configuration).unwrap();
    let admin = stack.admin();
    let output = tokio::process::Command::new(test_env().python.with_file_name("schemathesis"))
        .current_dir(folder)
        .arg("--config-file")
        .arg(&config)
        .arg("run")
        .arg(format!("{}/openapi.json", admin.url))
        .args(["--header", &format!("X-API-Key: {}", admin.key)])
        .args(["--checks", CHECKS, "--phases", "coverage,fuzzing", "--generation-database", "none"])
        .args(if is_long() { &[][..] } else { &["--seed", "7519"] })
        .args(["--no-color", "--continue-on-failure", "--warnings", "off", "--suppress-health-check", "all"])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("schemathesis starts");
    let report = String::from_utf8_lossy(&output.stdout).replace(&admin.key, "(the key)");
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("Test cases:"), "nothing was tried: {report}");
}

#[tokio::test]
async fn what_schemathesis_thinks_of_gets_no_5xx_and_no_answer_outside_the_document() {
    let stack = stack::own("contract").await;
    let fleet = stack.admin().fleet("contract").await;
    fleet.activated("pos-1").await;
    let folder = test_env().scratch.join("contract-schemathesis");

    // With ids that exist the requests get behind the 404s; what deletes is left for the second run.
    let ids = "[parameters]\n\"path.orgId\" = \"contract\"\n\"path.envId\" = \"production\"\n\
               \"path.deviceId\" = \"pos-1\"\n\"path.appId\" = \"client\"\n";
    let (many, some) = if is_long() { ("200", "100") } else { ("20", "10") };
    run(&stack, &folder, ids, &["--max-examples", many, "--exclude-method", "DELETE"]).await;
    run(&stack, &folder, "", &["--max-examples", some]).await;
}
