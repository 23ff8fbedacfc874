//! The life of a pool's signing keys (design §7). What is to be done, and when, is decided by
//! [`keypost_shared::signing_key`]; here it is carried out: by the schedule ([`look_after`]), because somebody asks for it
//! ([`rotate`]), and because a key must not be used any more ([`revoke`]).
//!
//! Whoever does so holds the pool's lock, so that they come one after the other. A key is made before, outside of any
//! transaction.

use std::time::Duration;

use keypost_shared::id::Kid;
use keypost_shared::kv_key::KvKey;
use keypost_shared::signing_key::{self as life, SigningKey, State, Step};
use rand_core::RngCore;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::audit::{Actor, Event};
use super::change::Change;
use super::{ChangeError, Context, EDGE_CATCHES_UP};
use crate::clock::{from_unix, unix};
use crate::key_maker::{KeyBackend, MadeKey, MakeError};
use crate::store::environment::EnvScope;
use crate::store::publication::{Mark, Priority};
use crate::store::signing_key::{KeyRecord, PoolKeys, PoolOwner};
use crate::store::{self, StoreError};

/// How long whoever has read a key set may keep it: its `max-age`.
const KEY_SET_CACHED: Duration = Duration::from_secs(300);

/// Why the keys of a pool are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum LookAfterError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no next key.
    #[error("a signing key could not be made: {0}")]
    Make(#[from] MakeError),
}

/// A key with its times: those that are over, and those that are planned.
#[derive(Clone, Debug)]
pub struct KeyTimes {
    /// The key.
    pub key: KeyRecord,
    /// When it began to sign, or will.
    pub activates_at: Option<OffsetDateTime>,
    /// When it stopped signing, or will.
    pub retires_at: Option<OffsetDateTime>,
    /// When it left the key set, or will.
    pub removed_at: Option<OffsetDateTime>,
}

/// What has become of a rotation.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The key that signs next; none where it has yet to be made.
    pub kid: Option<Kid>,
    /// When it will, or did.
    pub signs_at: OffsetDateTime,
    /// Whether it does.
    pub done: bool,
    /// Whether the time is certain: the key has been published.
    pub certain: bool,
}

/// What has become of a revocation.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// The key that has been revoked.
    pub kid: Kid,
    /// When that was.
    pub revoked_at: OffsetDateTime,
    /// Until when an edge that hears nothing may go on with it.
    pub documents_until: Option<OffsetDateTime>,
    /// The key that signs now; none where the pool has none left and no other could be made.
    pub active: Option<Kid>,
    /// Whether it signs before it has stood in the key set for long enough: some verifiers may not know it yet.
    pub young: bool,
}

/// By when a revoked key is out of use.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// No edge issues with it, nor has it in its key set.
    pub edges: OffsetDateTime,
    /// Nor has any cache that keeps to the key set's `max-age`.
    pub caches: OffsetDateTime,
}

impl Bounds {
    /// For a key whose pool's document was written now.
    pub fn of_document_written(now: OffsetDateTime) -> Self {
        let edges = now + EDGE_CATCHES_UP;
        Self { edges, caches: edges + KEY_SET_CACHED }
    }
}

/// One of the pool's keys.
pub async fn find(context: &Context, scope: &EnvScope, kid: &Kid) -> Result<Option<KeyRecord>, StoreError> {
    let mut connection = context.connection().await?;
    store::signing_key::find(&mut connection, scope, kid).await
}

/// The pool's keys, newest first, after `after`.
pub async fn list(
    context: &Context,
    scope: &EnvScope,
    after: Option<&Kid>,
    rows: i64,
) -> Result<Vec<KeyTimes>, StoreError> {
    let mut connection = context.connection().await?;
    let now = context.now();
    let owner = PoolOwner::from(scope);
    let Some(keys) = store::signing_key::read_pool(&mut connection, &owner, context.key_times, now).await?
    else {
        return Ok(Vec::new());
    };
    let records = store::signing_key::list(&mut connection, scope, after, rows).await?;
    Ok(records.into_iter().map(|record| with_times(record, &keys, now)).collect())
}

