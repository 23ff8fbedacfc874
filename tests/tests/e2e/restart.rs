//! What the Worker's shell does when the core panics: WebAssembly ends with an exception, of which nothing may be trusted any
//! more. No request makes the real core do that, so another takes its place here, which does it on demand.

use std::path::Path;

use keypost_tests::edge;
use keypost_tests::stack::test_env;
use reqwest::StatusCode;
use serde_json::Value;
use xtask::secret::StackSecrets;
use xtask::stack::port::Port;
use xtask::stack::worker::{Worker, WorkerOptions, url_of};

/// In the place of what wasm-bindgen makes.
const CORE: &str = r#"
import { respond } from "./shell.js";
let instances = 1;
export function initSync() {}
export function __wbg_reset_state() { instances += 1; }
export function begin(number, head) {
  const path = new URL(head.split("\n")[1]).pathname;
  if (path === "/panic") throw new WebAssembly.RuntimeError("unreachable");
  // Something is under way, so that workerd does not take the request for one that hangs.
  if (path === "/wait") return void setTimeout(() => {}, 60_000);
  const body = JSON.stringify({ instances });
  respond(number, 200, "content-type\napplication/json", new TextEncoder().encode(body));
}
export function beginLong() {}
export function settleBytes() {}
export function settleFailure() {}
export function settleFlag() {}
export function settleKey() {}
export function settleNothing() {}
export function settleText() {}
"#;

/// A WebAssembly module with nothing in it.
const EMPTY_MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

async fn start(folder: &Path) -> (Worker, String) {
    let parts = test_env().parts();
    let build = folder.join("build");
    std::fs::create_dir_all(&build).unwrap();
    for (from, to) in [("entry.js", "index.js"), ("repeat.js", "repeat.js"), ("shell.js", "shell.js")] {
        std::fs::copy(parts.repo.path("edge-worker/js").join(from), build.join(to)).unwrap();
    }
    std::fs::write(build.join("keypost_edge.js"), CORE).unwrap();
    std::fs::write(build.join("index_bg.wasm"), EMPTY_MODULE).unwrap();
    let options = WorkerOptions {
        node: parts.node.clone(),
        wrangler: parts.wrangler.clone(),
        build,
        state: folder.join("worker"),
        root_keys: Vec::new(),
        control_plane_url: String::new(),
        secrets: StackSecrets::random(String::new()),
        log: folder.join("worker.log"),
        lock: None,
        vars: Vec::new(),
    };
    let port = Port::free(None).unwrap();
    let worker = Worker::start(&parts.xtask, &edge::http(), &parts.repo, &port, &options).await;
    (worker.unwrap_or_else(|error| panic!("{error}")), url_of(&port))
}

async fn get(url: String) -> (StatusCode, Value) {
    let answer = edge::http().get(url).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_panic_ends_the_instance_and_not_the_isolate_and_whoever_waits_is_told() {
    let folder = test_env().scratch.join("restart");
    let (worker, url) = start(&folder).await;
    assert_eq!(get(format!("{url}/")).await.1["instances"], 1);
    let waiting = tokio::spawn(get(format!("{url}/wait")));
    // The request that waits is there before the one that panics: it is asked again until it was.
    let mut told = Vec::new();
    while !waiting.is_finished() {
        told.push(get(format!("{url}/panic")).await);
    }
    for (status, body) in told.into_iter().chain([waiting.await.unwrap()]) {
        assert_eq!(
            (status, body["error"].as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, Some("temporarily_unavailable"))
        );
    }
    let (status, body) = get(format!("{url}/")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body["instances"].as_u64().unwrap() > 1, "{body}");
    worker.stop();
}
