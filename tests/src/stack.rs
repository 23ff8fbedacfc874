//! A control plane, a Worker and a database for tests: one that many share, or one of a test's own.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;
use xtask::setup::postgres::PostgresPrograms;
use xtask::stack::postgres::{Postgres, PostgresOptions};
use xtask::stack::whole::{Stack, StackOptions};
use xtask::test_env::{TEST_LONG, TestEnv};

use crate::admin::Admin;
use crate::kv::Kv;
use crate::wait;

/// What `cargo xtask test` has prepared.
pub fn test_env() -> &'static TestEnv {
    static ENV: OnceLock<TestEnv> = OnceLock::new();
    ENV.get_or_init(|| TestEnv::load().unwrap_or_else(|error| panic!("{error}")))
}

/// Whether the long tests are asked for too.
pub fn is_long() -> bool {
    std::env::var(TEST_LONG).is_ok_and(|value| value == "1")
}

/// The time now, in Unix seconds.
pub fn unix_now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the tests live in real time")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A running stack.
pub struct TestStack {
    stack: Stack,
    state: PathBuf,
    admin_key: String,
    kv_namespace_id: String,
    postgres: Option<OwnPostgres>,
}

/// A PostgreSQL of a test's own, to be stopped.
pub struct OwnPostgres {
    server: Option<Postgres>,
    programs: PostgresPrograms,
    options: PostgresOptions,
}

impl OwnPostgres {
    /// Starts it, and makes a database, whose URL is answered too.
    pub async fn start(name: &str) -> (Self, String) {
        let env = test_env();
        let state = env.scratch.join(format!("{name}-postgres"));
        let bin = env.postgres_bin.clone().expect("the embedded PostgreSQL, which DATABASE_URL replaces");
        let programs = PostgresPrograms::at(bin).unwrap_or_else(|error| panic!("{error}"));
        let options = PostgresOptions {
            log: state.join("postgres.log"),
            state,
            durable: true,
            max_connections: 50,
            lock: None,
        };
        let server = Postgres::start(&env.xtask, &programs, options.clone()).await;
        let server = server.unwrap_or_else(|error| panic!("{error}"));
        server.recreate_database("keypost").await.unwrap_or_else(|error| panic!("{error}"));
        let url = server.url("keypost");
        (Self { server: Some(server), programs, options }, url)
    }

    /// Stops it.
    pub fn stop(&mut self) {
        drop(self.server.take().expect("a running PostgreSQL"));
    }

    /// Kills it with -9.
    pub fn kill(&mut self) {
        self.server.take().expect("a running PostgreSQL").kill();
    }

    /// Starts it again, on the same port.
    pub async fn resume(&mut self) {
        let server = Postgres::start(&test_env().xtask, &self.programs, self.options.clone()).await;
        self.server = Some(server.unwrap_or_else(|error| panic!("{error}")));
    }

    /// The server.
    pub fn server(&self) -> &Postgres {
        self.server.as_ref().expect("a running PostgreSQL")
    }

    /// The folder of its programs.
    pub fn programs(&self) -> &std::path::Path {
        &self.programs.bin
    }
}

/// The stack that all tests share which only use it. It ends with the test process.
pub async fn shared() -> &'static TestStack {
    static SHARED: OnceCell<TestStack> = OnceCell::const_new();
    SHARED.get_or_init(|| own("shared")).await
}

/// A stack of a test's own, with an empty database on the server that the tests share.
pub async fn own(name: &str) -> TestStack {
    let url =
        empty_database(&test_env().database_admin_url, &format!("e2e_{}", name.replace('-', "_"))).await;
    start(name, &url, None).await
}

/// The same, with more variables, or others, for its control plane and its Worker.
pub async fn own_with(
    name: &str,
    control_plane_env: Vec<(String, String)>,
    worker_vars: Vec<(String, String)>,
) -> TestStack {
    let url =
        empty_database(&test_env().database_admin_url, &format!("e2e_{}", name.replace('-', "_"))).await;
    start_with(name, &url, None, control_plane_env, worker_vars).await
}

