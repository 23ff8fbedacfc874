//! From leased keys to the calls that write them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use keypost_shared::document::content_digest;
use keypost_shared::id::{ClientId, DeviceId, PoolId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::status_list::StatusBits;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::Publisher;
use super::render::{self, Keys, RenderError, SignedDocument, StatusList};
use crate::crypto_at_rest::{KeyPurpose, OpenError};
use crate::envelope::{EnvelopeError, Opened, SealedKey};
use crate::key_maker::StoredPrivate;
use crate::store::deleted_pool::{DeletedPool, DeletedStatus};
use crate::store::publication::{Leased, Priority};
use crate::store::publisher_key::Signer;
use crate::store::revoked_record::ShardRows;
use crate::store::snapshot::{ClientRows, DeviceState, PoolRows, TrustRows};
use crate::store::{self, StoreError, snapshot};

/// How many documents are made at a time: some may have a hundred kilobytes, and all are in memory.
pub(super) const SLICE: usize = 1000;
/// The most bytes of values in one call. KV takes 100 MB, but a call must also be over within its timeout.
const MAX_CALL_BYTES: usize = 24 << 20;

/// A key's next value.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) leased: Leased,
    /// None: its rows are gone, so it is to be deleted.
    pub(super) document: Option<SignedDocument>,
}

/// What has become of the leased keys.
#[derive(Default)]
pub(super) struct RenderedBatch {
    pub(super) ready: Vec<Rendered>,
    /// Those whose documents cannot be made.
    pub(super) broken: Vec<(Leased, RenderError)>,
    /// Those that must wait until there is a key to sign them.
    pub(super) unsigned: Vec<Leased>,
}

/// What goes into one call.
pub(super) enum Call {
    Put(Vec<Rendered>),
    Delete(Vec<Rendered>),
}

/// Why a batch could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the publisher key does not open: {0}")]
    PublisherKey(#[from] OpenError),
    #[error("rendering was cut off")]
    CutOff,
}

impl From<sqlx::Error> for BatchError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What the documents of a batch are made from.
struct Rows {
    signer: Option<Signer>,
    trust: Option<TrustRows>,
    pools: HashMap<PoolId, PoolRows>,
    clients: HashMap<(PoolId, ClientId), ClientRows>,
    devices: HashMap<(PoolId, DeviceId), DeviceState>,
    shards: BTreeMap<(PoolId, u32), ShardRows>,
    status: BTreeMap<(PoolId, u32), StatusBits>,
    deleted: BTreeMap<PoolId, DeletedPool>,
    deleted_status: BTreeMap<(PoolId, u32), DeletedStatus>,
}

impl Rows {
    /// The keys that only KMS opens.
    fn envelopes(&self) -> Vec<SealedKey> {
        self.pools.values().flat_map(PoolRows::envelopes).collect()
    }
}

/// Makes the documents of leased keys, from the rows as they are now.
pub(super) async fn prepare(
    publisher: &Arc<Publisher>,
    leased: &[Leased],
    now: OffsetDateTime,
) -> Result<RenderedBatch, BatchError> {
    let mut rows = {
        let mut connection = publisher.db.acquire().await?;
        give_blocks(&mut connection, leased, now).await?;
        read(&mut connection, leased.iter().map(|leased| (&leased.key, now))).await?
    };
    let asked = ask(publisher, leased, &mut rows, now).await;
    // A thousand signatures take some tenths of a second of CPU.
    let (publisher, leased) = (publisher.clone(), leased.to_vec());
    tokio::task::spawn_blocking(move || render_all(&publisher, leased, rows, asked, now))
        .await
        .map_err(|_| BatchError::CutOff)?
}

/// What a look at documents that agree with what was written last has shown.
pub(super) struct Current {
    /// Those whose rows say something else by now, or are gone.
    pub(super) outdated: Vec<KvKey>,
}

