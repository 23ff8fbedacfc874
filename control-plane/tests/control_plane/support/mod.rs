//! What the tests stand on.

mod app;
mod certificate;
mod clock;
mod collector;
mod command;
mod database;
mod edge;
mod kms;
mod kv;
mod process;
mod publisher;
pub(crate) mod sso;

pub(crate) use self::app::{Answer, TestApp};
pub(crate) use self::certificate::{Ca, DeviceCertificate};
pub(crate) use self::clock::TestClock;
pub(crate) use self::collector::Collector;
pub(crate) use self::command::{command_secrets, keypost};
pub(crate) use self::database::TestDatabase;
pub(crate) use self::edge::TestEdge;
pub(crate) use self::kms::{
    Emulator, KmsFault, KmsProxy, encrypting_key, key_administrator, kms_at, new_key, no_kms, signing_key,
};
pub(crate) use self::kv::{Fault, KvServer, Stored};
pub(crate) use self::process::{Serving, Stopped};
pub(crate) use self::publisher::{Around, TestPublisher};

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a test waits for something before it fails: longer than the window of a late write, which a call has behind it
/// that was under way when the clock was put forward, and than a machine is busy elsewhere.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// How many keys the control plane does not know to be published: only from then on do they count as standing in KV.
pub(crate) const UNPUBLISHED_KEYS: &str = "select count(*) from signing_key
     where published_at is null and state in ('next', 'active', 'retiring')";

/// Waits until `condition` holds, and fails the test where it does not in time.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for this: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// 32 bytes in base64url.
pub(crate) fn secret(byte: u8) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding};
    Base64UrlUnpadded::encode_string(&[byte; 32])
}
