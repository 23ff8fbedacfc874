//! Building the Worker: edge-worker → wasm → wasm-bindgen → wasm-opt → esbuild → edge-worker/build.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

use crate::{
    Error,
    command::Cmd,
    files::{self, Fingerprint, FolderLock},
    progress::{Step, note},
    repo::Repo,
    setup::{cache::Cache, node::Node, tools::WorkerTools, wasm::WasmToolchain, wasm_names},
};

/// What the Worker's wasm may weigh, gzipped, in bytes: 1 MiB.
const GZIPPED_LIMIT: u64 = 1 << 20;

/// How the Worker is compiled.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Profile {
    /// What ships.
    #[default]
    Release,
    /// Quicker to build, slower to run.
    Dev,
}

impl Profile {
    fn flag(self) -> &'static str {
        match self {
            Self::Release => "--release",
            Self::Dev => "--dev",
        }
    }
}

/// The built Worker.
#[derive(Clone, Debug)]
pub struct WorkerBuild {
    /// The folder with `index.js` and `index_bg.wasm`.
    pub folder: PathBuf,
    /// The wasm's size in bytes.
    pub raw: u64,
    /// The wasm's size in bytes, gzipped.
    pub gzipped: u64,
}

impl WorkerBuild {
    /// Makes sure that edge-worker/build holds the Worker of the present sources, and says how big it is.
    ///
    /// # Errors
    /// When it does not compile, or a release is bigger than 1 MiB gzipped.
    pub async fn ensure(repo: &Repo, cache: &Cache, node: &Node, profile: Profile) -> Result<Self, Error> {
        let toolchain = WasmToolchain::ensure(cache).await?;
        let tools = WorkerTools::ensure(repo, cache).await?;
        let target = repo.target().join("worker");
        let _lock =
            FolderLock::take(&target.join("xtask.lock"), "another build of the Worker runs here").await?;

        let folder = repo.worker_build();
        let stamp = target.join("xtask.stamp");
        let sources = sources(repo, &toolchain, &tools, profile)?;
        let current = files::read_if_there(&stamp)?
            .is_some_and(|stamp| Some(stamp) == stamp_of(&sources, &folder).ok());
        if !current {
            files::remove_if_there(&stamp)?;
            build(repo, &target, node, &toolchain, &tools, profile).await?;
            files::write_private(&stamp, stamp_of(&sources, &folder)?.as_bytes())?;
        }
        let built = Self::measure(folder)?;
        built.report();
        if profile == Profile::Release && built.gzipped > GZIPPED_LIMIT {
            return Err(Error::Refused(format!(
                "the Worker is {} bytes gzipped; more than {GZIPPED_LIMIT} do not ship",
                built.gzipped
            )));
        }
        Ok(built)
    }

    fn measure(folder: PathBuf) -> Result<Self, Error> {
        let wasm = folder.join("index_bg.wasm");
        let read = || -> io::Result<(u64, u64)> {
            let mut counted = GzEncoder::new(Counter::default(), Compression::best());
            let raw = io::copy(&mut File::open(&wasm)?, &mut counted)?;
            Ok((raw, counted.finish()?.bytes))
        };
        let (raw, gzipped) = read().map_err(Error::file("measure", &wasm))?;
        Ok(Self { folder, raw, gzipped })
    }

    fn report(&self) {
        let kib = |bytes: u64| bytes.div_ceil(1024);
        note(&format!(
            "Worker: {} KiB of wasm, {} KiB gzipped (limit {} KiB)",
            kib(self.raw),
            kib(self.gzipped),
            kib(GZIPPED_LIMIT)
        ));
    }
}

async fn build(
    repo: &Repo,
    target: &Path,
    node: &Node,
    toolchain: &WasmToolchain,
    tools: &WorkerTools,
    profile: Profile,
) -> Result<(), Error> {
    let step = Step::loud(format!("building the Worker ({})", profile.flag().trim_start_matches('-')));
    // PATH serves both: the compiler's wrapper, and the Node that wasm-opt is a script for.
    let bin = target.join("xtask-bin");
    link_node(&bin, &node.node)?;
    let command = toolchain.apply(Cmd::new("worker-build", &tools.worker_build));
    let path = match toolchain {
        WasmToolchain::Installed => crate::command::path_with(&bin),
        WasmToolchain::Unpacked(folder) => {
            let rest = crate::command::path_with(&bin);
            let all = std::iter::once(folder.join("bin")).chain(std::env::split_paths(&rest));
            std::env::join_paths(all).map_err(Error::malformed("PATH"))?
        }
    };
    command
        .arg(profile.flag())
        .dir(repo.path("edge-worker"))
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", target)
        .env("WASM_BINDGEN_BIN", &tools.wasm_bindgen)
        .env("WASM_OPT_BIN", node.wasm_opt())
        .env("ESBUILD_BIN", node.esbuild()?)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .cargo_progress()
        .run_shown()
        .await?;
    step.done();
    if profile == Profile::Release {
        let wasm = repo.worker_build().join("index_bg.wasm");
        let module = fs::read(&wasm).map_err(Error::file("read", &wasm))?;
        if let Some(smaller) = wasm_names::without_names(&module) {
            fs::write(&wasm, smaller).map_err(Error::file("write", &wasm))?;
        }
    }
    Ok(())
}

/// A folder that holds nothing but `node`, to be first in `PATH` whatever else lies beside the real one.
fn link_node(bin: &Path, node: &Path) -> Result<(), Error> {
    files::create_folder(bin)?;
    let link = bin.join("node");
    files::remove_if_there(&link)?;
    std::os::unix::fs::symlink(node, &link).map_err(Error::file("link", &link))
}

/// Everything that the Worker is made from.
fn sources(
    repo: &Repo,
    toolchain: &WasmToolchain,
    tools: &WorkerTools,
    profile: Profile,
) -> Result<String, Error> {
    let mut sources = Fingerprint::default();
    for file in
        ["Cargo.toml", "Cargo.lock", "package-lock.json", "edge-worker/Cargo.toml", "shared/Cargo.toml"]
    {
        sources.file(&repo.path(file))?;
    }
    for folder in ["edge-worker/src", "shared/src"] {
        sources.folder(&repo.path(folder), &|_| false)?;
    }
    sources.text(&toolchain.key());
    sources.text(&tools.wasm_bindgen.to_string_lossy());
    sources.text(&tools.worker_build.to_string_lossy());
    sources.text(profile.flag());
    Ok(sources.finish())
}

/// The sources and what became of them: a build that somebody has changed or removed is made again.
fn stamp_of(sources: &str, folder: &Path) -> Result<String, Error> {
    let mut built = Fingerprint::default();
    for file in ["index.js", "index_bg.wasm"] {
        let path = folder.join(file);
        fs::metadata(&path).map_err(Error::file("find", &path))?;
        built.file(&path)?;
    }
    Ok(format!("{sources} {}", built.finish()))
}

#[derive(Default)]
struct Counter {
    bytes: u64,
}

impl Write for Counter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.bytes += buffer.len() as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
