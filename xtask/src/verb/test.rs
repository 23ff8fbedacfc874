//! `cargo xtask test`: everything that the tests need, then the tests. The runner's own summary ends the output.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{db, sqlx};
use crate::{
    Error,
    command::Cmd,
    files,
    progress::{Step, heading, note},
    repo::Repo,
    setup::{
        cache::Cache,
        chromium,
        node::Node,
        postgres::PostgresPrograms,
        python::Python,
        worker::{Profile, WorkerBuild},
    },
    stack::postgres::Postgres,
    test_env::{TEST_DATABASE_URL, TEST_ENV, TEST_LONG, TestEnv},
};

/// Which tests to run.
#[derive(Clone, Debug, clap::Args)]
pub struct TestOptions {
    /// Run the soaks, the million-row runs and the long waits too.
    #[arg(long)]
    pub long: bool,
    /// Run only tests whose name holds one of these. What begins with a dash goes to the test runner as it is.
    #[arg(value_name = "FILTER", trailing_var_arg = true, allow_hyphen_values = true)]
    pub filters: Vec<String>,
}

/// Prepares the tests and runs them; the exit code is the runner's.
///
/// # Errors
/// When the preparation fails: a tool is missing, something does not compile, a generated file has drifted.
pub async fn run(repo: &Repo, xtask: &Path, options: TestOptions) -> Result<ExitCode, Error> {
    heading("set-up");
    let cache = Cache::open()?;
    let node = Node::ensure(repo).await?;
    let python = Python::ensure(repo, &cache).await?;
    let chromium = chromium::ensure().await?;
    let worker = WorkerBuild::ensure(repo, &cache, &node, Profile::Release).await?;
    let database = Database::ensure(repo, xtask, &python).await?;

    heading("checks");
    match &database {
        Database::Ours(server, _) => sqlx::run(repo, server, true).await?,
        Database::Given(_) => {
            note(&format!(".sqlx: not checked against the server that {TEST_DATABASE_URL} names"))
        }
    }
    dry_deploy(repo, &node).await?;

    let step = Step::loud("building everything");
    cargo(repo, "build", &["--workspace", "--all-targets"]).cargo_progress().run_shown().await?;
    step.done();

    let scratch = repo.scratch().join("stacks");
    files::create_folder(&scratch)?;
    let test_env = TestEnv {
        root: repo.root().to_path_buf(),
        xtask: xtask.to_path_buf(),
        keypost: repo.target().join("debug/keypost"),
        worker_build: worker.folder,
        node: node.node,
        wrangler: node.wrangler,
        python: python.python,
        chromium,
        postgres_bin: database.programs(),
        database_admin_url: database.admin_url(),
        scratch,
    };
    let env_file = repo.scratch().join("test-env.json");
    test_env.save(&env_file)?;

    heading("tests");
    let status = cargo(repo, "test", &["--workspace", "--no-fail-fast"])
        .args((!options.filters.is_empty()).then_some("--"))
        .args(&options.filters)
        .env(TEST_ENV, &env_file)
        .env(TEST_DATABASE_URL, database.admin_url())
        .env(TEST_LONG, if options.long { "1" } else { "0" })
        .status_shown()
        .await?;
    drop(database);
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The PostgreSQL that the tests make their databases on.
enum Database {
    Ours(Box<Postgres>, PostgresPrograms),
    Given(String),
}

impl Database {
    /// The server that `KEYPOST_TEST_DATABASE_URL` names (as a superuser), else one of our own.
    async fn ensure(repo: &Repo, xtask: &Path, python: &Python) -> Result<Self, Error> {
        if let Some(url) = env::var(TEST_DATABASE_URL).ok().filter(|url| !url.is_empty()) {
            return Ok(Self::Given(url));
        }
        let programs = PostgresPrograms::ensure(python).await?;
        let server = db::start_server(repo, xtask, &programs, "test").await?;
        Ok(Self::Ours(Box::new(server), programs))
    }

    fn admin_url(&self) -> String {
        match self {
            Self::Ours(server, _) => server.admin_url(),
            Self::Given(url) => url.clone(),
        }
    }

    fn programs(&self) -> Option<PathBuf> {
        match self {
            Self::Ours(_, programs) => Some(programs.bin.clone()),
            Self::Given(_) => None,
        }
    }
}

/// cargo without the person's database: the checked queries come from `.sqlx/`, the tests have a server of ours.
fn cargo(repo: &Repo, verb: &str, args: &[&str]) -> Cmd {
    Cmd::new(format!("cargo {verb}"), "cargo")
        .arg(verb)
        .args(args)
        .dir(repo.root())
        .env("SQLX_OFFLINE", "true")
        .env_remove("DATABASE_URL")
}

/// `wrangler deploy` up to the point where it would talk to Cloudflare, with wrangler.toml as it stands.
async fn dry_deploy(repo: &Repo, node: &Node) -> Result<(), Error> {
    let step = Step::quiet("wrangler deploy --dry-run");
    let out = repo.scratch().join("dry-deploy");
    node.wrangler("wrangler deploy --dry-run")
        .args(["deploy", "--dry-run", "--outdir"])
        .arg(&out)
        .env("WRANGLER_LOG_PATH", repo.scratch().join("wrangler-logs"))
        .dir(repo.root())
        .run()
        .await?;
    step.done();
    Ok(())
}
