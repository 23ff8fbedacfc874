//! Extractors that load what a path names, and authorise the caller to it. A handler that takes one cannot forget either.
//!
//! The order is that of what may be learnt: first who is asking (401), then whether the ids are well-formed (400), then
//! whose the thing is (404, as if it were not there), then what the key may do (403), then whether it is there (404).

use std::convert::Infallible;
use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use keypost_shared::certificate::Fingerprint;
use keypost_shared::id::{ClientAppId, ClientId, DeviceId, EnvId, IdError, Kid, OrgId, PoolId};
use uuid::Uuid;

use super::App;
use super::address::client_address_of;
use super::middleware::RequestId;
use super::problem::{FieldError, Problem, denied};
use crate::service;
use crate::service::access::{Caller, GlobalScope, OrgScope, Permission, Reach};
use crate::service::audit::{Actor, RequestSource};
use crate::store::api_key::StoredApiKey;
use crate::store::denied_certificate::DeniedCertificate;
use crate::store::device::Device;
use crate::store::device_app::{AppName, DeviceApp};
use crate::store::environment::{EnvScope, Environment};
use crate::store::organization::Organization;
use crate::store::service_client::ServiceClient;
use crate::store::signing_key::PoolOwner;
use crate::store::trust_anchor::TrustAnchor;

/// What a handler needs the caller's key to permit.
pub(super) trait Right: Send {
    const PERMISSION: Permission;
}

macro_rules! right {
    ($($name:ident),*) => {$(
        pub(super) enum $name {}

        impl Right for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )*};
}

right!(
    OrgRead,
    OrgWrite,
    DeviceRead,
    KeyRotate,
    DeviceWrite,
    OtpCreate,
    ClientWrite,
    CertificateWrite,
    ApiKeyWrite,
    AuditRead,
    SyncWrite,
    TokenRevoke
);

/// A caller who may reach everything.
pub(super) struct Everything<R> {
    pub(super) scope: GlobalScope,
    right: PhantomData<R>,
}

/// A publisher key, for a caller who may reach everything. For all others there is none.
pub(super) struct InPublisherKey<R> {
    pub(super) scope: GlobalScope,
    pub(super) kid: Kid,
    right: PhantomData<R>,
}

/// All that the caller reaches: everything, or one organization.
pub(super) struct InReach<R> {
    pub(super) reach: Reach,
    pub(super) caller: Caller,
    right: PhantomData<R>,
}

/// An API key that the caller may manage, and the caller: what it hands out depends on what it has.
pub(super) struct InApiKey<R> {
    pub(super) reach: Reach,
    pub(super) caller: Caller,
    pub(super) key: StoredApiKey,
    right: PhantomData<R>,
}

/// An organization that the caller may use.
pub(super) struct InOrg<R> {
    pub(super) scope: OrgScope,
    pub(super) organization: Organization,
    right: PhantomData<R>,
}

/// An environment that the caller may use.
pub(super) struct InEnv<R> {
    pub(super) scope: EnvScope,
    pub(super) environment: Environment,
    /// For who reaches everything.
    pub(super) everything: Option<GlobalScope>,
    right: PhantomData<R>,
}

/// A device that the caller may use.
pub(super) struct InDevice<R> {
    pub(super) scope: EnvScope,
    pub(super) device: Device,
    right: PhantomData<R>,
}

/// An app of a device that the caller may use.
pub(super) struct InApp<R> {
    pub(super) scope: EnvScope,
    pub(super) app: DeviceApp,
    right: PhantomData<R>,
}

/// A service client that the caller may use.
pub(super) struct InClient<R> {
    pub(super) scope: EnvScope,
    pub(super) client: ServiceClient,
    right: PhantomData<R>,
}

/// A client pool that the caller may use, which is an environment's.
pub(super) struct InPool<R> {
    pub(super) scope: EnvScope,
    right: PhantomData<R>,
}

/// A client pool that the caller may use, an environment's or that of an organization's people.
pub(super) struct InAnyPool<R> {
    pub(super) owner: PoolOwner,
    pub(super) actor: Arc<Actor>,
    right: PhantomData<R>,
}

/// A root of a client pool that the caller may use.
pub(super) struct InRoot<R> {
    pub(super) scope: EnvScope,
    pub(super) root: TrustAnchor,
    right: PhantomData<R>,
}

/// A signing key of a client pool that the caller may use.
pub(super) struct InSigningKey<R> {
    pub(super) scope: EnvScope,
    pub(super) kid: Kid,
    right: PhantomData<R>,
}

/// A denial of a client pool that the caller may use.
pub(super) struct InDenial<R> {
    pub(super) scope: EnvScope,
    pub(super) denied: DeniedCertificate,
    right: PhantomData<R>,
}

/// Where a request comes from that needs no key.
pub(super) struct Source(pub(super) RequestSource);

impl FromRequestParts<App> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self(request_source(parts, app)))
    }
}

