//! The users of an organization's client apps, as its owners see them.

use keypost_shared::id::{SsoAppId, UserId};
use keypost_shared::secret::SecretText;
use serde_json::json;
use time::OffsetDateTime;

use super::super::access::OrgScope;
use super::super::audit::{Event, Target};
use super::super::change::Change;
use super::super::{ChangeError, Context};
use super::{deletion, new_password, session};
use crate::store::StoreError;
use crate::store::sso::app_user;
use crate::store::sso::deletion::{Of, has_sessions};
use crate::store::sso::session::Which;
use crate::store::sso::user::{User, UserStatus};

/// Users of the organization's client apps, or of one of them, by id, after `after`.
pub async fn list(
    context: &Context,
    scope: &OrgScope,
    app: Option<SsoAppId>,
    after: Option<UserId>,
    rows: i64,
) -> Result<Vec<User>, StoreError> {
    let mut connection = context.connection().await?;
    app_user::list(&mut connection, scope, app, after, rows).await
}

/// A user of one of the organization's client apps.
pub async fn find(context: &Context, scope: &OrgScope, id: UserId) -> Result<Option<User>, StoreError> {
    let mut connection = context.connection().await?;
    app_user::find(&mut connection, scope.org(), id).await
}

/// Lets a user sign in, or not. Who may not has no sessions either, and no tokens that count.
pub async fn set_status(
    context: &Context,
    scope: &OrgScope,
    id: UserId,
    status: UserStatus,
) -> Result<User, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = app_user::lock(change.tx(), scope, id).await?.ok_or(ChangeError::Gone)?;
    let mut after = before.clone();
    if before.status != status {
        after.status = status;
        after.updated_at = change.touch(before.updated_at);
        app_user::set_status(change.tx(), scope, id, status, after.updated_at).await?;
        let verb = if status == UserStatus::Enabled { "enable" } else { "disable" };
        change.record(Event::changed(target(scope, id), verb, &before, &after));
    }
    change.commit().await?;
    if status == UserStatus::Disabled {
        end_sessions(context, scope, id).await?;
    }
    Ok(after)
}

/// Ends what a user who may not sign in any more has begun. Not in the transaction that says so: who refreshes a token
/// holds the session's row and asks for the user's.
async fn end_sessions(context: &Context, scope: &OrgScope, id: UserId) -> Result<(), ChangeError> {
    loop {
        let mut change = Change::begin(context, scope.actor()).await?;
        let ended = session::end(&mut change, scope.org(), Which::OfUser(id), "user_disabled").await?;
        change.commit().await?;
        if !session::may_be_more(ended) {
            return Ok(());
        }
    }
}

/// A code with which a user sets another password, once, to be shown once; and when it ends. The one before is good no more.
pub async fn make_reset_code(
    change: &mut Change,
    scope: &OrgScope,
    id: UserId,
) -> Result<(SecretText, OffsetDateTime), ChangeError> {
    app_user::lock(change.tx(), scope, id).await?.ok_or(ChangeError::Gone)?;
    let made = new_password::make_code(change, scope.org(), id).await?;
    change.record(Event::new(target(scope, id), "make_reset_code", json!({})));
    Ok(made)
}

/// Deletes a user: their sessions end, and their tokens.
pub async fn delete(context: &Context, scope: &OrgScope, id: UserId) -> Result<(), ChangeError> {
    // An owner is none of the users, and keeps their sessions.
    find(context, scope, id).await?.ok_or(ChangeError::Gone)?;
    loop {
        deletion::delete_sessions(context, scope, Of::User(id)).await?;
        let mut change = Change::begin(context, scope.actor()).await?;
        let before = app_user::lock(change.tx(), scope, id).await?.ok_or(ChangeError::Gone)?;
        // Somebody signed in meanwhile.
        if has_sessions(change.tx(), scope, Of::User(id)).await? {
            continue;
        }
        app_user::delete(change.tx(), scope, id).await?;
        change.record(Event::deleted(target(scope, id), &before));
        change.commit().await?;
        return Ok(());
    }
}

pub(super) fn target(scope: &OrgScope, id: UserId) -> Target {
    Target { org: Some(scope.org().clone()), env: None, kind: "sso_user", id: id.to_string() }
}
