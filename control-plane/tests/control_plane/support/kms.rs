use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kms::types::{KeySpec, KeyUsageType};
use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use keypost::kms::{Kms, KmsAccess, KmsTimes};
use keypost::metrics::Metrics;
use keypost_shared::kms::KmsKeyArn;
use keypost_shared::secret::SecretText;
use serde_json::json;
use tokio::net::TcpListener;

/// Which server plays KMS. Each does right what the other does not (design §11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emulator {
    /// Authenticates ciphertexts.
    Moto,
    /// Signs digests as they are, and knows that disabled keys do nothing.
    Ministack,
}

const MOTO: &str = "
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(['-H', '127.0.0.1', '-p', '0'])
";

const MINISTACK: &str = "
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
import socket
listener = socket.socket()
listener.bind(('127.0.0.1', 0))
port = listener.getsockname()[1]
listener.close()
os.environ.update(GATEWAY_PORT=str(port), BIND_HOST='127.0.0.1')
print(f'Running on http://127.0.0.1:{port}', file=sys.stderr, flush=True)
sys.argv = ['ministack']
from ministack.app import main
main()
";

impl Emulator {
    /// Where it answers. One serves all tests of the process, and ends with it: its standard input closes.
    pub(crate) async fn url(self) -> &'static str {
        static MOTO_URL: OnceLock<(Child, String)> = OnceLock::new();
        static MINISTACK_URL: OnceLock<(Child, String)> = OnceLock::new();
        let (running, program) = match self {
            Emulator::Moto => (&MOTO_URL, MOTO),
            Emulator::Ministack => (&MINISTACK_URL, MINISTACK),
        };
        let (_, url) = running.get_or_init(|| start(program));
        super::eventually("KMS answers", async || reqwest::Client::new().get(url).send().await.is_ok()).await;
        url
    }
}

/// The Python that has both: `cargo xtask test` says which.
fn python() -> String {
    let given = std::env::var("KEYPOST_TEST_PYTHON").ok();
    given.unwrap_or_else(|| {
        let file =
            std::env::var("KEYPOST_TEST_ENV").expect("KEYPOST_TEST_ENV, which `cargo xtask test` sets");
        let env: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        env["python"].as_str().unwrap().to_owned()
    })
}

fn start(program: &str) -> (Child, String) {
    let mut child = Command::new(python())
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut log = String::new();
    let url = loop {
        let line = lines.next().unwrap_or_else(|| panic!("it ended: {log}")).unwrap();
        if let Some((_, url)) = line.split_once("Running on ") {
            break url.trim().to_owned();
        }
        log.push_str(&line);
        log.push('\n');
    };
    // Whoever writes to a pipe that nobody reads stands still.
    std::thread::spawn(move || lines.for_each(drop));
    (child, url)
}

fn access(url: &str) -> KmsAccess {
    KmsAccess::At {
        url: url.to_owned(),
        region: "eu-central-1".to_owned(),
        access_key_id: "test".to_owned(),
        secret_access_key: SecretText::new("test".to_owned()),
    }
}

/// Long enough for an emulator on a busy machine, and short enough to wait for one that hangs.
const TIMES: KmsTimes = KmsTimes { attempt: Duration::from_secs(5), operation: Duration::from_secs(12) };

/// KMS where this URL is.
pub(crate) fn kms_at(url: &str, metrics: &Metrics) -> Kms {
    Kms::new(access(url), TIMES, metrics.clone())
}

/// KMS that nobody has set up: nothing listens there.
pub(crate) fn no_kms(metrics: &Metrics) -> Kms {
    kms_at("http://127.0.0.1:9", metrics)
}

/// Somebody who looks after the keys in KMS, with AWS's own library.
pub(crate) fn key_administrator(url: &str) -> Client {
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(url)
        .build();
    Client::from_conf(config)
}

/// A new key that signs with P-256.
pub(crate) async fn signing_key(client: &Client) -> KmsKeyArn {
    new_key(client, KeySpec::EccNistP256, KeyUsageType::SignVerify).await
}

/// A new key that encrypts.
pub(crate) async fn encrypting_key(client: &Client) -> KmsKeyArn {
    new_key(client, KeySpec::SymmetricDefault, KeyUsageType::EncryptDecrypt).await
}

/// A new key.
pub(crate) async fn new_key(client: &Client, spec: KeySpec, usage: KeyUsageType) -> KmsKeyArn {
    let made = client.create_key().key_spec(spec).key_usage(usage).send().await.unwrap();
    made.key_metadata.unwrap().arn.unwrap().parse().unwrap()
}

/// What the proxy does instead of asking KMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KmsFault {
    /// An error of this name to calls of these operations; all, where there are none.
    Refuse(&'static str, Vec<&'static str>),
    /// Nothing at all.
    Hang,
}

/// A proxy before KMS that counts calls, and can misbehave.
pub(crate) struct KmsProxy {
    pub(crate) url: String,
    state: Arc<ProxyState>,
}

struct ProxyState {
    upstream: &'static str,
    calls: Mutex<HashMap<String, usize>>,
    fault: Mutex<Option<KmsFault>>,
    http: reqwest::Client,
}

impl KmsProxy {
    pub(crate) async fn before(emulator: Emulator) -> Self {
        let state = Arc::new(ProxyState {
            upstream: emulator.url().await,
            calls: Mutex::default(),
            fault: Mutex::default(),
            http: reqwest::Client::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(forward).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state }
    }

    /// Misbehaves from now on, or no more.
    pub(crate) fn set(&self, fault: Option<KmsFault>) {
        *self.state.fault.lock().unwrap() = fault;
    }

    /// How often an operation was asked for.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.state.calls.lock().unwrap().get(operation).copied().unwrap_or_default()
    }

    /// How often anything was.
    pub(crate) fn all_calls(&self) -> usize {
        self.state.calls.lock().unwrap().values().sum()
    }
}

async fn forward(State(state): State<Arc<ProxyState>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts.headers.get("x-amz-target").map(HeaderValue::to_str).unwrap().unwrap().to_owned();
    let operation = target.split('.').next_back().unwrap().to_owned();
    *state.calls.lock().unwrap().entry(operation.clone()).or_default() += 1;
    let fault = state.fault.lock().unwrap().clone();
    match fault {
        Some(KmsFault::Hang) => std::future::pending().await,
        Some(KmsFault::Refuse(name, operations))
            if operations.is_empty() || operations.contains(&operation.as_str()) =>
        {
            let body = json!({"__type": name, "message": "simulated"}).to_string();
            (StatusCode::BAD_REQUEST, [("content-type", "application/x-amz-json-1.1")], body).into_response()
        }
        _ => {
            let body: Bytes = to_bytes(body, 1 << 20).await.unwrap();
            let mut headers = parts.headers;
            headers.remove("host");
            let sent = state.http.post(state.upstream).headers(headers).body(body).send().await.unwrap();
            let (status, text) = (sent.status(), sent.bytes().await.unwrap());
            (status, [("content-type", "application/x-amz-json-1.1")], text).into_response()
        }
    }
}