fn with_times(key: KeyRecord, keys: &PoolKeys, now: OffsetDateTime) -> KeyTimes {
    let PoolKeys { snapshot, policy, .. } = keys;
    let succession = life::signs_at(snapshot, unix(now), policy);
    let rotation = snapshot.active().and_then(|active| active.rotation_at(policy));
    let next_signs = from_unix(rotation.map_or(succession.at, |at| at.max(succession.at)));
    let planned = snapshot.keys.iter().find(|found| found.kid == key.kid);
    let mut times = KeyTimes {
        activates_at: key.activated_at,
        retires_at: key.retired_at,
        removed_at: key.removed_at,
        key,
    };
    match planned.map(|planned| (planned, &planned.state)) {
        Some((planned, State::Next)) if succession.next == Some(planned) => {
            times.activates_at = Some(next_signs)
        }
        Some((_, State::Active { .. })) => times.retires_at = Some(next_signs),
        Some((planned, State::Retiring { .. })) => {
            times.removed_at = planned.removed_at(policy).map(from_unix)
        }
        Some((_, State::Next)) | None => {}
    }
    times
}

/// Asks for the next key to sign: at once where it has stood in the key set for long enough, else as soon as it has.
pub async fn rotate(change: &mut Change, scope: &EnvScope) -> Result<Rotation, ChangeError> {
    let owner = PoolOwner::from(scope);
    let now = change.now();
    lock(change, &owner).await?;
    store::signing_key::ask_for_rotation(change.tx(), &owner, now).await?;
    let keys = lock(change, &owner).await?;
    let succession = life::signs_at(&keys.snapshot, unix(now), &keys.policy);
    let kid = succession.next.map(|key| key.kid.clone());
    let steps = life::plan(&keys.snapshot, unix(now), &keys.policy);
    let done = steps.iter().any(|step| matches!(step, Step::Activate { .. }));
    let rotation =
        Rotation { kid, signs_at: from_unix(succession.at), done, certain: done || succession.certain };
    take(change, &owner, &steps, Priority::Change).await?;
    // The schedule makes the key that is to follow.
    store::signing_key::set_due(change.tx(), &owner, now).await?;
    let rotation = Rotation { signs_at: if done { now } else { rotation.signs_at }, ..rotation };
    let before = keys.snapshot.active().map(|active| &active.kid);
    let changes = json!({
        "before": {"signs": before},
        "after": {"signs": rotation.kid, "signsAt": told(rotation.signs_at)},
    });
    change.record(Event::new(scope.target("signing_key", scope.pool()), "rotate", changes));
    Ok(rotation)
}

/// What a revocation may need and cannot make within a transaction: a key to sign with, where the pool has no other. None
/// where it needs none, or none can be had: then the key is revoked all the same.
pub async fn spare(context: &Context, scope: &EnvScope, kid: &Kid) -> Result<Option<MadeKey>, StoreError> {
    let owner = PoolOwner::from(scope);
    let keys = {
        let mut connection = context.connection().await?;
        store::signing_key::read_pool(&mut connection, &owner, context.key_times, context.now()).await?
    };
    let Some(keys) = keys else { return Ok(None) };
    let signs = keys.snapshot.active().is_none_or(|active| active.kid == *kid);
    let another = keys.snapshot.keys.iter().any(|key| key.state == State::Next && key.kid != *kid);
    if !signs || another {
        return Ok(None);
    }
    match context.key_maker.make(scope.pool(), &keys.backend).await {
        Ok(made) => Ok(Some(made)),
        Err(error) => {
            tracing::error!(pool = %scope.pool(), %error, "no key could be made in the place of a revoked one");
            context.metrics.signing_key_failed();
            Ok(None)
        }
    }
}

/// Takes a key out of use and out of the key set, and forgets its private half. Where it signed, another does at once: the
/// one that has stood in the key set longest, though it be young, or else `spare`.
pub async fn revoke(
    change: &mut Change,
    scope: &EnvScope,
    kid: &Kid,
    spare: Option<MadeKey>,
) -> Result<Revocation, ChangeError> {
    let owner = PoolOwner::from(scope);
    let now = change.now();
    let keys = lock(change, &owner).await?;
    let before = store::signing_key::find(change.tx(), scope, kid).await?.ok_or(ChangeError::Gone)?;
    let mut revocation = Revocation {
        kid: kid.clone(),
        revoked_at: before.removed_at.unwrap_or(now),
        documents_until: None,
        active: keys.snapshot.active().map(|active| active.kid.clone()),
        young: false,
    };
    if before.state == "revoked" {
        // Whoever asks again waits for the same document.
        change.mark(KvKey::Pool(owner.pool()), Priority::Revocation);
        return Ok(revocation);
    }
    store::signing_key::revoke(change.tx(), &owner, kid, now).await?;
    // One that is gone was out of the key set already.
    if before.state != "gone" {
        revocation.documents_until = before.tokens_until;
        succeed(change, &owner, keys, &mut revocation, spare).await?;
        change.mark(KvKey::Pool(owner.pool()), Priority::Revocation);
        store::signing_key::set_due(change.tx(), &owner, now).await?;
    }
    let after = json!({"state": "revoked", "signs": revocation.active, "young": revocation.young});
    change.record(Event::changed(owner.target(kid), "revoke", &json!({"state": before.state}), &after));
    Ok(revocation)
}

