//! Where the control plane is, and the key to it: the options that all commands over the API share.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use keypost_shared::secret::ApiKey;
use reqwest::Url;

use super::api::Api;
use super::error::CommandError;
use super::output::{Output, tell};

const API_KEY_VARIABLE: &str = "KEYPOST_API_KEY";
/// More than any file that holds just a key.
const MOST_KEY_BYTES: u64 = 4096;

/// The options of every command over the API.
///
/// There is none that takes the key itself: a command line can be read by every process of the machine.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct ConnectionArgs {
    /// Where the control plane is.
    #[arg(long, global = true, value_name = "URL", env = "KEYPOST_URL", hide_env_values = true)]
    #[arg(default_value = "http://127.0.0.1:8080", value_parser = server_url)]
    url: Url,
    /// The file that holds the API key, `-` for standard input. Else KEYPOST_API_KEY holds it.
    #[arg(long, global = true, value_name = "PATH")]
    api_key_file: Option<PathBuf>,
    /// Print the API's JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    /// How often to repeat a request that the server was too busy for.
    #[arg(long, global = true, value_name = "TIMES", default_value_t = 4, value_parser = clap::value_parser!(u8).range(0..=20))]
    retries: u8,
}

impl ConnectionArgs {
    /// A client for the API, and how to print what it answers.
    pub(super) fn open(&self) -> Result<(Api, Output), CommandError> {
        if self.url.scheme() == "http" && !is_this_machine(&self.url) {
            tell("keypost: warning: the API key travels unencrypted, because the URL begins with http:");
        }
        let api = Api::new(self.url.clone(), self.api_key()?, self.retries)?;
        Ok((api, Output { json: self.json }))
    }

    /// Whether standard input is taken, by the key.
    pub(super) fn takes_stdin(&self) -> bool {
        self.api_key_file.as_deref() == Some(Path::new("-"))
    }

    fn api_key(&self) -> Result<ApiKey, CommandError> {
        let (source, text) = match &self.api_key_file {
            Some(path) => (path.display().to_string(), read_key(path)?),
            None => {
                let text = env::var_os(API_KEY_VARIABLE).filter(|text| !text.is_empty());
                let text = text.ok_or(CommandError::NoApiKey)?;
                (API_KEY_VARIABLE.to_owned(), text.to_string_lossy().into_owned())
            }
        };
        ApiKey::parse(text.trim()).ok_or(CommandError::NotAnApiKey(source))
    }
}

fn read_key(path: &Path) -> Result<String, CommandError> {
    let read = |mut from: &mut dyn io::Read| {
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(&mut from, MOST_KEY_BYTES), &mut text).map(|_| text)
    };
    let text = match path.to_str() {
        Some("-") => read(&mut io::stdin().lock()),
        _ => fs::File::open(path).and_then(|mut file| read(&mut file)),
    };
    text.map_err(|reason| CommandError::File { path: path.to_owned(), reason })
}

/// Reads the URL of a control plane.
fn server_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain { Ok(url) } else { Err("must be http:// or https://, a host, and a path at most".to_owned()) }
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_more_than_a_place_in_it_is_refused() {
        for good in ["http://127.0.0.1:8080", "https://keypost.example/", "https://example.com/keypost"] {
            assert!(server_url(good).is_ok(), "{good}");
        }
        for bad in ["ftp://a", "https://user@a", "https://:p@a", "https://a?b", "https://a#b", "a", ""] {
            assert!(server_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_this_machine() {
        let local = |url: &str| is_this_machine(&url.parse().unwrap());
        for yes in ["http://localhost:1", "http://127.0.0.9", "http://[::1]:8080"] {
            assert!(local(yes), "{yes}");
        }
        for no in ["http://10.0.0.1", "http://localhost.example", "http://[2001:db8::1]"] {
            assert!(!local(no), "{no}");
        }
    }
}
