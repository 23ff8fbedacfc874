//! `cargo xtask openapi`: the API's document, in `openapi.json`.

use std::fs;

use crate::{Error, command::Cmd, progress::note, repo::Repo};

/// Writes `openapi.json` anew.
///
/// # Errors
/// When the control plane does not build, or the file cannot be written.
pub async fn run(repo: &Repo) -> Result<(), Error> {
    let cargo = |verb: &str| {
        Cmd::new(format!("cargo {verb}"), "cargo")
            .args([verb, "--quiet", "--package", "keypost"])
            .dir(repo.root())
            .env("SQLX_OFFLINE", "true")
    };
    cargo("build").cargo_progress().run_shown().await?;
    let document = cargo("run").args(["--", "openapi"]).output().await?;
    let path = repo.path("openapi.json");
    fs::write(&path, format!("{}\n", document.trim_end())).map_err(Error::file("write", &path))?;
    note(&format!("openapi.json: {} lines", document.lines().count()));
    Ok(())
}
