//! Small files that commands are given by name.

use std::io::{self, Read};
use std::path::Path;

use super::error::CommandError;

/// More than any root, chain, assertion or token has.
const MAX_BYTES: u64 = 1 << 20;

/// What a file holds, or for `-` what comes on standard input.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        io::stdin().lock().take(MAX_BYTES).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
    };
    read.map_err(|reason| CommandError::File { path: file.to_owned(), reason })?;
    Ok(bytes)
}

/// The same as text, without white space around it.
pub(super) fn read_text(file: &Path) -> Result<String, CommandError> {
    Ok(String::from_utf8_lossy(&read(file)?).trim().to_owned())
}
