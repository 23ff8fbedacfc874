//! Token exchange (RFC 8693): an app gets tokens of its own for somebody who is signed in to another app of the
//! organization, in the same session.

use std::sync::Arc;

use keypost_shared::secret::SecretText;
use serde_json::json;

use super::super::super::Context;
use super::super::caller::{self, CallerError};
use super::super::session::SessionError;
use super::client::{AskingClient, GrantError};
use super::scope::OpenIdScope;
use super::token_request::TokenError;
use super::tokens::{self, OpenIdTokens, Wanted};
use crate::service::audit::{Event, RequestSource, Target};
use crate::service::change::Change;
use crate::store::sso::{pool, session};

/// One text for every reason (RFC 8693 §2.2.2 wants this code).
const NOT_VALID: TokenError =
    TokenError::InvalidRequest("the subject_token is not valid, or not for this client");

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
    let signed_in =
        caller::signed_in(context, subject_token.expose()).await.map_err(|error| match error {
            CallerError::NotValid => GrantError::from(NOT_VALID),
            CallerError::Store(error) => error.into(),
        })?;
    // An owner is no user of an app.
    if signed_in.session.org != *org || signed_in.app.is_none() || signed_in.user.app.is_none() {
        return Err(NOT_VALID.into());
    }
    let mut change = Change::begin(context, &Arc::new(signed_in.actor(source))).await?;
    let session = session::lock(change.tx(), org, signed_in.session.id).await?.ok_or(NOT_VALID)?;
    let pool = pool::find(change.tx(), org).await?.ok_or(NOT_VALID)?;
    // No new lifetime: what is got by exchange does not make the session longer.
    let wanted = Wanted { app, scope, nonce: None, extends_session: false };
    let issued = tokens::issue(&mut change, &pool, &session, &signed_in.user, wanted).await;
    let issued = issued.map_err(|error| match error {
        SessionError::Over => GrantError::from(NOT_VALID),
        other => other.into(),
    })?;
    let target =
        Target { org: Some(org.clone()), env: None, kind: "sso_session", id: session.id.to_string() };
    change.record(Event::new(target, "exchange", json!({"after": {"clientAppId": app}})));
    change.commit().await?;
    Ok(issued)
}
