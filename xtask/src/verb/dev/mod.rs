//! `cargo xtask dev`: everything up, a demo device, a first token, until Ctrl-C.

mod demo;
mod output;
mod token;

use std::{
    env,
    path::{Path, PathBuf, absolute},
    str::FromStr,
};

use serde_json::json;

use self::demo::Demo;
use crate::{
    Error,
    command::Cmd,
    files::{self, FolderLock},
    interrupt::{interrupted, unless_interrupted},
    progress::{Step, heading, note},
    repo::Repo,
    secret::StackSecrets,
    setup::{
        cache::Cache,
        node::Node,
        postgres::PostgresPrograms,
        python::Python,
        worker::{Profile, WorkerBuild},
    },
    stack::{
        control_plane::ControlPlaneOptions,
        port::Port,
        postgres::{Postgres, PostgresOptions},
        whole::{Parts, Stack, StackOptions},
    },
    verb::until_dead,
};

const DATABASE: &str = "keypost";

const PORTS_REMEDY: &str = "--ports CONTROL_PLANE,EDGE";

/// Where to run.
#[derive(Clone, Debug, clap::Args)]
pub struct DevOptions {
    /// The ports of the control plane and of the edge.
    #[arg(long, value_name = "CP,EDGE", default_value = "8080,8787")]
    pub ports: Ports,
    /// The folder for the database, KV, secrets and logs. A second stack needs one of its own.
    #[arg(long, value_name = "DIR", default_value = ".keypost")]
    pub state: PathBuf,
}

/// Two ports, as `8080,8787`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ports {
    control_plane: u16,
    edge: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (control_plane, edge) = text.split_once(',')?;
            Some(Self { control_plane: control_plane.trim().parse().ok()?, edge: edge.trim().parse().ok()? })
        };
        parse()
            .filter(|ports| ports.control_plane != ports.edge && ports.control_plane != 0 && ports.edge != 0)
            .ok_or_else(|| "two different ports, as in 8080,8787".to_owned())
    }
}

/// Runs the stack until Ctrl-C or until a part of it dies.
///
/// # Errors
/// When something is missing, does not come up, or dies.
pub async fn run(repo: &Repo, xtask: &Path, options: DevOptions) -> Result<(), Error> {
    let state = absolute(&options.state).map_err(Error::file("find", &options.state))?;
    files::create_folder(&state)?;
    let Some(_lock) = FolderLock::try_take(&state.join("lock"))? else {
        return Err(Error::Refused(format!(
            "a stack already runs on {}: stop it, or give this one another --state and other --ports",
            state.display()
        )));
    };
    let announcement = state.join("dev.json");
    files::remove_if_there(&announcement)?;

    let mut up = unless_interrupted(bring_up(repo, xtask, &state, options.ports)).await?;
    unless_interrupted(async {
        let demo = demo::provision(&up.stack, &state.join("demo.json")).await?;
        files::write_private(&announcement, up.announcement(&demo)?.as_bytes())?;
        output::print(&up.stack, &demo, &announcement);
        Ok(())
    })
    .await?;

    let result = tokio::select! {
        () = interrupted() => Ok(()),
        death = up.death() => Err(death),
    };
    files::remove_if_there(&announcement)?;
    heading("\nstopping");
    up.stop();
    result
}

/// The running pieces.
struct Up {
    stack: Stack,
    /// Absent where the database is somebody's own.
    postgres: Option<Postgres>,
    database_url: String,
}

async fn bring_up(repo: &Repo, xtask: &Path, state: &Path, ports: Ports) -> Result<Up, Error> {
    heading("set-up");
    // What a killed run has left is still stopping, and holds the ports until it has.
    let children = state.join("children.lock");
    drop(FolderLock::take(&children, "the previous run is still stopping").await?);
    let control_plane_port = Port::fixed(ports.control_plane, PORTS_REMEDY)?;
    let edge_port = Port::fixed(ports.edge, PORTS_REMEDY)?;

    let cache = Cache::open()?;
    let node = Node::ensure(repo).await?;
    let worker = WorkerBuild::ensure(repo, &cache, &node, Profile::Release).await?;
    let keypost = build_control_plane(repo).await?;

    heading("stack");
    let logs = state.join("logs");
    if logs.exists() {
        std::fs::remove_dir_all(&logs).map_err(Error::file("clear", &logs))?;
    }
    let (postgres, database_url) = match env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
        Some(url) => {
            note("PostgreSQL: the one that DATABASE_URL names");
            (None, url)
        }
        None => {
            let server = start_postgres(repo, xtask, &cache, state, &children).await?;
            let url = server.url(DATABASE);
            (Some(server), url)
        }
    };
    let stack = Stack::start(StackOptions {
        parts: Parts {
            repo: repo.clone(),
            xtask: xtask.to_path_buf(),
            keypost: keypost.clone(),
            node: node.node,
            wrangler: node.wrangler,
            worker_build: worker.folder,
        },
        state: state.to_path_buf(),
        database_url: database_url.clone(),
        secrets: secrets(&state.join("secrets.json"), &keypost).await?,
        control_plane_port,
        edge_port,
        control_plane_env: Vec::new(),
        worker_vars: Vec::new(),
        lock: Some(children),
        report: true,
    })
    .await?;
    Ok(Up { stack, postgres, database_url })
}

