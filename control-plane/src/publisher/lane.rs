//! A lane: leases marked rows of its priorities, has their documents made, writes them, and notes how it went.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_shared::id::Kid;
use keypost_shared::kv_key::KvKey;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use super::Publisher;
use super::batch::{self, BatchError, Call, Calls, Rendered, SLICE};
use super::pace::{Haste, Pace, backoff};
use crate::entropy::random_uuid;
use crate::kv::{KvError, Metadata, Outcome, Pair};
use crate::store::publication::{Failed, LeaseRequest, Leased, Priority, Written};
use crate::store::signing_key::Named;
use crate::store::{self, StoreError};
use crate::telemetry::traces;

/// When something is due but another transaction holds it: how soon to look again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The share of a lease after which it is renewed before a call is made.
const RENEW_AFTER: u32 = 4;

pub(super) struct Lane {
    publisher: Arc<Publisher>,
    pace: Arc<Pace>,
    priorities: (Priority, Priority),
    /// How many rows to lease. After a refusal it halves, so that one document that KV refuses is soon alone in its call
    /// and the others go on; after a success it doubles.
    batch_size: u16,
}

/// A lease, as its holder knows it.
struct Lease {
    id: Uuid,
    leased_at: OffsetDateTime,
    /// The same by the monotonic clock.
    taken: Instant,
}

impl Lane {
    pub(super) fn new(publisher: Arc<Publisher>, pace: Arc<Pace>, priorities: (Priority, Priority)) -> Self {
        let batch_size = publisher.settings.batch_size;
        Self { publisher, pace, priorities, batch_size }
    }

