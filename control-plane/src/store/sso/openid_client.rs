//! Client apps as OpenID Connect knows them: by their client id, which says whose they are.

use keypost_shared::id::{OrgId, PoolId, SsoAppId};
use sqlx::PgConnection;

use super::super::{StoreError, id};

/// A client app.
#[derive(Clone, Debug)]
pub struct OpenIdClient {
    /// The client id.
    pub id: SsoAppId,
    /// What it is called.
    pub name: String,
    /// The organization.
    pub org: OrgId,
    /// What that is called.
    pub org_name: String,
    /// The pool of its people; none for a moment, in an organization from before there were any.
    pub pool: Option<PoolId>,
    /// Where people may be sent back to.
    pub redirect_uris: Vec<String>,
    /// Whether people may make accounts of their own.
    pub public_signup: bool,
}

/// The app with this client id. Whoever asks knows no more of it, nor of whose it is.
pub async fn find(tx: &mut PgConnection, client_id: SsoAppId) -> Result<Option<OpenIdClient>, StoreError> {
    let row = sqlx::query!(
        r#"select a.name, a.org_id, o.name as org_name, p.id as "pool?", a.redirect_uris, a.public_signup
             from client_app a
             join organization o on o.id = a.org_id
             left join client_pool p on p.org_id = a.org_id and p.kind = 'sso'
            where a.id = $1"#,
        client_id.0,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(OpenIdClient {
            id: client_id,
            name: row.name,
            org: id("client_app.org_id", &row.org_id)?,
            org_name: row.org_name,
            pool: row.pool.map(PoolId),
            redirect_uris: row.redirect_uris,
            public_signup: row.public_signup,
        })
    })
    .transpose()
}
