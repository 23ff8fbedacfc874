//! Deleting environments and organizations, with all that belongs to them where that is asked for.
//!
//! A million devices do not go in one transaction. They go in batches, each a transaction of its own with its marks and its
//! audit event; the parent goes with the last one. Each batch holds the environment's row, so whoever adds a device
//! meanwhile waits for the batch: the device goes with a later one, or, after the last, its environment is not there. What
//! has gone when a deletion is interrupted stays gone, and whoever asks again goes on from there.

use keypost_shared::kv_key::KvKey;
use serde_json::json;

use super::access::OrgScope;
use super::audit::{Event, Target};
use super::change::Change;
use super::deleted_pool::{ByKms, Kept};
use super::precondition::Precondition;
use super::{ChangeError, Context, deleted_pool, environment, organization, sso};
use crate::store;
use crate::store::environment::EnvScope;
use crate::store::signing_key::PoolOwner;

/// How many devices, and how many service clients, go in one transaction: some tenths of a second.
const BATCH: i64 = 2000;

/// What has become of one step.
enum Step {
    /// There is more.
    More,
    /// It is gone.
    Done,
    /// Nothing has been done: AWS KMS must be asked to sign the pool's last status lists.
    Unsigned,
}

/// Deletes an environment, its pool and the pool's keys; with `cascade` also its devices and service clients, without
/// which they keep it from being deleted.
pub async fn delete_environment(
    context: &Context,
    scope: &EnvScope,
    precondition: &Precondition,
    cascade: bool,
) -> Result<(), ChangeError> {
    let mut first = true;
    let mut by_kms = ByKms::NotAsked;
    loop {
        // The first step has seen that it is the state that was meant; from then on it is only less and less of it.
        let expected = if first { precondition } else { &Precondition::None };
        match delete_part_of_environment(context, scope, expected, cascade, &by_kms).await {
            Ok(Step::More) => first = false,
            Ok(Step::Unsigned) => by_kms = deleted_pool::sign_by_kms(context, scope.pool()).await?,
            Ok(Step::Done) => return Ok(()),
            // Somebody else was at it too, and has finished.
            Err(ChangeError::Gone) if !first => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

async fn delete_part_of_environment(
    context: &Context,
    scope: &EnvScope,
    precondition: &Precondition,
    cascade: bool,
    by_kms: &ByKms,
) -> Result<Step, ChangeError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = store::environment::lock_to_delete(change.tx(), scope).await?.ok_or(ChangeError::Gone)?;
    precondition.check(before.updated_at)?;
    if cascade {
        let devices = store::device::delete_some(change.tx(), scope, BATCH).await?;
        // From here on nobody adds a service client. The pool is locked after the devices, as by whoever adds an app.
        store::environment::lock_pool(change.tx(), scope).await?;
        let services = store::oauth_client::delete_some_services(change.tx(), scope, BATCH).await?;
        for clients in [&devices.clients, &services] {
            change.revoke_tokens(scope.pool(), clients).await?;
            for client in clients {
                change.lose(KvKey::Client(scope.pool(), client.clone()));
            }
        }
        for device in &devices.devices {
            change.lose(KvKey::Device(scope.pool(), device.clone()));
        }
        if let (Some(from), Some(to)) = (devices.devices.first(), devices.devices.last()) {
            let deleted = json!({
                "devices": devices.devices.len(), "from": from, "to": to, "apps": devices.apps,
            });
            change.record(Event::new(
                environment::target(scope),
                "delete_devices",
                json!({"before": deleted}),
            ));
        }
        if !services.is_empty() {
            let deleted = json!({"serviceClients": services});
            change.record(Event::new(
                environment::target(scope),
                "delete_clients",
                json!({"before": deleted}),
            ));
        }
        let is_full = |length: usize| i64::try_from(length).is_ok_and(|length| length >= BATCH);
        if is_full(devices.devices.len()) || is_full(services.len()) {
            change.commit().await?;
            return Ok(Step::More);
        }
    } else {
        store::environment::lock_pool(change.tx(), scope).await?;
        if let Some(children) = store::environment::children(change.tx(), scope).await? {
            return Err(ChangeError::HasChildren(children));
        }
    }
    if matches!(deleted_pool::keep(&mut change, scope.pool(), by_kms).await?, Kept::Unsigned) {
        return Ok(Step::Unsigned);
    }
    store::client_pool::delete(change.tx(), &PoolOwner::from(scope)).await?;
    store::environment::delete(change.tx(), scope).await?;
    change.record(Event::deleted(environment::target(scope), &before));
    change.commit().await?;
    Ok(Step::Done)
}

/// Deletes an organization with its API keys and the pool of its people; with `cascade` also its environments, client apps
/// and people, without which they keep it from being deleted.
pub async fn delete_organization(
    context: &Context,
    scope: &OrgScope,
    precondition: &Precondition,
    cascade: bool,
) -> Result<(), ChangeError> {
    let mut first = true;
    loop {
        let mut change = Change::begin(context, scope.actor()).await?;
        let found = store::organization::find_for_update(change.tx(), scope).await?;
        let before = match found {
            Some(found) => found,
            // Somebody else was at it too, and has finished.
            None if !first => return Ok(()),
            None => return Err(ChangeError::Gone),
        };
        if first {
            precondition.check(before.updated_at)?;
        }
        first = false;
        let environment = store::environment::list(change.tx(), scope, None, 1).await?.into_iter().next();
        let people = store::sso::deletion::children(change.tx(), scope).await?;
        if let Some(children) = environment.as_ref().map(|_| "environments").or(people).filter(|_| !cascade) {
            return Err(ChangeError::HasChildren(children));
        }
        let Some(environment) = environment else {
            if !sso::deletion::delete_pool(&mut change, scope).await? {
                // Their own transactions must not wait for this one. Who comes meanwhile is met next time.
                drop(change);
                sso::deletion::delete_people(context, scope).await?;
                continue;
            }
            for key in store::organization::delete_api_keys(change.tx(), scope).await? {
                let org = Some(scope.org().clone());
                let target = Target { org, env: None, kind: "api_key", id: key.id.to_string() };
                change.record(Event::deleted(target, &key));
            }
            store::organization::delete(change.tx(), scope).await?;
            change.record(Event::deleted(organization::target(scope.org()), &before));
            change.commit().await?;
            return Ok(());
        };
        // The environment's own transactions must not wait for this one. One that is added meanwhile is met next time.
        drop(change);
        match delete_environment(context, &environment.within(scope), &Precondition::None, true).await {
            Ok(()) | Err(ChangeError::Gone) => {}
            Err(error) => return Err(error),
        }
    }
}
