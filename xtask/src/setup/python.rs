//! The Python packages: the PostgreSQL programs and the Python clients of the tests, in a virtual environment in
//! the cache, as tests/python/requirements.txt pins them.

use std::path::{Path, PathBuf};

use crate::{
    Error,
    command::{Cmd, need_program},
    files::Fingerprint,
    progress::Step,
    repo::Repo,
    setup::{cache::Cache, debian},
};

const REMEDY: &str = "install Python 3 with venv (on Debian: apt-get install python3-venv)";

/// The virtual environment.
#[derive(Clone, Debug)]
pub struct Python {
    /// Its interpreter.
    pub python: PathBuf,
}

impl Python {
    /// Makes sure that the packages are installed.
    ///
    /// # Errors
    /// When Python is missing, or a package cannot be installed.
    pub async fn ensure(repo: &Repo, cache: &Cache) -> Result<Self, Error> {
        let requirements = repo.path("tests/python/requirements.txt");
        let mut key = Fingerprint::default();
        key.file(&requirements)?;
        let system = need_program("python3", REMEDY)?;
        // A virtual environment lives and dies with the interpreter that made it.
        key.text(&Cmd::new("python3 --version", &system).arg("--version").output().await?);
        key.text(&system.to_string_lossy());
        let key = key.finish();
        let name = format!("python-{}", key.get(..16).unwrap_or(&key));
        let entry = cache
            .get_or_make(&name, async |folder: &Path| make(&system, folder, &requirements).await)
            .await?;
        Ok(Self { python: entry.join("bin/python") })
    }

    /// Where pip put the packages.
    ///
    /// # Errors
    /// When the interpreter does not run.
    pub async fn site_packages(&self) -> Result<PathBuf, Error> {
        let path = Cmd::new("python -c", &self.python)
            .args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
            .output()
            .await?;
        Ok(PathBuf::from(path.trim()))
    }
}

async fn make(system: &Path, folder: &Path, requirements: &Path) -> Result<(), Error> {
    let step = Step::quiet("Python packages (PostgreSQL, test clients)");
    let venv = || Cmd::new("python3 -m venv", system).args(["-m", "venv", "--clear"]).arg(folder).run();
    if venv().await.is_err() {
        // Debian ships Python without the modules that make a virtual environment.
        debian::install(&["python3-venv"]).await?;
        venv().await.map_err(|error| Error::MissingTool {
            tool: "a Python that can make virtual environments".to_owned(),
            remedy: format!("{REMEDY}; it said: {error}"),
        })?;
    }
    Cmd::new("pip install", folder.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--only-binary",
            ":all:",
        ])
        .args(["--require-hashes", "--requirement"])
        .arg(requirements)
        .run()
        .await?;
    step.done();
    Ok(())
}
