//! `org_owner`: whose the organizations are.

use keypost_shared::id::{OrgId, UserId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::super::{StoreError, id};
use crate::store::organization::Organization;

/// Makes a person the owner of an organization.
pub async fn insert(
    tx: &mut PgConnection,
    org: &OrgId,
    user: UserId,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into org_owner (org_id, user_id, created_at) values ($1, $2, $3)",
        org.as_str(),
        user.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whether an organization is a person's.
pub async fn owns(tx: &mut PgConnection, org: &OrgId, user: UserId) -> Result<bool, StoreError> {
    let owns = sqlx::query_scalar!(
        r#"select exists (select from org_owner where org_id = $1 and user_id = $2) as "owns!""#,
        org.as_str(),
        user.0,
    )
    .fetch_one(tx)
    .await?;
    Ok(owns)
}

/// How many organizations a person owns. The person's row is locked, so that the count stays true until the transaction
/// ends.
pub async fn count_locked(tx: &mut PgConnection, user: UserId) -> Result<i64, StoreError> {
    sqlx::query!("select id from sso_user where id = $1 for no key update", user.0)
        .fetch_optional(&mut *tx)
        .await?;
    let count =
        sqlx::query_scalar!(r#"select count(*) as "count!" from org_owner where user_id = $1"#, user.0)
            .fetch_one(tx)
            .await?;
    Ok(count)
}

/// A person's organizations, by id, after `after`; at most `rows`.
pub async fn organizations(
    tx: &mut PgConnection,
    user: UserId,
    after: Option<&OrgId>,
    rows: i64,
) -> Result<Vec<Organization>, StoreError> {
    let found = sqlx::query!(
        "select o.id, o.name, o.description, o.created_at, o.updated_at
           from org_owner w
           join organization o on o.id = w.org_id
          where w.user_id = $1 and ($2::text is null or o.id > $2)
          order by o.id
          limit $3",
        user.0,
        after.map(OrgId::as_str),
        rows,
    )
    .fetch_all(tx)
    .await?;
    found
        .into_iter()
        .map(|row| {
            Ok(Organization {
                id: id("organization.id", &row.id)?,
                name: row.name,
                description: row.description,
                created_at: row.created_at,
                updated_at: row.updated_at,
            })
        })
        .collect()
}