impl<R: Right> FromRequestParts<App> for Everything<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let scope = caller.enter_everything(R::PERMISSION).map_err(|reason| denied(reason, "thing"))?;
        Ok(Self { scope, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InPublisherKey<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        const WHAT: &str = "publisher key";
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let kid = ids.take::<Kid>("publisherKid");
        ids.finish()?;
        let reach = caller.enter_reach(R::PERMISSION).map_err(|reason| denied(reason, WHAT))?;
        let Reach::Everything(scope) = reach else { return Err(Problem::not_found(WHAT)) };
        let kid = kid.ok_or_else(|| Problem::not_found(WHAT))?;
        Ok(Self { scope, kid, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InReach<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let reach = caller.enter_reach(R::PERMISSION).map_err(|reason| denied(reason, "thing"))?;
        Ok(Self { reach, caller, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InApiKey<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let id = ids.take::<PathUuid>("apiKeyId");
        ids.finish()?;
        let reach = caller.enter_reach(R::PERMISSION).map_err(|reason| denied(reason, "API key"))?;
        let not_found = || Problem::not_found("API key");
        let PathUuid(id) = id.ok_or_else(not_found)?;
        let key = service::api_key::find(app.context(), &reach, id).await?.ok_or_else(not_found)?;
        Ok(Self { reach, caller, key, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InOrg<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let org = ids.take::<OrgId>("orgId");
        ids.finish()?;
        let scope = enter::<R>(&caller, org)?;
        let organization = service::organization::find(app.context(), &scope).await?;
        let organization = organization.ok_or_else(|| Problem::not_found("organization"))?;
        Ok(Self { scope, organization, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InEnv<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let (org, env) = (ids.take::<OrgId>("orgId"), ids.take::<EnvId>("envId"));
        ids.finish()?;
        let (scope, environment) = find_environment(app, enter::<R>(&caller, org)?, env).await?;
        let everything = caller.enter_everything(R::PERMISSION).ok();
        Ok(Self { scope, environment, everything, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InDevice<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let (org, env) = (ids.take::<OrgId>("orgId"), ids.take::<EnvId>("envId"));
        let device = ids.take::<DeviceId>("deviceId");
        ids.finish()?;
        let (scope, _) = find_environment(app, enter::<R>(&caller, org)?, env).await?;
        let device = find_device(app, &scope, device).await?;
        Ok(Self { scope, device, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InApp<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let (org, env) = (ids.take::<OrgId>("orgId"), ids.take::<EnvId>("envId"));
        let (device, name) = (ids.take::<DeviceId>("deviceId"), ids.take::<PathAppName>("appId"));
        ids.finish()?;
        let (scope, _) = find_environment(app, enter::<R>(&caller, org)?, env).await?;
        let device = find_device(app, &scope, device).await?;
        let not_found = || Problem::not_found("app");
        let PathAppName(name) = name.ok_or_else(not_found)?;
        let found = service::device_app::find(app.context(), &scope, &device.id, &name).await?;
        Ok(Self { scope, app: found.ok_or_else(not_found)?, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InClient<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let (org, env) = (ids.take::<OrgId>("orgId"), ids.take::<EnvId>("envId"));
        let client = ids.take::<ClientId>("clientId");
        ids.finish()?;
        let (scope, _) = find_environment(app, enter::<R>(&caller, org)?, env).await?;
        let not_found = || Problem::not_found("service client");
        let client = client.ok_or_else(not_found)?;
        let found = service::service_client::find(app.context(), &scope, &client).await?;
        Ok(Self { scope, client: found.ok_or_else(not_found)?, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InPool<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let pool = ids.take::<PoolId>("clientPoolId");
        ids.finish()?;
        Ok(Self { scope: enter_pool::<R>(app, &caller, pool).await?, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InAnyPool<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let pool = ids.take::<PoolId>("clientPoolId");
        ids.finish()?;
        let not_found = || Problem::not_found("client pool");
        let owner = service::client_pool::owner_of(app.context(), pool.ok_or_else(not_found)?).await?;
        let owner = owner.ok_or_else(not_found)?;
        let scope = caller.enter(owner.org(), R::PERMISSION);
        let scope = scope.map_err(|reason| denied(reason, "client pool"))?;
        Ok(Self { owner, actor: scope.actor().clone(), right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InRoot<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let pool = ids.take::<PoolId>("clientPoolId");
        let fingerprint = ids.take::<Fingerprint>("fingerprint");
        ids.finish()?;
        let scope = enter_pool::<R>(app, &caller, pool).await?;
        let not_found = || Problem::not_found("certificate");
        let fingerprint = fingerprint.ok_or_else(not_found)?;
        let root = service::trust_anchor::find(app.context(), &scope, &fingerprint).await?;
        Ok(Self { scope, root: root.ok_or_else(not_found)?, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InDenial<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let pool = ids.take::<PoolId>("clientPoolId");
        let id = ids.take::<Uuid>("deniedCertificateId");
        ids.finish()?;
        let scope = enter_pool::<R>(app, &caller, pool).await?;
        let not_found = || Problem::not_found("denied certificate");
        let denied =
            service::denied_certificate::find(app.context(), &scope, id.ok_or_else(not_found)?).await?;
        Ok(Self { scope, denied: denied.ok_or_else(not_found)?, right: PhantomData })
    }
}

impl<R: Right> FromRequestParts<App> for InSigningKey<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = authenticate(parts, app).await?;
        let mut ids = PathIds::read(parts, app).await?;
        let (pool, kid) = (ids.take::<PoolId>("clientPoolId"), ids.take::<Kid>("kid"));
        ids.finish()?;
        let scope = enter_pool::<R>(app, &caller, pool).await?;
        let not_found = || Problem::not_found("signing key");
        let key = service::signing_key::find(app.context(), &scope, &kid.ok_or_else(not_found)?).await?;
        Ok(Self { scope, kid: key.ok_or_else(not_found)?.kid, right: PhantomData })
    }
}

/// Whose key came with the request, as long as the key's rate limit is not used up.
async fn authenticate(parts: &Parts, app: &App) -> Result<Caller, Problem> {
    match identify(parts, app).await {
        Ok(caller) => {
            app.0.surroundings.count_key(&parts.extensions, caller.api_key_id)?;
            Ok(caller)
        }
        Err(problem) => {
            if problem.is_unauthenticated() {
                app.context().metrics.authentication_failed();
            }
            Err(problem)
        }
    }
}

async fn identify(parts: &Parts, app: &App) -> Result<Caller, Problem> {
    let mut values = parts.headers.get_all("x-api-key").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Problem::unauthenticated());
    };
    let text = value.to_str().map_err(|_| Problem::unauthenticated())?;
    Ok(service::api_key::authenticate(app.context(), text, request_source(parts, app)).await?)
}

/// Where the request comes from, for the log and the audit.
pub(super) fn request_source(parts: &Parts, app: &App) -> RequestSource {
    RequestSource {
        address: client_address_of(parts, app),
        request_id: parts.extensions.get::<RequestId>().map(|id| id.0.clone()),
    }
}

fn enter<R: Right>(caller: &Caller, org: Option<OrgId>) -> Result<OrgScope, Problem> {
    let org = org.ok_or_else(|| Problem::not_found("organization"))?;
    caller.enter(&org, R::PERMISSION).map_err(|reason| denied(reason, "organization"))
}

/// Lets the caller into the environment that a client pool is of.
async fn enter_pool<R: Right>(app: &App, caller: &Caller, pool: Option<PoolId>) -> Result<EnvScope, Problem> {
    let not_found = || Problem::not_found("client pool");
    let owner = service::environment::of_pool(app.context(), pool.ok_or_else(not_found)?).await?;
    let (org, env) = owner.ok_or_else(not_found)?;
    let scope = caller.enter(&org, R::PERMISSION).map_err(|reason| denied(reason, "client pool"))?;
    let environment = service::environment::find(app.context(), &scope, &env).await?;
    Ok(environment.ok_or_else(not_found)?.within(&scope))
}

async fn find_environment(
    app: &App,
    scope: OrgScope,
    env: Option<EnvId>,
) -> Result<(EnvScope, Environment), Problem> {
    let not_found = || Problem::not_found("environment");
    let env = env.ok_or_else(not_found)?;
    let environment = service::environment::find(app.context(), &scope, &env).await?.ok_or_else(not_found)?;
    Ok((environment.within(&scope), environment))
}

async fn find_device(app: &App, scope: &EnvScope, device: Option<DeviceId>) -> Result<Device, Problem> {
    let not_found = || Problem::not_found("device");
    let device = device.ok_or_else(not_found)?;
    service::device::find(app.context(), scope, &device).await?.ok_or_else(not_found)
}

/// The ids in a path, each read into its type; what is wrong with any of them is told together.
pub(super) struct PathIds {
    values: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl PathIds {
    pub(super) async fn read(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, app)
            .await
            .map_err(|_| Problem::invalid_field("path", "is not UTF-8 when decoded"))?;
        let values = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { values, errors: Vec::new() })
    }

    /// The id of that name. None is an error, which [`finish`](Self::finish) reports.
    pub(super) fn take<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.values.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value);
        match text.parse() {
            Ok(id) => Some(id),
            Err(error) => {
                self.errors.push(FieldError { field: name.to_owned(), detail: error.to_string() });
                None
            }
        }
    }

    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

/// A UUID as it is written in answers: one thing has one path.
struct PathUuid(Uuid);

impl FromStr for PathUuid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let id = Uuid::try_parse(text).ok().filter(|id| id.hyphenated().to_string() == text);
        id.map(Self).ok_or(IdError::NotUuid)
    }
}

/// The id of an app, or the name of the application that it is. A UUID is a slug too, and means the id.
struct PathAppName(AppName);

impl FromStr for PathAppName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = Uuid::try_parse(text).ok().filter(|id| id.hyphenated().to_string() == text);
        match id {
            Some(id) => Ok(Self(AppName::Id(id))),
            None => text.parse::<ClientAppId>().map(|name| Self(AppName::ClientApp(name))),
        }
    }
}
