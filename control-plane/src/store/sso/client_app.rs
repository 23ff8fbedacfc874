//! `client_app`: the applications of an organization that its people sign in to.

use keypost_shared::id::{OrgId, SsoAppId};
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::{StoreError, id};
use crate::service::access::OrgScope;

/// A client app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientApp {
    /// Its id: the claim `clientAppId`, and the client id in OpenID Connect.
    pub id: SsoAppId,
    /// The organization.
    pub org_id: OrgId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// Where people may be sent after they have signed in on the hosted page.
    pub redirect_uris: Vec<String>,
    /// The origins whose pages may call with its key (CORS).
    pub origins: Vec<String>,
    /// Whether whoever holds its key may create users.
    pub public_signup: bool,
    /// The members of `user_metadata` that a user may bring along; none: any.
    pub signup_metadata_keys: Option<Vec<String>>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

struct Row {
    id: Uuid,
    org_id: String,
    name: String,
    description: Option<String>,
    redirect_uris: Vec<String>,
    origins: Vec<String>,
    public_signup: bool,
    signup_metadata_keys: Option<Vec<String>>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl Row {
    fn read(self) -> Result<ClientApp, StoreError> {
        Ok(ClientApp {
            id: SsoAppId(self.id),
            org_id: id("client_app.org_id", &self.org_id)?,
            name: self.name,
            description: self.description,
            redirect_uris: self.redirect_uris,
            origins: self.origins,
            public_signup: self.public_signup,
            signup_metadata_keys: self.signup_metadata_keys,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// Adds a client app to the scope's organization. [`StoreError::is_dangling`] where that has gone.
pub async fn insert(tx: &mut PgConnection, scope: &OrgScope, app: &ClientApp) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into client_app (id, org_id, name, description, redirect_uris, origins, public_signup,
                                 signup_metadata_keys, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        app.id.0,
        scope.org().as_str(),
        app.name,
        app.description,
        &app.redirect_uris,
        &app.origins,
        app.public_signup,
        app.signup_metadata_keys.as_deref(),
        app.created_at,
        app.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whose this client app is. It says nothing about who may use it.
pub async fn owner(tx: &mut PgConnection, app: SsoAppId) -> Result<Option<OrgId>, StoreError> {
    let org =
        sqlx::query_scalar!("select org_id from client_app where id = $1", app.0).fetch_optional(tx).await?;
    org.map(|org| id("client_app.org_id", &org)).transpose()
}

/// A client app of the organization.
pub async fn find(
    tx: &mut PgConnection,
    org: &OrgId,
    app: SsoAppId,
) -> Result<Option<ClientApp>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "select id, org_id, name, description, redirect_uris, origins, public_signup, signup_metadata_keys,
                created_at, updated_at
           from client_app where org_id = $1 and id = $2",
        org.as_str(),
        app.0,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Row::read).transpose()
}

/// The same, which nobody else changes until the transaction ends.
pub async fn find_for_update(
    tx: &mut PgConnection,
    scope: &OrgScope,
    app: SsoAppId,
) -> Result<Option<ClientApp>, StoreError> {
    sqlx::query!(
        "select id from client_app where org_id = $1 and id = $2 for no key update",
        scope.org().as_str(),
        app.0,
    )
    .fetch_optional(&mut *tx)
    .await?;
    find(tx, scope.org(), app).await
}

/// Client apps of the scope's organization, by id, after `after`; at most `rows`.
pub async fn list(
    tx: &mut PgConnection,
    scope: &OrgScope,
    after: Option<SsoAppId>,
    rows: i64,
) -> Result<Vec<ClientApp>, StoreError> {
    let found = sqlx::query_as!(
        Row,
        "select id, org_id, name, description, redirect_uris, origins, public_signup, signup_metadata_keys,
                created_at, updated_at
           from client_app
          where org_id = $1 and ($2::uuid is null or id > $2)
          order by id
          limit $3",
        scope.org().as_str(),
        after.map(|app| app.0),
        rows,
    )
    .fetch_all(tx)
    .await?;
    found.into_iter().map(Row::read).collect()
}

/// How many client apps the scope's organization has.
pub async fn count(tx: &mut PgConnection, scope: &OrgScope) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from client_app where org_id = $1"#,
        scope.org().as_str()
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

/// Writes what can be changed.
pub async fn update(tx: &mut PgConnection, scope: &OrgScope, app: &ClientApp) -> Result<(), StoreError> {
    sqlx::query!(
        "update client_app
            set name = $3, description = $4, redirect_uris = $5, origins = $6, public_signup = $7,
                signup_metadata_keys = $8, updated_at = $9
          where org_id = $1 and id = $2",
        scope.org().as_str(),
        app.id.0,
        app.name,
        app.description,
        &app.redirect_uris,
        &app.origins,
        app.public_signup,
        app.signup_metadata_keys.as_deref(),
        app.updated_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}
