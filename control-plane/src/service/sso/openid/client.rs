//! Client apps at the door: which there are, and which has proved that it is one.

use keypost_shared::id::SsoAppId;

use super::super::super::Context;
use super::super::session::SessionError;
use super::token_request::{PresentedClient, TokenError};
use crate::store::StoreError;
use crate::store::sso::openid_client::OpenIdClient;
use crate::store::sso::{key, openid_client};

/// A client app that asks for tokens.
#[derive(Clone, Debug)]
pub struct AskingClient {
    /// The app.
    pub client: OpenIdClient,
    /// Whether it has shown its key. Without, it may use what only it can have: a code with its verifier, or a refresh
    /// token of its own.
    pub has_proved: bool,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// Because of what was asked.
    #[error(transparent)]
    Refused(#[from] TokenError),
    /// Because of us.
    #[error(transparent)]
    Session(SessionError),
}

impl From<SessionError> for GrantError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Over => Self::Refused(TokenError::InvalidGrant),
            SessionError::WiderScope => Self::Refused(TokenError::InvalidScope),
            other => Self::Session(other),
        }
    }
}

impl From<StoreError> for GrantError {
    fn from(error: StoreError) -> Self {
        Self::Session(error.into())
    }
}

/// The app with this client id.
pub async fn find(context: &Context, client_id: SsoAppId) -> Result<Option<OpenIdClient>, StoreError> {
    let mut connection = context.connection().await?;
    openid_client::find(&mut connection, client_id).await
}

/// The app that this is, if it is one, and the key that it has shown, if it has, is its own.
pub async fn authenticate(
    context: &Context,
    presented: &PresentedClient,
) -> Result<AskingClient, GrantError> {
    let unknown = TokenError::InvalidClient { by_header: presented.by_header };
    let mut connection = context.connection().await?;
    if let Some(shown) = &presented.key {
        let holder = key::find_holder(&mut connection, &shown.hash(), context.now()).await?;
        if holder.and_then(|holder| holder.app) != Some(presented.client_id) {
            return Err(unknown.into());
        }
    }
    let client = openid_client::find(&mut connection, presented.client_id).await?.ok_or(unknown)?;
    Ok(AskingClient { client, has_proved: presented.key.is_some() })
}
