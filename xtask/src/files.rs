//! Files that others read while we write them, and files that nobody else should read.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process,
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use crate::{Error, progress};

/// Writes the file in one step (a reader sees the old one or the new one), readable by its owner alone.
///
/// # Errors
/// [`Error::File`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", process::id()));
    let temporary = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(Error::file("write", path))
}

/// The file's content, or `None` where there is no such file.
///
/// # Errors
/// [`Error::File`] for anything but its absence.
pub fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Removes a file; that it is not there is fine.
///
/// # Errors
/// [`Error::File`] for anything but its absence.
pub fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Creates the folder and those above it.
///
/// # Errors
/// [`Error::File`].
pub fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::file("create", path))
}

/// A lock between processes, held until it is dropped (or its process ends, however).
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// [`Error::File`] when the lock file cannot be opened.
    pub fn try_take(path: &Path) -> Result<Option<Self>, Error> {
        let file = Self::open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(Error::file("lock", path)(error)),
        }
    }

    /// Waits for the lock, saying so once.
    ///
    /// # Errors
    /// [`Error::File`] when the lock file cannot be opened.
    pub async fn take(path: &Path, why: &str) -> Result<Self, Error> {
        let mut said = false;
        loop {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(lock);
            }
            if !said {
                progress::note(&format!("waiting: {why} (lock {})", path.display()));
                said = true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Shares the lock with others who share it; whoever wants it alone waits for all of them.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be opened or locked.
    pub fn share(path: &Path) -> Result<Self, Error> {
        let file = Self::open(path)?;
        file.lock_shared().map_err(Error::file("lock", path))?;
        Ok(Self { _file: file })
    }

    fn open(path: &Path) -> Result<File, Error> {
        if let Some(folder) = path.parent() {
            create_folder(folder)?;
        }
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(Error::file("open", path))
    }
}

/// A digest over files and texts, to tell whether something that was made from them is still current.
#[derive(Default)]
pub struct Fingerprint {
    hash: Sha256,
}

impl Fingerprint {
    /// Adds a text.
    pub fn text(&mut self, text: &str) {
        self.part(text.as_bytes());
    }

    /// Adds a file's content, or its absence.
    ///
    /// # Errors
    /// [`Error::File`] when it is there but cannot be read.
    pub fn file(&mut self, path: &Path) -> Result<(), Error> {
        match fs::read(path) {
            Ok(content) => self.part(&content),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.part(b"absent"),
            Err(error) => return Err(Error::file("read", path)(error)),
        }
        Ok(())
    }

    /// Adds every file under a folder, names included, but for those whose path `skip` accepts.
    ///
    /// # Errors
    /// [`Error::File`] when something in it cannot be read.
    pub fn folder(&mut self, folder: &Path, skip: &dyn Fn(&Path) -> bool) -> Result<(), Error> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("read", folder)(error)),
        };
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::file("read", folder))?;
        paths.sort();
        for path in paths.into_iter().filter(|path| !skip(path)) {
            self.part(path.as_os_str().as_encoded_bytes());
            if path.is_dir() {
                self.folder(&path, skip)?;
            } else {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    /// The digest in hexadecimal.
    #[must_use]
    pub fn finish(self) -> String {
        self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn part(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_private_file_is_its_owners_alone_and_is_replaced_whole() {
        let path = std::env::temp_dir().join(format!("keypost-private-{}", process::id()));
        write_private(&path, b"first").unwrap();
        write_private(&path, b"second").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_if_there(&path).unwrap().as_deref(), Some("second"));
        remove_if_there(&path).unwrap();
        remove_if_there(&path).unwrap();
        assert_eq!(read_if_there(&path).unwrap(), None);
    }

    #[test]
    fn a_fingerprint_tells_where_one_part_ends() {
        let digest = |parts: &[&str]| {
            let mut fingerprint = Fingerprint::default();
            parts.iter().for_each(|part| fingerprint.text(part));
            fingerprint.finish()
        };
        assert_eq!(digest(&["a", "b"]), digest(&["a", "b"]));
        assert_ne!(digest(&["a", "b"]), digest(&["ab"]));
    }
}
