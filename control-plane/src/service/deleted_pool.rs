//! What is left of a client pool that is deleted (design §9): its key set, its metadata and its status lists, with every bit
//! set, stay served until its last token has expired.

use keypost_shared::document::PoolDocument;
use keypost_shared::host::PrivateKey;
use keypost_shared::id::{Kid, PoolId};
use keypost_shared::jwk::{Jwk, JwkSet};
use keypost_shared::kv_key::KvKey;
use keypost_shared::status_list::{STATUS_LIST_TTL, StatusBits, StatusListClaims, list_url};
use time::{Duration, OffsetDateTime};

use super::change::Change;
use super::pool_urls::PoolUrls;
use super::{ChangeError, Context};
use crate::clock::unix;
use crate::crypto_at_rest::KeyPurpose;
use crate::envelope::Envelopes;
use crate::key_maker::StoredPrivate;
use crate::kms::StatusListError;
use crate::store::deleted_pool::{self, DeletedPool};
use crate::store::publication::Priority;
use crate::store::snapshot::{self, PoolRows};
use crate::store::{self, StoreError};

/// So much may clocks differ, and so long may an edge go on by the pool's earlier document.
const SKEW: Duration = Duration::minutes(10);

/// What AWS KMS has to say to a deletion. It is not asked within a transaction.
pub(super) enum ByKms {
    /// It has not been asked.
    NotAsked,
    /// It did not sign: the key set alone is kept, and what asks for a status list is told that there is none.
    Unavailable,
    /// The lists, signed.
    Signed(SignedLists),
}

/// A pool's status lists, with every bit set.
pub(super) struct SignedLists {
    kid: Kid,
    until: OffsetDateTime,
    tokens: Vec<String>,
}

/// What has become of keeping a pool.
pub(super) enum Kept {
    /// It is kept.
    Done,
    /// Its key rests with AWS KMS, which must be asked first, or once more: by [`sign_by_kms`].
    Unsigned,
}

/// Keeps what verifiers need of a pool whose rows are about to go, and marks its documents.
pub(super) async fn keep(change: &mut Change, id: PoolId, by_kms: &ByKms) -> Result<Kept, ChangeError> {
    let now = change.now();
    for list in store::status_block::keys_of_lists(change.tx(), id).await? {
        change.mark(list, Priority::Revocation);
    }
    change.mark(KvKey::Pool(id), Priority::Revocation);
    let Some(pool) = snapshot::pools(change.tx(), &[id]).await?.pop() else { return Ok(Kept::Done) };
    let mut until = needed_until(&pool, now);
    let signing = pool.keys.iter().find_map(|key| Some((&key.kid, &key.signs.as_ref()?.private)));
    let signed_by = signing.map(|(kid, _)| kid.clone());
    let edge_url = change.context().edge_url.clone();
    let status_lists = match (signing, by_kms) {
        (None, _)
        | (Some((_, StoredPrivate::Envelope { .. } | StoredPrivate::KmsSign { .. })), ByKms::Unavailable) => {
            Vec::new()
        }
        (Some((kid, StoredPrivate::Local { sealed })), _) => {
            let opened = change.context().master_key.open(KeyPurpose::Pool(id), kid, sealed);
            let key = opened.map_err(|error| StoreError::unreadable("signing_key.private_sealed", error))?;
            sign_all(&key, &claims(&edge_url, &pool, now, until))
                .map_err(|error| StoreError::unreadable("deleted_pool_status.token", error))?
        }
        (Some((kid, _)), ByKms::Signed(signed))
            if signed.kid == *kid && signed.tokens.len() == lists(&pool) && signed.until >= until =>
        {
            until = signed.until;
            signed.tokens.clone()
        }
        (Some(_), _) => return Ok(Kept::Unsigned),
    };
    let mut document = document(&edge_url, pool, now);
    if status_lists.is_empty() {
        document.status_lists = 0;
    }
    let deleted = DeletedPool { document, until };
    deleted_pool::insert(change.tx(), id, &deleted, signed_by.as_ref(), &status_lists, now).await?;
    Ok(Kept::Done)
}

/// Has a pool's last status lists signed, where AWS KMS must be asked for it.
pub(super) async fn sign_by_kms(context: &Context, id: PoolId) -> Result<ByKms, StoreError> {
    let now = context.now();
    let pool = {
        let mut connection = context.connection().await?;
        snapshot::pools(&mut connection, &[id]).await?.pop()
    };
    let Some(pool) = pool else { return Ok(ByKms::Unavailable) };
    // The deletion comes a little later, and must not find them too short.
    let until = needed_until(&pool, now) + SKEW;
    let signed = sign_lists_by_kms(context, &pool, &claims(&context.edge_url, &pool, now, until)).await;
    Ok(match signed {
        Ok(Some((kid, tokens))) => ByKms::Signed(SignedLists { kid, until, tokens }),
        Ok(None) => ByKms::Unavailable,
        Err(error) => {
            tracing::warn!(pool = %id, %error, "the last status lists of a pool that is deleted cannot be signed");
            ByKms::Unavailable
        }
    })
}

async fn sign_lists_by_kms(
    context: &Context,
    pool: &PoolRows,
    claims: &[StatusListClaims],
) -> Result<Option<(Kid, Vec<String>)>, StatusListError> {
    let Some((key, signs)) = pool.keys.iter().find_map(|key| Some((key, key.signs.as_ref()?))) else {
        return Ok(None);
    };
    let tokens = match &signs.private {
        StoredPrivate::Local { .. } => return Ok(None),
        StoredPrivate::KmsSign { kms_key_id } => {
            let mut tokens = Vec::new();
            for claims in claims {
                let signer = (&key.kid, &key.public);
                tokens.push(context.kms.sign_status_list(kms_key_id, signer, claims).await?);
            }
            tokens
        }
        StoredPrivate::Envelope { .. } => {
            let opened = Envelopes::new(context.kms.clone()).open(pool.envelopes().collect()).await;
            match opened.into_values().next() {
                Some(Ok(opened)) => sign_all(&opened, claims)?,
                Some(Err(error)) => {
                    tracing::warn!(pool = %pool.id, %error, "the signing key of a pool that is deleted does not open");
                    return Ok(None);
                }
                None => return Ok(None),
            }
        }
    };
    Ok(Some((key.kid.clone(), tokens)))
}

/// Until when verifiers may need a pool that is deleted now.
fn needed_until(pool: &PoolRows, now: OffsetDateTime) -> OffsetDateTime {
    now + Duration::seconds(pool.longest_token_ttl(now).into()) + SKEW
}

fn lists(pool: &PoolRows) -> usize {
    usize::try_from(pool.status_lists).unwrap_or(usize::MAX)
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
fn claims(
    edge_url: &str,
    pool: &PoolRows,
    now: OffsetDateTime,
    until: OffsetDateTime,
) -> Vec<StatusListClaims> {
    let issuer = PoolUrls::new(edge_url, pool.id).issuer;
    let status_list = StatusBits::all_revoked().compress();
    let of = |list| StatusListClaims {
        sub: list_url(&issuer, list),
        iat: unix(now),
        exp: unix(until),
        ttl: STATUS_LIST_TTL,
        status_list: status_list.clone(),
    };
    (0..pool.status_lists).map(of).collect()
}

fn sign_all(signer: &PrivateKey, claims: &[StatusListClaims]) -> Result<Vec<String>, serde_json::Error> {
    claims.iter().map(|claims| signer.sign_status_list(claims)).collect()
}
