//! `api_key`.

use keypost_shared::id::OrgId;
use keypost_shared::secret::SecretHash;
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, id};
use crate::service::access::{Permission, Power, Reach};

/// An API key, without the key itself, which nobody has kept.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredApiKey {
    /// Its id.
    pub id: Uuid,
    /// What it is for.
    pub name: String,
    /// The one organization that it reaches; none for a global admin key.
    pub org_id: Option<OrgId>,
    /// What it is narrowed to; none for all that its reach allows. Names, for a later version may know others.
    pub permissions: Option<Vec<String>>,
    /// Its beginning, for people to tell keys apart.
    pub prefix: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// When it expires.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// Until when the key before it counts, or has counted.
    #[serde(with = "time::serde::rfc3339::option")]
    pub previous_expires_at: Option<OffsetDateTime>,
    /// When it was last used, as far as has been written down. No change to the key, so no part of its history.
    #[serde(skip)]
    pub last_used_at: Option<OffsetDateTime>,
}

impl StoredApiKey {
    /// What it may do, and for how long.
    pub fn power(&self) -> Power<'_> {
        Power { permissions: self.permissions.as_deref(), expires_at: self.expires_at }
    }
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
    /// When it expires. For one that has been rotated, that is the end of the overlap.
    pub expires_at: Option<OffsetDateTime>,
}

