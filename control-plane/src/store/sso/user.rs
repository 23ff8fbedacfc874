//! `sso_user`: the owners of organizations, and the users of client apps.

use keypost_shared::id::{OrgId, SsoAppId, UserId};
use keypost_shared::secret::SecretText;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::super::{StoreError, corrupt, id};

/// A person.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The id: the claim `sub`.
    pub id: UserId,
    /// The organization; for an owner, the one at which they sign in.
    pub org: OrgId,
    /// The client app whose user it is; none for an owner.
    pub app: Option<SsoAppId>,
    /// The username, as it was written.
    pub username: String,
    /// The address, as it was written.
    pub email: String,
    /// Given for owners.
    pub first_name: Option<String>,
    /// Given for owners.
    pub last_name: Option<String>,
    /// A JSON object, as it was sent.
    #[serde(skip)]
    pub metadata: Box<RawValue>,
    /// Whether they may sign in.
    pub status: UserStatus,
    /// When they last did.
    #[serde(skip)]
    pub last_login_at: Option<OffsetDateTime>,
    /// When they were created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When they were last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Whether a person may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    /// They may.
    Enabled,
    /// They may not, and have no session.
    Disabled,
}

impl UserStatus {
    /// Its name in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            UserStatus::Enabled => "enabled",
            UserStatus::Disabled => "disabled",
        }
    }
}

/// What names are compared by: the same for two that people would take for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameKeys {
    /// Of the username.
    pub username: String,
    /// Of the address.
    pub email: String,
}

/// By what somebody who signs in is looked for.
#[derive(Clone, Copy, Debug)]
pub enum SignInName<'a> {
    /// An owner, by the key of their username or of their address.
    Owner(&'a str),
    /// A user of a client app of this organization, by the key of their username.
    AppUser(&'a OrgId, SsoAppId, &'a str),
}

struct Row {
    id: uuid::Uuid,
    org_id: String,
    client_app_id: Option<uuid::Uuid>,
    username: String,
    email: String,
    first_name: Option<String>,
    last_name: Option<String>,
    user_metadata: Json<Box<RawValue>>,
    status: String,
    last_login_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    /// Only where it is asked for.
    password_hash: Option<String>,
}

impl Row {
    fn read_with_password(mut self) -> Result<(User, SecretText), StoreError> {
        let hash = self.password_hash.take();
        let hash = hash.ok_or_else(|| corrupt("sso_user.password_hash", "null"))?;
        Ok((self.read()?, SecretText::new(hash)))
    }

