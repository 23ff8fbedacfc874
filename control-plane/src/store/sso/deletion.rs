//! What goes with an organization, a client app or a person.
//!
//! Whoever refreshes holds the session's row and then asks for the client app's. So sessions go first, in transactions that
//! hold nothing else; only once none is left is the row locked that they belong to, and looked once more.

use keypost_shared::id::{SessionId, SsoAppId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::service::access::OrgScope;
use crate::store::StoreError;

/// Whose sessions or people.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// All of the organization.
    Organization,
    /// Those of a client app: who signed in there, or signed up.
    ClientApp(SsoAppId),
    /// Those of a person.
    User(UserId),
}

impl Of {
    fn client_app(self) -> Option<Uuid> {
        match self {
            Of::ClientApp(app) => Some(app.0),
            Of::Organization | Of::User(_) => None,
        }
    }

    fn user(self) -> Option<Uuid> {
        match self {
            Of::User(user) => Some(user.0),
            Of::Organization | Of::ClientApp(_) => None,
        }
    }
}

/// What belongs to an organization, for people; none where nothing does.
pub async fn children(tx: &mut PgConnection, scope: &OrgScope) -> Result<Option<&'static str>, StoreError> {
    let row = sqlx::query!(
        r#"select exists (select from client_app where org_id = $1) as "apps!",
                  exists (select from sso_user where org_id = $1) or
                  exists (select from org_owner where org_id = $1) as "people!""#,
        scope.org().as_str(),
    )
    .fetch_one(tx)
    .await?;
    Ok(match (row.apps, row.people) {
        (true, true) => Some("client apps and users"),
        (true, false) => Some("client apps"),
        (false, true) => Some("users"),
        (false, false) => None,
    })
}

/// Deletes sessions with their refresh tokens, in the order of their ids after `after`, at most `limit`. Answers with their
/// ids: their tokens are to be revoked.
pub async fn delete_some_sessions(
    tx: &mut PgConnection,
    scope: &OrgScope,
    of: Of,
    after: Option<SessionId>,
    limit: i64,
) -> Result<Vec<SessionId>, StoreError> {
    let sessions = sqlx::query_scalar!(
        "select id from sso_session
          where org_id = $1
            and ($2::uuid is null or client_app_id = $2
                 or user_id in (select id from sso_user where org_id = $1 and client_app_id = $2))
            and ($3::uuid is null or user_id = $3)
            and ($4::uuid is null or id > $4)
          order by id
          limit $5
            for update",
        scope.org().as_str(),
        of.client_app(),
        of.user(),
        after.map(|session| session.0),
        limit,
    )
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from refresh_token where org_id = $1 and session_id = any($2)",
        scope.org().as_str(),
        &sessions,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from sso_session where org_id = $1 and id = any($2)",
        scope.org().as_str(),
        &sessions
    )
    .execute(tx)
    .await?;
    Ok(sessions.into_iter().map(SessionId).collect())
}

/// Whether sessions are left.
pub async fn has_sessions(tx: &mut PgConnection, scope: &OrgScope, of: Of) -> Result<bool, StoreError> {
    let left = sqlx::query_scalar!(
        r#"select exists (select from sso_session
                    where org_id = $1 and ($2::uuid is null or client_app_id = $2)
                      and ($3::uuid is null or user_id = $3)) as "left!""#,
        scope.org().as_str(),
        of.client_app(),
        of.user(),
    )
    .fetch_one(tx)
    .await?;
    Ok(left)
}

/// Deletes the refresh tokens that sessions of other apps got for this one by exchange, at most `limit`. Answers with the
/// sessions.
pub async fn delete_some_exchanged(
    tx: &mut PgConnection,
    scope: &OrgScope,
    app: SsoAppId,
    limit: i64,
) -> Result<Vec<SessionId>, StoreError> {
    let sessions = sqlx::query_scalar!(
        "select id from sso_session
          where org_id = $1
            and id in (select session_id from refresh_token where org_id = $1 and client_app_id = $2)
          order by id
          limit $3
            for update",
        scope.org().as_str(),
        app.0,
        limit,
    )
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from refresh_token where org_id = $1 and client_app_id = $2 and session_id = any($3)",
        scope.org().as_str(),
        app.0,
        &sessions,
    )
    .execute(tx)
    .await?;
    Ok(sessions.into_iter().map(SessionId).collect())
}

/// Deletes users of a client app that have no sessions, at most `limit`. Says how many.
pub async fn delete_some_users(
    tx: &mut PgConnection,
    scope: &OrgScope,
    app: SsoAppId,
    limit: i64,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select id from sso_user u
              where org_id = $1 and client_app_id = $2
                and not exists (select from sso_session s where s.user_id = u.id)
              order by id
              limit $3
                for update
         )
         delete from sso_user u using due where u.org_id = $1 and u.id = due.id",
        scope.org().as_str(),
        app.0,
        limit,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// What has become of the owners of an organization that goes.
