//! Records at the edge: the documents of clients and devices, which carry no `next_update`.
//!
//! A record that the isolate holds is enough to accept. To refuse it is not: a device that has just been activated again,
//! or enabled, must not wait for this isolate, so the record is read and verified once more.

use std::cell::RefCell;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::rc::Rc;

use super::apart::apart;
use super::bounded::Bounded;
use super::held::{KV_CACHE_SECONDS, is_fresh, supersedes};
use super::platform::{LogLevel, Platform};
use super::pool::Loaded;
use super::revocation::Latest;
use super::revocation_list::{Standing, is_behind};
use super::{Context, Edge};
use crate::document::{ClientDocument, DeviceDocument, Document, Revoked, Verified};
use crate::id::{ClientId, DeviceId, PoolId};
use crate::kv_key::KvKey;
use crate::oauth::OAuthError;
use crate::time::UnixTime;

/// A family of records.
pub(super) trait Family: Document {
    /// What names one in its pool.
    type Id: Clone + Eq + Hash + AsRef<str>;

    /// Where it stands in KV.
    fn key(pool: PoolId, id: &Self::Id) -> KvKey;
}

impl Family for ClientDocument {
    type Id = ClientId;

    fn key(pool: PoolId, id: &ClientId) -> KvKey {
        KvKey::Client(pool, id.clone())
    }
}

impl Family for DeviceDocument {
    type Id = DeviceId;

    fn key(pool: PoolId, id: &DeviceId) -> KvKey {
        KvKey::Device(pool, id.clone())
    }
}

/// A record as the isolate holds it.
pub(super) struct Record<T: Family> {
    pub(super) id: T::Id,
    verified: Verified<T>,
    /// Its length in KV, in bytes.
    length: usize,
    /// With which the text in KV ends. While it does, there is nothing newer to read.
    signature: Box<str>,
    /// After which revocation here the location was last asked what it knows of the record's owner.
    pub(super) asked_after: RefCell<Latest>,
}

impl<T: Family> Record<T> {
    /// What the record says.
    pub(super) fn document(&self) -> &T {
        &self.verified.document
    }

    fn is_behind(&self, standing: Standing) -> bool {
        is_behind(standing, Some(self.verified.stamp.version))
    }
}

struct Held<T: Family> {
    record: Rc<Record<T>>,
    read_at: UnixTime,
}

/// A record's name in the isolate: its pool and its own id.
type Name<T> = (PoolId, <T as Family>::Id);

/// The isolate's records of a family: the most recently used, in bounded memory.
pub(super) struct RecordStore<T: Family> {
    held: RefCell<Bounded<Name<T>, Held<T>>>,
}

impl<T: Family> RecordStore<T> {
    /// A store that holds at most `max_bytes`, counted as the records' length in KV.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { held: RefCell::new(Bounded::new(NonZeroUsize::MAX, max_bytes)) }
    }

    fn get(&self, id: &Name<T>) -> Option<(Rc<Record<T>>, UnixTime)> {
        self.held.borrow_mut().get(id).map(|held| (held.record.clone(), held.read_at))
    }

    fn put(&self, id: Name<T>, record: Rc<Record<T>>, read_at: UnixTime) {
        let length = record.length;
        self.held.borrow_mut().put(id, Held { record, read_at }, length);
    }

    fn remove(&self, id: &Name<T>) {
        self.held.borrow_mut().remove(id);
    }

    /// The held record, unless its signer is no longer trusted.
    fn trusted<P: Platform>(&self, loaded: &Loaded<P>, id: &Name<T>) -> Option<Rc<Record<T>>> {
        let (record, _) = self.get(id)?;
        loaded.trust.lists(&record.verified.signed_by).then_some(record)
    }
}

/// What was found of a record.
pub(super) enum Found<T: Family> {
    /// It is accepted.
    Accepted(Rc<Record<T>>),
    /// It is there, as KV has it now, and not accepted.
    Refused(Rc<Record<T>>),
    /// There is none that counts.
    Missing,
    /// There is a text in KV that is no such record. The log says why.
    Unverifiable,
    /// The revocation list keeps it out, whatever its record says.
    KeptOut,
}

enum Read<T: Family> {
    Record(Rc<Record<T>>),
    Missing,
    Unverifiable,
}

