//! The control plane: the `keypost` binary with its environment.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    port::Port,
    process::{Process, Spec},
};
use crate::{Error, command::Cmd, secret::StackSecrets};

const START_LIMIT: Duration = Duration::from_secs(60);

/// What the control plane runs with.
#[derive(Clone, Debug)]
pub struct ControlPlaneOptions {
    /// The `keypost` binary.
    pub binary: PathBuf,
    pub database_url: String,
    pub secrets: StackSecrets,
    /// Prefix of every issuer, without a slash at its end.
    pub edge_url: String,
    /// Ends before `/storage/kv/`.
    pub kv_api_url: String,
    pub kv_namespace_id: String,
    pub log: PathBuf,
    /// A lock file to share as long as it lives.
    pub lock: Option<PathBuf>,
    /// More variables, or others.
    pub env: Vec<(String, String)>,
}

impl ControlPlaneOptions {
    /// `keypost migrate`.
    ///
    /// # Errors
    /// When it fails.
    pub async fn migrate(&self) -> Result<(), Error> {
        self.command("migrate").arg("migrate").run().await
    }

    /// `keypost root show`: the root's public key as a JWK on one line; the root is made if there is none.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub async fn root_key(&self) -> Result<serde_json::Value, Error> {
        let printed = self.command("root show").args(["root", "show"]).output().await?;
        let key = printed.lines().rev().find(|line| line.starts_with('{')).unwrap_or_default();
        serde_json::from_str(key).map_err(Error::malformed("what `keypost root show` prints"))
    }

    /// `keypost apikey generate`: a well-formed API key for a global admin.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub async fn generate_admin_key(binary: &Path) -> Result<String, Error> {
        let printed =
            Cmd::new("keypost apikey generate", binary).args(["apikey", "generate"]).output().await?;
        printed
            .split_whitespace()
            .find(|word| word.starts_with("kp_admin_"))
            .map(ToOwned::to_owned)
            .ok_or_else(|| Error::Malformed {
                what: "what `keypost apikey generate` prints".to_owned(),
                detail: "no kp_admin_… in it".to_owned(),
            })
    }

    fn command(&self, verb: &str) -> Cmd {
        Cmd::new(format!("keypost {verb}"), &self.binary)
            .envs(self.environment("127.0.0.1:0", "http://127.0.0.1:0"))
    }

    fn environment(&self, listen: &str, public_url: &str) -> Vec<(String, String)> {
        let secrets = &self.secrets;
        let log = std::env::var("KEYPOST_LOG").unwrap_or_else(|_| "pretty,info".to_owned());
        [
            ("KEYPOST_ENV", "dev"),
            ("KEYPOST_LOG", &log),
            ("KEYPOST_LISTEN", listen),
            ("KEYPOST_PUBLIC_URL", public_url),
            ("DATABASE_URL", &self.database_url),
            ("KEYPOST_EDGE_URL", &self.edge_url),
            ("KEYPOST_KV_API_URL", &self.kv_api_url),
            ("KEYPOST_KV_NAMESPACE_ID", &self.kv_namespace_id),
            ("KEYPOST_KV_API_TOKEN", ""),
            // The local KV blocks for minutes on Cloudflare's 10,000.
            ("KEYPOST_KV_BATCH_SIZE", "500"),
            ("KEYPOST_ROOT_SIGNER", "local"),
            // A rotation need not wait for an hour here: within a minute every isolate has heard of a new key.
            ("KEYPOST_SIGNING_KEY_SECONDS", "70"),
            ("KEYPOST_MASTER_KEY", &secrets.master_key),
            ("KEYPOST_EDGE_SEALING_KEY", &secrets.edge_sealing_key),
            ("KEYPOST_EDGE_SHARED_SECRET", &secrets.edge_shared_secret),
            ("KEYPOST_ADMIN_API_KEY", &secrets.admin_api_key),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(self.env.iter().cloned())
        .collect()
    }
}

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    process: Process,
}

impl ControlPlane {
    /// Starts it and waits until it is ready for requests.
    ///
    /// # Errors
    /// When it dies or does not become ready.
    pub async fn start(
        xtask: &Path,
        http: &reqwest::Client,
        port: &Port,
        options: &ControlPlaneOptions,
    ) -> Result<Self, Error> {
        let mut control_plane = Self::launch(xtask, port, options)?;
        let ready = format!("http://127.0.0.1:{}/readyz", port.number());
        control_plane.process.until_up(START_LIMIT, || super::answers_ok(http, &ready)).await?;
        Ok(control_plane)
    }

    /// Starts it, and does not wait until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(xtask: &Path, port: &Port, options: &ControlPlaneOptions) -> Result<Self, Error> {
        let listen = format!("127.0.0.1:{}", port.number());
        let url = format!("http://{listen}");
        let mut spec = Spec::new("the control plane", &options.binary, &options.log)
            .args(["serve"])
            .envs(options.environment(&listen, &url));
        // It promises to drain within ten seconds.
        spec.grace = Duration::from_secs(12);
        spec.lock.clone_from(&options.lock);
        Ok(Self { process: Process::start(xtask, spec)? })
    }

    /// The process, to watch.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it as an operator would, with SIGTERM.
    pub fn stop(self) {
        self.process.stop();
    }

    /// Kills it with -9.
    pub fn kill(self) {
        self.process.kill();
    }
}
