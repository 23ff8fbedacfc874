//! A Rust compiler with the standard library for wasm32-unknown-unknown.
//!
//! Where rustup can download, it is one component. Where it cannot (an offline or mirrored network), Debian's own
//! packages hold a compiler, its linker and the sources of the standard library: they are unpacked into the cache
//! (installing them would conflict with rustup), the standard library is built once, and cargo is told to use
//! that compiler for the Worker.

use std::{
    env::{self, consts::ARCH},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Error,
    command::{Cmd, find_program, path_with},
    files,
    progress::{Step, note},
    setup::{cache::Cache, debian},
};

const TARGET: &str = "wasm32-unknown-unknown";

/// rustup tries for long where there is no way out; 40 MB come sooner than this over any line worth having.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

const REMEDY: &str = "run `rustup target add wasm32-unknown-unknown` where rustup can download, \
    or use Debian 12 or later with apt-get, whose packages can stand in";

/// A compiler for the Worker.
#[derive(Clone, Debug)]
pub enum WasmToolchain {
    /// The usual one: it has the target.
    Installed,
    /// The one in this folder's `bin/`, made from Debian's packages.
    Unpacked(PathBuf),
}

impl WasmToolchain {
    /// Makes sure that there is one. `KEYPOST_WASM_TOOLCHAIN=rustup` or `=debian` admits that kind only.
    ///
    /// # Errors
    /// [`Error::MissingTool`] when neither way works here.
    pub async fn ensure(cache: &Cache) -> Result<Self, Error> {
        let only = env::var("KEYPOST_WASM_TOOLCHAIN").unwrap_or_default();
        match only.as_str() {
            "" | "auto" => match installed().await {
                Ok(toolchain) => Ok(toolchain),
                Err(why) => {
                    note(&format!("{why}"));
                    note("using Debian's packages instead");
                    unpacked(cache).await
                }
            },
            "rustup" => installed().await,
            "debian" => unpacked(cache).await,
            other => {
                Err(Error::Refused(format!("KEYPOST_WASM_TOOLCHAIN={other}: it is auto, rustup or debian")))
            }
        }
    }

    /// Makes a command use this compiler for what it builds.
    #[must_use]
    pub fn apply(&self, command: Cmd) -> Cmd {
        match self {
            Self::Installed => command,
            // cargo asks RUSTC, others ask PATH.
            Self::Unpacked(folder) => {
                let bin = folder.join("bin");
                command.env("RUSTC", bin.join("rustc")).env("PATH", path_with(&bin))
            }
        }
    }

    /// What tells builds with one compiler from builds with another.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Installed => "installed".to_owned(),
            Self::Unpacked(folder) => folder.display().to_string(),
        }
    }
}

async fn installed() -> Result<WasmToolchain, Error> {
    if has_target().await {
        return Ok(WasmToolchain::Installed);
    }
    let Some(rustup) = find_program("rustup") else {
        return Err(Error::MissingTool {
            tool: format!("Rust's target {TARGET}"),
            remedy: REMEDY.to_owned(),
        });
    };
    let step = Step::quiet(format!("rustup target add {TARGET}"));
    Cmd::new(format!("rustup target add {TARGET}"), rustup)
        .args(["target", "add", TARGET])
        .env("RUSTUP_MAX_RETRIES", "1")
        .limit(RUSTUP_LIMIT)
        .run()
        .await?;
    if !has_target().await {
        return Err(Error::Refused(format!(
            "rustup added {TARGET} to another toolchain than the one that cargo uses"
        )));
    }
    step.done();
    Ok(WasmToolchain::Installed)
}

async fn has_target() -> bool {
    let folder = Cmd::new("rustc --print", "rustc")
        .args(["--target", TARGET, "--print", "target-libdir"])
        .output()
        .await;
    folder.is_ok_and(|folder| {
        fs::read_dir(folder.trim()).is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
            })
        })
    })
}

async fn unpacked(cache: &Cache) -> Result<WasmToolchain, Error> {
    let missing =
        || Error::MissingTool { tool: format!("Rust's target {TARGET}"), remedy: REMEDY.to_owned() };
    let apt = debian::apt_get().ok_or_else(missing)?;
    if candidate("rustc-web").await.is_none() {
        debian::update(&apt).await?;
    }
    let version = candidate("rustc-web").await.ok_or_else(missing)?;
    // Debian writes "~" and "+" in versions.
    let name: String =
        version.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let make = async |folder: &Path| {
        let step =
            Step::loud("Debian's Rust compiler with its standard library for wasm32 (once for this machine)");
        let packages = packages().await?;
        fetch(&apt, &packages, folder).await?;
        build_std(folder).await?;
        step.done();
        Ok(())
    };
    cache.get_or_make(&format!("wasm-debian-{name}-{ARCH}"), make).await.map(WasmToolchain::Unpacked)
}

/// The version of a package that apt would install.
async fn candidate(package: &str) -> Option<String> {
    let shown = Cmd::new("apt-cache show", "apt-cache")
        .args(["show", "--no-all-versions", package])
        .output()
        .await
        .ok()?;
    shown.lines().find_map(|line| line.strip_prefix("Version: ")).map(ToOwned::to_owned)
}

/// What has to be unpacked: the compiler, what it links with, its LLVM with the linker of the same version.
async fn packages() -> Result<Vec<String>, Error> {
    let library = dependency("libstd-rust-web-dev", "libstd-rust-web-").await?;
    let llvm = dependency(&library, "libllvm").await?;
    let lld = format!("lld-{}", llvm.trim_start_matches("libllvm"));
    Ok(["rustc-web", "libstd-rust-web-dev", "rust-web-src"]
        .map(ToOwned::to_owned)
        .into_iter()
        .chain([library, llvm, lld])
        .collect())
}

