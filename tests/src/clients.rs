//! OAuth and JWT libraries that other people wrote, run as they would run them.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::stack::test_env;

/// Runs a program of `tests/clients` with `input` as JSON on its standard input, and reads JSON from its output.
pub async fn run(program: &str, input: Value) -> Value {
    let output = output(program, input).await;
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a program that must fail, and gives back what it says on its standard error.
pub async fn fails(program: &str, input: Value) -> String {
    let output = output(program, input).await;
    assert!(!output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn output(program: &str, input: Value) -> Output {
    let env = test_env();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(program);
    let interpreter = if program.ends_with(".py") { &env.python } else { &env.node };
    let mut child = tokio::process::Command::new(interpreter)
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    child.wait_with_output().await.unwrap()
}
