//! The folder for what is expensive to make and outlives `target/`: `$KEYPOST_CACHE_DIR`, else
//! `$XDG_CACHE_HOME/keypost`, else `~/.cache/keypost`.
//!
//! An entry is named after everything that it depends on, versions above all. It counts once its stamp is there,
//! and the stamp is written last: an entry that was interrupted half-way is made again, and two processes that
//! want the same entry wait for each other.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::{
    Error,
    files::{self, FolderLock},
};

const STAMP: &str = ".complete";

/// The cache.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of whoever runs us.
    ///
    /// # Errors
    /// [`Error::Refused`] when no variable says where it could be.
    pub fn open() -> Result<Self, Error> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("KEYPOST_CACHE_DIR")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("keypost")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/keypost")))
            .map(|root| Self { root })
            .ok_or_else(|| {
                Error::Refused("set KEYPOST_CACHE_DIR: there is no HOME to put a cache in".to_owned())
            })
    }

    /// A cache elsewhere.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// A path in the cache, for what is not an entry.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The entry, if it is there and complete.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<PathBuf> {
        let entry = self.root.join(name);
        entry.join(STAMP).is_file().then_some(entry)
    }

    /// The entry; `make` fills its folder if it is not there yet.
    ///
    /// # Errors
    /// Those of `make`, and of the file system.
    pub async fn get_or_make(
        &self,
        name: &str,
        make: impl AsyncFnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        if let Some(entry) = self.get(name) {
            return Ok(entry);
        }
        files::create_folder(&self.root)?;
        let _lock =
            FolderLock::take(&self.root.join(format!("{name}.lock")), "another process makes the same")
                .await?;
        if let Some(entry) = self.get(name) {
            return Ok(entry);
        }
        let entry = self.root.join(name);
        if entry.exists() {
            fs::remove_dir_all(&entry).map_err(Error::file("clear", &entry))?;
        }
        files::create_folder(&entry)?;
        make(&entry).await?;
        let stamp = entry.join(STAMP);
        File::create(&stamp).map_err(Error::file("write", &stamp))?;
        Ok(entry)
    }
}