async fn dependency(package: &str, prefix: &str) -> Result<String, Error> {
    let shown =
        Cmd::new("apt-cache depends", "apt-cache").args(["depends", "--important", package]).output().await?;
    shown
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(ToOwned::to_owned)
        .ok_or_else(|| Error::Malformed {
            what: format!("Debian's package {package}"),
            detail: format!("it depends on no {prefix}…"),
        })
}

async fn fetch(apt: &Path, packages: &[String], folder: &Path) -> Result<(), Error> {
    let step = Step::quiet("  downloading and unpacking");
    let archives = folder.join("archives");
    files::create_folder(&archives)?;
    let download =
        || Cmd::new("apt-get download", apt).args(["-q", "download"]).args(packages).dir(&archives).run();
    if download().await.is_err() {
        // The lists may name files that have been superseded since.
        debian::update(&apt.to_path_buf()).await?;
        download().await?;
    }
    for entry in fs::read_dir(&archives).map_err(Error::file("read", &archives))? {
        let archive = entry.map_err(Error::file("read", &archives))?.path();
        Cmd::new("dpkg -x", "dpkg").arg("-x").arg(&archive).arg(folder).run().await?;
    }
    fs::remove_dir_all(&archives).map_err(Error::file("remove", &archives))?;
    step.done();
    Ok(())
}

/// Builds std for wasm32 from the packaged sources and puts it, and the linker, where the compiler looks.
async fn build_std(folder: &Path) -> Result<(), Error> {
    let step = Step::quiet("  building the standard library");
    let usr = folder.join("usr");
    let rustc = wrap_compiler(folder, &usr)?;
    let host = Cmd::new("rustc -vV", &rustc).arg("-vV").output().await?;
    let host = host
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or_else(|| Error::Malformed { what: "rustc -vV".to_owned(), detail: host.clone() })?;

    let tools = usr.join(format!("lib/rustlib/{host}/bin"));
    files::create_folder(&tools)?;
    let linker = linker(&usr.join("bin"))?;
    fs::copy(&linker, tools.join("rust-lld")).map_err(Error::file("copy", &linker))?;

    let project = folder.join("std");
    files::create_folder(&project.join("src"))?;
    let manifest = project.join("Cargo.toml");
    let text = "[package]\nname = \"std-for-wasm\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(&manifest, text)
        .and_then(|()| fs::write(project.join("src/lib.rs"), ""))
        .map_err(Error::file("write", &manifest))?;
    let target = project.join("target");
    Cmd::new("cargo build -Zbuild-std", "cargo")
        .args(["build", "--release", "-Zbuild-std=std,panic_abort", "--target", TARGET])
        .dir(&project)
        .env("RUSTC", &rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        // Without it the library could take no part in link-time optimisation.
        .env("RUSTFLAGS", "-Cembed-bitcode=yes")
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTUP_TOOLCHAIN")
        .run()
        .await?;

    let built = target.join(TARGET).join("release/deps");
    let library = usr.join("lib/rustlib").join(TARGET).join("lib");
    files::create_folder(&library)?;
    for entry in fs::read_dir(&built).map_err(Error::file("read", &built))? {
        let path = entry.map_err(Error::file("read", &built))?.path();
        let name = path.file_name().unwrap_or_default();
        let ours = name.to_string_lossy().contains("std_for_wasm");
        if path.extension().is_some_and(|extension| extension == "rlib") && !ours {
            fs::copy(&path, library.join(name)).map_err(Error::file("copy", &path))?;
        }
    }
    // The sources have served.
    for spent in [project, usr.join("src"), usr.join("share")] {
        fs::remove_dir_all(&spent).map_err(Error::file("remove", &spent))?;
    }
    step.done();
    Ok(())
}

/// `bin/rustc`: the packaged compiler, told where its own libraries are.
fn wrap_compiler(folder: &Path, usr: &Path) -> Result<PathBuf, Error> {
    let libraries = usr.join("lib");
    let multiarch = fs::read_dir(&libraries)
        .map_err(Error::file("read", &libraries))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| has_compiler(path))
        .ok_or_else(|| Error::Malformed {
            what: "Debian's package libstd-rust-web".to_owned(),
            detail: "it holds no compiler".to_owned(),
        })?;
    let bin = folder.join("bin");
    files::create_folder(&bin)?;
    let wrapper = bin.join("rustc");
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}} exec {} \"$@\"\n",
        quoted(&multiarch),
        quoted(&usr.join("bin/rustc")),
    );
    fs::write(&wrapper, script)
        .and_then(|()| fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)))
        .map_err(Error::file("write", &wrapper))?;
    Ok(wrapper)
}

fn has_compiler(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("librustc_driver"))
        })
    })
}

/// `lld-22`, say, which is not `lld-link-22`.
fn linker(bin: &Path) -> Result<PathBuf, Error> {
    let is_lld = |name: &str| name.strip_prefix("lld-").is_some_and(|version| version.parse::<u32>().is_ok());
    fs::read_dir(bin)
        .map_err(Error::file("read", bin))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.file_name().is_some_and(|name| is_lld(&name.to_string_lossy())))
        .ok_or_else(|| Error::Malformed {
            what: "Debian's package lld".to_owned(),
            detail: "it holds no lld".to_owned(),
        })
}
