//! The npm packages: wrangler with a Node that it accepts, esbuild, wasm-opt, and the JavaScript clients of the
//! tests. npm itself may run on an older Node; wrangler never does.

use std::{
    env::consts::ARCH,
    path::{Path, PathBuf},
};

use crate::{
    Error,
    command::{Cmd, find_program, need_program, path_with},
    files::{self, Fingerprint, FolderLock},
    progress::Step,
    repo::Repo,
};

/// What wrangler asks for.
const LEAST_NODE: (u32, u32) = (22, 12);

/// The installed packages.
#[derive(Clone, Debug)]
pub struct Node {
    /// The Node program.
    pub node: PathBuf,
    /// wrangler's entry point, to be run by `node`.
    pub wrangler: PathBuf,
    /// `node_modules`.
    pub modules: PathBuf,
}

impl Node {
    /// Makes sure that the packages of package-lock.json are installed.
    ///
    /// # Errors
    /// When npm is missing or fails, or when there is no Node for wrangler.
    pub async fn ensure(repo: &Repo) -> Result<Self, Error> {
        install(repo).await?;
        let modules = repo.path("node_modules");
        let node = node_for_wrangler(&modules).await?;
        let wrangler = modules.join("wrangler/bin/wrangler.js");
        Ok(Self { node, wrangler, modules })
    }

    /// wrangler, with its Node and without its calls home.
    #[must_use]
    pub fn wrangler(&self, what: &str) -> Cmd {
        Cmd::new(what, &self.node).arg(&self.wrangler).envs(wrangler_environment()).env("PATH", self.path())
    }

    /// `PATH` with this Node first: some tools are scripts that ask for `node`.
    #[must_use]
    pub fn path(&self) -> std::ffi::OsString {
        path_with(self.node.parent().unwrap_or(Path::new("/")))
    }

    /// The wasm-opt of binaryen's npm package.
    #[must_use]
    pub fn wasm_opt(&self) -> PathBuf {
        self.modules.join("binaryen/bin/wasm-opt")
    }

    /// esbuild's program (the package's own script only starts it).
    ///
    /// # Errors
    /// When npm installed none for this machine.
    pub fn esbuild(&self) -> Result<PathBuf, Error> {
        let folder = self.modules.join("@esbuild");
        std::fs::read_dir(&folder)
            .map_err(Error::file("read", &folder))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin/esbuild")))
            .find(|path| path.is_file())
            .ok_or_else(|| Error::Refused("npm installed no esbuild for this machine".to_owned()))
    }
}

/// wrangler does nothing on the side: no metrics, no crash reports, no look-up of where this machine is.
#[must_use]
pub fn wrangler_environment() -> Vec<(&'static str, &'static str)> {
    vec![
        ("WRANGLER_SEND_METRICS", "false"),
        ("WRANGLER_SEND_ERROR_REPORTS", "false"),
        ("WRANGLER_HIDE_BANNER", "true"),
        ("CLOUDFLARE_CF_FETCH_ENABLED", "false"),
    ]
}

async fn install(repo: &Repo) -> Result<(), Error> {
    let stamp = repo.path("node_modules/.keypost-stamp");
    let mut wanted = Fingerprint::default();
    for file in ["package.json", "package-lock.json", ".npmrc"] {
        wanted.file(&repo.path(file))?;
    }
    wanted.text(ARCH);
    let wanted = wanted.finish();
    let current = || Ok::<_, Error>(files::read_if_there(&stamp)?.as_deref() == Some(wanted.as_str()));
    if current()? {
        return Ok(());
    }
    let npm = need_program(
        "npm",
        "install Node.js with npm (any recent version; nodejs.org, or your system's packages)",
    )?;
    let _lock = FolderLock::take(&repo.scratch().join("npm.lock"), "another npm ci runs here").await?;
    if current()? {
        return Ok(());
    }
    let step = Step::quiet("npm packages (wrangler, Node, esbuild, wasm-opt)");
    // Its remarks about an older Node are beside the point: none of these packages runs on that one.
    Cmd::new("npm ci", npm).args(["ci", "--loglevel=error"]).dir(repo.root()).run().await?;
    files::write_private(&stamp, wanted.as_bytes())?;
    step.done();
    Ok(())
}

async fn node_for_wrangler(modules: &Path) -> Result<PathBuf, Error> {
    let npm_arch = match ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let packaged = modules.join(format!("node-linux-{npm_arch}/bin/node"));
    if cfg!(target_os = "linux") && packaged.is_file() {
        return Ok(packaged);
    }
    let remedy =
        format!("wrangler needs Node {}.{} or later in PATH on this platform", LEAST_NODE.0, LEAST_NODE.1);
    let installed = find_program("node")
        .ok_or_else(|| Error::MissingTool { tool: "node".to_owned(), remedy: remedy.clone() })?;
    let version = Cmd::new("node --version", &installed).arg("--version").output().await?;
    if parse_version(&version).is_some_and(|version| version >= LEAST_NODE) {
        Ok(installed)
    } else {
        Err(Error::MissingTool { tool: format!("a newer node than {}", version.trim()), remedy })
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_version_is_read_as_node_prints_it() {
        assert_eq!(parse_version("v22.12.0\n"), Some((22, 12)));
        assert_eq!(parse_version("gibberish"), None);
    }
}
