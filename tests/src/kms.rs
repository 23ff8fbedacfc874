//! AWS KMS as moto and ministack play it, and a way there that a test can block.
//!
//! moto checks signatures (SigV4) and IAM policies once it is told to; ministack signs digests as KMS does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use xtask::stack::port::Port;
use xtask::stack::process::{Process, Spec};

use crate::{edge, stack};

/// The region of all keys here.
pub const REGION: &str = "eu-central-1";

/// Which server plays KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Player {
    /// Checks who asks.
    Moto,
    /// Signs digests as they are.
    Ministack,
}

/// A running KMS.
pub struct FakeKms {
    /// Where it answers as long as the way there is open.
    pub url: String,
    direct: String,
    way: watch::Sender<Way>,
    seen: Arc<Mutex<Vec<u8>>>,
    _port: Port,
    _process: Process,
}

/// The way to KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Open.
    Open,
    /// Connections break.
    Closed,
    /// Connections are made, and nothing ever comes back.
    Silent,
}

/// What a user of AWS proves itself with.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// Its id.
    pub id: String,
    /// The key.
    pub secret: String,
}

impl AccessKey {
    /// As variables of a control plane or a Worker.
    pub fn variables(&self, kms: &FakeKms) -> Vec<(String, String)> {
        [
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", &self.id),
            ("AWS_SECRET_ACCESS_KEY", &self.secret),
            ("AWS_ENDPOINT_URL_KMS", &kms.url),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

impl FakeKms {
    /// Starts one.
    pub async fn start(name: &str, player: Player) -> Self {
        let env = stack::test_env();
        let port = Port::free(None).unwrap_or_else(|error| panic!("{error}"));
        let number = port.number().to_string();
        let spec = Spec::new("AWS KMS", &env.python, env.scratch.join(format!("{name}-kms.log")));
        let spec = match player {
            Player::Moto => spec.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &number]),
            Player::Ministack => spec
                .args(["-c", "from ministack.app import main; main()"])
                .envs([("GATEWAY_PORT", number.as_str()), ("BIND_HOST", "127.0.0.1")]),
        };
        let mut process = Process::start(&env.xtask, spec).unwrap_or_else(|error| panic!("{error}"));
        let direct = format!("http://127.0.0.1:{number}");
        let up = || async {
            let asked = edge::http().get(&direct).send().await;
            asked.map(|_| ()).map_err(|error| error.to_string())
        };
        process.until_up(Duration::from_secs(120), up).await.unwrap_or_else(|error| panic!("{error}"));
        let (way, _) = watch::channel(Way::Open);
        let seen = Arc::new(Mutex::default());
        let url = relay(direct.clone(), way.subscribe(), Arc::clone(&seen)).await;
        Self { url, direct, way, seen, _port: port, _process: process }
    }

    /// Opens or blocks the way.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// How often an operation was asked for on the way.
    pub fn calls(&self, operation: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        String::from_utf8_lossy(&seen).matches(&format!("TrentService.{operation}\r\n")).count()
    }

    /// Makes a key of a kind, and answers with its ARN. Before [`enforce`](Self::enforce).
    pub async fn key(&self, spec: &str, usage: &str) -> String {
        let made = self.ask("CreateKey", json!({"KeySpec": spec, "KeyUsage": usage})).await;
        made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
    }

    /// Asks for something, as nobody.
    pub async fn ask(&self, operation: &str, body: Value) -> Value {
        let request = edge::http()
            .post(&self.direct)
            .header("x-amz-target", format!("TrentService.{operation}"))
            .header("content-type", "application/x-amz-json-1.1")
            .header("authorization", nobody("kms"))
            .body(body.to_string());
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{operation}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Makes a user who may do this in KMS, and nothing else.
    pub async fn user(&self, name: &str, actions: &[&str]) -> AccessKey {
        let policy = json!({
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}],
        });
        self.iam(&[("Action", "CreateUser"), ("UserName", name)]).await;
        let policy = policy.to_string();
        let put = [
            ("Action", "PutUserPolicy"),
            ("UserName", name),
            ("PolicyName", "kms"),
            ("PolicyDocument", policy.as_str()),
        ];
        self.iam(&put).await;
        let made = self.iam(&[("Action", "CreateAccessKey"), ("UserName", name)]).await;
        let element = |name: &str| {
            let (_, rest) = made.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{made}"));
            rest.split_once("</").unwrap().0.to_owned()
        };
        AccessKey { id: element("AccessKeyId"), secret: element("SecretAccessKey") }
    }

    async fn iam(&self, form: &[(&str, &str)]) -> String {
        let request = edge::http().post(&self.direct).header("authorization", nobody("iam"));
        let form: HashMap<&str, &str> = form.iter().copied().chain([("Version", "2010-05-08")]).collect();
        let answer = request.form(&form).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{text}");
        text
    }

    /// Lets moto check signatures and policies from now on.
    pub async fn enforce(&self) {
        let request = edge::http().post(format!("{}/moto-api/reset-auth", self.direct));
        let answer = request.header("content-type", "text/plain").body("0").send().await.unwrap();
        assert!(answer.status().is_success());
    }
}

/// What nobody checks, and all the same says for which service a request is.
fn nobody(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=nobody/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

/// Hands connections on as long as the way is open, and keeps what was asked.
async fn relay(to: String, way: watch::Receiver<Way>, seen: Arc<Mutex<Vec<u8>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (to, way, seen) = (to.clone(), way.clone(), Arc::clone(&seen));
            tokio::spawn(connect(stream, to, way, seen));
        }
    });
    url
}

async fn connect(mut from: TcpStream, to: String, mut way: watch::Receiver<Way>, seen: Arc<Mutex<Vec<u8>>>) {
    let now = *way.borrow_and_update();
    let blocked = async |way: &mut watch::Receiver<Way>| {
        let _ = way.changed().await;
    };
    match now {
        Way::Closed => {}
        // Until it is opened again: then the connection breaks.
        Way::Silent => blocked(&mut way).await,
        Way::Open => {
            let Ok(mut upstream) = TcpStream::connect(to.trim_start_matches("http://")).await else { return };
            let (mut from_read, mut from_write) = from.split();
            let (mut to_read, mut to_write) = upstream.split();
            let asking = async {
                let mut bytes = vec![0; 16 * 1024];
                while let Ok(length @ 1..) = from_read.read(&mut bytes).await {
                    seen.lock().unwrap().extend_from_slice(&bytes[..length]);
                    if to_write.write_all(&bytes[..length]).await.is_err() {
                        break;
                    }
                }
            };
            // What is kept alive ends with the way.
            tokio::select! {
                () = asking => {}
                _ = copy(&mut to_read, &mut from_write) => {}
                () = blocked(&mut way) => {}
            }
        }
    }
}
