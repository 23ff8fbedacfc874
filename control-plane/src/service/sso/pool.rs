//! The pool of an organization's people. Every organization has one, made with it.

use keypost_shared::id::{OrgId, PoolId};
use keypost_shared::kv_key::KvKey;

use crate::entropy::random_uuid;
use crate::service::audit::Actor;
use crate::service::change::Change;
use crate::service::{Context, CreateError, client_pool};
use crate::store::publication::Priority;
use crate::store::signing_key::PoolOwner;
use crate::store::{self, StoreError};

/// How many organizations from before are looked for at a time.
const AT_ONCE: i64 = 100;

/// Adds the pool of an organization that the same transaction has added, or that is to have one now.
pub(in crate::service) async fn add(change: &mut Change, org: &OrgId) -> Result<PoolId, CreateError> {
    let pool = PoolId(random_uuid(&mut change.rng()));
    client_pool::add(change, &PoolOwner::of_people(org, pool)).await?;
    Ok(pool)
}

/// Lets the tokens of all people live as long as this deployment says now.
pub async fn keep_token_ttl(context: &Context) -> Result<(), StoreError> {
    loop {
        let mut change = Change::begin(context, &Actor::system()).await?;
        let (seconds, now) = (context.sso.access_token_ttl_seconds(), change.now());
        let pools = store::client_pool::set_token_ttl_of_people(change.tx(), seconds, AT_ONCE, now).await?;
        for pool in &pools {
            change.mark(KvKey::Pool(*pool), Priority::Change);
        }
        change.commit().await?;
        if pools.is_empty() {
            return Ok(());
        }
    }
}

/// Gives the organizations that were made by a version without such pools theirs. Says how many; another control plane may
/// be about it at the same time.
pub async fn add_missing(context: &Context) -> Result<u64, CreateError> {
    let mut added = 0;
    loop {
        let orgs = {
            let mut connection = context.connection().await?;
            store::client_pool::organizations_without_people(&mut connection, AT_ONCE).await?
        };
        if orgs.is_empty() {
            return Ok(added);
        }
        for org in &orgs {
            let mut change = Change::begin(context, &Actor::system()).await?;
            match add(&mut change, org).await {
                Ok(pool) => {
                    change.commit().await?;
                    added += 1;
                    tracing::info!(%org, %pool, "an organization from before has its pool for people");
                }
                // Another control plane was faster, or it has been deleted.
                Err(CreateError::IdTaken | CreateError::ParentGone) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
