//! Single sign-on (design §10): what is kept of people, their client apps and their sessions.

pub mod app_user;
pub mod authorization_code;
pub mod browser_sign_in;
pub mod client_app;
pub mod deletion;
pub mod key;
pub mod openid_client;
pub mod origin;
pub mod owner;
pub mod password_reset;
pub mod pool;
pub mod purge;
pub mod refresh_token;
pub mod session;
pub mod sign_in_failure;
pub mod sign_in_network;
pub mod user;
