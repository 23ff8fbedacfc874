//! Single sign-on across an organization's client apps (design §10).

pub mod access_token;
pub mod app_user;
pub mod caller;
pub mod client_app;
pub mod delay;
pub mod deletion;
pub mod exchange;
mod guess;
pub mod key_context;
pub mod manager;
pub mod name;
pub mod new_password;
pub mod openid;
pub mod organization;
pub mod origin;
pub mod owner_reset;
pub mod password;
pub mod pool;
pub mod session;
pub mod sign_in;
pub mod sign_out;
pub mod sign_up;
pub mod user_metadata;

use time::Duration;

use self::origin::CorsOrigins;

/// How single sign-on goes in this deployment.
#[derive(Clone, Debug)]
pub struct SsoSettings {
    /// How long an access token lives.
    pub access_token_ttl: Duration,
    /// How long a refresh token lives, and a session that is not refreshed.
    pub refresh_token_ttl: Duration,
    /// Whether anybody may sign up as an owner.
    pub public_signup: bool,
    /// The origins whose pages may call on behalf of owners.
    pub cors_origins: CorsOrigins,
}

impl SsoSettings {
    /// How long an access token lives, in seconds.
    pub fn access_token_ttl_seconds(&self) -> u32 {
        u32::try_from(self.access_token_ttl.whole_seconds()).unwrap_or(u32::MAX)
    }
}

impl Default for SsoSettings {
    /// An hour and a week (api.md §4).
    fn default() -> Self {
        Self {
            access_token_ttl: Duration::HOUR,
            refresh_token_ttl: Duration::WEEK,
            public_signup: true,
            cors_origins: CorsOrigins::default(),
        }
    }
}
