//! Codes with which a person sets a new password: `password_reset`.

use keypost_shared::id::{OrgId, UserId};
use keypost_shared::secret::SecretHash;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::{StoreError, id};

/// Whose a code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetOf {
    /// The person's organization.
    pub org_id: OrgId,
    /// The person.
    pub user_id: UserId,
}

/// Makes a code good for a person of this organization; the one before, if there is one, is good no more.
pub async fn replace(
    tx: &mut PgConnection,
    org: &OrgId,
    user: UserId,
    code: &SecretHash,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into password_reset (org_id, user_id, hash, created_at, expires_at) values ($1, $2, $3, $4, $5)
         on conflict (user_id) do update
            set org_id = excluded.org_id, hash = excluded.hash, created_at = excluded.created_at,
                expires_at = excluded.expires_at",
        org.as_str(),
        user.0,
        code.as_bytes().as_slice(),
        now,
        expires_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whose a code is that is still good.
pub async fn find(
    connection: &mut PgConnection,
    code: &SecretHash,
    now: OffsetDateTime,
) -> Result<Option<ResetOf>, StoreError> {
    let row = sqlx::query!(
        "select org_id, user_id from password_reset where hash = $1 and expires_at > $2",
        code.as_bytes().as_slice(),
        now,
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| owner(&row.org_id, row.user_id)).transpose()
}

/// Uses up a code that is still good. Of several who try at once, one does.
pub async fn use_up(
    tx: &mut PgConnection,
    code: &SecretHash,
    now: OffsetDateTime,
) -> Result<Option<ResetOf>, StoreError> {
    let row = sqlx::query!(
        "delete from password_reset where hash = $1 and expires_at > $2 returning org_id, user_id",
        code.as_bytes().as_slice(),
        now,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| owner(&row.org_id, row.user_id)).transpose()
}

/// Ends the code of a person, if there is one.
pub async fn end(tx: &mut PgConnection, org: &OrgId, user: UserId) -> Result<(), StoreError> {
    sqlx::query!("delete from password_reset where org_id = $1 and user_id = $2", org.as_str(), user.0)
        .execute(tx)
        .await?;
    Ok(())
}

/// Removes codes that ended before a time.
pub async fn purge(
    connection: &mut PgConnection,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with due as (
             select user_id from password_reset where expires_at < $1 order by expires_at limit $2
                for update skip locked
         )
         delete from password_reset r using due where r.user_id = due.user_id",
        before,
        i64::from(limit),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

fn owner(org: &str, user_id: Uuid) -> Result<ResetOf, StoreError> {
    let org_id = id::<OrgId>("password_reset.org_id", org)?;
    Ok(ResetOf { org_id, user_id: UserId(user_id) })
}
