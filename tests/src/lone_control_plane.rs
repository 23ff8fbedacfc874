//! Control planes without a Worker: they publish into a stand-in for Cloudflare's KV, which can be told to fail.

use std::path::PathBuf;
use std::time::Duration;

use kv_stand_in::{KvStandIn, NAMESPACE, Options};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use xtask::secret::StackSecrets;
use xtask::stack::control_plane::{ControlPlane, ControlPlaneOptions};
use xtask::stack::port::Port;

use crate::admin::Admin;
use crate::stack::{OwnPostgres, database, test_env};
use crate::{edge, wait};

/// How long whatever has gone wrong may take to come right: leases and late writes are waited for.
const SETTLED: Duration = Duration::from_secs(90);

/// Control planes on one database that publish into one stand-in.
pub struct LoneControlPlane {
    /// KV.
    pub kv: KvStandIn,
    /// The control planes; none where one is stopped or killed.
    pub running: Vec<Option<ControlPlane>>,
    /// How they are started.
    pub options: ControlPlaneOptions,
    /// The database server, where it is the test's own.
    pub postgres: Option<OwnPostgres>,
    ports: Vec<Port>,
    xtask: PathBuf,
    http: reqwest::Client,
}

impl LoneControlPlane {
    /// Starts as many control planes on the server that the tests share. A call to KV is given up after a second, so that
    /// what depends on that need not be waited for.
    pub async fn start(name: &str, count: usize) -> Self {
        let database = database(&format!("e2e_{}", name.replace('-', "_"))).await;
        let mut plane = Self::new(name, count, database, None, Options::default()).await;
        plane.set("KEYPOST_KV_TIMEOUT_SECONDS", "1");
        plane.start_all().await;
        plane
    }

    /// Starts one on a PostgreSQL of its own.
    pub async fn with_own_postgres(name: &str) -> Self {
        let (postgres, url) = OwnPostgres::start(name).await;
        let mut plane = Self::new(name, 1, url, Some(postgres), Options::default()).await;
        plane.set("KEYPOST_KV_TIMEOUT_SECONDS", "1");
        plane.start_all().await;
        plane
    }

    /// Sets everything up, and starts nothing.
    pub async fn new(
        name: &str,
        count: usize,
        database_url: String,
        postgres: Option<OwnPostgres>,
        stand_in: Options,
    ) -> Self {
        let env = test_env();
        let state = env.scratch.join(name);
        let kv = KvStandIn::start(stand_in);
        let admin_key = ControlPlaneOptions::generate_admin_key(&env.keypost).await;
        let ports: Vec<Port> = (0..count).map(|_| Port::free(None).unwrap()).collect();
        // One public address for all of them, as behind a load balancer: it is in what they publish.
        let public_url = format!("http://127.0.0.1:{}", ports[0].number());
        let options = ControlPlaneOptions {
            binary: env.keypost.clone(),
            database_url,
            secrets: StackSecrets::random(admin_key.unwrap_or_else(|error| panic!("{error}"))),
            edge_url: "http://127.0.0.1:1".to_owned(),
            kv_api_url: kv.api_url(),
            kv_namespace_id: NAMESPACE.to_owned(),
            log: state.join("control-plane.log"),
            lock: None,
            env: vec![
                ("KEYPOST_KV_API_TOKEN".to_owned(), kv.token().to_owned()),
                ("KEYPOST_KV_BATCH_SIZE".to_owned(), "10000".to_owned()),
                ("KEYPOST_PUBLIC_URL".to_owned(), public_url),
            ],
        };
        options.migrate().await.unwrap_or_else(|error| panic!("{error}"));
        Self {
            kv,
            running: (0..count).map(|_| None).collect(),
            options,
            postgres,
            ports,
            xtask: env.xtask.clone(),
            http: edge::http(),
        }
    }

    /// Sets a variable for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.options.env.push((name.to_owned(), value.to_owned()));
    }

    /// Starts all that do not run, and waits until they are ready.
    pub async fn start_all(&mut self) {
        for (running, port) in self.running.iter_mut().zip(&self.ports) {
            if running.is_none() {
                let started = ControlPlane::start(&self.xtask, &self.http, port, &self.options).await;
                *running = Some(started.unwrap_or_else(|error| panic!("{error}")));
            }
        }
    }

    /// Starts one, and does not wait.
    pub fn launch(&mut self, number: usize) {
        let launched = ControlPlane::launch(&self.xtask, &self.ports[number], &self.options);
        self.running[number] = Some(launched.unwrap_or_else(|error| panic!("{error}")));
    }

    /// Waits until one is ready.
    pub async fn ready(&self, number: usize) {
        let url = format!("http://127.0.0.1:{}/readyz", self.ports[number].number());
        wait::until("the control plane", SETTLED, || async {
            let answer = self.http.get(&url).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
    }

    /// Kills one with -9.
    pub fn kill(&mut self, number: usize) {
        self.running[number].take().expect("a running control plane").kill();
    }

    /// Stops all.
    pub fn stop_all(&mut self) {
        self.running.iter_mut().filter_map(Option::take).for_each(ControlPlane::stop);
    }

    /// An administrator at one of them.
    pub fn admin(&self, number: usize) -> Admin {
        let url = format!("http://127.0.0.1:{}", self.ports[number].number());
        Admin::new(&url, &self.options.secrets.admin_api_key)
    }

    /// Waits until nothing waits to be published, and has KV compared with the database: nothing may differ, no older
    /// document may have taken a newer one's place or lasted, and no limit of KV's may have been exceeded.
    pub async fn settled(&self, what: &str) {
        self.settled_within(what, SETTLED).await;
    }

    /// The same, where it may take so long.
    pub async fn settled_within(&self, what: &str, limit: Duration) {
        let admin = self.admin(0);
        wait::until(&format!("{what}: an empty backlog"), limit, || async {
            let sync = admin.get("/internal/sync").await;
            if sync["pending"] == 0 { Ok(()) } else { Err(sync.to_string()) }
        })
        .await;
        let job = run_job(&admin, "verify").await;
        let found = ["missing", "differing", "unowned", "skipped"].map(|kind| job[kind].as_i64().unwrap());
        assert_eq!(found, [0; 4], "{what}: {job}");
        let report = self.kv.report();
        assert_eq!(report.older_over_newer, [""; 0], "{what}");
        assert_eq!(report.not_the_newest, [""; 0], "{what}");
        assert_eq!(report.exceeded, [""; 0], "{what}");
        let most = report.most_calls_in_ten_seconds;
        assert!(most <= 40, "{what}: {most} calls in ten seconds");
    }
}

/// Begins a job of this kind, and waits until it is done and all that it marked is written.
pub async fn run_job(admin: &Admin, kind: &str) -> Value {
    run_job_within(admin, kind, SETTLED).await
}

/// The same, where it may take so long.
pub async fn run_job_within(admin: &Admin, kind: &str, limit: Duration) -> Value {
    let started = admin.send(Method::POST, &format!("/internal/sync/{kind}"), Value::Null).await;
    assert_eq!(started.status, StatusCode::ACCEPTED, "{}", started.body);
    wait::until(kind, limit, || async {
        let sync = admin.get("/internal/sync").await;
        let jobs = sync["jobs"].as_array().unwrap();
        let job = jobs.iter().find(|job| job["jobId"] == started.body["jobId"]).unwrap();
        if job["published"] == true { Ok(job.clone()) } else { Err(sync.to_string()) }
    })
    .await
}
