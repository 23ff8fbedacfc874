//! A Chromium for the tests of the pages that people see. Whatever is there is used; else Debian's package.

use std::{env, path::PathBuf};

use crate::{Error, command::find_program, setup::debian};

/// Names a Chromium that is not in `PATH`, or not under a name that we know.
const CHROMIUM: &str = "KEYPOST_CHROMIUM";

/// What Chromium, and the browsers that are built of it and take the same commands, are called.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// Makes sure that there is a Chromium, and answers where.
///
/// # Errors
/// [`Error::MissingTool`] when there is none and it is not ours to install one; when apt-get fails.
pub async fn ensure() -> Result<PathBuf, Error> {
    if let Some(path) = env::var_os(CHROMIUM).filter(|path| !path.is_empty()).map(PathBuf::from) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Error::Refused(format!("{CHROMIUM}: there is no {}", path.display())))
        };
    }
    if let Some(path) = find() {
        return Ok(path);
    }
    // Installed, not unpacked into the cache: it needs some dozens of libraries, each in its place.
    debian::install(&["chromium"]).await?;
    find().ok_or_else(|| Error::MissingTool {
        tool: "chromium, for the tests of the sign-in page".to_owned(),
        remedy: format!("install it (on Debian: apt-get install chromium), or say in {CHROMIUM} where it is"),
    })
}

fn find() -> Option<PathBuf> {
    NAMES.into_iter().find_map(find_program)
}