#[derive(Clone, Debug, Default)]
pub struct FormerOwners {
    /// Those who own another one, and sign in there from now on.
    pub moved: Vec<UserId>,
    /// Those who owned nothing else.
    pub deleted: Vec<UserId>,
}

/// Takes the owners from an organization that goes. Their sessions there are gone. [`StoreError::is_dangling`] where one
/// would move to an organization that has just been deleted too.
pub async fn release_owners(tx: &mut PgConnection, scope: &OrgScope) -> Result<FormerOwners, StoreError> {
    sqlx::query!("delete from org_owner where org_id = $1", scope.org().as_str()).execute(&mut *tx).await?;
    let moved = sqlx::query_scalar!(
        "with next as (
             select distinct on (o.user_id) o.user_id, o.org_id
               from org_owner o
               join sso_user u on u.id = o.user_id
              where u.org_id = $1 and u.client_app_id is null
              order by o.user_id, o.created_at, o.org_id
         )
         update sso_user u set org_id = next.org_id
           from next
          where u.org_id = $1 and u.id = next.user_id
         returning u.id",
        scope.org().as_str(),
    )
    .fetch_all(&mut *tx)
    .await?;
    let deleted = sqlx::query_scalar!(
        "delete from sso_user where org_id = $1 and client_app_id is null returning id",
        scope.org().as_str(),
    )
    .fetch_all(tx)
    .await?;
    let people = |ids: Vec<Uuid>| ids.into_iter().map(UserId).collect();
    Ok(FormerOwners { moved: people(moved), deleted: people(deleted) })
}

/// Locks the pool of an organization's people, so that nobody signs in until the transaction ends.
pub async fn lock_pool(tx: &mut PgConnection, scope: &OrgScope) -> Result<(), StoreError> {
    sqlx::query!(
        "select id from client_pool where org_id = $1 and kind = 'sso' for update",
        scope.org().as_str()
    )
    .fetch_optional(tx)
    .await?;
    Ok(())
}

/// Deletes the organization's own keys.
pub async fn delete_keys(tx: &mut PgConnection, scope: &OrgScope) -> Result<Vec<Uuid>, StoreError> {
    let keys = sqlx::query_scalar!(
        "delete from sso_key where org_id = $1 and client_app_id is null returning id",
        scope.org().as_str(),
    )
    .fetch_all(tx)
    .await?;
    Ok(keys)
}

/// A client app of an organization that goes, the first of those that are left.
pub async fn next_app(tx: &mut PgConnection, scope: &OrgScope) -> Result<Option<SsoAppId>, StoreError> {
    let app = sqlx::query_scalar!(
        "select id from client_app where org_id = $1 order by id limit 1",
        scope.org().as_str()
    )
    .fetch_optional(tx)
    .await?;
    Ok(app.map(SsoAppId))
}

/// Locks a client app against sign-ups and sign-ins until the transaction ends. Says whether it is there.
pub async fn lock_app(tx: &mut PgConnection, scope: &OrgScope, app: SsoAppId) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar!(
        "select id from client_app where org_id = $1 and id = $2 for update",
        scope.org().as_str(),
        app.0,
    )
    .fetch_optional(tx)
    .await?;
    Ok(found.is_some())
}

/// Whether an app has users, or others' tokens for it.
pub async fn app_is_used(tx: &mut PgConnection, scope: &OrgScope, app: SsoAppId) -> Result<bool, StoreError> {
    let used = sqlx::query_scalar!(
        r#"select exists (select from sso_user where org_id = $1 and client_app_id = $2)
                  or exists (select from sso_session where org_id = $1 and client_app_id = $2)
                  or exists (select from refresh_token where org_id = $1 and client_app_id = $2) as "used!""#,
        scope.org().as_str(),
        app.0,
    )
    .fetch_one(tx)
    .await?;
    Ok(used)
}

/// Deletes a client app with its keys. Nothing else belongs to it any more.
pub async fn delete_app(tx: &mut PgConnection, scope: &OrgScope, app: SsoAppId) -> Result<(), StoreError> {
    sqlx::query!("delete from sso_key where org_id = $1 and client_app_id = $2", scope.org().as_str(), app.0)
        .execute(&mut *tx)
        .await?;
    sqlx::query!("delete from client_app where org_id = $1 and id = $2", scope.org().as_str(), app.0)
        .execute(tx)
        .await?;
    Ok(())
}
