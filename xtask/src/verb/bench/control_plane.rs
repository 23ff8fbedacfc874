//! The control plane as it ships, on a PostgreSQL and a stand-in for Cloudflare's KV API that answers at once: creating
//! devices beside pgbench with the same statements, activations, and the memory of large imports.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};

use super::{
    Wanted,
    load::{self, Expected, Requests},
    measure::{Pace, median},
    report::Row,
    sign_ins, usage,
};
use crate::{
    Error,
    command::Cmd,
    progress::Step,
    repo::Repo,
    secret::StackSecrets,
    stack::{
        control_plane::{ControlPlane, ControlPlaneOptions},
        port::Port,
        postgres::Postgres,
        process::{Process, Spec},
    },
    verb::db,
};

pub(super) const CREATE: &str = "control plane: create device";
pub(super) const PGBENCH: &str = "pgbench with the same statements";
pub(super) const IDLE: &str = "control plane: memory idle";
pub(super) const IMPORTED: &str = "control plane: memory after 100,000 device imports";
pub(super) const ACTIVATION: &str = "OTP activation, 50 at a time";

/// All of its jobs.
pub(super) const JOBS: [&str; 5] = [CREATE, PGBENCH, IDLE, IMPORTED, ACTIVATION];

const DATABASE: &str = "keypost_bench";
const ENVIRONMENT: &str = "/api/internal/org/bench/env/production";
const MIB: f64 = 1_048_576.0;
const IMPORTS: usize = 100_000;
const ACTIVATIONS: usize = 400;
const AT_A_TIME: usize = 50;
/// After that time, the documents of what has been made have been in KV for a second.
const SETTLED: Duration = Duration::from_secs(3);
/// How many devices are made ready to be created, for each second of a run.
const MOST_A_SECOND: f64 = 5_000.0;

/// What of the stand-in for KV is fixed: its account, namespace and token.
const KV_API: &str = "client/v4/accounts/test-account";
const KV_NAMESPACE: &str = "test-namespace";
const KV_TOKEN: &str = "kv-api-token";

/// A running control plane with what it needs.
struct Plane {
    server: Postgres,
    pgbench: PathBuf,
    _kv: Process,
    running: ControlPlane,
    address: String,
    key: String,
    http: reqwest::Client,
}

/// Measures what is wanted of it.
///
/// # Errors
/// When something does not build or start, or gives a wrong answer.
pub(super) async fn rows(
    repo: &Repo,
    xtask: &Path,
    state: &Path,
    wanted: &Wanted,
    pace: Pace,
) -> Result<Vec<Row>, Error> {
    let binary = build(repo).await?;
    let mut plane = Plane::start(repo, binary, xtask, state).await?;
    let pid = plane.running.process().pid();
    // Until what its start has set off is done.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut rows = vec![memory(IDLE, pid, 40.0)?];
    let pool = plane.environment().await?;
    if wanted.wants(ACTIVATION) {
        let step = Step::quiet("activations");
        rows.push(plane.activations().await?);
        step.done();
    }
    if wanted.wants_any([CREATE, PGBENCH]) {
        let step = Step::quiet("devices, and pgbench, in turn");
        rows.extend(plane.devices(repo, pid, &pool, pace).await?);
        step.done();
    }
    if wanted.wants(IMPORTED) {
        let step = Step::quiet("100,000 devices are imported");
        plane.import().await?;
        rows.push(memory(IMPORTED, pid, 100.0)?);
        step.done();
    }
    if wanted.wants_any(sign_ins::JOBS) {
        let step = Step::quiet("a storm of sign-ins");
        rows.extend(sign_ins::rows(&plane.http, &plane.address, pid, pace).await?);
        step.done();
    }
    Ok(rows)
}

