//! `cargo xtask db`: a PostgreSQL for development with a migrated, empty database, until Ctrl-C.

use std::path::Path;

use super::sqlx;
use crate::{
    Error,
    files::{self, FolderLock},
    interrupt::{interrupted, unless_interrupted},
    progress::{Step, heading},
    repo::Repo,
    setup::{cache::Cache, postgres::PostgresPrograms, python::Python},
    stack::postgres::{Postgres, PostgresOptions},
};

const DATABASE: &str = "keypost_dev";

/// Starts the server, prints the database's URL, and waits for Ctrl-C.
///
/// # Errors
/// When the server does not start or a migration fails.
pub async fn run(repo: &Repo, xtask: &Path) -> Result<(), Error> {
    let state = state(repo);
    let Some(_lock) = FolderLock::try_take(&state.join("lock"))? else {
        return Err(Error::Refused("it runs already: `cargo xtask db --print` prints its URL".to_owned()));
    };
    let mut server = unless_interrupted(async {
        let programs = programs(repo).await?;
        let server = start_server(repo, xtask, &programs, "db").await?;
        let step = Step::quiet("a migrated, empty database");
        server.recreate_database(DATABASE).await?;
        sqlx::migrate(repo, &server, DATABASE).await?;
        step.done();
        Ok(server)
    })
    .await?;
    let url_file = state.join("url");
    files::write_private(&url_file, server.url(DATABASE).as_bytes())?;
    super::print(&format!("DATABASE_URL={}", server.url(DATABASE)));
    heading("It runs until Ctrl-C.");
    let result = tokio::select! {
        () = interrupted() => Ok(()),
        death = super::until_dead(Some(server.process())) => Err(death),
    };
    files::remove_if_there(&url_file)?;
    result
}

/// Prints the URL of the one that runs.
///
/// # Errors
/// When none runs.
pub fn print_url(repo: &Repo) -> Result<(), Error> {
    let state = state(repo);
    let runs = FolderLock::try_take(&state.join("lock"))?.is_none();
    let url = files::read_if_there(&state.join("url"))?
        .filter(|_| runs)
        .ok_or_else(|| Error::Refused("none runs: start one with `cargo xtask db`".to_owned()))?;
    super::print(&format!("DATABASE_URL={url}"));
    Ok(())
}

/// A PostgreSQL for this checkout's own errands, without durability, in `target/`.
///
/// # Errors
/// When it does not start.
pub async fn start_server(
    repo: &Repo,
    xtask: &Path,
    programs: &PostgresPrograms,
    name: &str,
) -> Result<Postgres, Error> {
    let state = repo.scratch().join(name);
    let step = Step::quiet("starting PostgreSQL");
    let log = state.join("postgres.log");
    files::remove_if_there(&log)?;
    let options = PostgresOptions { log, state, durable: false, max_connections: 300, lock: None };
    let server = Postgres::start(xtask, programs, options).await?;
    step.done();
    Ok(server)
}

/// The PostgreSQL programs.
///
/// # Errors
/// When they cannot be installed.
pub async fn programs(repo: &Repo) -> Result<PostgresPrograms, Error> {
    PostgresPrograms::ensure(&Python::ensure(repo, &Cache::open()?).await?).await
}

fn state(repo: &Repo) -> std::path::PathBuf {
    repo.scratch().join("db")
}
