//! The secrets that edge and control plane share are replaced, step by step as docs/operations.md says, and nobody notices.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keypost_tests::admin::{Credentials, Fleet};
use keypost_tests::lone_control_plane::run_job;
use keypost_tests::openssl::{Authority, Kind};
use keypost_tests::stack::{self, TestStack};
use keypost_tests::{edge, wait};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use xtask::secret::random_text;

use super::certificates::{ask, auto_fleet, outcome, until_known, until_outcome};

/// A device that asks for tokens all the time.
struct Asking {
    stop: CancellationToken,
    task: JoinHandle<()>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    tokens: usize,
    refusals: Vec<String>,
}

impl Asking {
    fn start(credentials: &Credentials) -> Self {
        let (stop, seen) = (CancellationToken::new(), Arc::new(Mutex::new(Seen::default())));
        let (told, noted, credentials) = (stop.clone(), seen.clone(), credentials.clone());
        let task = tokio::spawn(async move {
            while !told.is_cancelled() {
                let form = [
                    ("grant_type", "client_credentials"),
                    ("client_id", &credentials.client_id),
                    ("client_secret", &credentials.client_secret),
                ];
                let asked = edge::http().post(&credentials.token_endpoint).form(&form).send().await;
                // Locally a Worker that restarts is away for a moment, and what answers then is not the Worker.
                let body = match asked {
                    Ok(answer) => answer.json().await.unwrap_or(Value::Null),
                    Err(_) => Value::Null,
                };
                if body["access_token"].is_string() {
                    noted.lock().unwrap().tokens += 1;
                } else if body["error"].is_string() {
                    noted.lock().unwrap().refusals.push(body.to_string());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { stop, task, seen }
    }

    /// Waits for some tokens more, and fails the test where one was refused.
    async fn goes_on(&self, what: &str) {
        let before = self.seen.lock().unwrap().tokens;
        wait::until(&format!("tokens after {what}"), Duration::from_secs(60), || async {
            let tokens = self.seen.lock().unwrap().tokens;
            if tokens > before + 10 { Ok(()) } else { Err(format!("{tokens} so far")) }
        })
        .await;
        assert_eq!(self.seen.lock().unwrap().refusals, [""; 0], "after {what}");
    }

    async fn finish(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// A device that nobody has seen gets in by its certificate, and the control plane believes the edge's report of it.
async fn a_new_device_comes_in(fleet: &Fleet, root: &Authority, name: &str) {
    let device = root.device("05243", name);
    assert_eq!(outcome(&ask(fleet, &device, "ES256").await), "200", "{name}");
    until_known(fleet, name).await;
}

async fn restart_control_plane(stack: &mut TestStack) {
    stack.stop_control_plane();
    stack.start_control_plane().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealing_key_and_shared_secret_are_replaced_and_not_one_token_is_refused() {
    let mut stack = stack::own("secret-rotation").await;
    let root = Authority::new(Kind::P256);
    let fleet = auto_fleet(&stack, "secret-rotation", &root).await;
    let asking = Asking::start(&fleet.activated("pos-0").await);
    until_outcome(&fleet, &root.device("05243", "pos-first"), "ES256", "200").await;
    let old = stack.worker_options.secrets.clone();
    let (sealing, shared) = (random_text(), random_text());
    let both = |first: &str, second: &str| format!("{first},{second}");

    // Whoever reads learns the new one first: the Worker opens, and the control plane checks, with both.
    stack.worker_options.secrets.edge_sealing_key = both(&old.edge_sealing_key, &sealing);
    stack.restart_worker().await;
    asking.goes_on("the Worker's second sealing key").await;
    stack.control_plane_options.secrets.edge_shared_secret = both(&old.edge_shared_secret, &shared);
    restart_control_plane(&mut stack).await;
    a_new_device_comes_in(&fleet, &root, "pos-1").await;

    // Then whoever writes uses it: the control plane seals, and the Worker signs, with the new one.
    stack.control_plane_options.secrets.edge_sealing_key = both(&sealing, &old.edge_sealing_key);
    restart_control_plane(&mut stack).await;
    let before = stack.kv().must_get(&format!("v1/pool/{}", fleet.pool())).await;
    run_job(&fleet.admin, "rebuild").await;
    assert_ne!(stack.kv().must_get(&format!("v1/pool/{}", fleet.pool())).await, before);
    asking.goes_on("the control plane's new sealing key").await;
    stack.worker_options.secrets.edge_shared_secret = both(&shared, &old.edge_shared_secret);
    stack.restart_worker().await;
    asking.goes_on("the Worker's new shared secret").await;
    a_new_device_comes_in(&fleet, &root, "pos-2").await;

    // Last the old ones go.
    stack.worker_options.secrets.edge_sealing_key = sealing.clone();
    stack.worker_options.secrets.edge_shared_secret = shared.clone();
    stack.restart_worker().await;
    asking.goes_on("the Worker without the old ones").await;
    stack.control_plane_options.secrets.edge_sealing_key = sealing;
    stack.control_plane_options.secrets.edge_shared_secret = shared;
    restart_control_plane(&mut stack).await;
    a_new_device_comes_in(&fleet, &root, "pos-3").await;
    asking.goes_on("the end").await;
    asking.finish().await;
}
