//! A PostgreSQL server of our own: made where there is none yet, on 127.0.0.1 alone, with a password.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    port::Port,
    process::{Process, Spec},
    supervise::Stop,
};
use crate::{Error, command::Cmd, files, setup::postgres::PostgresPrograms};

/// The superuser.
const USER: &str = "keypost";

const START_LIMIT: Duration = Duration::from_secs(60);

/// A server that was killed together with us needs a moment to notice.
const LINGER_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const LINGER_POLL: Duration = Duration::from_millis(200);
/// What a server says that starts while processes of the one before still have its memory.
const MEMORY_IN_USE: &str = "pre-existing shared memory block";
/// What one says that does not.
const STARTING: &str = "starting PostgreSQL";

/// How to run the server.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The folder for its data, port and password.
    pub state: PathBuf,
    pub log: PathBuf,
    /// Off for tests: much faster, and a crash of the machine may cost the data.
    pub durable: bool,
    pub max_connections: u16,
    /// A lock file to share as long as it lives.
    pub lock: Option<PathBuf>,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    programs: PostgresPrograms,
    process: Process,
    port: Port,
    password: String,
}

impl Postgres {
    /// Starts the server, having made its data first if there is none.
    ///
    /// # Errors
    /// When it does not come up, or its data is in use by another server.
    pub async fn start(
        xtask: &Path,
        programs: &PostgresPrograms,
        options: PostgresOptions,
    ) -> Result<Self, Error> {
        files::create_folder(&options.state)?;
        let home = programs.data_home(&options.state)?;
        let data = home.join("postgres");
        let password = password(&options.state)?;
        if !data.join("PG_VERSION").is_file() {
            initialise(programs, &home, &data, &password).await?;
        }
        clear_stale_pid(&data).await?;

        let remembered = options.state.join("postgres.port");
        let preferred = files::read_if_there(&remembered)?.and_then(|port| port.trim().parse().ok());
        let port = Port::free(preferred)?;
        files::write_private(&remembered, port.number().to_string().as_bytes())?;

        let mut spec = Spec::new("PostgreSQL", programs.bin.join("postgres"), options.log)
            .args(["-D".as_ref(), data.as_os_str()])
            .args(["-p", &port.number().to_string()])
            .args(
                settings(options.durable, options.max_connections)
                    .iter()
                    .flat_map(|set| ["-c".to_owned(), set.clone()]),
            );
        spec.stop = Stop::Int;
        spec.grace = Duration::from_secs(20);
        spec.user = programs.user;
        spec.lock = options.lock;
        spec.dir = Some(data);
        let process = Process::start(xtask, spec.clone())?;
        let mut server = Self { programs: programs.clone(), process, port, password };
        let number = server.port.number().to_string();
        let probe = || async {
            let ready = Cmd::new("pg_isready", programs.bin.join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &number])
                .run()
                .await;
            ready.map_err(|error| error.to_string())
        };
        let began = Instant::now();
        loop {
            match server.process.until_up(START_LIMIT, probe).await {
                Ok(()) => return Ok(server),
                // What is left of a server that was killed ends a moment after it.
                Err(Error::Died { tail, .. })
                    if finds_memory_in_use(&tail) && began.elapsed() < LINGER_LIMIT =>
                {
                    tokio::time::sleep(LINGER_POLL).await;
                    server.process = Process::start(xtask, spec.clone())?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The URL of a database on this server, as its superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port.number())
    }

    /// The URL to create databases with.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.url("postgres")
    }

