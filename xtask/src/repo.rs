//! Where things lie in the checkout.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::Error;

/// The checkout that we work in.
#[derive(Clone, Debug)]
pub struct Repo {
    root: PathBuf,
}

impl Repo {
    /// The workspace that this xtask belongs to: cargo says where when it runs us, else it is the first folder
    /// from the current one upwards that holds the Worker's configuration.
    ///
    /// # Errors
    /// [`Error::Refused`] outside a checkout.
    pub fn find() -> Result<Self, Error> {
        let from_cargo = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let current = env::current_dir().map_err(Error::file("find", "."))?;
        [from_cargo, Some(current)]
            .into_iter()
            .flatten()
            .find_map(|start| start.ancestors().find(|dir| is_root(dir)).map(Path::to_path_buf))
            .map(|root| Self { root })
            .ok_or_else(|| Error::Refused("run this inside a checkout of Keypost".to_owned()))
    }

    /// A checkout that is known to be there.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The top of the checkout.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path in the checkout.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Cargo's target folder.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.path("target"), |dir| self.root.join(dir))
    }

    /// Where xtask keeps what may be thrown away with `target/`: stamps, locks, test databases, logs.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.target().join("xtask")
    }

    /// The built Worker, which wrangler.toml names.
    #[must_use]
    pub fn worker_build(&self) -> PathBuf {
        self.path("edge-worker/build")
    }

    /// The version of a package in Cargo.lock.
    ///
    /// # Errors
    /// When Cargo.lock cannot be read or does not hold the package.
    pub fn locked_version(&self, package: &str) -> Result<String, Error> {
        let path = self.path("Cargo.lock");
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let lock: toml::Table = text.parse().map_err(Error::malformed("Cargo.lock"))?;
        lock.get("package")
            .and_then(toml::Value::as_array)
            .into_iter()
            .flatten()
            .find(|entry| entry.get("name").and_then(toml::Value::as_str) == Some(package))
            .and_then(|entry| entry.get("version").and_then(toml::Value::as_str))
            .map(ToOwned::to_owned)
            .ok_or_else(|| Error::Malformed {
                what: "Cargo.lock".to_owned(),
                detail: format!("it has no package {package}"),
            })
    }
}

fn is_root(dir: &Path) -> bool {
    dir.join("wrangler.toml").is_file() && dir.join("xtask").is_dir()
}
