//! One-time passwords for the activation of devices.

use keypost_shared::secret::Otp;
use serde_json::json;
use time::OffsetDateTime;

use super::CreateError;
use super::audit::Event;
use super::change::Change;
use crate::clock::seconds;
use crate::store;
use crate::store::device_app::DeviceApp;
use crate::store::environment::EnvScope;

/// How long a password is good for where nothing else is asked, in seconds.
pub const DEFAULT_TTL_SECONDS: u32 = 900;

/// How often another password is made where one happens to be in use. Even with a million of them in use, the first try
/// finds a free one but for one time in a billion.
const DRAWS: u32 = 4;

/// A password to hand out once.
#[derive(Clone, Debug)]
pub struct NewOtp {
    /// The password.
    pub otp: Otp,
    /// When it ends.
    pub expires_at: OffsetDateTime,
}

/// Makes a password for an app; an earlier one of the app ends.
pub async fn create(
    change: &mut Change,
    scope: &EnvScope,
    app: &DeviceApp,
    ttl_seconds: u32,
) -> Result<NewOtp, CreateError> {
    let now = change.now();
    let expires_at = now + seconds(ttl_seconds);
    for _ in 0..DRAWS {
        let otp = Otp::generate(&mut change.rng());
        let hmac = change.context().master_key.otp_hmac(&otp);
        if store::otp::replace(change.tx(), scope, app.id, &hmac, now, expires_at).await? {
            let changes =
                json!({"after": {"app": app.id, "device": app.device_id, "ttlSeconds": ttl_seconds}});
            change.record(Event::new(scope.target("otp", app.id), "create", changes));
            return Ok(NewOtp { otp, expires_at });
        }
    }
    Err(CreateError::IdTaken)
}
