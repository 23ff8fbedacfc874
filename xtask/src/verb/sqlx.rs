//! `cargo xtask sqlx`: the offline data of sqlx's checked queries, in `.sqlx/`.
//!
//! The macros write it themselves when they see a database: each expansion of `query!` with `DATABASE_URL` and
//! `SQLX_OFFLINE_DIR` set stores what PostgreSQL said about that query. So we make a database, apply the
//! migrations, have cargo compile the control plane once against it, and put what was written in place.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    Error,
    command::Cmd,
    files::{self, Fingerprint, FolderLock},
    progress::{Step, note},
    repo::Repo,
    stack::postgres::Postgres,
};

const PACKAGE: &str = "keypost";
const DATABASE: &str = "keypost_sqlx";

/// Writes `.sqlx/` anew, or with `check` fails if it is not what the sources and migrations ask for.
///
/// # Errors
/// When a migration or a query is wrong, or `.sqlx/` has drifted.
pub async fn run(repo: &Repo, server: &Postgres, check: bool) -> Result<(), Error> {
    let stamp = repo.scratch().join("sqlx.stamp");
    let _lock =
        FolderLock::take(&repo.scratch().join("sqlx.lock"), "another `cargo xtask sqlx` runs here").await?;
    if check && files::read_if_there(&stamp)?.as_deref() == Some(inputs(repo)?.as_str()) {
        note(".sqlx: unchanged since it was last checked");
        return Ok(());
    }
    let step = Step::quiet("migrating a scratch database");
    server.recreate_database(DATABASE).await?;
    migrate(repo, server, DATABASE).await?;
    step.done();

    let written = repo.scratch().join("sqlx-data");
    if written.exists() {
        fs::remove_dir_all(&written).map_err(Error::file("clear", &written))?;
    }
    files::create_folder(&written)?;
    // A check comes after clippy, which has compiled all dependencies with the features of the whole workspace;
    // whoever writes anew may have another crate open on the operating table.
    let packages: &[&str] = if check { &["--workspace"] } else { &["--package", PACKAGE] };
    expand(repo, packages, &server.url(DATABASE), &written).await?;

    let (kept, found) = (queries(&repo.path(".sqlx"))?, queries(&written)?);
    if check {
        compare(&kept, &found)?;
    } else {
        replace(&repo.path(".sqlx"), &kept, &found)?;
        note(&format!(".sqlx: {} queries", found.len()));
    }
    files::write_private(&stamp, inputs(repo)?.as_bytes())
}

/// Applies migrations/*.sql in order, as the control plane does, but without its record of them.
///
/// # Errors
/// When PostgreSQL refuses one.
pub async fn migrate(repo: &Repo, server: &Postgres, database: &str) -> Result<(), Error> {
    let folder = repo.path("migrations");
    let mut scripts: Vec<PathBuf> = fs::read_dir(&folder)
        .map_err(Error::file("read", &folder))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .filter(|path| !path.to_string_lossy().ends_with(".down.sql"))
        .collect();
    scripts.sort();
    for script in scripts {
        let text = fs::read_to_string(&script).map_err(Error::file("read", &script))?;
        // sqlx's own mark for what cannot run in a transaction.
        let single = (!text.starts_with("-- no-transaction")).then_some("--single-transaction");
        server.psql(database).args(single).arg("-f").arg(&script).run().await?;
    }
    Ok(())
}

/// Has the macros expand again. They run only when the crate is compiled, so it must look changed; afterwards it
/// looks unchanged again, or every later build would compile it once more for nothing.
async fn expand(repo: &Repo, packages: &[&str], database_url: &str, written: &Path) -> Result<(), Error> {
    let step = Step::loud("checking the queries against it");
    let roots = ["lib.rs", "main.rs"].map(|root| repo.path("control-plane/src").join(root));
    let _touched =
        roots.into_iter().filter(|root| root.exists()).map(Touched::touch).collect::<Result<Vec<_>, _>>()?;
    Cmd::new("cargo check", "cargo")
        .args(["check", "--all-targets"])
        .args(packages)
        .dir(repo.root())
        .env("DATABASE_URL", database_url)
        .env("SQLX_OFFLINE_DIR", written)
        .env("SQLX_OFFLINE", "false")
        .cargo_progress()
        .run_shown()
        .await?;
    step.done();
    Ok(())
}

/// A file whose time of change is now, until this is dropped.
struct Touched {
    path: PathBuf,
    modified: SystemTime,
}

impl Touched {
    #[expect(clippy::disallowed_methods, reason = "cargo compares times of change with the real clock")]
    fn touch(path: PathBuf) -> Result<Self, Error> {
        let modified =
            fs::metadata(&path).and_then(|file| file.modified()).map_err(Error::file("read", &path))?;
        File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .map_err(Error::file("touch", &path))?;
        Ok(Self { path, modified })
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        // If this fails, the next build compiles the crate again.
        let _ =
            File::options().append(true).open(&self.path).and_then(|file| file.set_modified(self.modified));
    }
}

/// Everything that decides what `.sqlx/` should hold, and `.sqlx/` itself.
fn inputs(repo: &Repo) -> Result<String, Error> {
    let mut inputs = Fingerprint::default();
    inputs.file(&repo.path("Cargo.lock"))?;
    for folder in ["control-plane", "migrations", "shared/src", ".sqlx"] {
        inputs.folder(&repo.path(folder), &|_| false)?;
    }
    Ok(inputs.finish())
}

type Queries = BTreeMap<String, String>;

fn queries(folder: &Path) -> Result<Queries, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Queries::new()),
        Err(error) => return Err(Error::file("read", folder)(error)),
    };
    let mut queries = Queries::new();
    for entry in entries {
        let path = entry.map_err(Error::file("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("query-") && name.ends_with(".json") {
            queries.insert(name, fs::read_to_string(&path).map_err(Error::file("read", &path))?);
        }
    }
    Ok(queries)
}

fn compare(kept: &Queries, found: &Queries) -> Result<(), Error> {
    let mut drift: Vec<String> = Vec::new();
    drift
        .extend(found.keys().filter(|name| !kept.contains_key(*name)).map(|name| format!("missing: {name}")));
    drift.extend(
        kept.keys().filter(|name| !found.contains_key(*name)).map(|name| format!("of no query: {name}")),
    );
    drift.extend(
        kept.iter()
            .filter(|(name, text)| found.get(*name).is_some_and(|new| new != *text))
            .map(|(name, _)| format!("outdated: {name}")),
    );
    if drift.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        ".sqlx/ has drifted; run `cargo xtask sqlx` and commit it\n    {}",
        drift.join("\n    ")
    )))
}

fn replace(folder: &Path, kept: &Queries, found: &Queries) -> Result<(), Error> {
    files::create_folder(folder)?;
    for name in kept.keys().filter(|name| !found.contains_key(*name)) {
        files::remove_if_there(&folder.join(name))?;
    }
    for (name, text) in found.iter().filter(|(name, text)| kept.get(*name) != Some(text)) {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queries(entries: &[(&str, &str)]) -> Queries {
        entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn drift_is_a_query_too_many_too_few_or_changed() {
        let kept = queries(&[("a", "1"), ("b", "1")]);
        assert!(compare(&kept, &kept.clone()).is_ok());
        for (found, complaint) in [
            (queries(&[("a", "1")]), "of no query: b"),
            (queries(&[("a", "1"), ("b", "1"), ("c", "1")]), "missing: c"),
            (queries(&[("a", "1"), ("b", "2")]), "outdated: b"),
        ] {
            let error = compare(&kept, &found).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
