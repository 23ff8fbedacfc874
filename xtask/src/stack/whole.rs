//! The control plane and the Worker together, wired to each other, on a database that is there already.

use std::path::PathBuf;

use serde_json::Value;

use super::{
    control_plane::{ControlPlane, ControlPlaneOptions},
    port::Port,
    worker::{self, Worker, WorkerOptions},
};
use crate::{Error, files, progress::Step, repo::Repo, secret::StackSecrets};

/// What a stack is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub repo: Repo,
    /// The `xtask` program, which supervises the others.
    pub xtask: PathBuf,
    /// The `keypost` binary.
    pub keypost: PathBuf,
    /// Node, for wrangler.
    pub node: PathBuf,
    /// wrangler's entry point.
    pub wrangler: PathBuf,
    /// The folder with the built Worker.
    pub worker_build: PathBuf,
}

/// How a stack is set up.
#[derive(Debug)]
pub struct StackOptions {
    pub parts: Parts,
    /// The folder for the Worker's configuration, KV and the logs.
    pub state: PathBuf,
    /// An empty database, or one that an earlier stack with the same secrets has left.
    pub database_url: String,
    pub secrets: StackSecrets,
    pub control_plane_port: Port,
    pub edge_port: Port,
    /// More variables for the control plane.
    pub control_plane_env: Vec<(String, String)>,
    /// More variables for the Worker.
    pub worker_vars: Vec<(String, String)>,
    /// A lock file to share as long as the stack lives.
    pub lock: Option<PathBuf>,
    /// Whether to tell a person what is going on.
    pub report: bool,
}

/// A control plane and a Worker. Dropped, the control plane stops first: it writes to the Worker's KV.
#[derive(Debug)]
pub struct Stack {
    /// Absent while it is stopped or killed.
    pub control_plane: Option<ControlPlane>,
    /// Absent while it is stopped.
    pub worker: Option<Worker>,
    /// The root's public key.
    pub root_key: Value,
    /// A client that both are asked with.
    pub http: reqwest::Client,
    pub control_plane_options: ControlPlaneOptions,
    pub worker_options: WorkerOptions,
    parts: Parts,
    control_plane_port: Port,
    edge_port: Port,
}

impl Stack {
    /// Migrates the database, makes the root key, and starts the Worker and the control plane.
    ///
    /// # Errors
    /// When one of them fails.
    pub async fn start(options: StackOptions) -> Result<Self, Error> {
        let StackOptions { parts, state, secrets, control_plane_port, edge_port, .. } = options;
        let logs = state.join("logs");
        files::create_folder(&logs)?;
        let edge_url = worker::url_of(&edge_port);
        let control_plane_options = ControlPlaneOptions {
            binary: parts.keypost.clone(),
            database_url: options.database_url,
            secrets: secrets.clone(),
            kv_api_url: worker::kv_api_url(&edge_url),
            kv_namespace_id: worker::kv_namespace_id(&parts.repo)?,
            edge_url,
            log: logs.join("control-plane.log"),
            lock: options.lock.clone(),
            env: options.control_plane_env,
        };
        let step = Step::quiet_if(options.report, "migrating the database");
        control_plane_options.migrate().await?;
        step.done();
        let step = Step::quiet_if(options.report, "the root key");
        let root_key = control_plane_options.root_key().await?;
        step.done();

        let worker_options = WorkerOptions {
            node: parts.node.clone(),
            wrangler: parts.wrangler.clone(),
            build: parts.worker_build.clone(),
            state: state.join("worker"),
            root_keys: vec![root_key.clone()],
            control_plane_url: worker::url_of(&control_plane_port),
            secrets,
            log: logs.join("worker.log"),
            lock: options.lock,
            vars: options.worker_vars,
        };
        let http = reqwest::Client::builder().no_proxy().build().map_err(Error::request("an HTTP client"))?;
        let mut stack = Self {
            control_plane: None,
            worker: None,
            root_key,
            http,
            control_plane_options,
            worker_options,
            parts,
            control_plane_port,
            edge_port,
        };
        let step = Step::quiet_if(options.report, "starting the Worker (wrangler dev)");
        stack.start_worker().await?;
        step.done();
        let step = Step::quiet_if(options.report, "starting the control plane");
        stack.start_control_plane().await?;
        step.done();
        Ok(stack)
    }

    /// Starts the control plane where it was before it was stopped or killed.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_control_plane(&mut self) -> Result<(), Error> {
        self.control_plane = None;
        let started = ControlPlane::start(
            &self.parts.xtask,
            &self.http,
            &self.control_plane_port,
            &self.control_plane_options,
        );
        self.control_plane = Some(started.await?);
        Ok(())
    }

    /// Starts the Worker where it was before it was stopped.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_worker(&mut self) -> Result<(), Error> {
        self.worker = None;
        let started = Worker::start(
            &self.parts.xtask,
            &self.http,
            &self.parts.repo,
            &self.edge_port,
            &self.worker_options,
        );
        self.worker = Some(started.await?);
        Ok(())
    }

    /// Kills the control plane with -9.
    pub fn kill_control_plane(&mut self) {
        if let Some(control_plane) = self.control_plane.take() {
            control_plane.kill();
        }
    }

    /// Stops the control plane as an operator would.
    pub fn stop_control_plane(&mut self) {
        if let Some(control_plane) = self.control_plane.take() {
            control_plane.stop();
        }
    }

    /// Where the control plane answers.
    #[must_use]
    pub fn control_plane_url(&self) -> String {
        worker::url_of(&self.control_plane_port)
    }

    /// Where the Worker answers: the prefix of every issuer.
    #[must_use]
    pub fn edge_url(&self) -> String {
        worker::url_of(&self.edge_port)
    }
}
