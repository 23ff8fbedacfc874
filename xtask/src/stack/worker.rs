//! The Worker in workerd, under `wrangler dev`, with the KV API that it serves on the side.
//!
//! wrangler gets a configuration of our own making: wrangler.toml without its build command (we have built the
//! Worker), in a folder of its own, so that stacks run side by side and a test run starts no cargo. Variables and
//! secrets come from a file beside it that only its owner can read.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    port::Port,
    process::{Process, Spec},
};
use crate::{Error, files, repo::Repo, secret::StackSecrets, setup::node::wrangler_environment};

const START_LIMIT: Duration = Duration::from_secs(90);

/// The name of the KV binding.
const BINDING: &str = "KEYPOST_KV";

/// What the Worker runs with.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Node, for wrangler.
    pub node: PathBuf,
    /// wrangler's entry point.
    pub wrangler: PathBuf,
    /// The folder with the built Worker.
    pub build: PathBuf,
    /// The folder for its configuration and for what KV holds.
    pub state: PathBuf,
    /// JWKs of the roots that it trusts.
    pub root_keys: Vec<Value>,
    pub control_plane_url: String,
    pub secrets: StackSecrets,
    pub log: PathBuf,
    /// A lock file to share as long as it lives.
    pub lock: Option<PathBuf>,
    /// More variables, or others.
    pub vars: Vec<(String, String)>,
}

/// A running Worker.
#[derive(Debug)]
pub struct Worker {
    process: Process,
}

impl Worker {
    /// Starts it and waits until the Worker and its KV API answer.
    ///
    /// # Errors
    /// When it dies or does not come up.
    pub async fn start(
        xtask: &Path,
        http: &reqwest::Client,
        repo: &Repo,
        port: &Port,
        options: &WorkerOptions,
    ) -> Result<Self, Error> {
        let state = &options.state;
        files::create_folder(state)?;
        let config = state.join("wrangler.json");
        files::write_private(&config, configuration(repo, &options.build)?.to_string().as_bytes())?;
        let variables = state.join("worker.env");
        files::write_private(&variables, options.variables()?.as_bytes())?;

        let mut spec = Spec::new("the Worker", &options.node, &options.log)
            .args([options.wrangler.as_os_str(), "dev".as_ref(), "--config".as_ref(), config.as_os_str()])
            .args(["--env-file".as_ref(), variables.as_os_str()])
            .args(["--persist-to".as_ref(), state.join("kv").as_os_str()])
            .args(["--ip", "127.0.0.1", "--port", &port.number().to_string(), "--inspector-port", "0"])
            .args(["--show-interactive-dev-session=false", "--log-level", "info"])
            .envs(wrangler_environment())
            .envs([
                ("WRANGLER_REGISTRY_PATH", state.join("registry")),
                ("WRANGLER_LOG_PATH", state.join("wrangler-logs")),
                ("WRANGLER_CACHE_DIR", state.join("wrangler-cache")),
            ]);
        spec.dir = Some(state.clone());
        spec.grace = Duration::from_secs(5);
        spec.lock.clone_from(&options.lock);
        let mut process = Process::start(xtask, spec)?;
        let url = url_of(port);
        let healthy = format!("{url}/healthz");
        let kv = format!("{}/storage/kv/namespaces", kv_api_url(&url));
        let up = || async {
            super::answers_ok(http, &healthy).await?;
            super::answers_ok(http, &kv).await
        };
        process.until_up(START_LIMIT, up).await?;
        Ok(Self { process })
    }

    /// The process, to watch.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it.
    pub fn stop(self) {
        self.process.stop();
    }
}

/// Where the Worker on this port answers.
#[must_use]
pub fn url_of(port: &Port) -> String {
    format!("http://127.0.0.1:{}", port.number())
}

/// The KV API of the `wrangler dev` at this URL; it wants 127.0.0.1 or localhost for a host.
#[must_use]
pub fn kv_api_url(edge_url: &str) -> String {
    format!("{edge_url}/cdn-cgi/local/explorer/api")
}

/// The namespace id in wrangler.toml. Locally any id would do, so this one does.
///
/// # Errors
/// When wrangler.toml has no such binding.
pub fn kv_namespace_id(repo: &Repo) -> Result<String, Error> {
    let config = wrangler_toml(repo)?;
    config
        .get("kv_namespaces")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|namespace| namespace.get("binding").and_then(Value::as_str) == Some(BINDING))
        .and_then(|namespace| namespace.get("id")?.as_str().map(ToOwned::to_owned))
        .ok_or_else(|| Error::Malformed {
            what: "wrangler.toml".to_owned(),
            detail: format!("it binds no {BINDING}"),
        })
}

impl WorkerOptions {
    fn variables(&self) -> Result<String, Error> {
        let own = [
            ("ROOT_PUBLIC_KEYS", json!(self.root_keys).to_string()),
            ("CONTROL_PLANE_URL", self.control_plane_url.clone()),
            ("KEYPOST_ENV", "dev".to_owned()),
            ("EDGE_SEALING_KEY", self.secrets.edge_sealing_key.clone()),
            ("EDGE_SHARED_SECRET", self.secrets.edge_shared_secret.clone()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        let mut lines = String::new();
        for (name, value) in own.chain(self.vars.iter().cloned()) {
            if value.contains(['\'', '\n']) {
                return Err(Error::Refused(format!(
                    "the Worker's variable {name} holds a quote or a line break"
                )));
            }
            lines.push_str(&format!("{name}='{value}'\n"));
        }
        Ok(lines)
    }
}

fn wrangler_toml(repo: &Repo) -> Result<Value, Error> {
    let path = repo.path("wrangler.toml");
    let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    toml::from_str(&text).map_err(Error::malformed("wrangler.toml"))
}

fn configuration(repo: &Repo, build: &Path) -> Result<Value, Error> {
    let mut config = wrangler_toml(repo)?;
    if let Some(config) = config.as_object_mut() {
        config.remove("build");
        config.insert("main".to_owned(), json!(build.join("index.js")));
    }
    Ok(config)
}
