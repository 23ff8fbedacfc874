//! `cargo xtask`: set-up, the local stack, and the checks.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use xtask::{
    Error,
    interrupt::unless_interrupted,
    progress,
    repo::Repo,
    setup::{
        cache::Cache,
        node::Node,
        worker::{Profile, WorkerBuild},
    },
    stack::supervise::{Supervise, supervise},
    verb,
};

/// Everything that Keypost needs on a machine, and the stack that it runs in.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run everything on this machine, get a first token as a device would, and keep running until Ctrl-C.
    ///
    /// Makes sure of the npm packages, the wasm toolchain, PostgreSQL, the secrets and a demo device first.
    /// DATABASE_URL in the environment uses a PostgreSQL of your own.
    Dev(verb::dev::DevOptions),
    /// Check everything: unit, store and end-to-end tests, generated files, a dry deployment.
    Test(verb::test::TestOptions),
    /// Build the Worker into edge-worker/build.
    #[command(subcommand)]
    Worker(WorkerVerb),
    /// Write .sqlx/, which lets the checked queries compile without a database.
    Sqlx {
        /// Change nothing; fail if .sqlx/ is not what the sources and migrations ask for.
        #[arg(long)]
        check: bool,
    },
    /// Write openapi.json, which describes the control plane's API.
    #[command(name = "openapi")]
    OpenApi,
    /// Run a PostgreSQL with a migrated, empty database for development, until Ctrl-C.
    Db {
        /// Print the URL of the one that runs already.
        #[arg(long)]
        print: bool,
    },
    /// Measure lists of a million devices in PostgreSQL: times and plans.
    ///
    /// Takes some minutes and 2 GB of disk, which it gives back.
    Lists,
    /// Measure the Worker and the control plane beside yardsticks, in one table.
    ///
    /// For the machine alone: whatever else runs there spoils the figures. Takes some minutes; `--quick` three.
    Bench(verb::bench::BenchOptions),
    /// Decide on certificate chains with the Worker's validator: a line of JSON for each case of a file.
    Chains(verb::chains::ChainsOptions),
    /// Stand between us and one process of the stack.
    #[command(hide = true)]
    Supervise(Supervise),
}

#[derive(Debug, Subcommand)]
enum WorkerVerb {
    /// Build it, unless nothing has changed since; it must not exceed 1 MiB gzipped.
    Build {
        /// Build what ships (the default).
        #[arg(long, conflicts_with = "dev")]
        release: bool,
        /// Build faster, and bigger.
        #[arg(long)]
        dev: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.verb {
        // One thread and no runtime: it does little, and there are many of it.
        Verb::Supervise(options) => supervise(&options),
        verb => run(verb),
    };
    match result {
        Ok(code) => code,
        Err(Error::Interrupted) => {
            progress::heading("\nstopped");
            ExitCode::from(130)
        }
        Err(error) => {
            progress::heading(&format!("\nerror: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(verb: Verb) -> Result<ExitCode, Error> {
    let repo = Repo::find()?;
    let xtask = own_path()?;
    match verb {
        Verb::Dev(options) => verb::dev::run(&repo, &xtask, options).await?,
        Verb::Test(options) => return unless_interrupted(verb::test::run(&repo, &xtask, options)).await,
        Verb::Worker(WorkerVerb::Build { dev, .. }) => {
            let profile = if dev { Profile::Dev } else { Profile::Release };
            unless_interrupted(async {
                let node = Node::ensure(&repo).await?;
                WorkerBuild::ensure(&repo, &Cache::open()?, &node, profile).await
            })
            .await?;
        }
        Verb::Sqlx { check } => {
            unless_interrupted(async {
                let programs = verb::db::programs(&repo).await?;
                let server = verb::db::start_server(&repo, &xtask, &programs, "sqlx").await?;
                verb::sqlx::run(&repo, &server, check).await
            })
            .await?;
        }
        Verb::OpenApi => unless_interrupted(verb::openapi::run(&repo)).await?,
        Verb::Db { print: true } => verb::db::print_url(&repo)?,
        Verb::Db { print: false } => verb::db::run(&repo, &xtask).await?,
        Verb::Lists => unless_interrupted(verb::lists::run(&repo, &xtask)).await?,
        Verb::Bench(options) => unless_interrupted(verb::bench::run(&repo, &xtask, &options)).await?,
        Verb::Chains(options) => verb::chains::run(&options).await?,
        Verb::Supervise(options) => return supervise(&options),
    }
    Ok(ExitCode::SUCCESS)
}

/// Where this program is, for the supervisors to be started from.
fn own_path() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(Error::file("find", "xtask"))
}