/// Lets another key sign in the place of a revoked one, if that did.
async fn succeed(
    change: &mut Change,
    owner: &PoolOwner,
    keys: PoolKeys,
    revocation: &mut Revocation,
    spare: Option<MadeKey>,
) -> Result<(), StoreError> {
    let PoolKeys { snapshot, policy, .. } = keys;
    let now = change.now();
    let mut snapshot = snapshot.without(&revocation.kid);
    revocation.active = snapshot.active().map(|active| active.kid.clone());
    let has_next = snapshot.keys.iter().any(|key| key.state == State::Next);
    if let Some(made) = spare.filter(|_| revocation.active.is_none() && !has_next) {
        store::signing_key::insert(change.tx(), owner, &made, now).await?;
        snapshot.keys.push(as_next(&made, now));
    }
    let steps = life::plan(&snapshot, unix(now), &policy);
    take(change, owner, &steps, Priority::Revocation).await?;
    for step in &steps {
        if let Step::Activate { kid, .. } = step {
            let is_it = |key: &&SigningKey| key.kid == *kid;
            let stood = snapshot.keys.iter().find(is_it).is_some_and(|key| key.has_stood(unix(now), &policy));
            revocation.young = !stood;
            revocation.active = Some(kid.clone());
        }
    }
    Ok(())
}

/// Adds the first keys of a pool that the same transaction has added: one that signs at once, and the one that will follow
/// it, both in the key set from the start.
pub async fn add_first(change: &mut Change, owner: &PoolOwner) -> Result<(), super::CreateError> {
    for _ in 0..2 {
        let made = change.context().key_maker.make_local(owner.pool())?;
        let now = change.now();
        store::signing_key::insert(change.tx(), owner, &made, now).await?;
    }
    let (now, times) = (change.now(), change.context().key_times);
    let keys = store::signing_key::lock_pool(change.tx(), owner, times, now).await?;
    let Some(keys) = keys else { return Err(super::CreateError::ParentGone) };
    for step in life::plan(&keys.snapshot, unix(now), &keys.policy) {
        take_one(change, owner, &step).await?;
    }
    schedule(change, owner).await?;
    Ok(())
}

/// Does what the schedule says is due for a pool's keys.
pub async fn look_after(context: &Context, owner: &PoolOwner) -> Result<(), LookAfterError> {
    let mut made: Option<(KeyBackend, MadeKey)> = None;
    // Twice, or once more where the pool's backend has just changed.
    for _ in 0..3 {
        let Some(wanted) = take_due(context, owner, made.take()).await? else { return Ok(()) };
        let key = context.key_maker.make(owner.pool(), &wanted).await?;
        made = Some((wanted, key));
    }
    Ok(())
}

/// Takes the steps that are due, with a key that has been made for them. Answers with the backend of a key that has yet to
/// be made; then the pool is due again in a while, in case that nothing comes of it.
async fn take_due(
    context: &Context,
    owner: &PoolOwner,
    made: Option<(KeyBackend, MadeKey)>,
) -> Result<Option<KeyBackend>, StoreError> {
    let mut change = Change::begin(context, &Actor::system()).await?;
    let now = change.now();
    let keys = store::signing_key::lock_pool(change.tx(), owner, context.key_times, now).await?;
    let Some(keys) = keys else { return Ok(None) };
    let steps = life::plan(&keys.snapshot, unix(now), &keys.policy);
    let made = made.filter(|(backend, _)| *backend == keys.backend);
    let wanted = match (steps.contains(&Step::Create), made) {
        (true, Some((_, key))) => {
            store::signing_key::insert(change.tx(), owner, &key, now).await?;
            change.mark(KvKey::Pool(owner.pool()), Priority::Change);
            let after = json!({"after": {"state": "next"}});
            change.record(Event::new(owner.target(&key.kid), "create", after));
            None
        }
        (true, None) => Some(keys.backend),
        (false, _) => None,
    };
    take(&mut change, owner, &steps, Priority::Change).await?;
    steps.iter().filter_map(|step| event(owner, step)).for_each(|event| change.record(event));
    match &wanted {
        None => schedule(&mut change, owner).await?,
        Some(_) => {
            store::signing_key::set_due(change.tx(), owner, now + retry_after(context)).await?;
        }
    }
    change.commit().await?;
    Ok(wanted)
}

