//! From which pages browsers may call (CORS): those of the origins that this deployment lists, and, with the key or a token
//! of a client app, those of the origins that the app lists.

use std::sync::Arc;

use keypost_shared::id::SsoAppId;
use keypost_shared::secret::{ApiKey, KeyKind};

use super::super::Context;
use crate::store::StoreError;
use crate::store::sso::origin;

/// The origins that this deployment lists (`KEYPOST_CORS_ORIGINS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// All: for development.
    Any,
    /// These.
    These(Arc<[String]>),
}

impl Default for CorsOrigins {
    fn default() -> Self {
        Self::These(Arc::default())
    }
}

impl CorsOrigins {
    fn contains(&self, origin: &str) -> bool {
        match self {
            CorsOrigins::Any => true,
            CorsOrigins::These(origins) => origins.iter().any(|listed| listed == origin),
        }
    }
}

/// On whose behalf a page calls, as far as the request says.
#[derive(Clone, Copy, Debug)]
pub enum CalledFor<'a> {
    /// It does not say: a preflight cannot, and the token endpoint says so in its body. Then the origins of all apps count,
    /// and whose one is cannot be told from the answer.
    Unknown,
    /// The client app that holds this key.
    Key(&'a str),
    /// The client app that a token names. Nobody has verified it: whether a page may read the answer says nothing about
    /// what is in it.
    App(SsoAppId),
    /// An owner, or somebody who wants to be one: only what this deployment lists counts.
    Owner,
}

/// Whether a page of this origin may call.
pub async fn may_call(context: &Context, page: &str, called_for: CalledFor<'_>) -> Result<bool, StoreError> {
    if context.sso.cors_origins.contains(page) {
        return Ok(true);
    }
    match called_for {
        CalledFor::Unknown => {
            let mut connection = context.connection().await?;
            origin::is_listed(&mut connection, page).await
        }
        CalledFor::Key(text) => {
            let Some(key) = ApiKey::parse(text).filter(|key| key.kind() == KeyKind::SsoApp) else {
                return Ok(false);
            };
            let mut connection = context.connection().await?;
            origin::is_listed_by_holder(&mut connection, &key.hash(), page, context.now()).await
        }
        CalledFor::Owner => Ok(false),
        CalledFor::App(app) => {
            let mut connection = context.connection().await?;
            origin::is_listed_by(&mut connection, app, page).await
        }
    }
}