    /// Publishes until told to stop; a batch under way is finished first.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut wakes = self.publisher.publications.subscribe_wakes();
        let mut failing = false;
        while !stop.is_cancelled() {
            wakes.borrow_and_update();
            let pause = match self.round(&stop).await {
                Ok(pause) => {
                    if failing {
                        tracing::info!("publishing goes on");
                    }
                    failing = false;
                    pause
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "publishing stands still");
                    }
                    failing = true;
                    Some(self.publisher.settings.first_backoff)
                }
            };
            if let Some(pause) = pause {
                let woken = timeout(pause.min(self.publisher.settings.poll), wakes.changed());
                stop.run_until_cancelled(woken).await;
            }
        }
    }

    /// One batch. Answers with how long to sleep, or none to go on at once.
    async fn round(&mut self, stop: &CancellationToken) -> Result<Option<Duration>, BatchError> {
        let poll = self.publisher.settings.poll;
        let now = self.publisher.clock.now();
        if let Some(pause) = self.pace.quiet_for().await? {
            return Ok(Some(pause));
        }
        let (due, only_trust) = self.look(now).await?;
        match due.map(|due| Duration::try_from(due - now).unwrap_or_default()) {
            None => return Ok(Some(poll)),
            Some(early) if !early.is_zero() => return Ok(Some(early)),
            Some(_) => {}
        }
        // First wait, then lease: what becomes urgent meanwhile goes with this call.
        if stop.run_until_cancelled(self.wait_for_place()).await.transpose()?.is_none() {
            return Ok(None);
        }
        let (lease, leased) = self.lease(only_trust).await?;
        if leased.is_empty() {
            return Ok(Some(if only_trust { poll } else { LOOK_AGAIN }));
        }
        self.publish(lease, leased).await?;
        Ok(None)
    }

    /// Waits until there is a place for a call, the less if somebody begins to wait for it.
    async fn wait_for_place(&self) -> Result<(), StoreError> {
        if self.haste() != Haste::Usual {
            return self.pace.wait(self.haste()).await;
        }
        tokio::select! {
            waited = self.pace.wait(Haste::Usual) => waited,
            () = self.publisher.publications.until_awaited() => self.pace.wait(Haste::Awaited).await,
        }
    }

    fn haste(&self) -> Haste {
        if self.priorities.0 == Priority::Resign {
            Haste::CanWait
        } else if self.publisher.publications.is_awaited() {
            Haste::Awaited
        } else {
            Haste::Usual
        }
    }

    /// When the next row of these priorities is due, and whether there is no key yet to sign anything but `v1/trust`.
    async fn look(&self, now: OffsetDateTime) -> Result<(Option<OffsetDateTime>, bool), StoreError> {
        let mut connection = self.publisher.db.acquire().await?;
        let due = store::publication::next_due(&mut connection, self.priorities, now).await?;
        if due.is_none() {
            return Ok((None, false));
        }
        Ok((due, store::publisher_key::signer(&mut connection).await?.is_none()))
    }

    async fn lease(&self, only_trust: bool) -> Result<(Lease, Vec<Leased>), StoreError> {
        let settings = &self.publisher.settings;
        let request = LeaseRequest {
            lease_id: random_uuid(&mut self.publisher.entropy.rng()),
            priorities: self.priorities,
            only_trust,
            limit: self.batch_size,
            duration: settings.lease,
            late_write_window: settings.late_write_window,
        };
        let lease =
            Lease { id: request.lease_id, leased_at: self.publisher.clock.now(), taken: Instant::now() };
        let mut tx = self.publisher.db.begin().await?;
        let leased = store::publication::lease(&mut tx, &request, lease.leased_at).await?;
        tx.commit().await?;
        Ok((lease, leased))
    }

    async fn publish(&mut self, lease: Lease, leased: Vec<Leased>) -> Result<(), BatchError> {
        let mut calls = Calls::default();
        for (position, slice) in leased.chunks(SLICE).enumerate() {
            let ready = match self.prepare(&lease, slice).await {
                Ok(ready) => ready,
                Err(error) => {
                    // Perhaps one row spoils it for all: smaller batches leave it alone with its pause.
                    self.batch_size = (self.batch_size / 2).max(1);
                    let rest = leased.iter().skip(position * SLICE);
                    let failed = rest.map(|leased| (leased, error.to_string()));
                    self.note_failed(&lease, failed, None).await?;
                    let made: Vec<KvKey> = calls.finish().flat_map(|call| call.keys()).collect();
                    self.release(&lease, &made).await?;
                    return Err(error);
                }
            };
            for one in ready {
                if let Some(full) = calls.add(one) {
                    self.send(&lease, full).await?;
                }
            }
        }
        for call in calls.finish() {
            self.send(&lease, call).await?;
        }
        Ok(())
    }

    /// Has the documents of leased keys made, and gives back the keys that have none.
    async fn prepare(&self, lease: &Lease, leased: &[Leased]) -> Result<Vec<Rendered>, BatchError> {
        let batch = batch::prepare(&self.publisher, leased, self.publisher.clock.now()).await?;
        let unsigned: Vec<KvKey> = batch.unsigned.into_iter().map(|leased| leased.key).collect();
        self.release(lease, &unsigned).await?;
        for (leased, error) in &batch.broken {
            tracing::error!(key = %leased.key, %error, "a document cannot be made");
        }
        let broken = batch.broken.iter().map(|(leased, error)| (leased, error.to_string()));
        self.note_failed(lease, broken, None).await?;
        Ok(self.note_named(lease, batch.ready).await?)
    }

    /// Notes which keys the documents let sign, and until when: before they are sent, because whoever retires a key must
    /// know of every document that names it. One that names a key that has been retired or revoked meanwhile is not sent.
    async fn note_named(&self, lease: &Lease, mut ready: Vec<Rendered>) -> Result<Vec<Rendered>, StoreError> {
        let names = |one: &Rendered| one.document.as_ref().and_then(|document| document.names.clone());
        let named: Vec<Named> = ready.iter().filter_map(names).collect();
        if named.is_empty() {
            return Ok(ready);
        }
        let mut tx = self.publisher.db.begin().await?;
        let outdated = store::signing_key::note_named(&mut tx, &named).await?;
        tx.commit().await?;
        let outdated: Vec<KvKey> = outdated.into_iter().map(KvKey::Pool).collect();
        ready.retain(|one| !outdated.contains(&one.leased.key));
        self.release(lease, &outdated).await?;
        Ok(ready)
    }

    /// Makes one call within the pace and the lease.
    async fn send(&mut self, lease: &Lease, call: Call) -> Result<(), StoreError> {
        self.pace.call(self.haste()).await?;
        // KV has asked for a pause in the middle of the batch.
        if self.pace.quiet_for().await?.is_some() {
            return self.release(lease, &call.keys()).await;
        }
        match self.keep_lease(lease, call).await? {
            Some(call) => self.make(lease, call).await,
            None => Ok(()),
        }
    }

    /// Sees to it that the lease outlasts the call, and leaves out what another publisher has taken over.
    async fn keep_lease(&self, lease: &Lease, call: Call) -> Result<Option<Call>, StoreError> {
        let duration = self.publisher.settings.lease;
        if lease.taken.elapsed() < duration / RENEW_AFTER {
            return Ok(Some(call));
        }
        let until = self.publisher.clock.now() + duration;
        let mut tx = self.publisher.db.begin().await?;
        let mine = store::publication::renew(&mut tx, lease.id, &call.keys(), until).await?;
        tx.commit().await?;
        let mine: HashSet<KvKey> = mine.into_iter().collect();
        Ok(call.retain(|key| mine.contains(key)))
    }

    async fn release(&self, lease: &Lease, keys: &[KvKey]) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut tx = self.publisher.db.begin().await?;
        store::publication::release(&mut tx, lease.id, keys).await?;
        Ok(tx.commit().await?)
    }

    /// Makes one call, and notes how it went.
    async fn make(&mut self, lease: &Lease, call: Call) -> Result<(), StoreError> {
        let started = Instant::now();
        let (operation, documents) = match &call {
            Call::Put(rendered) => ("put", rendered.len()),
            Call::Delete(rendered) => ("delete", rendered.len()),
        };
        let span = traces::kv_call(operation, documents);
        let (rendered, outcome) = match call {
            Call::Put(mut rendered) => {
                let pairs: Vec<Pair> = rendered.iter_mut().filter_map(pair).collect();
                let outcome = self.publisher.kv.put(&pairs).instrument(span.clone()).await;
                (rendered, outcome)
            }
            Call::Delete(rendered) => {
                let keys: Vec<KvKey> = rendered.iter().map(|one| one.leased.key.clone()).collect();
                (rendered, self.publisher.kv.delete(&keys).instrument(span.clone()).await)
            }
        };
        traces::kv_answered(&span, kind(&outcome));
        self.publisher.metrics.kv_call(operation, kind(&outcome), started.elapsed());
        match outcome {
            Ok(outcome) => {
                self.batch_size = self.batch_size.saturating_mul(2).min(self.publisher.settings.batch_size);
                let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let failed = outcome.unsuccessful.len();
                tracing::debug!(keys = rendered.len(), failed, milliseconds, "published");
                self.note_written(lease, rendered, &outcome).await
            }
            Err(error) => self.note_refused(lease, rendered, error).await,
        }
    }

    async fn note_written(
        &self,
        lease: &Lease,
        rendered: Vec<Rendered>,
        outcome: &Outcome,
    ) -> Result<(), StoreError> {
        let (failed, done): (Vec<Rendered>, Vec<Rendered>) =
            rendered.into_iter().partition(|one| outcome.unsuccessful.contains(&one.leased.key.to_string()));
        let listed = done
            .iter()
            .filter(|one| one.leased.key == KvKey::Trust)
            .find_map(|one| one.document.as_ref())
            .map(|document| document.lists.clone());
        let key_sets: Vec<(KvKey, Vec<Kid>)> = done
            .iter()
            .filter(|one| matches!(one.leased.key, KvKey::Pool(_)))
            .filter_map(|one| Some((one.leased.key.clone(), one.document.as_ref()?.lists.clone())))
            .collect();
        let written: Vec<Written> = done.into_iter().map(written).collect();
        let now = self.publisher.clock.now();
        let mut tx = self.publisher.db.begin().await?;
        // Keys are locked before publications, as by whoever rotates them.
        let kids: Vec<Kid> = key_sets.iter().flat_map(|(_, kids)| kids).cloned().collect();
        let mut unpublished = store::signing_key::lock_unpublished(&mut tx, &kids).await?;
        let mine = store::publication::complete(&mut tx, lease.id, &written, lease.leased_at, now).await?;
        let mine: HashSet<KvKey> = mine.into_iter().collect();
        if !unpublished.is_empty() {
            let lost = key_sets.iter().filter(|(key, _)| !mine.contains(key));
            let lost: HashSet<&Kid> = lost.flat_map(|(_, kids)| kids).collect();
            unpublished.retain(|kid| !lost.contains(kid));
            store::signing_key::set_published(&mut tx, &unpublished, now).await?;
        }
        let trusted = listed.filter(|_| mine.contains(&KvKey::Trust));
        if let Some(kids) = &trusted {
            store::publisher_key::set_listed(&mut tx, kids, now).await?;
        }
        tx.commit().await?;
        self.publisher.metrics.published(written.len());
        let publications = &self.publisher.publications;
        let done = written.into_iter().filter(|one| mine.contains(&one.key));
        publications.note_written(done.map(|one| (one.key, one.generation)));
        if trusted.is_some() || self.priorities.0 == Priority::Resign {
            publications.note_refreshed();
        }
        if !failed.is_empty() {
            tracing::warn!(keys = failed.len(), "KV could not write some keys");
        }
        let failed = failed.iter().map(|one| (&one.leased, "KV could not write this key".to_owned()));
        self.note_failed(lease, failed, None).await
    }

    async fn note_refused(
        &mut self,
        lease: &Lease,
        rendered: Vec<Rendered>,
        error: KvError,
    ) -> Result<(), StoreError> {
        tracing::warn!(keys = rendered.len(), %error, "publishing failed and will be tried again");
        let now = self.publisher.clock.now();
        match &error {
            KvError::RateLimited { retry_after } => {
                let pause = retry_after.unwrap_or(self.publisher.settings.first_backoff);
                self.pace.be_quiet_for(pause).await?;
            }
            KvError::Refused { .. } => self.batch_size = (self.batch_size / 2).max(1),
            KvError::NotSent(_) | KvError::Unknown(_) => {}
        }
        let may_land_until = error.may_land().then(|| now + self.publisher.settings.late_write_window);
        let reason = error.to_string();
        self.note_failed(lease, rendered.iter().map(|one| (&one.leased, reason.clone())), may_land_until)
            .await
    }

    async fn note_failed(
        &self,
        lease: &Lease,
        failed: impl Iterator<Item = (&Leased, String)>,
        may_land_until: Option<OffsetDateTime>,
    ) -> Result<(), StoreError> {
        let settings = &self.publisher.settings;
        let now = self.publisher.clock.now();
        let mut rng = self.publisher.entropy.rng();
        // What may have been written just now must not be written again within KV's second.
        let least = if may_land_until.is_some() { settings.write_interval } else { Duration::ZERO };
        let failed: Vec<Failed> = failed
            .map(|(leased, error)| {
                let pause =
                    backoff(settings.first_backoff, settings.longest_backoff, leased.attempts, &mut rng)
                        .max(least);
                Failed { key: leased.key.clone(), not_before: now + pause, error }
            })
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        self.publisher.metrics.publish_failed(failed.len());
        let mut tx = self.publisher.db.begin().await?;
        store::publication::fail(&mut tx, lease.id, &failed, may_land_until, now).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// How a call ended, as the metrics name it.
fn kind(outcome: &Result<Outcome, KvError>) -> &'static str {
    match outcome {
        Ok(outcome) if outcome.unsuccessful.is_empty() => "ok",
        Ok(_) => "partial",
        Err(KvError::NotSent(_)) => "not_sent",
        Err(KvError::RateLimited { .. }) => "rate_limited",
        Err(KvError::Refused { .. }) => "refused",
        Err(KvError::Unknown(_)) => "unknown",
    }
}

/// The pair to write. The text moves out of the document: it is large, and not needed again.
fn pair(rendered: &mut Rendered) -> Option<Pair> {
    let document = rendered.document.as_mut()?;
    Some(Pair {
        key: rendered.leased.key.clone(),
        value: std::mem::take(&mut document.text),
        metadata: Metadata {
            version: rendered.leased.version,
            digest: Base64UrlUnpadded::encode_string(&document.digest),
        },
    })
}

fn written(rendered: Rendered) -> Written {
    let Rendered { leased: Leased { key, generation, .. }, document } = rendered;
    match document {
        Some(document) => Written {
            key,
            generation,
            digest: Some(document.digest),
            signed_by: document.signed_by,
            resign_at: document.resign_at,
        },
        None => Written { key, generation, digest: None, signed_by: None, resign_at: None },
    }
}
