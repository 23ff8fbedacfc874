//! `sso_user`, as owners see the users of their client apps.

use keypost_shared::id::{OrgId, SsoAppId, UserId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::super::StoreError;
use super::user::{self, User, UserStatus};
use crate::service::access::OrgScope;

/// Users of the organization's client apps, or of one of them, by id, after `after`; at most `rows`.
pub async fn list(
    tx: &mut PgConnection,
    scope: &OrgScope,
    app: Option<SsoAppId>,
    after: Option<UserId>,
    rows: i64,
) -> Result<Vec<User>, StoreError> {
    let ids = sqlx::query_scalar!(
        "select id from sso_user
          where org_id = $1 and client_app_id is not null and ($2::uuid is null or client_app_id = $2)
            and ($3::uuid is null or id > $3)
          order by id
          limit $4",
        scope.org().as_str(),
        app.map(|app| app.0),
        after.map(|user| user.0),
        rows,
    )
    .fetch_all(&mut *tx)
    .await?;
    user::find_all(tx, scope.org(), &ids).await
}

/// A user of one of the organization's client apps, locked until the transaction ends: nobody signs in as them meanwhile.
pub async fn lock(tx: &mut PgConnection, scope: &OrgScope, id: UserId) -> Result<Option<User>, StoreError> {
    sqlx::query!(
        "select id from sso_user where org_id = $1 and id = $2 for update",
        scope.org().as_str(),
        id.0
    )
    .fetch_optional(&mut *tx)
    .await?;
    find(tx, scope.org(), id).await
}

/// A user of one of the organization's client apps. Its owners are none.
pub async fn find(tx: &mut PgConnection, org: &OrgId, id: UserId) -> Result<Option<User>, StoreError> {
    Ok(user::find(tx, org, id).await?.filter(|user| user.app.is_some()))
}

/// Lets a user sign in, or not.
pub async fn set_status(
    tx: &mut PgConnection,
    scope: &OrgScope,
    id: UserId,
    status: UserStatus,
    updated_at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update sso_user set status = $3, updated_at = $4 where org_id = $1 and id = $2",
        scope.org().as_str(),
        id.0,
        status.as_str(),
        updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes a user who has no sessions any more.
pub async fn delete(tx: &mut PgConnection, scope: &OrgScope, id: UserId) -> Result<(), StoreError> {
    sqlx::query!("delete from sso_user where org_id = $1 and id = $2", scope.org().as_str(), id.0)
        .execute(tx)
        .await?;
    Ok(())
}
