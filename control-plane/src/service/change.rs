//! A change under way: one transaction with the rows, the marks for KV, and the audit events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keypost_shared::id::{ClientId, PoolId};
use keypost_shared::kv_key::KvKey;
use sqlx::{PgConnection, Postgres, Transaction};
use time::{Duration, OffsetDateTime};

use super::Context;
use super::audit::{Actor, ChainedEvent, Event};
use crate::entropy::Rng;
use crate::store::audit::GLOBAL_CHAIN;
use crate::store::publication::{Mark, Priority};
use crate::store::{self, StoreError};

/// A change under way. Dropped without [`commit`](Self::commit), it has never happened.
pub struct Change {
    context: Context,
    tx: Transaction<'static, Postgres>,
    actor: Arc<Actor>,
    now: OffsetDateTime,
    marks: BTreeSet<KvKey>,
    lost: BTreeMap<KvKey, Option<OffsetDateTime>>,
    priority: Option<Priority>,
    has_marked: bool,
    events: Vec<Event>,
}

/// By then every location reads what has just been published.
pub(super) const PROPAGATION: Duration = Duration::minutes(5);

/// How many clients of a pool a change marks itself; those beyond are marked in the background.
const CLIENTS_AT_ONCE: u16 = 2000;

impl Change {
    /// Begins a change by `actor`.
    pub async fn begin(context: &Context, actor: &Arc<Actor>) -> Result<Self, StoreError> {
        Ok(Self {
            tx: context.begin().await?,
            context: context.clone(),
            actor: actor.clone(),
            now: context.now(),
            marks: BTreeSet::new(),
            lost: BTreeMap::new(),
            priority: None,
            has_marked: false,
            events: Vec::new(),
        })
    }

    /// The transaction.
    pub fn tx(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// What the rules work with.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The change's one moment.
    pub fn now(&self) -> OffsetDateTime {
        self.now
    }

    /// Randomness.
    pub fn rng(&self) -> Rng {
        self.context.rng()
    }

    /// When a row that was last changed at `before` is changed now: never at the same time, so that the time tells one
    /// state of the row from any other.
    pub fn touch(&self, before: OffsetDateTime) -> OffsetDateTime {
        self.now.max(before + Duration::MICROSECOND)
    }

    /// Notes that this key's document must be made anew. All keys of a change are as urgent as the most urgent: they are
    /// marked in one statement, so that they are locked in one order.
    pub fn mark(&mut self, key: KvKey, priority: Priority) {
        self.marks.insert(key);
        self.priority = Some(self.priority.map_or(priority, |other| other.min(priority)));
    }

    /// Notes that a client or a device loses something: a secret, a scope, its status, its existence. Its document is made
    /// anew, and whatever was published of it so far counts no longer (design §4), also for whoever puts it back into KV.
    pub fn lose(&mut self, key: KvKey) {
        self.mark(key.clone(), Priority::Revocation);
        self.lost.insert(key, None);
    }

    /// The same, for what goes on counting until a time.
    pub fn lose_later(&mut self, key: KvKey, from: OffsetDateTime) {
        self.mark(key.clone(), Priority::Change);
        self.lost.entry(key).or_insert(Some(from));
    }

    /// Revokes all tokens that these clients of a pool have had. Their documents are to be marked, if they go on to exist.
    pub async fn revoke_tokens(&mut self, pool: PoolId, clients: &[ClientId]) -> Result<(), StoreError> {
        for list in store::status_block::release(&mut self.tx, pool, clients, self.now).await? {
            self.mark(KvKey::Status(pool, list), Priority::Revocation);
        }
        Ok(())
    }

    /// Marks the documents of all clients of a pool. Not for a change that marks a client or a device besides: those would
    /// be locked in no order. Pools and `v1/trust` come after all clients.
    pub async fn mark_all_clients(&mut self, pool: PoolId) -> Result<(), StoreError> {
        self.has_marked = true;
        store::publication::mark_all_clients(&mut self.tx, pool, CLIENTS_AT_ONCE, self.now).await
    }

    /// Notes what is being done, and to what.
    pub fn record(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Does something else, if anybody, than who began it: known only once it is under way.
    pub fn set_actor(&mut self, actor: Arc<Actor>) {
        self.actor = actor;
    }

    /// Makes it so. Answers with the marks, to wait for or not.
    pub async fn commit(mut self) -> Result<Vec<Mark>, StoreError> {
        let marks = match self.priority.take() {
            Some(priority) => self.write_marks(priority).await?,
            None => Vec::new(),
        };
        // Last, because changes of one organization wait for each other here.
        write_events(&mut self.tx, &self.actor, self.now, std::mem::take(&mut self.events)).await?;
        self.tx.commit().await?;
        if self.has_marked || !marks.is_empty() {
            self.context.publications.wake();
        }
        Ok(marks)
    }

    async fn write_marks(&mut self, priority: Priority) -> Result<Vec<Mark>, StoreError> {
        let lost = std::mem::take(&mut self.lost);
        let mut keys: Vec<KvKey> = std::mem::take(&mut self.marks).into_iter().collect();
        let noted = store::revoked_record::shards_of(&mut self.tx, &keys).await?;
        let shards: BTreeSet<KvKey> =
            lost.keys().filter_map(store::revoked_record::shard_key).chain(noted).collect();
        keys.extend(shards);
        // What is noted refers to the pool's row, and pools are locked before marks.
        let pools: BTreeSet<PoolId> = lost.keys().filter_map(KvKey::pool).collect();
        for pool in pools {
            store::client_pool::share(&mut self.tx, pool).await?;
        }
        let marks = store::publication::mark(&mut self.tx, &keys, priority, self.now).await?;
        let noted: Vec<_> =
            marks.iter().filter_map(|mark| lost.get(&mark.key).map(|from| (mark.clone(), *from))).collect();
        if !noted.is_empty() {
            store::revoked_record::note(&mut self.tx, &noted, self.now).await?;
        }
        Ok(marks)
    }
}

/// Adds events to their chains, in the transaction of what they tell of. Last, because whoever writes to a chain holds up
/// the others.
pub(crate) async fn write_events(
    tx: &mut PgConnection,
    actor: &Actor,
    now: OffsetDateTime,
    events: Vec<Event>,
) -> Result<(), StoreError> {
    let mut chains: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for event in events {
        let chain = event.target.org.as_ref().map_or(GLOBAL_CHAIN, |org| org.as_str());
        chains.entry(chain.to_owned()).or_default().push(event);
    }
    for (chain, events) in chains {
        let head = store::audit::lock_head(tx, &chain).await?;
        let chained: Vec<ChainedEvent> = (head.seq + 1..)
            .zip(events)
            .map(|(seq, event)| chained(actor, now, &chain, seq, event))
            .collect();
        store::audit::append(tx, &chain, head, &chained).await?;
    }
    Ok(())
}

fn chained(actor: &Actor, now: OffsetDateTime, chain: &str, seq: i64, event: Event) -> ChainedEvent {
    let Event { target, action, changes } = event;
    ChainedEvent {
        chain: chain.to_owned(),
        seq,
        occurred_at: now,
        actor_kind: actor.kind.as_str().to_owned(),
        actor_id: actor.id.clone(),
        actor_name: actor.name.clone(),
        action,
        target_kind: target.kind.to_owned(),
        target_id: target.id,
        env_id: target.env.map(|env| env.as_str().to_owned()),
        changes: changes.to_string(),
        address: actor.address.map(|address| address.to_string()),
        request_id: actor.request_id.clone(),
    }
}
