//! A Worker in plain `workerd serve`: no wrangler, no proxy, one process for one Worker.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::TcpStream;

use crate::{
    Error, files,
    setup::node::Node,
    stack::{
        port::Port,
        process::{Process, Spec},
    },
};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A Worker to run.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// What a person calls it, and its folder.
    pub(super) name: &'static str,
    /// Its modules, the first one being what is run. `.wasm` is WebAssembly, the rest is JavaScript.
    pub(super) modules: Vec<PathBuf>,
    /// Its variables.
    pub(super) vars: Vec<(&'static str, String)>,
    /// Where its binding `KEYPOST_KV` reads from: `127.0.0.1:PORT`.
    pub(super) kv: Option<String>,
    /// Where its location's cache is.
    pub(super) cache: Option<String>,
}

/// A running Worker.
#[derive(Debug)]
pub(super) struct Workerd {
    process: Process,
    port: Port,
}

/// What starts Workers.
#[derive(Debug)]
pub(super) struct Workerds {
    xtask: PathBuf,
    program: PathBuf,
    state: PathBuf,
    compatibility_date: String,
}

impl Workerds {
    /// Finds workerd where npm has put it, and clears `state`.
    ///
    /// # Errors
    /// When npm installed none for this machine, or `wrangler.toml` names no date.
    pub(super) fn new(
        xtask: &Path,
        node: &Node,
        wrangler_toml: &Path,
        state: PathBuf,
    ) -> Result<Self, Error> {
        let folder = node.modules.join("@cloudflare");
        let program = fs::read_dir(&folder)
            .map_err(Error::file("read", &folder))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin/workerd")))
            .find(|path| path.is_file())
            .ok_or_else(|| Error::Refused("npm installed no workerd for this machine".to_owned()))?;
        let text = fs::read_to_string(wrangler_toml).map_err(Error::file("read", wrangler_toml))?;
        let config: toml::Table = text.parse().map_err(Error::malformed("wrangler.toml"))?;
        let date = config.get("compatibility_date").and_then(toml::Value::as_str);
        let date = date.ok_or_else(|| Error::Malformed {
            what: "wrangler.toml".to_owned(),
            detail: "no compatibility_date".to_owned(),
        })?;
        if state.exists() {
            fs::remove_dir_all(&state).map_err(Error::file("clear", &state))?;
        }
        Ok(Self { xtask: xtask.to_path_buf(), program, state, compatibility_date: date.to_owned() })
    }

    /// Starts a Worker and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub(super) async fn start(&self, script: &Script) -> Result<Workerd, Error> {
        let folder = self.state.join(script.name);
        files::create_folder(&folder)?;
        let port = Port::free(None)?;
        let config = folder.join("config.capnp");
        files::write_private(&config, self.configuration(script, &folder, &port)?.as_bytes())?;
        let log = folder.join("workerd.log");
        files::remove_if_there(&log)?;
        let mut spec = Spec::new("workerd", &self.program, log).args(["serve".as_ref(), config.as_os_str()]);
        spec.dir = Some(folder);
        spec.grace = Duration::from_secs(2);
        let mut process = Process::start(&self.xtask, spec)?;
        let address = address(&port);
        let listens = || async {
            TcpStream::connect(&address).await.map(drop).map_err(|error| format!("{address}: {error}"))
        };
        process.until_up(START_LIMIT, listens).await?;
        Ok(Workerd { process, port })
    }

    /// The configuration (`workerd.capnp` in npm's package says what each field is), with the modules beside it.
    fn configuration(&self, script: &Script, folder: &Path, port: &Port) -> Result<String, Error> {
        let mut modules = String::new();
        for path in &script.modules {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            fs::copy(path, folder.join(&name)).map_err(Error::file("copy", path))?;
            let kind = if name.ends_with(".wasm") { "wasm" } else { "esModule" };
            let _ = write!(modules, "(name = {0}, {kind} = embed {0}), ", quoted(&name));
        }
        let mut bindings = String::new();
        for (name, value) in &script.vars {
            let _ = write!(bindings, "(name = {}, text = {}), ", quoted(name), quoted(value));
        }
        let mut services = String::new();
        for (name, address) in [("kv", &script.kv), ("cache", &script.cache)] {
            let Some(address) = address else { continue };
            let address = quoted(address);
            let _ = write!(services, "(name = \"{name}\", external = (address = {address}, http = ())), ");
        }
        if script.kv.is_some() {
            bindings.push_str("(name = \"KEYPOST_KV\", kvNamespace = \"kv\"), ");
        }
        let cache = if script.cache.is_some() { "cacheApiOutbound = \"cache\"," } else { "" };
        Ok(format!(
            r#"using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "internet", network = (allow = ["private", "local"])),
    {services}
  ],
  sockets = [(name = "http", address = "{}", http = (), service = "main")],
);

const worker :Workerd.Worker = (
  modules = [{modules}],
  compatibilityDate = {},
  bindings = [{bindings}],
  {cache}
);
"#,
            address(port),
            quoted(&self.compatibility_date),
        ))
    }
}

impl Workerd {
    /// `127.0.0.1:PORT`.
    pub(super) fn address(&self) -> String {
        address(&self.port)
    }

    /// The number of its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn address(port: &Port) -> String {
    format!("127.0.0.1:{}", port.number())
}

/// Text as Cap'n Proto's schema language writes it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
