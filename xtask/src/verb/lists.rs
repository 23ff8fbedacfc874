//! `cargo xtask lists`: how long a page of a list of a million devices takes in PostgreSQL, filter by filter.

use std::path::Path;

use super::{db, sqlx};
use crate::{Error, command::Cmd, progress::Step, repo::Repo};

const DATABASE: &str = "keypost_lists";

/// Fills a database of its own, prints times and plans, and drops it.
///
/// # Errors
/// When the server does not start, or the measurement does not build or fails.
pub async fn run(repo: &Repo, xtask: &Path) -> Result<(), Error> {
    let programs = db::programs(repo).await?;
    let server = db::start_server(repo, xtask, &programs, "lists").await?;
    let step = Step::quiet("migrating a database");
    server.recreate_database(DATABASE).await?;
    sqlx::migrate(repo, &server, DATABASE).await?;
    step.done();
    let measured = Cmd::new("cargo bench", "cargo")
        .args(["bench", "--quiet", "--package", "keypost", "--profile", "dev", "--bench", "device_lists"])
        .dir(repo.root())
        .env("SQLX_OFFLINE", "true")
        .env("KEYPOST_BENCH_DATABASE_URL", server.url(DATABASE))
        .run_shown()
        .await;
    server.execute("postgres", &format!("drop database \"{DATABASE}\" with (force)")).await?;
    measured
}
