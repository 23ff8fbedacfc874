//! Changes that go on whatever happens to the control plane, and what has become of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Fleet};
use crate::edge;

/// How long a request may take before it counts as not answered.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody who changes devices, one after the other.
pub struct Load {
    stop: CancellationToken,
    task: JoinHandle<()>,
    accepted: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Load {
    /// Goes on changing these devices, by these administrators in turn, until [`finish`](Self::finish). A device's
    /// `metadata.n` only grows.
    pub fn start(admins: Vec<Admin>, fleet: &Fleet, devices: &[String]) -> Self {
        let stop = CancellationToken::new();
        let accepted = Arc::new(Mutex::new(BTreeMap::new()));
        let (told, noted) = (stop.clone(), accepted.clone());
        let (path, devices) = (fleet.path.clone(), devices.to_vec());
        let task = tokio::spawn(async move {
            let http = edge::http();
            for n in 1_u64.. {
                let device = &devices[n as usize % devices.len()];
                let admin = &admins[n as usize % admins.len()];
                let request = http
                    .patch(format!("{}/api{path}/device/{device}", admin.url))
                    .header("x-api-key", &admin.key)
                    .timeout(PATIENCE)
                    .json(&json!({"metadata": {"n": n}}));
                match request.send().await {
                    Ok(answer) if answer.status().is_success() => {
                        noted.lock().unwrap().insert(device.clone(), n);
                    }
                    // Where nobody is there, a loop that only asks would take what the restart needs.
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
                if told.is_cancelled() {
                    return;
                }
            }
        });
        Self { stop, task, accepted }
    }

    /// How many changes of how many devices have been accepted so far: the highest number.
    pub fn accepted(&self) -> u64 {
        self.accepted.lock().unwrap().values().copied().max().unwrap_or(0)
    }

    /// Ends it, and fails the test where an accepted change is not in the database, or overwritten by an earlier one.
    pub async fn finish(self, fleet: &Fleet) {
        self.stop.cancel();
        self.task.await.unwrap();
        let accepted = self.accepted.lock().unwrap().clone();
        assert!(!accepted.is_empty(), "no change was accepted");
        for (device, n) in accepted {
            let stored = fleet.admin.get(&format!("{}/device/{device}", fleet.path)).await;
            let stored = stored["metadata"]["n"].as_u64().unwrap_or(0);
            assert!(stored >= n, "{device}: change {n} was accepted, and {stored} is stored");
        }
    }
}
