//! What is left of a client pool that is deleted (design §9): its key set, its metadata and its status lists, with every bit
//! set, stay served until its last token has expired.

use keypost_shared::document::PoolDocument;
use keypost_shared::host::PrivateKey;
use keypost_shared::id::PoolId;
use keypost_shared::jwk::{Jwk, JwkSet};
use keypost_shared::kv_key::KvKey;
use keypost_shared::status_list::{STATUS_LIST_TTL, StatusBits, StatusListClaims, list_url};
use time::{Duration, OffsetDateTime};

use super::ChangeError;
use super::change::Change;
use super::pool_urls::PoolUrls;
use crate::clock::unix;
use crate::crypto_at_rest::KeyPurpose;
use crate::key_maker::StoredPrivate;
use crate::store::deleted_pool::{self, DeletedPool};
use crate::store::publication::Priority;
use crate::store::snapshot::{self, PoolRows};
use crate::store::{self, StoreError};

/// So much may clocks differ, and so long may an edge go on by the pool's earlier document.
const SKEW: Duration = Duration::minutes(10);

/// Keeps what verifiers need of a pool whose rows are about to go, and marks its documents.
pub(super) async fn keep(change: &mut Change, id: PoolId) -> Result<(), ChangeError> {
    let now = change.now();
    for list in store::status_block::keys_of_lists(change.tx(), id).await? {
        change.mark(list, Priority::Revocation);
    }
    change.mark(KvKey::Pool(id), Priority::Revocation);
    let Some(pool) = snapshot::pools(change.tx(), &[id]).await?.pop() else { return Ok(()) };
    let signer = signer(change, &pool)?;
    let mut document = document(&change.context().edge_url, pool, now);
    if signer.is_none() {
        document.status_lists = 0;
    }
    let until = now + Duration::seconds(i64::try_from(document.longest_token_ttl).unwrap_or(0)) + SKEW;
    let status_lists = match &signer {
        Some(signer) => status_lists(signer, &document, now, until)?,
        None => Vec::new(),
    };
    let deleted = DeletedPool { document, until };
    let signed_by = signer.as_ref().map(PrivateKey::kid);
    deleted_pool::insert(change.tx(), id, &deleted, signed_by, &status_lists, now).await?;
    Ok(())
}

/// The key that signs last. None where it rests with AWS KMS, which is not asked within a transaction: then the key set
/// alone is kept, and what asks for a status list is told that there is none.
fn signer(change: &Change, pool: &PoolRows) -> Result<Option<PrivateKey>, ChangeError> {
    let signing = pool.keys.iter().find_map(|key| Some((&key.kid, &key.signs.as_ref()?.private)));
    let Some((kid, StoredPrivate::Local { sealed })) = signing else { return Ok(None) };
    let opened = change.context().master_key.open(KeyPurpose::Pool(pool.id), kid, sealed);
    Ok(Some(opened.map_err(|error| StoreError::unreadable("signing_key.private_sealed", error))?))
}

fn document(edge_url: &str, pool: PoolRows, now: OffsetDateTime) -> PoolDocument {
    let longest_token_ttl = pool.longest_token_ttl(now).into();
    PoolDocument {
        kind: pool.kind,
        issuer: PoolUrls::new(edge_url, pool.id).issuer,
        token_ttl: pool.token_ttl_seconds.into(),
        longest_token_ttl,
        claims_profile: pool.claims_profile,
        audience: pool.audience,
        jwks: JwkSet { keys: pool.keys.into_iter().map(|key| Jwk::es256(key.public)).collect() },
        signing_key: None,
        cors_origins: Vec::new(),
        trust_anchors: Vec::new(),
        denied_certificates: Vec::new(),
        provisioning: Default::default(),
        device_defaults: Default::default(),
        bind_to_certificate: false,
        revocation_shards: 0,
        status_lists: pool.status_lists,
        // Nobody signs in any more.
        sign_in_url: None,
        deleted: true,
    }
}

/// All lists, with every bit set.
fn status_lists(
    signer: &PrivateKey,
    document: &PoolDocument,
    now: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<Vec<String>, ChangeError> {
    let status_list = StatusBits::all_revoked().compress();
    let sign = |list| {
        signer.sign_status_list(&StatusListClaims {
            sub: list_url(&document.issuer, list),
            iat: unix(now),
            exp: unix(until),
            ttl: STATUS_LIST_TTL,
            status_list: status_list.clone(),
        })
    };
    let signed: Result<Vec<String>, _> = (0..document.status_lists).map(sign).collect();
    Ok(signed.map_err(|error| StoreError::unreadable("deleted_pool_status.token", error))?)
}
