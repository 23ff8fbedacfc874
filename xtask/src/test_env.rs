//! What `cargo xtask test` prepares and the end-to-end tests find again: a JSON file whose path is in
//! `KEYPOST_TEST_ENV`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, files,
    repo::Repo,
    secret::StackSecrets,
    stack::{
        control_plane::ControlPlaneOptions,
        port::Port,
        whole::{Parts, StackOptions},
    },
};

/// The variable that holds the file's path.
pub const TEST_ENV: &str = "KEYPOST_TEST_ENV";

/// The variable that holds the URL of a PostgreSQL superuser, for tests that make databases of their own.
pub const TEST_DATABASE_URL: &str = "KEYPOST_TEST_DATABASE_URL";

/// The variable that is `1` when the long tests are asked for, else `0`.
pub const TEST_LONG: &str = "KEYPOST_TEST_LONG";

/// Where everything is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestEnv {
    /// The top of the checkout.
    pub root: PathBuf,
    /// The `xtask` program, which supervises the processes of a stack.
    pub xtask: PathBuf,
    /// The `keypost` binary.
    pub keypost: PathBuf,
    /// The folder with the built Worker.
    pub worker_build: PathBuf,
    /// A Node that runs wrangler and the test clients of `node_modules`.
    pub node: PathBuf,
    /// wrangler's entry point, for `node`.
    pub wrangler: PathBuf,
    /// A Python with the test clients.
    pub python: PathBuf,
    /// A Chromium, or a browser that is built of it.
    pub chromium: PathBuf,
    /// The folder with psql, pg_dump, pgbench and the server itself; absent where the server is somebody's own.
    pub postgres_bin: Option<PathBuf>,
    /// The URL of a PostgreSQL superuser.
    pub database_admin_url: String,
    /// Where tests leave state and logs, each in a folder of its own.
    pub scratch: PathBuf,
}

impl TestEnv {
    /// Reads the file that `KEYPOST_TEST_ENV` names.
    ///
    /// # Errors
    /// [`Error::Refused`] without the variable: somebody ran `cargo test` where `cargo xtask test` was meant.
    pub fn load() -> Result<Self, Error> {
        let path = env::var_os(TEST_ENV).map(PathBuf::from).ok_or_else(|| {
            Error::Refused(format!("{TEST_ENV} is not set: run the end-to-end tests with `cargo xtask test`"))
        })?;
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        serde_json::from_str(&text).map_err(Error::malformed(path.display().to_string()))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).map_err(Error::malformed("the test environment"))?;
        files::write_private(path, text.as_bytes())
    }

    /// What a stack is made of.
    #[must_use]
    pub fn parts(&self) -> Parts {
        Parts {
            repo: Repo::at(self.root.clone()),
            xtask: self.xtask.clone(),
            keypost: self.keypost.clone(),
            node: self.node.clone(),
            wrangler: self.wrangler.clone(),
            worker_build: self.worker_build.clone(),
        }
    }

    /// A stack on this database, with secrets and ports of its own and its state in `scratch/NAME`; change what
    /// the test is about, then [`crate::stack::whole::Stack::start`] it.
    ///
    /// # Errors
    /// When no port is free or `keypost apikey generate` fails.
    pub async fn stack(&self, name: &str, database_url: &str) -> Result<StackOptions, Error> {
        let state = self.scratch.join(name);
        if state.exists() {
            fs::remove_dir_all(&state).map_err(Error::file("clear", &state))?;
        }
        Ok(StackOptions {
            parts: self.parts(),
            state,
            database_url: database_url.to_owned(),
            secrets: StackSecrets::random(ControlPlaneOptions::generate_admin_key(&self.keypost).await?),
            control_plane_port: Port::free(None)?,
            edge_port: Port::free(None)?,
            control_plane_env: Vec::new(),
            worker_vars: Vec::new(),
            lock: None,
            report: false,
        })
    }
}
