//! A token for another client app of the same organization, without another sign-in (api.md §4, RFC 8693).

use std::sync::Arc;

use keypost_shared::id::{OrgId, SsoAppId};
use serde_json::json;

use super::super::Context;
use super::super::audit::{Event, RequestSource, Target};
use super::super::change::Change;
use super::caller::{CallerError, SignedIn, signed_in};
use super::session::{PairFor, SessionError, TokenPair, issue};
use crate::store::StoreError;
use crate::store::sso::pool::SsoPool;
use crate::store::sso::session::Session;
use crate::store::sso::user::User;
use crate::store::sso::{pool, session, user};

/// Why there is no token for the other app.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The access token does not count, or is an owner's, who has no business at client apps.
    #[error("the access token cannot be exchanged")]
    Token,
    /// The app is another organization's.
    #[error("the client app is not of the person's organization")]
    OtherOrganization,
    /// Nothing can be signed at the moment, or the database.
    #[error(transparent)]
    Session(SessionError),
}

impl From<SessionError> for ExchangeError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Over => Self::Token,
            other => Self::Session(other),
        }
    }
}

impl From<StoreError> for ExchangeError {
    fn from(error: StoreError) -> Self {
        Self::Session(error.into())
    }
}

/// An exchange that is allowed: the change that makes it, and whose tokens to make in it.
pub(super) struct Exchange {
    pub(super) change: Change,
    pub(super) pool: SsoPool,
    pub(super) session: Session,
    pub(super) person: User,
}

/// Makes a pair for the client app `target` of the organization `org`, in the session of the access token. It ends with it:
/// whoever stole the token has not won any time.
pub async fn exchange(
    context: &Context,
    source: RequestSource,
    access_token: &str,
    org: &OrgId,
    target: SsoAppId,
) -> Result<TokenPair, ExchangeError> {
    let mut begun = begin(context, source, access_token, org, target).await?;
    let pair = PairFor { app: Some(target), extends_session: false, scope: None, narrowed: None };
    let pair = issue(&mut begun.change, &begun.pool, &begun.session, &begun.person, pair).await?;
    begun.change.commit().await?;
    Ok(pair)
}

/// Begins an exchange, if it is allowed. Its tokens must not make the session longer.
pub(super) async fn begin(
    context: &Context,
    source: RequestSource,
    access_token: &str,
    org: &OrgId,
    target: SsoAppId,
) -> Result<Exchange, ExchangeError> {
    let caller = signed_in(context, access_token).await.map_err(|error| match error {
        CallerError::NotValid => ExchangeError::Token,
        CallerError::Store(error) => error.into(),
    })?;
    if caller.user.app.is_none() {
        return Err(ExchangeError::Token);
    }
    if caller.user.org != *org {
        return Err(ExchangeError::OtherOrganization);
    }
    let mut change = Change::begin(context, &Arc::new(caller.actor(source))).await?;
    let SignedIn { session: seen, app: origin, .. } = caller;
    let session = session::lock(change.tx(), org, seen.id).await?.ok_or(ExchangeError::Token)?;
    let pool = pool::find(change.tx(), org).await?.ok_or(ExchangeError::Token)?;
    let person = user::find(change.tx(), org, session.user).await?.ok_or(ExchangeError::Token)?;
    let thing = Target { org: Some(org.clone()), env: None, kind: "sso_session", id: session.id.to_string() };
    let changes = json!({"before": {"clientAppId": origin}, "after": {"clientAppId": target}});
    change.record(Event::new(thing, "exchange", changes));
    Ok(Exchange { change, pool, session, person })
}