/// The control plane to measure: the one that `KEYPOST_TEST_BINARY` names, or one that is built.
async fn build(repo: &Repo) -> Result<PathBuf, Error> {
    let given = std::env::var_os("KEYPOST_TEST_BINARY").map(PathBuf::from);
    let programs = if given.is_some() { ["--bin", "kv-stand-in"].as_slice() } else { &["--bins"] };
    let step = Step::loud("building the control plane (release)");
    Cmd::new("cargo build", "cargo")
        .args(["build", "--release", "--package", "keypost", "--package", "kv-stand-in"])
        .args(programs)
        .dir(repo.root())
        .env("SQLX_OFFLINE", "true")
        .cargo_progress()
        .run_shown()
        .await?;
    step.done();
    Ok(given.unwrap_or_else(|| repo.target().join("release/keypost")))
}

fn memory(job: &str, pid: u32, most: f64) -> Result<Row, Error> {
    let bytes = usage::resident_bytes(pid)?;
    let row = Row::limited(job, &format!("{most} MiB"), bytes as f64 / MIB / most);
    Ok(Row { resident_bytes: Some(bytes), ..row })
}

impl Plane {
    async fn start(repo: &Repo, binary: PathBuf, xtask: &Path, state: &Path) -> Result<Self, Error> {
        let programs = db::programs(repo).await?;
        let server = db::start_server(repo, xtask, &programs, "bench-postgres").await?;
        server.recreate_database(DATABASE).await?;
        let kv_port = Port::free(None)?;
        let kv_address = format!("127.0.0.1:{}", kv_port.number());
        let spec =
            Spec::new("the KV stand-in", repo.target().join("release/kv-stand-in"), state.join("kv.log"))
                .args(["--listen", &kv_address, "--forget-values"]);
        let mut kv = Process::start(xtask, spec)?;
        let listens =
            || async { TcpStream::connect(&kv_address).await.map(drop).map_err(|error| error.to_string()) };
        kv.until_up(Duration::from_secs(10), listens).await?;

        let secrets = StackSecrets::random(ControlPlaneOptions::generate_admin_key(&binary).await?);
        let key = secrets.admin_api_key.clone();
        let options = ControlPlaneOptions {
            binary,
            database_url: server.url(DATABASE),
            secrets,
            edge_url: "http://127.0.0.1:1".to_owned(),
            kv_api_url: format!("http://{kv_address}/{KV_API}"),
            kv_namespace_id: KV_NAMESPACE.to_owned(),
            log: state.join("control-plane.log"),
            lock: None,
            env: [
                ("KEYPOST_KV_API_TOKEN", KV_TOKEN),
                ("KEYPOST_KV_BATCH_SIZE", "10000"),
                ("KEYPOST_LOG", "json,warn"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        };
        let http = reqwest::Client::builder().no_proxy().build().map_err(Error::request("an HTTP client"))?;
        let port = Port::free(None)?;
        let address = format!("127.0.0.1:{}", port.number());
        let running = ControlPlane::start(xtask, &http, &port, &options).await?;
        let pgbench = programs.bin.join("pgbench");
        Ok(Self { server, pgbench, _kv: kv, running, address, key, http })
    }

    /// An organization with an environment: the id of its pool.
    async fn environment(&self) -> Result<String, Error> {
        self.create("/api/internal/org", json!({"id": "bench", "name": "Bench"})).await?;
        let made =
            self.create("/api/internal/org/bench/env", json!({"id": "production", "name": "Production"}));
        text(&made.await?, "/clientPoolId")
    }

    async fn create(&self, path: &str, body: Value) -> Result<Value, Error> {
        create(self.http.clone(), format!("http://{}{path}", self.address), self.key.clone(), body).await
    }

    /// Activates devices that wait for it.
    async fn activations(&self) -> Result<Row, Error> {
        let mut making = JoinSet::new();
        let mut passwords = Vec::new();
        for number in 0..AT_A_TIME + ACTIVATIONS {
            if making.len() >= load::CONNECTIONS
                && let Some(made) = making.join_next().await
            {
                passwords.push(joined(made)?);
            }
            let (http, key) = (self.http.clone(), self.key.clone());
            let environment = format!("http://{}{ENVIRONMENT}", self.address);
            making.spawn(async move { one_time_password(http, key, &environment, number).await });
        }
        while let Some(made) = making.join_next().await {
            passwords.push(joined(made)?);
        }
        let expected = Expected { status: 200, holds: "\"published\":true" };
        let activate = async |passwords: &[String]| {
            let texts = passwords.iter().map(|otp| {
                load::post("/api/otp/activate", "application/json", "", &json!({"otp": otp}).to_string())
            });
            let requests =
                Requests { once: true, ..Requests::of(self.address.clone(), texts.collect(), expected) };
            load::run(&requests, AT_A_TIME, Duration::from_secs(60)).await
        };
        // What has just been made is written first, and again only after the second that KV wants between two writes of a key.
        tokio::time::sleep(SETTLED).await;
        // The first ones teach each connection the statements.
        let (warm_up, measured) = passwords.split_at(AT_A_TIME.min(passwords.len()));
        activate(warm_up).await?;
        let load = activate(measured).await?;
        let p99 = load.percentile_ms(0.99);
        let row = Row::limited(ACTIVATION, "250 ms at the 99th of 100", p99 / 250.0);
        Ok(Row { requests_per_second: Some(load.requests_per_second().round()), ..row }
            .latencies(load.percentile_ms(0.5), p99))
    }

    /// Creates devices, and has pgbench do the same, in turn.
    async fn devices(&self, repo: &Repo, pid: u32, pool: &str, pace: Pace) -> Result<[Row; 2], Error> {
        let (mut own, mut pgbench, mut ratios, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        // More than any machine creates in that time; a run that has none left ends early, and its rate is right.
        let devices = (pace.run.as_secs_f64() * MOST_A_SECOND) as usize;
        for round in 0..pace.rounds {
            let numbers = round * devices..(round + 1) * devices;
            let texts = numbers.map(|number| self.create_device(number)).collect();
            let expected = Expected { status: 201, holds: "\"registered\"" };
            let requests = Requests { once: true, ..Requests::of(self.address.clone(), texts, expected) };
            let before = usage::cpu_time(pid)?;
            let load = load::run(&requests, load::CONNECTIONS, pace.run).await?;
            cpu.push((usage::cpu_time(pid)? - before).as_secs_f64() * 1e6 / load.requests as f64);
            let yardstick = self.pgbench(repo, pool, pace.run).await?;
            ratios.push(load.requests_per_second() / yardstick);
            pgbench.push(yardstick);
            own.push(load);
        }
        let of = |figure: &dyn Fn(&load::Load) -> f64| median(own.iter().map(figure).collect());
        let ratio = median(ratios);
        let row = Row {
            job: CREATE.to_owned(),
            requests_per_second: Some(of(&|load| load.requests_per_second()).round()),
            cpu_us_per_request: Some(median(cpu).round()),
            ratio_to: Some(PGBENCH.to_owned()),
            ..Row::default()
        };
        let row = row.latencies(of(&|load| load.percentile_ms(0.5)), of(&|load| load.percentile_ms(0.99)));
        let row = row.judge_least(ratio, 0.5);
        let yardstick = Row {
            job: PGBENCH.to_owned(),
            requests_per_second: Some(median(pgbench).round()),
            ..Row::default()
        };
        Ok([yardstick, row])
    }

    fn create_device(&self, number: usize) -> Vec<u8> {
        let body = device(format!("created-{number}")).to_string();
        let key = format!("x-api-key: {}\r\n", self.key);
        load::post(&format!("{ENVIRONMENT}/device"), "application/json", &key, &body)
    }

    /// The transactions a second that pgbench makes, with as many connections.
    async fn pgbench(&self, repo: &Repo, pool: &str, duration: Duration) -> Result<f64, Error> {
        let seconds = duration.as_secs().max(1).to_string();
        let printed = Cmd::new("pgbench", &self.pgbench)
            .args(["-n", "-M", "prepared", "-c", &load::CONNECTIONS.to_string(), "-j", "2", "-T", &seconds])
            .args(["-D", &format!("pool={pool}"), "-f"])
            .arg(repo.path("bench/create-device.sql"))
            .arg(self.server.url(DATABASE))
            .output()
            .await?;
        let line = printed.lines().find_map(|line| line.strip_prefix("tps = "));
        let figure = line.and_then(|line| line.split(' ').next()).and_then(|figure| figure.parse().ok());
        figure.ok_or(Error::Malformed { what: "what pgbench prints".to_owned(), detail: printed })
    }

    /// Imports devices as NDJSON, in one request.
    async fn import(&self) -> Result<(), Error> {
        let rows: Vec<String> =
            (0..IMPORTS).map(|number| device(format!("imported-{number}")).to_string()).collect();
        let url = format!("http://{}{ENVIRONMENT}/device/import", self.address);
        let request = self.http.post(&url).header("x-api-key", &self.key);
        let request = request.header("content-type", "application/x-ndjson").body(rows.join("\n"));
        let answer = request.send().await.map_err(Error::request(&url))?;
        let (status, body) = (answer.status(), answer.text().await.map_err(Error::request(&url))?);
        let last = body.lines().last().unwrap_or_default().to_owned();
        if status.is_success() && last.contains(&IMPORTS.to_string()) {
            Ok(())
        } else {
            Err(Error::Answer { request: url, status: status.as_u16(), body: last })
        }
    }
}

fn device(id: String) -> Value {
    json!({
        "id": id,
        "name": "A terminal",
        "metadata": {"terminal_type": "kiosk", "location": "checkout-3"},
        "tags": {"state": "NY", "app_id": "pos"},
        "primaryServerUrl": "http://localhost:6140",
        "serverUrls": ["http://localhost:6140", "http://localhost:6141"],
    })
}

/// A device with an app, and the password that activates it.
async fn one_time_password(
    http: reqwest::Client,
    key: String,
    environment: &str,
    number: usize,
) -> Result<String, Error> {
    let id = format!("activated-{number}");
    create(http.clone(), format!("{environment}/device"), key.clone(), device(id.clone())).await?;
    let apps = format!("{environment}/device/{id}/app");
    let app = json!({"clientAppId": "client", "scopes": ["device"]});
    create(http.clone(), apps.clone(), key.clone(), app).await?;
    text(&create(http, format!("{apps}/client/otp"), key, json!({})).await?, "/otp")
}

async fn create(http: reqwest::Client, url: String, key: String, body: Value) -> Result<Value, Error> {
    post(&http, &url, ("x-api-key", &key), &body).await
}

/// Makes something, asking with this header.
///
/// # Errors
/// When it is not made.
pub(super) async fn post(
    http: &reqwest::Client,
    url: &str,
    (name, value): (&str, &str),
    body: &Value,
) -> Result<Value, Error> {
    let answer = http.post(url).header(name, value).json(body).send().await.map_err(Error::request(url))?;
    let (status, body) = (answer.status(), answer.text().await.map_err(Error::request(url))?);
    if status == StatusCode::CREATED {
        serde_json::from_str(&body).map_err(Error::malformed(url))
    } else {
        Err(Error::Answer { request: url.to_owned(), status: status.as_u16(), body })
    }
}

fn joined(made: Result<Result<String, Error>, tokio::task::JoinError>) -> Result<String, Error> {
    made.map_err(|error| Error::Refused(format!("making a password was broken off: {error}")))?
}

/// The text at this place of an answer (RFC 6901).
///
/// # Errors
/// When there is none.
pub(super) fn text(answer: &Value, pointer: &str) -> Result<String, Error> {
    let found = answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| Error::Malformed { what: "an answer".to_owned(), detail: format!("no {pointer}") })
}
