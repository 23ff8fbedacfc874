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
    setup::{cache::Cache, node::Node, tools::WorkerTools, wasm::WasmToolchain},
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
    /// cargo's name for it.
    fn name(self) -> &'static str {
        match self {
            Self::Release => "worker",
            Self::Dev => "dev",
        }
    }

    /// Where cargo puts what it has compiled so.
    fn folder(self) -> &'static str {
        match self {
            Self::Release => "worker",
            Self::Dev => "debug",
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
    let step = Step::loud(format!("building the Worker ({})", profile.name()));
    let making = target.join("xtask-build");
    if making.exists() {
        fs::remove_dir_all(&making).map_err(Error::file("clear", &making))?;
    }
    files::create_folder(&making)?;
    let compiled = compile(repo, target, toolchain, profile).await?;
    bind(&compiled, &making, tools, profile).await?;
    let wasm = making.join("keypost_edge_bg.wasm");
    let optimised = making.join("index_bg.wasm");
    match profile {
        Profile::Release => optimise(&wasm, &optimised, target, node).await?,
        Profile::Dev => fs::rename(&wasm, &optimised).map_err(Error::file("rename", &wasm))?,
    }
    for script in SCRIPTS {
        let from = repo.path("edge-worker/js").join(script);
        fs::copy(&from, making.join(script)).map_err(Error::file("copy", &from))?;
    }
    Cmd::new("esbuild", node.esbuild()?)
        .args(["entry.js", "--bundle", "--format=esm", "--outfile=index.js", "--log-level=warning"])
        .args(["--external:cloudflare:*", "--external:./index_bg.wasm"])
        .args((profile == Profile::Release).then_some("--minify"))
        .dir(&making)
        .run()
        .await?;
    let folder = repo.worker_build();
    files::create_folder(&folder)?;
    for file in BUILT {
        let (from, to) = (making.join(file), folder.join(file));
        fs::rename(&from, &to).map_err(Error::file("put in place", &to))?;
    }
    step.done();
    Ok(())
}

/// The JavaScript half of the shell.
const SCRIPTS: [&str; 3] = ["entry.js", "repeat.js", "shell.js"];

/// What a Worker consists of.
const BUILT: [&str; 2] = ["index.js", "index_bg.wasm"];

/// Compiles the crate, and says where the module is.
async fn compile(
    repo: &Repo,
    target: &Path,
    toolchain: &WasmToolchain,
    profile: Profile,
) -> Result<PathBuf, Error> {
    toolchain
        .apply(Cmd::new("cargo build", "cargo"))
        .args(["build", "--package", "keypost-edge", "--lib", "--target", WASM, "--profile", profile.name()])
        .dir(repo.root())
        .env("CARGO_TARGET_DIR", target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .cargo_progress()
        .run_shown()
        .await?;
    Ok(target.join(WASM).join(profile.folder()).join("keypost_edge.wasm"))
}

const WASM: &str = "wasm32-unknown-unknown";

/// Makes the module and JavaScript know each other. `web` is the form whose start is ours to call, and to call again.
async fn bind(compiled: &Path, making: &Path, tools: &WorkerTools, profile: Profile) -> Result<(), Error> {
    // The names of functions are an eighth of the Worker, and nobody reads them in production.
    let without_names = ["--remove-name-section", "--remove-producers-section"];
    Cmd::new("wasm-bindgen", &tools.wasm_bindgen)
        .args([
            "--target",
            "web",
            "--no-typescript",
            "--omit-default-module-path",
            "--out-name",
            "keypost_edge",
        ])
        .arg("--experimental-reset-state-function")
        .args(without_names.iter().filter(|_| profile == Profile::Release))
        .arg("--out-dir")
        .arg(making)
        .arg(compiled)
        .run()
        .await
}

/// Makes it smaller and faster. The features are those that workerd has and the compiler uses.
async fn optimise(wasm: &Path, optimised: &Path, target: &Path, node: &Node) -> Result<(), Error> {
    const FEATURES: [&str; 7] = [
        "mutable-globals",
        "sign-ext",
        "nontrapping-float-to-int",
        "bulk-memory",
        "multivalue",
        "reference-types",
        "exception-handling",
    ];
    // wasm-opt is a script that asks for `node`.
    let bin = target.join("xtask-bin");
    link_node(&bin, &node.node)?;
    Cmd::new("wasm-opt", node.wasm_opt())
        .args(["-O3", "--strip-debug"])
        .args(FEATURES.map(|feature| format!("--enable-{feature}")))
        .arg(wasm)
        .arg("-o")
        .arg(optimised)
        .env("PATH", crate::command::path_with(&bin))
        .run()
        .await
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
    for folder in ["edge-worker/src", "edge-worker/js", "shared/src"] {
        sources.folder(&repo.path(folder), &|_| false)?;
    }
    sources.text(&toolchain.key());
    sources.text(&tools.wasm_bindgen.to_string_lossy());
    sources.text(profile.name());
    Ok(sources.finish())
}

/// The sources and what became of them: a build that somebody has changed or removed is made again.
fn stamp_of(sources: &str, folder: &Path) -> Result<String, Error> {
    let mut built = Fingerprint::default();
    for file in BUILT {
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
