//! The tool that `cargo install` builds: the wasm-bindgen of exactly the version that the library in Cargo.lock has (the
//! two speak a private format).

use std::{
    env::consts::{ARCH, OS},
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, command::Cmd, progress::Step, repo::Repo, setup::cache::Cache};

/// The tools that turn the edge-worker crate into a Worker.
#[derive(Clone, Debug)]
pub struct WorkerTools {
    pub wasm_bindgen: PathBuf,
}

impl WorkerTools {
    /// Makes sure that they are in the cache.
    ///
    /// # Errors
    /// When cargo cannot build one.
    pub async fn ensure(repo: &Repo, cache: &Cache) -> Result<Self, Error> {
        let version = repo.locked_version("wasm-bindgen")?;
        // Its lock file pins versions older than those that the library resolves to.
        let made = cargo_tool(cache, "wasm-bindgen-cli", &version, &[]).await?;
        Ok(Self { wasm_bindgen: made.join("bin/wasm-bindgen") })
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
