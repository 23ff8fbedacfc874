//! From leased keys to the calls that write them.

use std::collections::HashMap;
use std::sync::Arc;

use keypost_shared::document::content_digest;
use keypost_shared::id::{ClientId, DeviceId, PoolId};
use keypost_shared::kv_key::KvKey;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::Publisher;
use super::render::{self, Keys, RenderError, SignedDocument};
use crate::crypto_at_rest::{KeyPurpose, OpenError};
use crate::envelope::{Opened, SealedKey};
use crate::store::publication::Leased;
use crate::store::publisher_key::Signer;
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
        read(&mut connection, leased, now).await?
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
        let rows = read(&mut connection, &leased, publisher.clock.now()).await?;
        (rows, store::publication::digests(&mut connection, written).await?)
    };
    let opened = publisher.envelopes.open(rows.envelopes()).await;
    let (publisher, written) = (publisher.clone(), written.to_vec());
    tokio::task::spawn_blocking(move || {
        let (mut rows, mut opened) = (rows, opened);
        let keys = Keys {
            publisher: None,
            master_key: &publisher.master_key,
            sealing_key: &publisher.sealing_key,
            edge_url: &publisher.edge_url,
        };
        let mut outdated = Vec::new();
        for ((key, at), leased) in written.into_iter().zip(leased) {
            let digest = match key {
                KvKey::Trust => rows
                    .trust
                    .take()
                    .map(|rows| content_digest(&render::trust_document(rows)).map_err(RenderError::from)),
                _ => document(&leased, &mut rows, &mut opened, &keys, at).map(|made| made.map(|document| document.digest)),
            };
            // What cannot be made is marked too: the publisher says why.
            let same = matches!((digest, expected.get(&key)), (Some(Ok(digest)), Some(expected)) if digest == *expected);
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
    Asked { trust, opened }
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

/// Reads at one instant, and after the lease: so the changes that the leased generations stand for are seen.
async fn read(
    connection: &mut PgConnection,
    leased: &[Leased],
    now: OffsetDateTime,
) -> Result<Rows, StoreError> {
    let mut pools = Vec::new();
    let mut clients = Vec::new();
    let mut devices = Vec::new();
    let mut wants_trust = false;
    for row in leased {
        match &row.key {
            KvKey::Trust => wants_trust = true,
            KvKey::Pool(pool) => pools.push(*pool),
            KvKey::Client(pool, client) => clients.push((*pool, client.clone())),
            KvKey::Device(pool, device) => devices.push((*pool, device.clone())),
            KvKey::Revoked(..) | KvKey::Status(..) => {}
        }
    }
    let mut tx = connection.begin().await?;
    snapshot::freeze(&mut tx).await?;
    let signer = store::publisher_key::signer(&mut tx).await?;
    let trust = if wants_trust { Some(snapshot::trust(&mut tx).await?) } else { None };
    let pools = if pools.is_empty() { Vec::new() } else { snapshot::pools(&mut tx, &pools).await? };
    let clients = if clients.is_empty() { Vec::new() } else { snapshot::clients(&mut tx, &clients).await? };
    let devices =
        if devices.is_empty() { Vec::new() } else { snapshot::devices(&mut tx, &devices, now).await? };
    tx.commit().await?;
    Ok(Rows {
        signer,
        trust,
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
    });
    let mut batch = RenderedBatch::default();
    for leased in leased {
        let document = match (&leased.key, &keys) {
            (KvKey::Trust, _) => asked.trust.take(),
            (_, Some(keys)) => document(&leased, &mut rows, &mut asked.opened, keys, now),
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

/// A document of a publisher; none where its rows are gone.
fn document(
    leased: &Leased,
    rows: &mut Rows,
    opened: &mut Opened,
    keys: &Keys<'_>,
    now: OffsetDateTime,
) -> Option<Result<SignedDocument, RenderError>> {
    match &leased.key {
        // The root signs it.
        KvKey::Trust => None,
        KvKey::Pool(id) => rows.pools.remove(id).map(|rows| render::pool(leased, rows, opened, keys, now)),
        KvKey::Client(pool, client) => {
            let rows = rows.clients.remove(&(*pool, client.clone()));
            rows.map(|rows| render::client(leased, rows, keys, now))
        }
        KvKey::Device(pool, device) => {
            let state = rows.devices.remove(&(*pool, device.clone()));
            state.map(|state| render::device(leased, state, keys, now))
        }
        KvKey::Revoked(..) | KvKey::Status(..) => None,
    }
}
