//! Single sign-on across an organization's client apps (design §10).

pub mod access_token;
pub mod caller;
pub mod delay;
pub mod openid;
pub mod password;
pub mod session;

use time::Duration;

/// How single sign-on goes in this deployment.
#[derive(Clone, Debug)]
pub struct SsoSettings {
    /// How long an access token lives.
    pub access_token_ttl: Duration,
    /// How long a refresh token lives, and a session that is not refreshed.
    pub refresh_token_ttl: Duration,
    /// Whether anybody may sign up as an owner.
    pub public_signup: bool,
}

impl Default for SsoSettings {
    /// An hour and a week (api.md §4).
    fn default() -> Self {
        Self { access_token_ttl: Duration::HOUR, refresh_token_ttl: Duration::WEEK, public_signup: true }
    }
}