impl<P: Platform> Edge<P> {
    /// Finds a record that `accepts` says yes to: the held one, or the one in KV. What the revocation list has to say of
    /// it comes before whatever `accepts` says.
    pub(super) async fn find_record<T: Family>(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        store: &RecordStore<T>,
        id: T::Id,
        accepts: impl AsyncFn(&Record<T>) -> Result<bool, OAuthError>,
    ) -> Result<Found<T>, OAuthError> {
        let standing = self.standing::<T>(context, loaded, &id).await?;
        let id = (loaded.pool.id, id);
        if let Some(Revoked::Gone | Revoked::Refused) = standing {
            // For nothing, so that it takes the work of one that is there.
            self.read_record(context, loaded, store, &id, None).await?;
            let kept_out = standing == Some(Revoked::Refused);
            return Ok(if kept_out { Found::KeptOut } else { Found::Missing });
        }
        let mut accepted = None;
        if let Some((record, read_at)) = store.get(&id) {
            let counts = loaded.trust.lists(&record.verified.signed_by) && !record.is_behind(standing);
            if counts && accepts(&record).await? {
                if is_fresh(read_at, context.now, loaded.pool.refresh_after()) {
                    return Ok(Found::Accepted(record));
                }
                accepted = Some(record);
            }
        }
        let has_been_accepted =
            |record| accepted.as_ref().is_some_and(|accepted| Rc::ptr_eq(accepted, record));
        let read = match self.read_record(context, loaded, store, &id, accepted.as_ref()).await {
            Ok(read) => read,
            // Not read again, so not younger: the held copy is enough to accept until the pool's own copy must go.
            Err(error) => {
                return match store.trusted(loaded, &id) {
                    Some(held)
                        if !held.is_behind(standing)
                            && (has_been_accepted(&held) || accepts(&held).await?) =>
                    {
                        Ok(Found::Accepted(held))
                    }
                    _ => Err(error),
                };
            }
        };
        let behind = match &read {
            Read::Record(record) => record.is_behind(standing),
            Read::Missing | Read::Unverifiable => is_behind(standing, None),
        };
        if behind {
            // It is there, and this location has not heard of it yet. Its owner must not be told that it is unknown.
            let detail = format!("{} is older than the revocation list asks for", T::key(id.0, &id.1));
            context.log(LogLevel::Warn, "record_behind", &detail);
            return Err(OAuthError::TemporarilyUnavailable);
        }
        Ok(match read {
            Read::Record(record) if has_been_accepted(&record) || accepts(&record).await? => {
                Found::Accepted(record)
            }
            Read::Record(record) => Found::Refused(record),
            Read::Missing => Found::Missing,
            Read::Unverifiable => Found::Unverifiable,
        })
    }

    /// Reads a record. A held copy that could not be confirmed goes: a record carries no `next_update`, so that whoever
    /// can spoil it in KV must not keep a copy of it alive. What has been `accepted` is not verified again where it has not
    /// changed; what is refused is, so that a wrong secret takes the work of a client that does not exist.
    async fn read_record<T: Family>(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        store: &RecordStore<T>,
        id: &Name<T>,
        accepted: Option<&Rc<Record<T>>>,
    ) -> Result<Read<T>, OAuthError> {
        let key = T::key(id.0, &id.1);
        let text = match context.platform.kv_get(&key.to_string(), KV_CACHE_SECONDS).await {
            Ok(text) => text,
            Err(error) => {
                context.log(LogLevel::Warn, "kv_unreadable", &format!("{key}: {error}"));
                return Err(OAuthError::TemporarilyUnavailable);
            }
        };
        let Some(text) = text else {
            store.remove(id);
            return Ok(Read::Missing);
        };
        let signature = text.rsplit('.').next().unwrap_or_default();
        if let (Some(held), Some(accepted)) = (store.trusted(loaded, id), accepted)
            && Rc::ptr_eq(&held, accepted)
            && *held.signature == *signature
        {
            // Nothing of the text is believed but that it has not changed.
            held.asked_after.take();
            store.put(id.clone(), held.clone(), context.now);
            return Ok(Read::Record(held));
        }
        let signed = apart(self.verify(context, &mut loaded.trust, &text)).await;
        let verified: Verified<T> = match signed.and_then(|signed| signed.read(&key)) {
            Ok(verified) => verified,
            Err(error) => {
                context.log(LogLevel::Error, "document_refused", &format!("{key}: {error}"));
                store.remove(id);
                return Ok(Read::Unverifiable);
            }
        };
        let record = match store.trusted(loaded, id) {
            Some(newer) if !supersedes(&verified.stamp, Some(&newer.verified.stamp)) => {
                context.log(LogLevel::Info, "document_older", &format!("{key} is older than the copy held"));
                newer
            }
            _ => Rc::new(Record {
                id: id.1.clone(),
                verified,
                length: text.len(),
                signature: signature.into(),
                asked_after: RefCell::default(),
            }),
        };
        store.put(id.clone(), record.clone(), context.now);
        Ok(Read::Record(record))
    }
}
