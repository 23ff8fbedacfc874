//! The pool's revocation list at the edge (design §4): which records of clients and devices no longer count, however
//! rightly they are signed.
//!
//! A shard is kept by the same rules as a pool's document, and is asked at each use of a record, a held one too.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::apart::apart;
use super::bounded::Bounded;
use super::held::{KV_CACHE_SECONDS, is_current, is_fresh, refresh_after, supersedes};
use super::platform::{LogLevel, Platform};
use super::pool::{Freshness, Loaded};
use super::record::Family;
use super::{Context, Edge};
use crate::document::{
    ClientDocument, ClientSubject, DeviceDocument, Revoked, RevokedDocument, Stamp, Verified,
};
use crate::id::{Kid, PoolId};
use crate::kv_key::KvKey;
use crate::oauth::OAuthError;
use crate::time::UnixTime;

/// The most that an isolate's shards may take: those of a million entries.
const MAX_HELD_BYTES: usize = 32 * 1024 * 1024;
/// What a shard takes beside its entries, about.
const OVERHEAD: usize = 512;

/// A shard as the isolate holds it.
struct Shard {
    entries: Entries,
    stamp: Stamp,
    signed_by: Kid,
    /// Its signature as it stands in KV.
    signature: String,
}

/// A shard's entries, in the order of their names: a third of what the ids themselves would take.
struct Entries(Box<[(Name, Revoked)]>);

/// 128 bits of the hash of a family and an id in it.
type Name = [u8; 16];

fn name_of<T: Family>(id: &T::Id) -> Name {
    let digest = Sha256::new_with_prefix(T::TYP).chain_update(b"\0").chain_update(id.as_ref()).finalize();
    let mut name = Name::default();
    name.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    name
}

impl Entries {
    fn of(document: RevokedDocument) -> Self {
        let RevokedDocument { clients, devices } = document;
        let clients = clients.into_iter().map(|(id, revoked)| (name_of::<ClientDocument>(&id), revoked));
        let devices = devices.into_iter().map(|(id, revoked)| (name_of::<DeviceDocument>(&id), revoked));
        let mut entries: Box<[_]> = clients.chain(devices).collect();
        entries.sort_unstable_by_key(|(name, _)| *name);
        Self(entries)
    }

    fn standing<T: Family>(&self, id: &T::Id) -> Standing {
        let at = self.0.binary_search_by_key(&name_of::<T>(id), |(name, _)| *name).ok()?;
        self.0.get(at).map(|(_, revoked)| *revoked)
    }

    fn length(&self) -> usize {
        OVERHEAD + size_of_val(&*self.0)
    }
}

struct Held {
    shard: Rc<Shard>,
    read_at: UnixTime,
}

/// The isolate's shards, by pool and number.
pub(super) struct ShardStore {
    held: RefCell<Bounded<(PoolId, u32), Held>>,
}

/// What the list says of a client or a device. None where it says nothing: every record of it counts.
pub(super) type Standing = Option<Revoked>;

/// Whether a record of this version, or no record at all, is older than what the list asks for: then it is KV that is
/// behind.
pub(super) fn is_behind(standing: Standing, version: Option<u64>) -> bool {
    match standing {
        Some(Revoked::Least(least)) => version.is_none_or(|own| own < least),
        _ => false,
    }
}

impl ShardStore {
    pub(super) fn new() -> Self {
        Self { held: RefCell::new(Bounded::new(NonZeroUsize::MAX, MAX_HELD_BYTES)) }
    }

    /// The held shard, unless its signer is no longer trusted.
    fn trusted<P: Platform>(&self, loaded: &Loaded<P>, number: u32) -> Option<(Rc<Shard>, UnixTime)> {
        let mut held = self.held.borrow_mut();
        let held = held.get(&(loaded.pool.id, number))?;
        loaded.trust.lists(&held.shard.signed_by).then(|| (held.shard.clone(), held.read_at))
    }

    /// Another isolate's, which holds none.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        *self.held.borrow_mut() = Bounded::new(NonZeroUsize::MAX, MAX_HELD_BYTES);
    }

    /// When the isolate's shards of a pool were signed, the oldest first: for `/healthz`.
    pub(super) fn oldest(&self, pool: PoolId, shards: u32) -> Option<UnixTime> {
        let held = self.held.borrow();
        let all = (0..shards.min(MAX_LISTED)).filter_map(|number| held.peek(&(pool, number)));
        all.map(|held| held.shard.stamp.iat).min()
    }
}

