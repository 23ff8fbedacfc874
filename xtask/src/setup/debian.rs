//! Debian's packages, for the little that comes from nowhere else.

use std::path::PathBuf;

use crate::{
    Error,
    command::{Cmd, find_program},
    progress::Step,
};

/// Installs packages where that is ours to do: as root, on a Debian. Elsewhere it does nothing, and the caller
/// says what is missing.
///
/// # Errors
/// When apt-get fails.
pub(super) async fn install(packages: &[&str]) -> Result<(), Error> {
    let Some(apt) = apt_get().filter(|_| rustix::process::geteuid().is_root()) else { return Ok(()) };
    let step = Step::quiet(format!("Debian packages {}", packages.join(", ")));
    update(&apt).await?;
    Cmd::new("apt-get install", &apt)
        .args(["-qy", "--no-install-recommends", "install"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()
        .await?;
    step.done();
    Ok(())
}

/// Fetches the package lists.
///
/// # Errors
/// When apt-get fails.
pub(super) async fn update(apt: &PathBuf) -> Result<(), Error> {
    Cmd::new("apt-get update", apt).args(["-q", "update"]).run().await
}

/// `apt-get`, where there is one.
pub(super) fn apt_get() -> Option<PathBuf> {
    find_program("apt-get")
}