/// Whether the documents of these keys still say what their rows say. Each comes with the time at which it was written,
/// because what a document says may depend on that.
pub(super) async fn digests(
    publisher: &Arc<Publisher>,
    written: &[(KvKey, OffsetDateTime)],
) -> Result<Current, BatchError> {
    if written.is_empty() {
        return Ok(Current { outdated: Vec::new() });
    }
    let leased: Vec<Leased> = written
        .iter()
        .map(|(key, _)| Leased { key: key.clone(), generation: 0, version: 0, attempts: 0 })
        .collect();
    let (rows, expected) = {
        let mut connection = publisher.db.acquire().await?;
        let rows = read(&mut connection, written.iter().map(|(key, at)| (key, *at))).await?;
        (rows, store::publication::digests(&mut connection, written).await?)
    };
    let opened = publisher.envelopes.open(rows.envelopes()).await;
    let (publisher, written) = (publisher.clone(), written.to_vec());
    tokio::task::spawn_blocking(move || {
        let mut rows = rows;
        let mut asked = Asked { trust: None, opened, status: HashMap::new() };
        let keys = Keys {
            publisher: None,
            master_key: &publisher.master_key,
            sealing_key: &publisher.sealing_key,
            edge_url: &publisher.edge_url,
            public_url: &publisher.public_url,
        };
        let mut outdated = Vec::new();
        for ((key, at), leased) in written.into_iter().zip(leased) {
            let digest = match key {
                KvKey::Trust => rows
                    .trust
                    .take()
                    .map(|rows| content_digest(&render::trust_document(rows)).map_err(RenderError::from)),
                _ => document(&leased, &mut rows, &mut asked, &keys, at)
                    .map(|made| made.map(|document| document.digest)),
            };
            // What cannot be made is marked too: the publisher says why.
            let same = matches!(
                (digest, expected.get(&key)),
                (Some(Ok(digest)), Some(expected)) if digest == *expected
            );
            // Written anew since it was looked at.
            if !same && expected.contains_key(&key) {
                outdated.push(key);
            }
        }
        Current { outdated }
    })
    .await
    .map_err(|_| BatchError::CutOff)
}

/// What had to be asked for, perhaps over the network.
struct Asked {
    /// The root's signature.
    trust: Option<Result<SignedDocument, RenderError>>,
    /// Signing keys whose data keys KMS opens.
    opened: Opened,
    /// Status lists that KMS signs.
    status: HashMap<(PoolId, u32), Result<String, RenderError>>,
}

/// Asks for what only AWS KMS can do, where something of it is there.
async fn ask(publisher: &Publisher, leased: &[Leased], rows: &mut Rows, now: OffsetDateTime) -> Asked {
    let sealed = rows.envelopes();
    let trust = async {
        let trust_rows = rows.trust.take()?;
        let leased = leased.iter().find(|leased| leased.key == KvKey::Trust)?;
        Some(render::trust(leased, trust_rows, &publisher.root, now).await)
    };
    let (trust, opened) = tokio::join!(trust, publisher.envelopes.open(sealed));
    let mut status = HashMap::new();
    for ((pool, list), bits) in &rows.status {
        let Some(rows) = rows.pools.get(pool) else { continue };
        match sign_by_kms(publisher, *list, bits, rows, now).await {
            Ok(None) => {}
            Ok(Some(signed)) => drop(status.insert((*pool, *list), Ok(signed))),
            Err(error) => drop(status.insert((*pool, *list), Err(error))),
        }
    }
    Asked { trust, opened, status }
}

/// A status list of a pool whose key never leaves KMS. None where it is another pool's.
async fn sign_by_kms(
    publisher: &Publisher,
    list: u32,
    bits: &StatusBits,
    pool: &PoolRows,
    now: OffsetDateTime,
) -> Result<Option<String>, RenderError> {
    // Asked first: a list takes a while to be deflated.
    let private = pool.signer(now).map(|(_, signs)| &signs.private);
    let Some(StoredPrivate::KmsSign { kms_key_id }) = private else { return Ok(None) };
    let Some(list) = StatusList::of(list, bits, pool, &publisher.edge_url, now)? else { return Ok(None) };
    let key = (&list.key.kid, &list.key.public);
    Ok(Some(publisher.envelopes.kms().sign_status_list(kms_key_id, key, &list.claims).await?))
}

/// Collects what is ready into calls: as few as there can be, none of them too large.
#[derive(Default)]
pub(super) struct Calls {
    puts: Vec<Rendered>,
    bytes: usize,
    deletes: Vec<Rendered>,
}

impl Calls {
    /// Adds a key. Answers with a call when that is full.
    pub(super) fn add(&mut self, one: Rendered) -> Option<Call> {
        let Some(document) = &one.document else {
            self.deletes.push(one);
            return None;
        };
        let length = document.text.len();
        let full = self.bytes + length > MAX_CALL_BYTES && !self.puts.is_empty();
        let call = full.then(|| Call::Put(std::mem::take(&mut self.puts)));
        self.bytes = if full { length } else { self.bytes + length };
        self.puts.push(one);
        call
    }

