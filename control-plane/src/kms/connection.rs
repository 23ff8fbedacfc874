//! How KMS is reached.

use std::fmt;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_kms::Config;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{Credentials, Region};
use keypost_shared::secret::SecretText;

use super::KmsTimes;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a call is tried, the first time included. Only what may pass is tried again, with a pause that doubles and
/// is drawn at random between nothing and that.
const TRIES: u32 = 3;
/// The first pause's upper end.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause's upper end.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Where KMS is, and who asks.
#[derive(Clone)]
pub enum KmsAccess {
    /// As AWS's own variables say (`AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_ENDPOINT_URL_KMS`, a role of the
    /// machine or the container, ...).
    Environment,
    /// At one address, with one pair of credentials.
    At {
        /// The endpoint.
        url: String,
        /// The region.
        region: String,
        /// The access key's id.
        access_key_id: String,
        /// The access key.
        secret_access_key: SecretText,
    },
}

impl fmt::Debug for KmsAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::At { url, region, .. } => write!(f, "At({url}, {region})"),
        }
    }
}

/// Reads the environment, and whatever file or service that names.
pub(super) async fn config(access: &KmsAccess, times: KmsTimes) -> Config {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let KmsAccess::At { url, region, access_key_id, secret_access_key } = access {
        let credentials =
            Credentials::new(access_key_id, secret_access_key.expose(), None, None, "configured");
        loader =
            loader.region(Region::new(region.clone())).credentials_provider(credentials).endpoint_url(url);
    }
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT.min(times.attempt))
        .operation_attempt_timeout(times.attempt)
        .operation_timeout(times.operation)
        .build();
    let retries = RetryConfig::standard()
        .with_max_attempts(TRIES)
        .with_initial_backoff(FIRST_PAUSE)
        .with_max_backoff(LONGEST_PAUSE);
    let loaded = loader.load().await;
    aws_sdk_kms::config::Builder::from(&loaded).timeout_config(timeouts).retry_config(retries).build()
}
