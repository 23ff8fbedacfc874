//! What goes with a client app and with an organization: the sessions of its people, whose tokens are revoked, and the
//! people.
//!
//! It goes in batches, as devices do ([`cascade`](crate::service::cascade)): what has gone when a deletion is interrupted
//! stays gone. Whoever refreshes a token locks a session before anything else, so sessions go in transactions that hold
//! nothing else. Only then is what they belonged to locked, and looked once more.

use keypost_shared::id::{ClientId, SessionId, SsoAppId};
use keypost_shared::kv_key::KvKey;
use serde_json::json;

use crate::service::access::OrgScope;
use crate::service::audit::{Event, Target};
use crate::service::change::Change;
use crate::service::deleted_pool::ByKms;
use crate::service::{ChangeError, Context, deleted_pool};
use crate::store;
use crate::store::signing_key::PoolOwner;
use crate::store::sso::deletion::{self, Of};
use crate::store::sso::pool;

/// How many sessions, and how many users, go in one transaction.
const BATCH: i64 = 1000;

/// Ends and forgets all sessions.
pub(in crate::service) async fn delete_sessions(
    context: &Context,
    scope: &OrgScope,
    of: Of,
) -> Result<(), ChangeError> {
    let mut after = None;
    loop {
        let mut change = Change::begin(context, scope.actor()).await?;
        let sessions = deletion::delete_some_sessions(change.tx(), scope, of, after, BATCH).await?;
        revoke(&mut change, scope, &sessions).await?;
        change.commit().await?;
        after = sessions.last().copied();
        if is_last(sessions.len()) {
            return Ok(());
        }
    }
}

/// Deletes a client app with its keys, its users and their sessions, and what others' sessions have got for it. False where
/// there is no such app.
pub(in crate::service) async fn delete_app(
    context: &Context,
    scope: &OrgScope,
    app: SsoAppId,
) -> Result<bool, ChangeError> {
    loop {
        delete_sessions(context, scope, Of::ClientApp(app)).await?;
        delete_exchanged(context, scope, app).await?;
        delete_users(context, scope, app).await?;
        let mut change = Change::begin(context, scope.actor()).await?;
        if !deletion::lock_app(change.tx(), scope, app).await? {
            return Ok(false);
        }
        // Somebody signed up or in meanwhile.
        if deletion::app_is_used(change.tx(), scope, app).await? {
            continue;
        }
        if let Some(pool) = pool::find_id(change.tx(), scope.org()).await? {
            change.lose(KvKey::Client(pool, app.into()));
        }
        deletion::delete_app(change.tx(), scope, app).await?;
        change.record(Event::new(app_target(scope, app), "delete", json!({})));
        change.commit().await?;
        return Ok(true);
    }
}

async fn delete_exchanged(context: &Context, scope: &OrgScope, app: SsoAppId) -> Result<(), ChangeError> {
    loop {
        let mut change = Change::begin(context, scope.actor()).await?;
        let sessions = deletion::delete_some_exchanged(change.tx(), scope, app, BATCH).await?;
        // All that these sessions had got so far: they go on with their other refresh tokens.
        revoke(&mut change, scope, &sessions).await?;
        change.commit().await?;
        if is_last(sessions.len()) {
            return Ok(());
        }
    }
}

async fn delete_users(context: &Context, scope: &OrgScope, app: SsoAppId) -> Result<(), ChangeError> {
    loop {
        let mut change = Change::begin(context, scope.actor()).await?;
        let users = deletion::delete_some_users(change.tx(), scope, app, BATCH).await?;
        if users > 0 {
            let target = app_target(scope, app);
            change.record(Event::new(target, "delete_users", json!({"before": {"users": users}})));
        }
        change.commit().await?;
        if i64::try_from(users).is_ok_and(|users| users < BATCH) {
            return Ok(());
        }
    }
}

/// Deletes all client apps of an organization that is to go, and the sessions of its owners.
pub(in crate::service) async fn delete_people(
    context: &Context,
    scope: &OrgScope,
) -> Result<(), ChangeError> {
    loop {
        let app = {
            let mut connection = context.connection().await?;
            deletion::next_app(&mut connection, scope).await?
        };
        let Some(app) = app else { break };
        delete_app(context, scope, app).await?;
    }
    delete_sessions(context, scope, Of::Organization).await
}

/// Deletes the pool of an organization's people with what is left of them: its keys and its owners, of whom those who own
/// another organization sign in there from now on. The organization's row is locked. False where people have come
/// meanwhile.
pub(in crate::service) async fn delete_pool(
    change: &mut Change,
    scope: &OrgScope,
) -> Result<bool, ChangeError> {
    deletion::lock_pool(change.tx(), scope).await?;
    let has_apps = deletion::next_app(change.tx(), scope).await?.is_some();
    if has_apps || deletion::has_sessions(change.tx(), scope, Of::Organization).await? {
        return Ok(false);
    }
    let owners = match deletion::release_owners(change.tx(), scope).await {
        // Where one of them was to go is being deleted as well.
        Err(error) if error.is_dangling() => return Ok(false),
        owners => owners?,
    };
    let org = Some(scope.org().clone());
    for (users, verb) in [(owners.moved, "leave"), (owners.deleted, "delete")] {
        for user in users {
            let target = Target { org: org.clone(), env: None, kind: "sso_user", id: user.to_string() };
            change.record(Event::new(target, verb, json!({})));
        }
    }
    for key in deletion::delete_keys(change.tx(), scope).await? {
        let target = Target { org: org.clone(), env: None, kind: "sso_key", id: key.to_string() };
        change.record(Event::new(target, "delete", json!({})));
    }
    if let Some(pool) = pool::find_id(change.tx(), scope.org()).await? {
        // Nothing gives a pool of people a key in AWS KMS.
        deleted_pool::keep(change, pool, &ByKms::Unavailable).await?;
        store::client_pool::delete(change.tx(), &PoolOwner::of_people(scope.org(), pool)).await?;
    }
    Ok(true)
}

/// Revokes all tokens that these sessions have had.
async fn revoke(change: &mut Change, scope: &OrgScope, sessions: &[SessionId]) -> Result<(), ChangeError> {
    if sessions.is_empty() {
        return Ok(());
    }
    let Some(pool) = pool::find_id(change.tx(), scope.org()).await? else { return Ok(()) };
    let owners: Vec<ClientId> = sessions.iter().copied().map(ClientId::from).collect();
    change.revoke_tokens(pool, &owners).await?;
    Ok(())
}

fn app_target(scope: &OrgScope, app: SsoAppId) -> Target {
    Target { org: Some(scope.org().clone()), env: None, kind: "client_app", id: app.to_string() }
}

fn is_last(rows: usize) -> bool {
    i64::try_from(rows).is_ok_and(|rows| rows < BATCH)
}