    /// What is left.
    pub(super) fn finish(self) -> impl Iterator<Item = Call> {
        let puts = (!self.puts.is_empty()).then_some(Call::Put(self.puts));
        let deletes = (!self.deletes.is_empty()).then_some(Call::Delete(self.deletes));
        puts.into_iter().chain(deletes)
    }
}

impl Call {
    /// The keys that the call is about.
    pub(super) fn keys(&self) -> Vec<KvKey> {
        let (Call::Put(rendered) | Call::Delete(rendered)) = self;
        rendered.iter().map(|one| one.leased.key.clone()).collect()
    }

    /// The call without the keys that `keep` refuses; none where nothing is left.
    pub(super) fn retain(self, keep: impl Fn(&KvKey) -> bool) -> Option<Call> {
        let filter = |rendered: Vec<Rendered>| -> Vec<Rendered> {
            rendered.into_iter().filter(|one| keep(&one.leased.key)).collect()
        };
        let call = match self {
            Call::Put(rendered) => Call::Put(filter(rendered)),
            Call::Delete(rendered) => Call::Delete(filter(rendered)),
        };
        let (Call::Put(left) | Call::Delete(left)) = &call;
        (!left.is_empty()).then_some(call)
    }
}

/// Gives the clients that are about to be published their places in the status lists, if they have none.
async fn give_blocks(
    connection: &mut PgConnection,
    leased: &[Leased],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut clients: BTreeMap<PoolId, Vec<ClientId>> = BTreeMap::new();
    for row in leased {
        if let KvKey::Client(pool, client) = &row.key {
            clients.entry(*pool).or_default().push(client.clone());
        }
    }
    for (pool, clients) in clients {
        // One pool at a time: each is locked.
        let mut tx = connection.begin().await?;
        let stale = store::status_block::allocate(&mut tx, pool, &clients, now).await?;
        if !stale.is_empty() {
            store::publication::mark(&mut tx, &stale, Priority::Change, now).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Reads at one instant, and after the lease: so the changes that the leased generations stand for are seen. Each key comes
/// with the time that its document is to be made for, on which it may depend which rows count.
async fn read<'a>(
    connection: &mut PgConnection,
    wanted: impl Iterator<Item = (&'a KvKey, OffsetDateTime)>,
) -> Result<Rows, StoreError> {
    let mut pools = Vec::new();
    let mut maybe_deleted = Vec::new();
    let mut clients = Vec::new();
    let mut devices = Vec::new();
    let mut shards = Vec::new();
    let mut lists = Vec::new();
    let mut wants_trust = false;
    for (key, at) in wanted {
        match key {
            KvKey::Trust => wants_trust = true,
            KvKey::Pool(pool) => {
                pools.push(*pool);
                maybe_deleted.push((*pool, at));
            }
            KvKey::Client(pool, client) => clients.push((*pool, client.clone())),
            KvKey::Device(pool, device) => devices.push((*pool, device.clone(), at)),
            KvKey::Revoked(pool, shard) => shards.push((*pool, *shard, at)),
            KvKey::Status(pool, list) => {
                // Its pool's key signs it.
                pools.push(*pool);
                lists.push((*pool, *list, at));
            }
        }
    }
    let mut tx = connection.begin().await?;
    snapshot::freeze(&mut tx).await?;
    let signer = store::publisher_key::signer(&mut tx).await?;
    let trust = if wants_trust { Some(snapshot::trust(&mut tx).await?) } else { None };
    let deleted = if maybe_deleted.is_empty() {
        BTreeMap::new()
    } else {
        store::deleted_pool::pools(&mut tx, &maybe_deleted).await?
    };
    let pools = if pools.is_empty() { Vec::new() } else { snapshot::pools(&mut tx, &pools).await? };
    let clients = if clients.is_empty() { Vec::new() } else { snapshot::clients(&mut tx, &clients).await? };
    let devices = if devices.is_empty() { Vec::new() } else { snapshot::devices(&mut tx, &devices).await? };
    let shards = if shards.is_empty() {
        BTreeMap::new()
    } else {
        store::revoked_record::shards(&mut tx, &shards).await?
    };
    let numbers: Vec<(PoolId, u32)> = lists.iter().map(|(pool, list, _)| (*pool, *list)).collect();
    let status = store::status_block::bits_of(&mut tx, &numbers).await?;
    let deleted_status = if lists.is_empty() {
        BTreeMap::new()
    } else {
        store::deleted_pool::status_lists(&mut tx, &lists).await?
    };
    tx.commit().await?;
    Ok(Rows {
        signer,
        trust,
        shards,
        status,
        deleted,
        deleted_status,
        pools: pools.into_iter().map(|row| (row.id, row)).collect(),
        clients: clients.into_iter().map(|row| ((row.pool_id, row.client_id.clone()), row)).collect(),
        devices: devices.into_iter().map(|row| ((row.pool_id, row.device_id), row.state)).collect(),
    })
}

fn render_all(
    publisher: &Publisher,
    leased: Vec<Leased>,
    mut rows: Rows,
    mut asked: Asked,
    now: OffsetDateTime,
) -> Result<RenderedBatch, BatchError> {
    let master_key = &publisher.master_key;
    let signer = match &rows.signer {
        Some(Signer { kid, private_sealed }) => {
            Some(master_key.open(KeyPurpose::Publisher, kid, private_sealed)?)
        }
        None => None,
    };
    let keys = signer.as_ref().map(|signer| Keys {
        publisher: Some(signer),
        master_key,
        sealing_key: &publisher.sealing_key,
        edge_url: &publisher.edge_url,
        public_url: &publisher.public_url,
    });
    let mut batch = RenderedBatch::default();
    for leased in leased {
        let document = match (&leased.key, &keys) {
            (KvKey::Trust, _) => asked.trust.take(),
            (_, Some(keys)) => document(&leased, &mut rows, &mut asked, keys, now),
            (_, None) => {
                batch.unsigned.push(leased);
                continue;
            }
        };
        match document.transpose() {
            Ok(document) => batch.ready.push(Rendered { leased, document }),
            Err(error) => batch.broken.push((leased, error)),
        }
    }
    Ok(batch)
}

/// A Token Status List; none where the pool has no key that signs. Where it is made to be compared, it is not signed.
fn status_list(
    number: u32,
    bits: &StatusBits,
    pool: &PoolRows,
    asked: &mut Asked,
    keys: &Keys<'_>,
    now: OffsetDateTime,
) -> Result<Option<SignedDocument>, RenderError> {
    let Some(list) = StatusList::of(number, bits, pool, keys.edge_url, now)? else { return Ok(None) };
    let kid = &list.key.kid;
    let text = match list.private {
        _ if keys.publisher.is_none() => String::new(),
        StoredPrivate::Local { sealed } => {
            let key = keys.master_key.open(KeyPurpose::Pool(pool.id), kid, sealed)?;
            key.sign_status_list(&list.claims)?
        }
        StoredPrivate::Envelope { .. } => {
            render::opened_key(&asked.opened, kid)?.sign_status_list(&list.claims)?
        }
        StoredPrivate::KmsSign { .. } => asked
            .status
            .remove(&(pool.id, number))
            .unwrap_or_else(|| Err(Arc::new(EnvelopeError::NoTime).into()))?,
    };
    Ok(Some(list.signed(text)))
}

/// A document of a publisher; none where its rows are gone.
fn document(
    leased: &Leased,
    rows: &mut Rows,
    asked: &mut Asked,
    keys: &Keys<'_>,
    now: OffsetDateTime,
) -> Option<Result<SignedDocument, RenderError>> {
    match &leased.key {
        // The root signs it.
        KvKey::Trust => None,
        KvKey::Pool(id) => match (rows.pools.get(id), rows.deleted.get(id)) {
            (Some(rows), _) => Some(render::pool(leased, rows.clone(), &asked.opened, keys, now)),
            (None, Some(rows)) => Some(render::deleted_pool(leased, rows, keys, now)),
            (None, None) => None,
        },
        KvKey::Client(pool, client) => {
            let rows = rows.clients.remove(&(*pool, client.clone()));
            rows.map(|rows| render::client(leased, rows, keys, now))
        }
        KvKey::Device(pool, device) => {
            let state = rows.devices.remove(&(*pool, device.clone()));
            state.map(|state| render::device(leased, state, keys, now))
        }
        KvKey::Revoked(pool, shard) => {
            let rows = rows.shards.remove(&(*pool, *shard));
            rows.map(|rows| render::revoked(leased, rows, keys, now))
        }
        KvKey::Status(pool, list) => {
            let bits = rows.status.remove(&(*pool, *list));
            let known = rows.pools.get(pool).filter(|pool| *list < pool.status_lists).zip(bits);
            match known {
                Some((pool, bits)) => status_list(*list, &bits, pool, asked, keys, now).transpose(),
                None => {
                    let kept = rows.deleted_status.remove(&(*pool, *list));
                    kept.map(|list| Ok(render::deleted_status(list)))
                }
            }
        }
    }
}