    /// Makes the database unless it is there.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn ensure_database(&self, name: &str) -> Result<(), Error> {
        let query = format!("select 1 from pg_database where datname = '{name}'");
        let there = self.psql("postgres").args(["-Atc", &query]).output().await?;
        if there.trim().is_empty() {
            self.execute("postgres", &format!("create database \"{name}\"")).await
        } else {
            Ok(())
        }
    }

    /// Makes the database anew, empty.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn recreate_database(&self, name: &str) -> Result<(), Error> {
        self.execute("postgres", &format!("drop database if exists \"{name}\" with (force)")).await?;
        self.execute("postgres", &format!("create database \"{name}\"")).await
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn execute(&self, database: &str, statement: &str) -> Result<(), Error> {
        self.psql(database).args(["-c", statement]).run().await
    }

    /// psql on this server, stopping at the first error.
    #[must_use]
    pub fn psql(&self, database: &str) -> Cmd {
        Cmd::new("psql", self.programs.bin.join("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER, "-d", database])
            .args(["-p", &self.port.number().to_string()])
            .env("PGPASSWORD", &self.password)
    }

    /// Kills it with -9.
    pub fn kill(self) {
        self.process.kill();
    }

    /// The process, to watch or to kill.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// What the server is told on its command line; the rest is PostgreSQL's own default.
fn settings(durable: bool, max_connections: u16) -> Vec<String> {
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        format!("max_connections={max_connections}"),
    ];
    if !durable {
        settings
            .extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(ToOwned::to_owned));
    }
    settings
}

/// The superuser's password: made once, kept with the data.
fn password(state: &Path) -> Result<String, Error> {
    let path = state.join("postgres.password");
    if let Some(password) = files::read_if_there(&path)? {
        return Ok(password.trim().to_owned());
    }
    let password = crate::secret::random_text();
    files::write_private(&path, password.as_bytes())?;
    Ok(password)
}

/// initdb, beside the place where the data will be: what is interrupted half-way is made again.
async fn initialise(
    programs: &PostgresPrograms,
    home: &Path,
    data: &Path,
    password: &str,
) -> Result<(), Error> {
    let making = home.join("postgres.new");
    if making.exists() {
        fs::remove_dir_all(&making).map_err(Error::file("remove", &making))?;
    }
    programs.own_folder(&making)?;
    let password_file = home.join("postgres.new.password");
    files::write_private(&password_file, password.as_bytes())?;
    programs.own(&password_file)?;
    let made = programs
        .program("initdb")
        .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-instructions"])
        .args(["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"])
        .arg("--pwfile")
        .arg(&password_file)
        .arg("-D")
        .arg(&making)
        .dir(&making)
        .run()
        .await;
    files::remove_if_there(&password_file)?;
    made?;
    fs::rename(&making, data).map_err(Error::file("put in place", data))
}

/// After a kill -9 the server's pid file is left behind. Where its process still runs we wait for it to end (its
/// supervisor is about to stop it); a file without a process is removed, because PostgreSQL would take any
/// process that has got the number since for itself.
async fn clear_stale_pid(data: &Path) -> Result<(), Error> {
    let path = data.join("postmaster.pid");
    let started = Instant::now();
    loop {
        let Some(content) = files::read_if_there(&path)? else { return Ok(()) };
        let pid = content.lines().next().unwrap_or_default().trim().to_owned();
        if !is_postgres(&pid).await {
            return files::remove_if_there(&path);
        }
        if started.elapsed() > LINGER_LIMIT {
            return Err(Error::Refused(format!(
                "a PostgreSQL server (process {pid}) already runs on {}: stop it, or use another --state",
                data.display()
            )));
        }
        tokio::time::sleep(LINGER_POLL).await;
    }
}

/// Whether the end of the server's log says so of the latest start: a server that gets beyond that says that it is starting.
fn finds_memory_in_use(log: &str) -> bool {
    log.rsplit(STARTING).next().is_some_and(|latest| latest.contains(MEMORY_IN_USE))
}

async fn is_postgres(pid: &str) -> bool {
    if pid.is_empty() || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let name = if Path::new("/proc/self").exists() {
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
    } else {
        Cmd::new("ps", "ps").args(["-o", "comm=", "-p", pid]).output().await.unwrap_or_default()
    };
    name.trim().ends_with("postgres")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_start_counts() {
        let in_use = "FATAL:  pre-existing shared memory block (key 1, ID 2) is still in use\n";
        assert!(finds_memory_in_use(in_use));
        assert!(finds_memory_in_use(&format!("LOG:  starting PostgreSQL 18.6 on x86_64\n{in_use}")));
        assert!(!finds_memory_in_use(&format!(
            "{in_use}LOG:  starting PostgreSQL 18.6 on x86_64\nFATAL:  the disk is full\n"
        )));
    }
}