/// The most shards that `/healthz` looks at.
const MAX_LISTED: u32 = 1_024;

impl<P: Platform> Edge<P> {
    /// What the list says of a client or a device.
    ///
    /// Without a list that counts there is no answer: [`OAuthError::TemporarilyUnavailable`], but for revoking, which
    /// goes on by the records alone.
    pub(super) async fn standing<T: Family>(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        id: &T::Id,
    ) -> Result<Standing, OAuthError> {
        let shards = loaded.pool.document.revocation_shards;
        let Some(number) = RevokedDocument::shard_of(id.as_ref(), shards) else { return Ok(None) };
        match self.load_shard(context, loaded, number).await {
            Ok(shard) => Ok(shard.entries.standing::<T>(id)),
            Err(_) if loaded.freshness == Freshness::Verifiable => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the list lets the device be that a client is an app of.
    pub(super) async fn its_device_counts(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        subject: &ClientSubject,
    ) -> Result<bool, OAuthError> {
        let ClientSubject::Device(device) = subject else { return Ok(true) };
        let standing = self.standing::<DeviceDocument>(context, loaded, &device.device_id).await?;
        Ok(!matches!(standing, Some(Revoked::Gone | Revoked::Refused)))
    }

    async fn load_shard(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        number: u32,
    ) -> Result<Rc<Shard>, OAuthError> {
        let held = self.shards.trusted(loaded, number);
        if let Some((shard, read_at)) = &held
            && is_fresh(*read_at, context.now, refresh_after(&shard.stamp))
            && is_current(&shard.stamp, context.now, 0)
        {
            return Ok(shard.clone());
        }
        let read = self.read_shard(context, loaded, number, held.map(|(shard, _)| shard)).await;
        // What counts is what the isolate knows by now, not what it knew when this request began to read.
        let held = self.shards.trusted(loaded, number).map(|(shard, _)| shard);
        let shard = match (read, held) {
            (Some(read), held)
                if loaded.trust.lists(&read.signed_by)
                    && supersedes(&read.stamp, held.as_ref().map(|held| &held.stamp)) =>
            {
                read
            }
            (_, Some(held)) => held,
            _ => return Err(OAuthError::TemporarilyUnavailable),
        };
        let held = Held { shard: shard.clone(), read_at: context.now };
        self.shards.held.borrow_mut().put((loaded.pool.id, number), held, shard.entries.length());
        if !is_current(&shard.stamp, context.now, 0) {
            let detail = format!("{} is past its next_update", KvKey::Revoked(loaded.pool.id, number));
            context.log(LogLevel::Error, "document_expired", &detail);
            return Err(OAuthError::TemporarilyUnavailable);
        }
        Ok(shard)
    }

    /// Reads a shard. None where nothing came that may take the place of `held`; the log says why.
    async fn read_shard(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        number: u32,
        held: Option<Rc<Shard>>,
    ) -> Option<Rc<Shard>> {
        let key = KvKey::Revoked(loaded.pool.id, number);
        let text = match context.platform.kv_get(&key.to_string(), KV_CACHE_SECONDS).await {
            Ok(Some(text)) => text,
            Ok(None) => {
                context.log(LogLevel::Error, "document_missing", &format!("{key} is not in KV"));
                return None;
            }
            Err(error) => {
                context.log(LogLevel::Warn, "kv_unreadable", &format!("{key}: {error}"));
                return None;
            }
        };
        let signature = text.rsplit('.').next().unwrap_or_default();
        // The one that is held: nothing of the text is believed but that it has not changed.
        if held.as_ref().is_some_and(|held| held.signature == signature) {
            return held;
        }
        let signed = apart(self.verify(context, &mut loaded.trust, &text)).await;
        let verified: Verified<RevokedDocument> = match signed.and_then(|signed| signed.read(&key)) {
            Ok(verified) => verified,
            Err(error) => {
                context.log(LogLevel::Error, "document_refused", &format!("{key}: {error}"));
                return None;
            }
        };
        let Verified { stamp, signed_by, document } = verified;
        if !supersedes(&stamp, held.map(|held| held.stamp).as_ref()) {
            context.log(LogLevel::Info, "document_older", &format!("{key} is older than the copy held"));
            return None;
        }
        let signature = signature.to_owned();
        Some(Rc::new(Shard { entries: Entries::of(document), stamp, signed_by, signature }))
    }
}
