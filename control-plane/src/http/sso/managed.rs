//! Extractors that load what a path names, for whoever manages it: a global admin by `X-API-Key`, an organization's key in
//! `apikey`, or an owner by an access token.
//!
//! The order is that of what may be learnt: first who is asking (401), then whether they manage anything at all (403), then
//! whether the ids are well-formed (400), then whether the thing is there and theirs (404).

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use keypost_shared::id::{OrgId, SsoAppId, UserId};

use super::super::App;
use super::super::access::{Everything, PathIds, Right, request_source};
use super::super::problem::Problem;
use super::caller::{OptionalBearer, SsoKey, forbidden, invalid_token, key_actor};
use crate::service;
use crate::service::access::OrgScope;
use crate::service::sso::manager::Manager;
use crate::store::organization::Organization;
use crate::store::sso::client_app::ClientApp;
use crate::store::sso::user::User;

/// Whoever manages organizations.
pub(super) struct Managing<R> {
    pub(super) manager: Manager,
    right: PhantomData<R>,
}

/// An organization that the caller manages.
pub(super) struct ManagedOrg<R> {
    pub(super) scope: OrgScope,
    pub(super) organization: Organization,
    right: PhantomData<R>,
}

/// A client app of an organization that the caller manages.
pub(super) struct ManagedApp<R> {
    pub(super) scope: OrgScope,
    pub(super) app: ClientApp,
    right: PhantomData<R>,
}

/// A user of a client app of an organization that the caller manages.
pub(super) struct ManagedUser<R> {
    pub(super) scope: OrgScope,
    pub(super) user: User,
    right: PhantomData<R>,
}

impl<R: Right> FromRequestParts<App> for Managing<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Self { manager: manager::<R>(parts, app).await?, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for ManagedOrg<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let manager = manager::<R>(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let org = ids.take::<OrgId>("orgId");
        ids.finish()?;
        let (scope, organization) = enter(&manager, app, org).await?;
        Ok(Self { scope, organization, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for ManagedApp<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let manager = manager::<R>(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let id = ids.take::<SsoAppId>("clientAppId");
        ids.finish()?;
        let not_found = || Problem::not_found("client app");
        let id = id.ok_or_else(not_found)?;
        let (scope, _) = manager.enter_app(app.context(), id).await?.ok_or_else(not_found)?;
        let found = service::sso::client_app::find(app.context(), &scope, id).await?;
        Ok(Self { scope, app: found.ok_or_else(not_found)?, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for ManagedUser<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let manager = manager::<R>(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let (org, id) = (ids.take::<OrgId>("orgId"), ids.take::<UserId>("userId"));
        ids.finish()?;
        let (scope, _) = enter(&manager, app, org).await?;
        let not_found = || Problem::not_found("user");
        let id = id.ok_or_else(not_found)?;
        let user = service::sso::app_user::find(app.context(), &scope, id).await?;
        Ok(Self { scope, user: user.ok_or_else(not_found)?, right: PhantomData })
    }
}

async fn enter(
    manager: &Manager,
    app: &App,
    org: Option<OrgId>,
) -> Result<(OrgScope, Organization), Problem> {
    let not_found = || Problem::not_found("organization");
    let org = org.ok_or_else(not_found)?;
    manager.enter(app.context(), &org).await?.ok_or_else(not_found)
}

/// Who asks. Of several credentials a key of management counts first, then the header `apikey`, then the access token; but
/// all that are sent must be good.
async fn manager<R: Right>(parts: &mut Parts, app: &App) -> Result<Manager, Problem> {
    let key = SsoKey::from_request_parts(parts, app).await?;
    let OptionalBearer(signed_in) = OptionalBearer::from_request_parts(parts, app).await?;
    if parts.headers.contains_key("x-api-key") {
        let everything = Everything::<R>::from_request_parts(parts, app).await?;
        return Ok(Manager::Everything(everything.scope));
    }
    let source = request_source(parts, app);
    let manager = match (key, signed_in) {
        (SsoKey::Organization(holder) | SsoKey::App(holder, ..), _) => {
            let actor = key_actor(&holder, source);
            Manager::by_key(holder, actor)
        }
        (SsoKey::Absent, Some(signed_in)) => Manager::by_sign_in(&signed_in.user, signed_in.actor(source)),
        (SsoKey::Absent, None) => return Err(invalid_token()),
    };
    manager.ok_or_else(|| forbidden("only an organization's owner, or its key, may do this"))
}
