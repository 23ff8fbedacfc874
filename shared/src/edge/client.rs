//! Clients at the edge: their records, and whether a presented secret is one of theirs.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use super::bounded::Bounded;
use super::held::{KV_CACHE_SECONDS, is_fresh, supersedes};
use super::platform::{LogLevel, Platform};
use super::pool::Loaded;
use super::{Context, Edge};
use crate::document::{ClientDocument, ClientStatus, Verified};
use crate::id::{ClientId, PoolId};
use crate::kv_key::KvKey;
use crate::oauth::{ClientCredentials, OAuthError};
use crate::secret::SecretHash;
use crate::time::UnixTime;

/// The most that the isolate's client records may take, counted as their length in KV.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;

/// A client record as the isolate holds it.
pub(super) struct Client {
    pub(super) id: ClientId,
    record: Verified<ClientDocument>,
    /// Its length in KV, in bytes.
    length: usize,
}

impl Client {
    /// What the record says.
    pub(super) fn document(&self) -> &ClientDocument {
        &self.record.document
    }

    /// Whether the secret of this hash is one that counts now, and the client may have tokens.
    fn accepts(&self, presented: &SecretHash, now: UnixTime) -> bool {
        let secrets = self.document().secrets.iter();
        let live = secrets.filter(|secret| secret.expires_at.is_none_or(|end| now < end));
        // Every secret is compared, found or not.
        let proven = live.fold(false, |proven, secret| secret.sha256.matches(presented) | proven);
        proven && self.document().status == ClientStatus::Enabled
    }
}

struct Held {
    client: Rc<Client>,
    read_at: UnixTime,
}

/// The isolate's client records: the most recently used, in bounded memory.
pub(super) struct ClientStore {
    held: RefCell<Bounded<(PoolId, ClientId), Held>>,
}

impl ClientStore {
    pub(super) fn new() -> Self {
        Self { held: RefCell::new(Bounded::new(NonZeroUsize::MAX, MAX_HELD_BYTES)) }
    }

    fn get(&self, id: &(PoolId, ClientId)) -> Option<(Rc<Client>, UnixTime)> {
        self.held.borrow_mut().get(id).map(|held| (held.client.clone(), held.read_at))
    }

    fn put(&self, id: (PoolId, ClientId), client: Rc<Client>, read_at: UnixTime) {
        let length = client.length;
        self.held.borrow_mut().put(id, Held { client, read_at }, length);
    }

    fn remove(&self, id: &(PoolId, ClientId)) {
        self.held.borrow_mut().remove(id);
    }
}

impl<P: Platform> Edge<P> {
    /// Authenticates a client by its secret.
    ///
    /// A record that the isolate holds is enough to accept. To refuse it is not: a device that has just been activated
    /// again, or enabled, must not wait for this isolate, so the record is read and verified once more. An unknown
    /// client, a wrong secret and a disabled client get the same answer after the same work.
    pub(super) async fn authenticate(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        credentials: &ClientCredentials,
    ) -> Result<Rc<Client>, OAuthError> {
        let presented = credentials.secret.hash();
        let Some(client_id) = credentials.client_id.clone() else {
            context.log(LogLevel::Info, "client_refused", "the client_id is not well-formed");
            return Err(credentials.refusal());
        };
        let id = (loaded.pool.id, client_id);
        if let Some((client, read_at)) = self.clients.get(&id) {
            let fresh = is_fresh(read_at, context.now, loaded.pool.refresh_after());
            let usable = fresh && loaded.trust.lists(&client.record.signed_by);
            if usable && client.accepts(&presented, context.now) {
                return Ok(client);
            }
        }
        let read = match self.read_client(context, loaded, &id).await {
            Ok(read) => read,
            // Not read again, so not younger: the held copy is enough to accept until the pool's own copy must go.
            Err(error) => {
                let held = self.held_client(loaded, &id);
                return held.filter(|client| client.accepts(&presented, context.now)).ok_or(error);
            }
        };
        let Some(client) = read else {
            self.log_refusal(context, &id, "there is no record of it that counts");
            return Err(credentials.refusal());
        };
        if client.accepts(&presented, context.now) {
            Ok(client)
        } else {
            self.log_refusal(context, &id, "the secret is wrong or the client is disabled");
            Err(credentials.refusal())
        }
    }

    fn log_refusal(&self, context: &Context<'_, P>, (pool, client): &(PoolId, ClientId), reason: &str) {
        context.log(LogLevel::Info, "client_refused", &format!("client {client} of pool {pool}: {reason}"));
    }

    /// The held record, unless its signer is no longer trusted.
    fn held_client(&self, loaded: &Loaded<P>, id: &(PoolId, ClientId)) -> Option<Rc<Client>> {
        let (client, _) = self.clients.get(id)?;
        loaded.trust.lists(&client.record.signed_by).then_some(client)
    }

    /// Reads a client's record. A record that does not verify counts as absent, and so does one whose held copy has had
    /// its time: a record carries no `next_update`, so that whoever can spoil it in KV must not keep a copy of it alive.
    async fn read_client(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        id: &(PoolId, ClientId),
    ) -> Result<Option<Rc<Client>>, OAuthError> {
        let key = KvKey::Client(id.0, id.1.clone());
        let text = match context.platform.kv_get(&key.to_string(), KV_CACHE_SECONDS).await {
            Ok(text) => text,
            Err(error) => {
                context.log(LogLevel::Warn, "kv_unreadable", &format!("{key}: {error}"));
                return Err(OAuthError::TemporarilyUnavailable);
            }
        };
        let Some(text) = text else {
            self.clients.remove(id);
            self.spend_a_verification(context, loaded).await;
            return Ok(None);
        };
        let record: Verified<ClientDocument> =
            match self.verify(context, &mut loaded.trust, &key, &text).await {
                Ok(record) => record,
                Err(error) => {
                    context.log(LogLevel::Error, "document_refused", &format!("{key}: {error}"));
                    self.clients.remove(id);
                    return Ok(None);
                }
            };
        let client = match self.held_client(loaded, id) {
            Some(newer) if !supersedes(&record.stamp, Some(&newer.record.stamp)) => {
                context.log(LogLevel::Info, "document_older", &format!("{key} is older than the copy held"));
                newer
            }
            _ => Rc::new(Client { id: id.1.clone(), record, length: text.len() }),
        };
        self.clients.put(id.clone(), client.clone(), context.now);
        Ok(Some(client))
    }

    async fn spend_a_verification(&self, context: &Context<'_, P>, loaded: &Loaded<P>) {
        if let Err(error) = loaded.trust.verify_nothing(context.platform).await {
            context.log(LogLevel::Warn, "crypto_failed", &error.to_string());
        }
    }
}
