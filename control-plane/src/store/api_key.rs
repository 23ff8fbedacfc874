//! `api_key`.

use keypost_shared::id::OrgId;
use keypost_shared::secret::SecretHash;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, id};
use crate::service::access::Permission;

/// A key to store. The key itself is not in it, only its hash.
#[derive(Clone, Debug)]
pub struct NewApiKey<'a> {
    /// Its id.
    pub id: Uuid,
    /// What it is for.
    pub name: &'a str,
    /// The hash to find it by.
    pub hash: SecretHash,
    /// Its beginning, for people to tell keys apart.
    pub prefix: &'a str,
    /// When it was created.
    pub created_at: OffsetDateTime,
}

/// Whoever holds a key that is good now.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The key's id.
    pub id: Uuid,
    /// What the key is for.
    pub name: String,
    /// The one organization that it reaches; none for a global admin key.
    pub org: Option<OrgId>,
    /// What it is narrowed to; none for all that its reach allows.
    pub permissions: Option<Vec<Permission>>,
    /// When it expires.
    pub expires_at: Option<OffsetDateTime>,
}

/// Whoever holds the key with this hash, if it is good now. After a rotation, the hash before counts for its overlap.
pub async fn find_holder(
    tx: &mut PgConnection,
    hash: &SecretHash,
    now: OffsetDateTime,
) -> Result<Option<Holder>, StoreError> {
    let row = sqlx::query!(
        "select id, name, org_id, permissions, expires_at from api_key
          where (key_hash = $1 or (previous_key_hash = $1 and previous_expires_at > $2))
            and (expires_at is null or expires_at > $2)",
        hash.as_bytes().as_slice(),
        now,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        // A permission that a later version knows gives nothing in this one.
        let known = |names: Vec<String>| names.iter().filter_map(|name| name.parse().ok()).collect();
        Ok(Holder {
            id: row.id,
            name: row.name,
            org: row.org_id.map(|org| id("api_key.org_id", &org)).transpose()?,
            permissions: row.permissions.map(known),
            expires_at: row.expires_at,
        })
    })
    .transpose()
}

/// Whether there is any key at all.
pub async fn any(tx: &mut PgConnection) -> Result<bool, StoreError> {
    let any = sqlx::query_scalar!(r#"select exists (select from api_key) as "any!""#).fetch_one(tx).await?;
    Ok(any)
}

/// Adds a key that reaches everything, unless the same key is there. True where it was added.
pub async fn insert_global(tx: &mut PgConnection, key: &NewApiKey<'_>) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "insert into api_key (id, name, org_id, permissions, key_hash, prefix, created_at, expires_at)
         values ($1, $2, null, null, $3, $4, $5, null)
         on conflict (key_hash) do nothing",
        key.id,
        key.name,
        key.hash.as_bytes().as_slice(),
        key.prefix,
        key.created_at,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}