    fn read(self) -> Result<User, StoreError> {
        Ok(User {
            id: UserId(self.id),
            org: id("sso_user.org_id", &self.org_id)?,
            app: self.client_app_id.map(SsoAppId),
            username: self.username,
            email: self.email,
            first_name: self.first_name,
            last_name: self.last_name,
            metadata: self.user_metadata.0,
            status: match self.status.as_str() {
                "enabled" => UserStatus::Enabled,
                "disabled" => UserStatus::Disabled,
                other => return Err(corrupt("sso_user.status", other)),
            },
            last_login_at: self.last_login_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// Adds a person. One with the same username or address, among the same people, is a duplicate.
pub async fn insert(
    tx: &mut PgConnection,
    user: &User,
    keys: &NameKeys,
    password_hash: &SecretText,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into sso_user (id, org_id, client_app_id, username, username_key, email, email_key, first_name,
                               last_name, password_hash, password_changed_at, user_metadata, status, created_at,
                               updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $13, $11, $12, $13, $13)",
        user.id.0,
        user.org.as_str(),
        user.app.map(|app| app.0),
        user.username,
        keys.username,
        user.email,
        keys.email,
        user.first_name,
        user.last_name,
        password_hash.expose(),
        Json(&user.metadata) as _,
        user.status.as_str(),
        user.created_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A person of the organization.
pub async fn find(tx: &mut PgConnection, org: &OrgId, user: UserId) -> Result<Option<User>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, org_id, client_app_id, username, email, first_name, last_name,
                  user_metadata as "user_metadata: Json<Box<RawValue>>", status, last_login_at, created_at, updated_at,
                  null::text as password_hash
             from sso_user where org_id = $1 and id = $2"#,
        org.as_str(),
        user.0,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Row::read).transpose()
}

/// People of the organization, by id.
pub async fn find_all(
    tx: &mut PgConnection,
    org: &OrgId,
    users: &[uuid::Uuid],
) -> Result<Vec<User>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, org_id, client_app_id, username, email, first_name, last_name,
                  user_metadata as "user_metadata: Json<Box<RawValue>>", status, last_login_at, created_at, updated_at,
                  null::text as password_hash
             from sso_user where org_id = $1 and id = any($2)
            order by id"#,
        org.as_str(),
        users,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

/// Whoever signs in by this name, and the hash of their password.
pub async fn find_to_sign_in(
    tx: &mut PgConnection,
    name: SignInName<'_>,
) -> Result<Option<(User, SecretText)>, StoreError> {
    let row = match name {
        SignInName::Owner(key) => {
            sqlx::query_as!(
                Row,
                r#"select id, org_id, client_app_id, username, email, first_name, last_name,
                          user_metadata as "user_metadata: Json<Box<RawValue>>", status, last_login_at, created_at,
                          updated_at, password_hash as "password_hash?"
                     from sso_user where client_app_id is null and (username_key = $1 or email_key = $1)"#,
                key,
            )
            .fetch_optional(tx)
            .await?
        }
        SignInName::AppUser(org, app, key) => {
            sqlx::query_as!(
                Row,
                r#"select id, org_id, client_app_id, username, email, first_name, last_name,
                          user_metadata as "user_metadata: Json<Box<RawValue>>", status, last_login_at, created_at,
                          updated_at, password_hash as "password_hash?"
                     from sso_user where org_id = $1 and client_app_id = $2 and username_key = $3"#,
                org.as_str(),
                app.0,
                key,
            )
            .fetch_optional(tx)
            .await?
        }
    };
    row.map(Row::read_with_password).transpose()
}

/// Which of these names somebody has among the owners, or among the users of a client app of this organization: `username`
/// or `email`.
pub async fn find_taken(
    tx: &mut PgConnection,
    app: Option<(&OrgId, SsoAppId)>,
    keys: &NameKeys,
) -> Result<Option<&'static str>, StoreError> {
    let (username, email) = match app {
        None => {
            let row = sqlx::query!(
                r#"select exists (select from sso_user where client_app_id is null and username_key = $1)
                              as "username!",
                          exists (select from sso_user where client_app_id is null and email_key = $2) as "email!""#,
                keys.username,
                keys.email,
            )
            .fetch_one(tx)
            .await?;
            (row.username, row.email)
        }
        Some((org, app)) => {
            let row = sqlx::query!(
                r#"select exists (select from sso_user
                                   where org_id = $1 and client_app_id = $2 and username_key = $3) as "username!",
                          exists (select from sso_user
                                   where org_id = $1 and client_app_id = $2 and email_key = $4) as "email!""#,
                org.as_str(),
                app.0,
                keys.username,
                keys.email,
            )
            .fetch_one(tx)
            .await?;
            (row.username, row.email)
        }
    };
    Ok(username.then_some("username").or(email.then_some("email")))
}

/// The person and the hash of their password, locked until the transaction ends.
pub async fn lock_with_password(
    tx: &mut PgConnection,
    org: &OrgId,
    user: UserId,
) -> Result<Option<(User, SecretText)>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, org_id, client_app_id, username, email, first_name, last_name,
                  user_metadata as "user_metadata: Json<Box<RawValue>>", status, last_login_at, created_at, updated_at,
                  password_hash as "password_hash?"
             from sso_user where org_id = $1 and id = $2 for update"#,
        org.as_str(),
        user.0,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Row::read_with_password).transpose()
}

/// Gives a person another password, or the same with other parameters.
pub async fn set_password(
    tx: &mut PgConnection,
    org: &OrgId,
    user: UserId,
    hash: &SecretText,
    changed_at: Option<OffsetDateTime>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update sso_user set password_hash = $3, password_changed_at = coalesce($4, password_changed_at)
          where org_id = $1 and id = $2",
        org.as_str(),
        user.0,
        hash.expose(),
        changed_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that a person has signed in.
pub async fn note_login(
    tx: &mut PgConnection,
    org: &OrgId,
    user: UserId,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update sso_user set last_login_at = $3 where org_id = $1 and id = $2",
        org.as_str(),
        user.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}