/// A minute, give or take half of it, where keys stand for an hour.
pub(crate) fn retry_after(context: &Context) -> Duration {
    let share = 0.5 + f64::from(context.rng().next_u32()) / f64::from(u32::MAX);
    Duration::from_secs((context.key_times.stand / 60).max(1)).mul_f64(share)
}

/// Notes when the schedule has something to do for the pool next.
async fn schedule(change: &mut Change, owner: &PoolOwner) -> Result<(), StoreError> {
    let (now, times) = (change.now(), change.context().key_times);
    if let Some(keys) = store::signing_key::read_pool(change.tx(), owner, times, now).await? {
        let due_at = if life::plan(&keys.snapshot, unix(now), &keys.policy).is_empty() {
            from_unix(life::due_at(&keys.snapshot, unix(now), &keys.policy))
        } else {
            now
        };
        store::signing_key::set_due(change.tx(), owner, due_at).await?;
    }
    Ok(())
}

async fn lock(change: &mut Change, owner: &PoolOwner) -> Result<PoolKeys, ChangeError> {
    let (now, times) = (change.now(), change.context().key_times);
    store::signing_key::lock_pool(change.tx(), owner, times, now).await?.ok_or(ChangeError::Gone)
}

/// Takes steps. A key is made elsewhere.
async fn take(
    change: &mut Change,
    owner: &PoolOwner,
    steps: &[Step],
    priority: Priority,
) -> Result<(), StoreError> {
    for step in steps.iter().filter(|step| **step != Step::Create) {
        take_one(change, owner, step).await?;
        change.mark(KvKey::Pool(owner.pool()), priority);
        tracing::info!(pool = %owner.pool(), ?step, "a signing key takes a step");
        if matches!(step, Step::Activate { .. }) {
            // It signs the status lists too.
            for list in store::status_block::keys_of_status_lists(change.tx(), owner.pool()).await? {
                change.mark(list, priority);
            }
        }
    }
    Ok(())
}

/// What is told of a step that the schedule takes.
fn event(owner: &PoolOwner, step: &Step) -> Option<Event> {
    let (kid, verb, after) = match step {
        Step::Create => return None,
        Step::Retire { kid, tokens_until } => {
            (kid, "retire", json!({"state": "retiring", "tokensUntil": told(from_unix(*tokens_until))}))
        }
        Step::Activate { kid, ends_at } => {
            (kid, "activate", json!({"state": "active", "endsAt": told(from_unix(*ends_at))}))
        }
        Step::Remove(kid) => (kid, "remove", json!({"state": "gone"})),
    };
    Some(Event::new(owner.target(kid), verb, json!({"after": after})))
}

async fn take_one(change: &mut Change, owner: &PoolOwner, step: &Step) -> Result<(), StoreError> {
    let now = change.now();
    match step {
        Step::Create => Ok(()),
        Step::Retire { kid, tokens_until } => {
            store::signing_key::retire(change.tx(), owner, kid, *tokens_until, now).await
        }
        Step::Activate { kid, ends_at } => {
            store::signing_key::activate(change.tx(), owner, kid, *ends_at, now).await
        }
        Step::Remove(kid) => store::signing_key::remove(change.tx(), owner, kid, now).await,
    }
}

fn as_next(made: &MadeKey, now: OffsetDateTime) -> SigningKey {
    SigningKey {
        kid: made.kid.clone(),
        state: State::Next,
        fits: true,
        created_at: unix(now),
        published_at: None,
    }
}

/// A time as audit events tell it.
fn told(time: OffsetDateTime) -> Value {
    // A year beyond 9999 is the only one that cannot be written.
    time.format(&time::format_description::well_known::Rfc3339).map_or(Value::Null, Value::from)
}

/// Waits until the document of a revoked key's pool is in KV, for a while. Says whether it is.
pub async fn wait_until_published(context: &Context, marks: Vec<Mark>) -> bool {
    context.publications.published(&marks).await
}
