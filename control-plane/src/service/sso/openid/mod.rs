//! OpenID Connect for client apps (OpenID Connect Core 1.0, RFC 6749, RFC 7636, RFC 8693): what apps ask, and the rules by
//! which they are answered.

pub mod authorization_request;
pub mod browser;
pub mod client;
pub mod code;
pub mod exchange;
pub mod hint;
mod id_token;
pub mod pkce;
pub mod redirect_uri;
pub mod refresh;
pub mod scope;
pub mod sign_in;
pub mod standard_claims;
pub mod token_request;
pub mod tokens;
