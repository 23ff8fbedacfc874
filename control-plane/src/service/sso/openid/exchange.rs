//! Token exchange (RFC 8693): an app gets tokens of its own for somebody who is signed in to another app of the
//! organization, in the same session.

use keypost_shared::secret::SecretText;

use super::super::super::Context;
use super::super::exchange::{self, ExchangeError};
use super::client::{AskingClient, GrantError};
use super::scope::OpenIdScope;
use super::token_request::TokenError;
use super::tokens::{self, OpenIdTokens, Wanted};
use crate::service::audit::RequestSource;

/// Exchanges an access token for tokens of the app that asks, which must have proved that it is that app.
pub async fn exchange(
    context: &Context,
    source: RequestSource,
    asking: &AskingClient,
    subject_token: &SecretText,
    scope: OpenIdScope,
    audience: Option<&str>,
) -> Result<OpenIdTokens, GrantError> {
    let (app, org) = (asking.client.id, &asking.client.org);
    if !asking.has_proved {
        return Err(TokenError::UnauthorizedClient.into());
    }
    if audience.is_some_and(|audience| audience != app.to_string()) {
        return Err(TokenError::InvalidTarget.into());
    }
    let begun = exchange::begin(context, source, subject_token.expose(), org, app).await;
    let mut begun = begun.map_err(refusal)?;
    // No new lifetime: what is got by exchange does not make the session longer.
    let wanted = Wanted { app, scope, nonce: None, extends_session: false };
    let issued = tokens::issue(&mut begun.change, &begun.pool, &begun.session, &begun.person, wanted).await;
    let issued = issued.map_err(|error| refusal(error.into()))?;
    begun.change.commit().await?;
    Ok(issued)
}

/// One text for every reason (RFC 8693 §2.2.2 wants this code).
fn refusal(error: ExchangeError) -> GrantError {
    match error {
        ExchangeError::Session(error) => GrantError::Session(error),
        ExchangeError::Token | ExchangeError::OtherOrganization => {
            TokenError::InvalidRequest("the subject_token is not valid, or not for this client").into()
        }
    }
}
