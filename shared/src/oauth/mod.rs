//! OAuth 2.0 as strangers speak it: request parameters, client credentials, errors and metadata.

mod client_credentials;
mod error;
mod form;
mod metadata;

pub use client_credentials::{ClientAuthentication, ClientCredentials, PresentedBy};
pub use error::OAuthError;
pub use form::{Form, FormError};
pub use metadata::{AuthorizationServerMetadata, JWT_BEARER_GRANT, TOKEN_EXCHANGE_GRANT};
