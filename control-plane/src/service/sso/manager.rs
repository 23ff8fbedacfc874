//! Who may manage organizations by single sign-on, and which.

use std::sync::Arc;

use keypost_shared::id::{OrgId, SsoAppId, UserId};

use super::super::Context;
use super::super::access::{GlobalScope, OrgScope, Reach};
use super::super::audit::Actor;
use super::organization::Listed;
use crate::store::organization::Organization;
use crate::store::sso::key::KeyHolder;
use crate::store::sso::user::User;
use crate::store::sso::{client_app, owner};
use crate::store::{self, StoreError};

/// Whoever manages organizations and what is in them.
#[derive(Clone, Debug)]
pub enum Manager {
    /// Whoever holds a global admin key: all.
    Everything(GlobalScope),
    /// Whoever holds an organization's key: that one.
    Key(OrgScope),
    /// A person who is signed in as an owner: theirs.
    Owner {
        /// The person.
        id: UserId,
        /// The organization where they sign in.
        home: OrgId,
        /// As audit events name them.
        actor: Arc<Actor>,
    },
}

impl Manager {
    /// Whoever holds this key; none for the key of a client app, which manages nothing.
    pub fn by_key(holder: KeyHolder, actor: Actor) -> Option<Self> {
        match holder.app {
            None => Some(Self::Key(OrgScope::of_an_owner(holder.org, Arc::new(actor)))),
            Some(_) => None,
        }
    }

    /// This person; none for the user of a client app.
    pub fn by_sign_in(user: &User, actor: Actor) -> Option<Self> {
        match user.app {
            None => Some(Self::Owner { id: user.id, home: user.org.clone(), actor: Arc::new(actor) }),
            Some(_) => None,
        }
    }

    /// Who acts.
    pub fn actor(&self) -> &Arc<Actor> {
        match self {
            Manager::Everything(scope) => scope.actor(),
            Manager::Key(scope) => scope.actor(),
            Manager::Owner { actor, .. } => actor,
        }
    }

    /// The organization, for who may manage it. None where it is another's, or is not there.
    pub async fn enter(
        &self,
        context: &Context,
        org: &OrgId,
    ) -> Result<Option<(OrgScope, Organization)>, StoreError> {
        let mut connection = context.connection().await?;
        let scope = match self {
            Manager::Everything(scope) => scope.narrow(org.clone()),
            Manager::Key(scope) if scope.org() == org => scope.clone(),
            Manager::Owner { id, actor, .. } if owner::owns(&mut connection, org, *id).await? => {
                OrgScope::of_an_owner(org.clone(), actor.clone())
            }
            Manager::Key(_) | Manager::Owner { .. } => return Ok(None),
        };
        let found = store::organization::find(&mut connection, &scope).await?;
        Ok(found.map(|organization| (scope, organization)))
    }

    /// The organization of a client app, for who may manage it.
    pub async fn enter_app(
        &self,
        context: &Context,
        app: SsoAppId,
    ) -> Result<Option<(OrgScope, Organization)>, StoreError> {
        let org = {
            let mut connection = context.connection().await?;
            client_app::owner(&mut connection, app).await?
        };
        match org {
            Some(org) => self.enter(context, &org).await,
            None => Ok(None),
        }
    }

    /// The organization that is the caller's own; none for who has all.
    pub async fn own(&self, context: &Context) -> Result<Option<(OrgScope, Organization)>, StoreError> {
        match self {
            Manager::Everything(_) => Ok(None),
            Manager::Key(scope) => self.enter(context, scope.org()).await,
            Manager::Owner { home, .. } => self.enter(context, home).await,
        }
    }

    /// The organizations that the caller manages, by id, after `after`.
    pub async fn list(
        &self,
        context: &Context,
        after: Option<&OrgId>,
        rows: i64,
    ) -> Result<Vec<Listed>, StoreError> {
        let mut connection = context.connection().await?;
        let found = match self {
            Manager::Everything(scope) => {
                let reach = Reach::Everything(scope.clone());
                store::organization::list(&mut connection, &reach, after, rows).await?
            }
            Manager::Key(scope) => {
                let reach = Reach::Org(scope.clone());
                store::organization::list(&mut connection, &reach, after, rows).await?
            }
            Manager::Owner { id, .. } => owner::organizations(&mut connection, *id, after, rows).await?,
        };
        super::organization::with_pools(&mut connection, found).await
    }
}
