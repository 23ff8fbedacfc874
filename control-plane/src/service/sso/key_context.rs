//! What the holder of a key is told of themselves.

use super::super::Context;
use crate::store::StoreError;
use crate::store::sso::client_app;
use crate::store::sso::key::KeyHolder;
use crate::store::sso::pool;

/// On whose behalf a key asks.
#[derive(Clone, Debug)]
pub struct KeyContext {
    /// The organization's name.
    pub org_name: String,
    /// The client app's name; none for the organization's own key.
    pub app_name: Option<String>,
}

/// Whose a key is; none where that has been deleted meanwhile.
pub async fn find(context: &Context, holder: &KeyHolder) -> Result<Option<KeyContext>, StoreError> {
    let mut connection = context.connection().await?;
    let Some(pool) = pool::find(&mut connection, &holder.org).await? else { return Ok(None) };
    let app_name = match holder.app {
        Some(app) => match client_app::find(&mut connection, &holder.org, app).await? {
            Some(app) => Some(app.name),
            None => return Ok(None),
        },
        None => None,
    };
    Ok(Some(KeyContext { org_name: pool.org_name, app_name }))
}
