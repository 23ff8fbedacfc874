//! The tools that `cargo install` builds: worker-build, and the wasm-bindgen of exactly the version that the
//! library in Cargo.lock has (the two speak a private format).

use std::{
    env::{
        self,
        consts::{ARCH, OS},
    },
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Error,
    command::{Cmd, find_program},
    progress::Step,
    repo::Repo,
    setup::{cache::Cache, debian},
};

/// Goes with the `worker` crate of the workspace.
const WORKER_BUILD: &str = "0.8.7";

/// The tools that turn the edge-worker crate into a Worker.
#[derive(Clone, Debug)]
pub struct WorkerTools {
    pub worker_build: PathBuf,
    pub wasm_bindgen: PathBuf,
}

impl WorkerTools {
    /// Makes sure that they are in the cache.
    ///
    /// # Errors
    /// When cargo cannot build one.
    pub async fn ensure(repo: &Repo, cache: &Cache) -> Result<Self, Error> {
        let wasm_bindgen = repo.locked_version("wasm-bindgen")?;
        if cache.get(&entry("worker-build", WORKER_BUILD)).is_none() {
            ensure_openssl_headers().await?;
        }
        Ok(Self {
            worker_build: cargo_tool(cache, "worker-build", WORKER_BUILD, &["--locked"])
                .await?
                .join("bin/worker-build"),
            // Its lock file pins versions older than those that the library resolves to.
            wasm_bindgen: cargo_tool(cache, "wasm-bindgen-cli", &wasm_bindgen, &[])
                .await?
                .join("bin/wasm-bindgen"),
        })
    }
}

async fn cargo_tool(cache: &Cache, name: &str, version: &str, args: &[&str]) -> Result<PathBuf, Error> {
    let make = async |folder: &Path| {
        let step = Step::loud(format!("cargo install {name} {version} (once for this machine)"));
        let build = folder.join("build");
        Cmd::new(format!("cargo install {name}"), "cargo")
            .args(["install", name, "--version", version, "--root"])
            .arg(folder)
            .arg("--target-dir")
            .arg(&build)
            .args(args)
            // They work for seconds at a time: building them sooner is worth more than running them faster.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env_remove("RUSTFLAGS")
            .dir(folder)
            .cargo_progress()
            .run_shown()
            .await?;
        fs::remove_dir_all(&build).map_err(Error::file("remove", &build))?;
        step.done();
        Ok(())
    };
    cache.get_or_make(&entry(name, version), make).await
}

fn entry(name: &str, version: &str) -> String {
    format!("{name}-{version}-{ARCH}-{OS}")
}

/// worker-build links the system's OpenSSL on Linux (to download what we give it ready-made).
async fn ensure_openssl_headers() -> Result<(), Error> {
    if OS != "linux" || env::var_os("OPENSSL_DIR").is_some() {
        return Ok(());
    }
    let there = async || match find_program("pkg-config") {
        Some(program) => Cmd::new("pkg-config", program).args(["--exists", "openssl"]).run().await.is_ok(),
        None => false,
    };
    if there().await {
        return Ok(());
    }
    debian::install(&["pkg-config", "libssl-dev"]).await?;
    if there().await {
        return Ok(());
    }
    Err(Error::MissingTool {
        tool: "pkg-config, or OpenSSL's headers".to_owned(),
        remedy: "install them (on Debian: apt-get install pkg-config libssl-dev)".to_owned(),
    })
}