/// Whoever holds the key with this hash, if it is good now. After a rotation, the hash before counts for its overlap.
pub async fn find_holder(
    tx: &mut PgConnection,
    hash: &SecretHash,
    now: OffsetDateTime,
) -> Result<Option<Holder>, StoreError> {
    // Two rows have it only where a rotated key was added once more: then the row counts that it is the key of.
    let row = sqlx::query!(
        "select id, name, org_id, permissions,
                case when key_hash = $1 then expires_at
                     else least(expires_at, previous_expires_at) end as expires_at
           from api_key
          where (key_hash = $1 or (previous_key_hash = $1 and previous_expires_at > $2))
            and (expires_at is null or expires_at > $2)
          order by key_hash = $1 desc
          limit 1",
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

/// Whether there is a key of this id, whoever's it is.
pub async fn exists(tx: &mut PgConnection, key: Uuid) -> Result<bool, StoreError> {
    let exists =
        sqlx::query_scalar!(r#"select exists (select from api_key where id = $1) as "exists!""#, key)
            .fetch_one(tx)
            .await?;
    Ok(exists)
}

/// Whether there is any key at all.
pub async fn any(tx: &mut PgConnection) -> Result<bool, StoreError> {
    let any = sqlx::query_scalar!(r#"select exists (select from api_key) as "any!""#).fetch_one(tx).await?;
    Ok(any)
}

/// Whether a key with this hash is there, or was the one before of a key that is.
pub async fn is_known(tx: &mut PgConnection, hash: &SecretHash) -> Result<Option<Known>, StoreError> {
    let current = sqlx::query_scalar!(
        r#"select key_hash = $1 as "current!" from api_key
            where key_hash = $1 or previous_key_hash = $1
            order by 1 desc
            limit 1"#,
        hash.as_bytes().as_slice(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(current.map(|current| if current { Known::Current } else { Known::Rotated }))
}

/// What a key is that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The key of its row.
    Current,
    /// The one before, good or not.
    Rotated,
}

/// Adds a key, which reaches what `reach` says. [`StoreError::is_dangling`] where that organization has gone.
pub async fn insert(
    tx: &mut PgConnection,
    reach: &Reach,
    key: &StoredApiKey,
    hash: &SecretHash,
) -> Result<(), StoreError> {
    insert_row(tx, reach.org(), key, hash).await
}

/// Adds a key that reaches everything, for nobody.
pub async fn insert_first(
    tx: &mut PgConnection,
    key: &StoredApiKey,
    hash: &SecretHash,
) -> Result<(), StoreError> {
    insert_row(tx, None, key, hash).await
}

async fn insert_row(
    tx: &mut PgConnection,
    org: Option<&OrgId>,
    key: &StoredApiKey,
    hash: &SecretHash,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into api_key (id, name, org_id, permissions, key_hash, prefix, created_at, updated_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        key.id,
        key.name,
        org.map(OrgId::as_str),
        key.permissions.as_deref(),
        hash.as_bytes().as_slice(),
        key.prefix,
        key.created_at,
        key.updated_at,
        key.expires_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A key within reach.
pub async fn find(
    tx: &mut PgConnection,
    reach: &Reach,
    key: Uuid,
) -> Result<Option<StoredApiKey>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, name, org_id, permissions, prefix, created_at, coalesce(updated_at, created_at) as "updated_at!",
                  expires_at, previous_expires_at, last_used_at
             from api_key
            where id = $1 and ($2::text is null or org_id = $2)"#,
        key,
        reach.org().map(OrgId::as_str),
    )
    .fetch_optional(tx)
    .await?;
    row.map(StoredApiKey::try_from).transpose()
}

/// A key within reach, locked until the transaction ends.
pub async fn find_for_update(
    tx: &mut PgConnection,
    reach: &Reach,
    key: Uuid,
) -> Result<Option<StoredApiKey>, StoreError> {
    // A statement of its own, so that one list of columns serves both.
    sqlx::query!(
        "select id from api_key where id = $1 and ($2::text is null or org_id = $2) for update",
        key,
        reach.org().map(OrgId::as_str),
    )
    .fetch_optional(&mut *tx)
    .await?;
    find(tx, reach, key).await
}

/// Keys within reach, by id, after `after`; at most `rows`.
pub async fn list(
    tx: &mut PgConnection,
    reach: &Reach,
    after: Option<Uuid>,
    rows: i64,
) -> Result<Vec<StoredApiKey>, StoreError> {
    let found = sqlx::query_as!(
        Row,
        r#"select id, name, org_id, permissions, prefix, created_at, coalesce(updated_at, created_at) as "updated_at!",
                  expires_at, previous_expires_at, last_used_at
             from api_key
            where ($1::text is null or org_id = $1) and ($2::uuid is null or id > $2)
            order by id
            limit $3"#,
        reach.org().map(OrgId::as_str),
        after,
        rows,
    )
    .fetch_all(tx)
    .await?;
    found.into_iter().map(StoredApiKey::try_from).collect()
}

/// Puts another key in the place of one that [`find_for_update`] has locked. The one before counts until
/// `key.previous_expires_at`, and stays known after that.
pub async fn rotate(
    tx: &mut PgConnection,
    reach: &Reach,
    key: &StoredApiKey,
    hash: &SecretHash,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update api_key
            set previous_key_hash = key_hash, previous_expires_at = $3, key_hash = $4, prefix = $5, updated_at = $6
          where id = $1 and ($2::text is null or org_id = $2)",
        key.id,
        reach.org().map(OrgId::as_str),
        key.previous_expires_at,
        hash.as_bytes().as_slice(),
        key.prefix,
        key.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Removes a key.
pub async fn delete(tx: &mut PgConnection, reach: &Reach, key: Uuid) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from api_key where id = $1 and ($2::text is null or org_id = $2)",
        key,
        reach.org().map(OrgId::as_str),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whether there is another key than this one that is good now, reaches everything and is not narrowed.
pub async fn any_other_admin(
    tx: &mut PgConnection,
    but: Uuid,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let any = sqlx::query_scalar!(
        r#"select exists (
               select from api_key
                where id <> $1 and org_id is null and permissions is null
                  and (expires_at is null or expires_at > $2)
           ) as "any!""#,
        but,
        now,
    )
    .fetch_one(tx)
    .await?;
    Ok(any)
}

/// Notes when keys were last used. A use that is known to be later stays.
pub async fn note_uses(tx: &mut PgConnection, uses: &[(Uuid, OffsetDateTime)]) -> Result<(), StoreError> {
    let (ids, times): (Vec<Uuid>, Vec<OffsetDateTime>) = uses.iter().copied().unzip();
    // Rows are locked in the order of their ids, so that several control planes do not wait for each other in a circle.
    sqlx::query!(
        "with locked as materialized (
             select k.id, u.used_at
               from unnest($1::uuid[], $2::timestamptz[]) as u (id, used_at)
               join api_key k on k.id = u.id
              where k.last_used_at is null or k.last_used_at < u.used_at
              order by k.id
                for no key update of k
         )
         update api_key k set last_used_at = greatest(k.last_used_at, locked.used_at)
           from locked
          where k.id = locked.id",
        &ids,
        &times,
    )
    .execute(tx)
    .await?;
    Ok(())
}

struct Row {
    id: Uuid,
    name: String,
    org_id: Option<String>,
    permissions: Option<Vec<String>>,
    prefix: String,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    previous_expires_at: Option<OffsetDateTime>,
    last_used_at: Option<OffsetDateTime>,
}

impl TryFrom<Row> for StoredApiKey {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            name: row.name,
            org_id: row.org_id.map(|org| id("api_key.org_id", &org)).transpose()?,
            permissions: row.permissions,
            prefix: row.prefix,
            created_at: row.created_at,
            updated_at: row.updated_at,
            expires_at: row.expires_at,
            previous_expires_at: row.previous_expires_at,
            last_used_at: row.last_used_at,
        })
    }
}