/// Builds the `keypost` binary, with the checked queries from `.sqlx/` whatever database the person has in the
/// environment.
async fn build_control_plane(repo: &Repo) -> Result<PathBuf, Error> {
    let step = Step::loud("building the control plane");
    Cmd::new("cargo build", "cargo")
        // With the features of the whole workspace, so that `cargo xtask test` finds the dependencies built.
        .args(["build", "--workspace", "--bin", "keypost"])
        .dir(repo.root())
        .env("SQLX_OFFLINE", "true")
        .cargo_progress()
        .run_shown()
        .await?;
    step.done();
    Ok(repo.target().join("debug/keypost"))
}

async fn start_postgres(
    repo: &Repo,
    xtask: &Path,
    cache: &Cache,
    state: &Path,
    children: &Path,
) -> Result<Postgres, Error> {
    let programs = PostgresPrograms::ensure(&Python::ensure(repo, cache).await?).await?;
    let step = Step::quiet("starting PostgreSQL");
    let options = PostgresOptions {
        state: state.to_path_buf(),
        log: state.join("logs/postgres.log"),
        durable: true,
        max_connections: 100,
        lock: Some(children.to_path_buf()),
    };
    let server = Postgres::start(xtask, &programs, options).await?;
    server.ensure_database(DATABASE).await?;
    step.done();
    Ok(server)
}

/// The stack's secrets: made at the first start, and kept, because what they encrypt is kept too.
async fn secrets(path: &Path, keypost: &Path) -> Result<StackSecrets, Error> {
    if let Some(kept) = files::read_if_there(path)? {
        return serde_json::from_str(&kept).map_err(Error::malformed(path.display().to_string()));
    }
    let secrets = StackSecrets::random(ControlPlaneOptions::generate_admin_key(keypost).await?);
    let text = serde_json::to_string_pretty(&secrets).map_err(Error::malformed("the secrets"))?;
    files::write_private(path, text.as_bytes())?;
    Ok(secrets)
}

impl Up {
    /// `dev.json`: what a script needs to use the stack.
    fn announcement(&self, demo: &Demo) -> Result<String, Error> {
        let options = &self.stack.control_plane_options;
        let announcement = json!({
            "controlPlaneUrl": self.stack.control_plane_url(),
            "edgeUrl": self.stack.edge_url(),
            "adminApiKey": options.secrets.admin_api_key,
            "databaseUrl": self.database_url,
            "kvApiUrl": options.kv_api_url,
            "kvNamespaceId": options.kv_namespace_id,
            "demo": demo.credentials,
        });
        serde_json::to_string_pretty(&announcement).map_err(Error::malformed("dev.json"))
    }

    /// Returns when one of the pieces has ended by itself.
    async fn death(&mut self) -> Error {
        let Self { stack, postgres, .. } = self;
        tokio::select! {
            death = until_dead(postgres.as_mut().map(Postgres::process)) => death,
            death = until_dead(stack.worker.as_mut().map(|worker| worker.process())) => death,
            death = until_dead(stack.control_plane.as_mut().map(|control_plane| control_plane.process())) => death,
        }
    }

    /// Stops everything: first who writes, then what is written to.
    fn stop(mut self) {
        let step = Step::quiet("the control plane");
        self.stack.stop_control_plane();
        step.done();
        let step = Step::quiet("the Worker");
        self.stack.worker = None;
        step.done();
        if let Some(postgres) = self.postgres.take() {
            let step = Step::quiet("PostgreSQL");
            drop(postgres);
            step.done();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_two_different_numbers() {
        assert_eq!("18080,18787".parse(), Ok(Ports { control_plane: 18080, edge: 18787 }));
        for wrong in ["", "8080", "8080,8080", "0,8787", "8080,70000", "a,b"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }
}
