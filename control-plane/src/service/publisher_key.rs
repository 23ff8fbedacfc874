//! The keys that sign what stands in KV, and removing one before its time, because it may have been stolen.

use keypost_shared::id::Kid;
use keypost_shared::kv_key::KvKey;
use serde_json::json;

use super::Context;
use super::access::GlobalScope;
use super::audit::{Event, Target};
use super::change::Change;
use crate::store::publication::Priority;
use crate::store::publisher_key::StoredPublisherKey;
use crate::store::{self, AdvisoryLock, StoreError};

/// The keys, and the `v1/trust` that lists them.
pub struct PublisherKeys {
    /// Those that may sign, that wait, or whose documents are still there.
    pub keys: Vec<StoredPublisherKey>,
    /// The version of `v1/trust` as it was written last; none before the first.
    pub trust_version: Option<u64>,
}

/// What has become of a removal.
pub struct Removed {
    /// Whether a `v1/trust` without the key has been written.
    pub published: bool,
    /// Every `v1/trust` of this version or a higher one is without the key, and none of a lower one.
    pub min_trust_version: u64,
}

/// All keys.
pub async fn list(context: &Context, _: &GlobalScope) -> Result<PublisherKeys, StoreError> {
    let mut connection = context.connection().await?;
    Ok(PublisherKeys {
        keys: store::publisher_key::stored(&mut connection).await?,
        trust_version: store::publication::published_version(&mut connection, &KvKey::Trust).await?,
    })
}

/// Takes a key out of `v1/trust`, and its private half out of the database. Whatever it has signed counts no more once the
/// edge has read that, and is signed anew: pools at once, all else in the background. None where there is no such key.
///
/// Waits a little for the `v1/trust` without it.
pub async fn remove(
    context: &Context,
    scope: &GlobalScope,
    kid: &Kid,
) -> Result<Option<Removed>, StoreError> {
    let mut change = Change::begin(context, scope.actor()).await?;
    // Nobody takes a step of the keys' schedule meanwhile.
    store::lock(change.tx(), AdvisoryLock::PublisherKeys).await?;
    let now = change.now();
    if !store::publisher_key::remove(change.tx(), kid, now).await? {
        return Ok(None);
    }
    for key in store::publication::pools_signed_by(change.tx(), kid).await? {
        change.mark(key, Priority::Revocation);
    }
    change.mark(KvKey::Trust, Priority::Revocation);
    let target = Target { org: None, env: None, kind: "publisher_key", id: kid.to_string() };
    change.record(Event::new(target, "remove", json!({})));
    let marks = change.commit().await?;
    let trust: Vec<_> = marks.into_iter().filter(|mark| mark.key == KvKey::Trust).collect();
    // Versions are given out under the lock of the row that the mark has taken.
    let last_with_it = trust.iter().map(|mark| mark.version.unsigned_abs()).max().unwrap_or_default();
    let published = context.publications.published(&trust).await;
    Ok(Some(Removed { published, min_trust_version: last_with_it + 1 }))
}
