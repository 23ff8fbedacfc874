//! Browsers in which somebody is signed in: so that the organization's next app asks for no password.

use std::sync::Arc;

use keypost_shared::secret::SecretText;
use serde_json::json;

use super::super::super::Context;
use super::super::session::{self, SessionError, SignInFrom};
use super::authorization_request::AuthorizationRequest;
use super::code;
use super::hint::Meant;
use super::redirect_uri::RedirectUri;
use crate::service::audit::{Actor, ActorKind, Event, RequestSource, Target};
use crate::service::change::Change;
use crate::store::StoreError;
use crate::store::sso::browser_sign_in;
use crate::store::sso::openid_client::OpenIdClient;
use crate::store::sso::session::Session;
use crate::store::sso::user::{self, User, UserStatus};

/// Who asks, for what, and where the answer goes.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The app.
    pub client: &'a OpenIdClient,
    /// Where the code goes.
    pub redirect_uri: &'a RedirectUri,
    /// What the code is for.
    pub request: &'a AuthorizationRequest,
    /// Whom the app means.
    pub meant: Meant,
}

/// Who is signed in, in the browser with this cookie, at the app's organization, if that is good enough for what is asked:
/// a session that goes on, of somebody who may, who gave their password lately enough, and is who the app means.
pub async fn signed_in(
    context: &Context,
    asked: Asked<'_>,
    cookie: &SecretText,
) -> Result<Option<(Session, User)>, StoreError> {
    let now = context.now();
    let mut connection = context.connection().await?;
    let org = &asked.client.org;
    let Some(id) = browser_sign_in::session(&mut connection, org, &cookie.hash()).await? else {
        return Ok(None);
    };
    let session = crate::store::sso::session::find(&mut connection, org, id).await?;
    let is_enough = |session: &Session| {
        session.is_live(now)
            && asked.request.is_satisfied_by(session.created_at, now)
            && asked.meant.is(session.user)
    };
    let Some(session) = session.filter(is_enough) else { return Ok(None) };
    let user = user::find(&mut connection, org, session.user).await?;
    Ok(user.filter(|user| user.status == UserStatus::Enabled).map(|user| (session, user)))
}

/// A code for an app at which somebody arrives who is signed in: in the same session.
pub async fn sign_on(
    context: &Context,
    source: RequestSource,
    asked: Asked<'_>,
    session: &Session,
    user: &User,
) -> Result<SecretText, SessionError> {
    let mut change = Change::begin(context, &Arc::new(actor(source, user))).await?;
    let code =
        code::make(&mut change, asked.client, asked.redirect_uri, asked.request, session, false).await?;
    change.record(event(session, "sign_on", asked.client));
    change.commit().await?;
    Ok(code)
}

/// The cookies of a browser in which somebody signs in.
#[derive(Clone, Copy, Debug)]
pub struct Cookies<'a> {
    /// The one that it will have.
    pub new: &'a SecretText,
    /// The one that it had.
    pub before: Option<&'a SecretText>,
}

/// Begins a session of somebody who has just proved who they are, with a code for the app that asked. From now on the
/// browser is known.
pub(super) async fn sign_in(
    change: &mut Change,
    from: SignInFrom,
    asked: Asked<'_>,
    user: &User,
    cookies: Cookies<'_>,
) -> Result<SecretText, SessionError> {
    let (_, session) = session::begin(change, user, from).await?;
    let (now, org) = (change.now(), &session.org);
    if let Some(before) = cookies.before {
        browser_sign_in::delete(change.tx(), org, &before.hash()).await?;
    }
    browser_sign_in::insert(change.tx(), org, &cookies.new.hash(), session.id, now).await?;
    let code = code::make(change, asked.client, asked.redirect_uri, asked.request, &session, true).await?;
    change.record(event(&session, "begin", asked.client));
    Ok(code)
}

/// The person, as audit events name them.
pub fn actor(source: RequestSource, user: &User) -> Actor {
    source.actor(ActorKind::User, Some(user.id.to_string()), Some(user.username.clone()))
}

fn event(session: &Session, verb: &'static str, client: &OpenIdClient) -> Event {
    let target =
        Target { org: Some(session.org.clone()), env: None, kind: "sso_session", id: session.id.to_string() };
    Event::new(target, verb, json!({"after": {"clientAppId": client.id}}))
}