/// A stack of a test's own that even has its own PostgreSQL, to be stopped.
pub async fn with_own_postgres(name: &str) -> TestStack {
    let (postgres, url) = OwnPostgres::start(name).await;
    start(name, &url, Some(postgres)).await
}

async fn start(name: &str, database_url: &str, postgres: Option<OwnPostgres>) -> TestStack {
    start_with(name, database_url, postgres, Vec::new(), Vec::new()).await
}

async fn start_with(
    name: &str,
    database_url: &str,
    postgres: Option<OwnPostgres>,
    control_plane_env: Vec<(String, String)>,
    worker_vars: Vec<(String, String)>,
) -> TestStack {
    let options = test_env().stack(name, database_url).await.unwrap_or_else(|error| panic!("{error}"));
    let options = StackOptions { control_plane_env, worker_vars, ..options };
    let (state, admin_key) = (options.state.clone(), options.secrets.admin_api_key.clone());
    let stack = Stack::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let kv_namespace_id = stack.control_plane_options.kv_namespace_id.clone();
    TestStack { stack, state, admin_key, kv_namespace_id, postgres }
}

/// Makes a database of this name anew on the server that the tests share, and gives its URL.
pub async fn database(name: &str) -> String {
    empty_database(&test_env().database_admin_url, name).await
}

/// Makes a database of this name anew, and gives its URL.
async fn empty_database(admin_url: &str, name: &str) -> String {
    let mut connection = PgConnection::connect(admin_url).await.expect("the tests' PostgreSQL");
    for statement in
        [format!("drop database if exists \"{name}\" with (force)"), format!("create database \"{name}\"")]
    {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.expect("a superuser");
    }
    let (server, _) = admin_url.rsplit_once('/').expect("a database URL");
    format!("{server}/{name}")
}

impl TestStack {
    /// An administrator with the global key.
    pub fn admin(&self) -> Admin {
        Admin::new(&self.control_plane_url(), &self.admin_key)
    }

    /// The KV namespace.
    pub fn kv(&self) -> Kv {
        Kv::new(&self.stack.control_plane_options.kv_api_url, &self.kv_namespace_id)
    }

    /// Waits until the Worker has logged a line that has both texts in it.
    pub async fn worker_logs(&self, event: &str, detail: &str) {
        let log = self.state.join("logs/worker.log");
        let what = format!("{event} {detail} in the Worker's log");
        wait::until(&what, Duration::from_secs(90), || async {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let found = text.lines().any(|line| line.contains(event) && line.contains(detail));
            if found { Ok(()) } else { Err(format!("{} lines", text.lines().count())) }
        })
        .await;
    }

    /// Stops the Worker, and with it the KV API.
    pub fn stop_worker(&mut self) {
        self.stack.worker.take().expect("a running Worker").stop();
    }

    /// Starts the Worker again, with what KV held.
    pub async fn start_worker(&mut self) {
        self.stack.start_worker().await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts the Worker anew: an isolate that holds nothing.
    pub async fn restart_worker(&mut self) {
        self.stop_worker();
        self.start_worker().await;
    }

    /// Starts the control plane again.
    pub async fn start_control_plane(&mut self) {
        self.stack.start_control_plane().await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stops PostgreSQL, where it is the stack's own.
    pub fn stop_postgres(&mut self) {
        self.postgres.as_mut().expect("a PostgreSQL of its own").stop();
    }

    /// Starts PostgreSQL again, on the same port.
    pub async fn start_postgres(&mut self) {
        self.postgres.as_mut().expect("a PostgreSQL of its own").resume().await;
    }

    /// The PostgreSQL, where it is the stack's own.
    pub fn postgres(&self) -> &OwnPostgres {
        self.postgres.as_ref().expect("a PostgreSQL of its own")
    }
}

impl Deref for TestStack {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}

impl DerefMut for TestStack {
    fn deref_mut(&mut self) -> &mut Stack {
        &mut self.stack
    }
}
