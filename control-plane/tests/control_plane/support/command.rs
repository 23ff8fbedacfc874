use std::process::Stdio;

use base64ct::{Base64UrlUnpadded, Encoding};
use tokio::process::Command;

use super::{KvServer, TestDatabase};

/// The secrets of [`keypost`]: master key, sealing key, shared secret.
pub(crate) fn command_secrets() -> [String; 3] {
    [1, 2, 3].map(|n: u8| {
        let bytes: Vec<u8> = (0..32).map(|position: u8| position.wrapping_mul(97).wrapping_add(n)).collect();
        Base64UrlUnpadded::encode_string(&bytes)
    })
}

/// The built command, with an environment of its own.
pub(crate) fn keypost(database: &TestDatabase, kv: &KvServer, arguments: &[&str]) -> Command {
    let url = std::env::var("KEYPOST_TEST_DATABASE_URL").unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let name = database.config.options.get_database().unwrap();
    let [master_key, sealing_key, shared_secret] = command_secrets();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypost"));
    command
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", format!("{server}/{name}"))
        .env("KEYPOST_ENV", "dev")
        .env("KEYPOST_LISTEN", "127.0.0.1:0")
        .env("KEYPOST_EDGE_URL", "http://127.0.0.1:8787")
        .env("KEYPOST_KV_API_URL", kv.config().api_url.as_str())
        .env("KEYPOST_KV_NAMESPACE_ID", kv.config().namespace_id)
        .env("KEYPOST_KV_API_TOKEN", kv.token())
        .env("KEYPOST_MASTER_KEY", master_key)
        .env("KEYPOST_EDGE_SEALING_KEY", sealing_key)
        .env("KEYPOST_EDGE_SHARED_SECRET", shared_secret)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}
