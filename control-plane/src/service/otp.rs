//! One-time passwords for the activation of devices.

use keypost_shared::secret::Otp;
use time::OffsetDateTime;

use super::{Context, CreateError, commit};
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
    context: &Context,
    scope: &EnvScope,
    app: &DeviceApp,
    ttl_seconds: u32,
) -> Result<NewOtp, CreateError> {
    let now = context.now();
    let expires_at = now + seconds(ttl_seconds);
    let mut drawn = 0;
    loop {
        let otp = Otp::generate(&mut context.rng());
        let hmac = context.master_key.otp_hmac(&otp);
        let mut tx = context.begin().await?;
        let done = store::otp::replace(&mut tx, scope, app.id, &hmac, now, expires_at).await;
        drawn += 1;
        match done {
            Ok(()) => {
                commit(tx).await?;
                return Ok(NewOtp { otp, expires_at });
            }
            Err(error) if error.is_duplicate() && drawn < DRAWS => {}
            Err(error) => return Err(error.into()),
        }
    }
}
