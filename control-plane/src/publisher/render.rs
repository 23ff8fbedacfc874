//! Makes documents from rows: pure functions of a snapshot, the keys and the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keypost_shared::client_jwk::ClientJwks;
use keypost_shared::crypto::CryptoError;
use keypost_shared::document::{
    ClientDocument, ClientStatus, ClientSubject, DeviceClaims, DeviceDocument, Document, PoolDocument,
    PoolKind, PoolSigningKey, PrivateHalf, Stamp, StoredSecret, TrustDocument, content_digest,
};
use keypost_shared::host::PrivateKey;
use keypost_shared::id::Kid;
use keypost_shared::jwe::SealingKey;
use keypost_shared::jwk::{Jwk, JwkSet, SigningAlg};
use keypost_shared::kms::NotAKeyArn;
use keypost_shared::scope::{ScopeError, Scopes};
use keypost_shared::secret::SecretHash;
use keypost_shared::status_list::{STATUS_LIST_TTL, StatusBits, StatusListClaims, list_url};
use serde_json::value::to_raw_value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::clock::{seconds, unix};
use crate::crypto_at_rest::{KeyPurpose, MasterKey, OpenError};
use crate::envelope::{EnvelopeError, Opened};
use crate::key_maker::StoredPrivate;
use crate::kms::StatusListError;
use crate::root::{RootSignError, RootSigner};
use crate::service::pool_urls::PoolUrls;
use crate::store::deleted_pool::{DeletedPool, DeletedStatus};
use crate::store::publication::Leased;
use crate::store::revoked_record::ShardRows;
use crate::store::signing_key::Named;
use crate::store::snapshot::{ClientRows, DeviceRows, DeviceState, KeyRow, PoolRows, TrustRows};

/// `v1/trust` outlives the longest window of all pools by a day, so that no pool ever ends early for its sake.
const TRUST_BEYOND_POOLS: Duration = Duration::from_secs(86_400);
/// The window of a pool that has none set, and of `v1/trust` before there is any pool.
const DEFAULT_WINDOW_SECONDS: u32 = 86_400;
/// `v1/trust` is signed again a few times a day, however long its window: each time calls the root.
const TRUST_RESIGN: Duration = Duration::from_secs(6 * 3600);
/// Other documents are signed again at a quarter of their window: an outage of three quarters goes unnoticed.
const RESIGN_PART: u32 = 4;

/// A document ready to be written.
#[derive(Debug)]
pub(super) struct SignedDocument {
    pub(super) text: String,
    pub(super) digest: [u8; 32],
    /// None where it was made to be compared.
    pub(super) signed_by: Option<Kid>,
    pub(super) resign_at: Option<OffsetDateTime>,
    /// For `v1/trust` and pools: the keys that it lists.
    pub(super) lists: Vec<Kid>,
    /// For pools: the key that it lets sign.
    pub(super) names: Option<Named>,
}

/// Why a document cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenderError {
    #[error("a signing key does not open: {0}")]
    Open(#[from] OpenError),
    #[error("a signing key does not open: {0}")]
    Envelope(#[from] Arc<EnvelopeError>),
    #[error("the KMS key in the database {0}")]
    KmsName(#[from] NotAKeyArn),
    #[error("a signing key cannot be sealed: {0}")]
    Seal(#[from] CryptoError),
    #[error("the scopes in the database are wrong: {0}")]
    Scopes(#[from] ScopeError),
    #[error("a document does not serialise: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the root did not sign: {0}")]
    Root(#[from] RootSignError),
    #[error("AWS KMS did not sign a status list: {0}")]
    StatusList(#[from] StatusListError),
}

/// What documents are signed and sealed with.
pub(super) struct Keys<'a> {
    /// None where the documents are made to be compared: then they are not signed.
    pub(super) publisher: Option<&'a PrivateKey>,
    pub(super) master_key: &'a MasterKey,
    pub(super) sealing_key: &'a SealingKey,
    pub(super) edge_url: &'a str,
    /// Where people sign in.
    pub(super) public_url: &'a str,
}

pub(super) async fn trust(
    leased: &Leased,
    rows: TrustRows,
    root: &RootSigner,
    now: OffsetDateTime,
) -> Result<SignedDocument, RenderError> {
    let window = seconds(rows.longest_window_seconds.unwrap_or(DEFAULT_WINDOW_SECONDS)) + TRUST_BEYOND_POOLS;
    let lists = rows.publisher_keys.iter().map(|key| key.thumbprint()).collect();
    let document = trust_document(rows);
    Ok(SignedDocument {
        text: root.sign(stamp(leased, now, Some(window)), &document).await?,
        digest: content_digest(&document)?,
        signed_by: Some(root.kid().clone()),
        resign_at: Some(now + TRUST_RESIGN),
        lists,
        names: None,
    })
}

/// What `v1/trust` says.
pub(super) fn trust_document(rows: TrustRows) -> TrustDocument {
    TrustDocument { publisher_keys: rows.publisher_keys }
}

pub(super) fn pool(
    leased: &Leased,
    rows: PoolRows,
    opened: &Opened,
    keys: &Keys<'_>,
    now: OffsetDateTime,
) -> Result<SignedDocument, RenderError> {
    let mut signing_key = None;
    let mut ends_at = None;
    // For people only the control plane signs: no edge has use for their key.
    let signer = rows.signer(now).filter(|_| rows.kind != PoolKind::Sso);
    if let Some((key, signs)) = signer {
        let private = match &signs.private {
            StoredPrivate::Local { sealed } => {
                let key = keys.master_key.open(KeyPurpose::Pool(rows.id), &key.kid, sealed)?;
                PrivateHalf::Jwe(key.seal(keys.sealing_key, rows.id)?)
            }
            StoredPrivate::Envelope { .. } => {
                let key = opened_key(opened, &key.kid)?;
                PrivateHalf::Jwe(key.seal(keys.sealing_key, rows.id)?)
            }
            StoredPrivate::KmsSign { kms_key_id } => PrivateHalf::Kms(kms_key_id.parse()?),
        };
        signing_key = Some(PoolSigningKey { kid: key.kid.clone(), alg: SigningAlg::ES256, private });
        ends_at = signs.ends_at;
    }
    let lists: Vec<Kid> = rows.keys.iter().map(|key| key.kid.clone()).collect();
    let longest_token_ttl = rows.longest_token_ttl(now).into();
    let document = PoolDocument {
        kind: rows.kind,
        issuer: PoolUrls::new(keys.edge_url, rows.id).issuer,
        token_ttl: rows.token_ttl_seconds.into(),
        longest_token_ttl,
        claims_profile: rows.claims_profile,
        audience: rows.audience,
        jwks: JwkSet { keys: rows.keys.into_iter().map(|key| Jwk::es256(key.public)).collect() },
        signing_key,
        cors_origins: rows.cors_origins,
        trust_anchors: rows.trust_anchors,
        denied_certificates: rows.denied_certificates,
        provisioning: rows.provisioning,
        device_defaults: rows.device_defaults,
        bind_to_certificate: rows.bind_to_certificate,
        revocation_shards: rows.revocation_shards,
        status_lists: rows.status_lists,
        sign_in_url: (rows.kind == PoolKind::Sso).then(|| keys.public_url.to_owned()),
        deleted: false,
    };
    let window = seconds(rows.max_staleness_seconds);
    // No document lasts longer than the key that it names.
    let until = (now + window).min(ends_at.unwrap_or(now + window));
    let shortened = Duration::from_secs(unix(until).since(unix(now)));
    let names = document.signing_key.as_ref().map(|key| Named {
        pool: rows.id,
        kid: key.kid.clone(),
        tokens_until: until + Duration::from_secs(document.token_ttl),
    });
    let signed = sign(leased, &document, Some(shortened), keys, now)?;
    Ok(SignedDocument { resign_at: Some(now + window / RESIGN_PART), lists, names, ..signed })
}

pub(super) fn client(
    leased: &Leased,
    rows: ClientRows,
    keys: &Keys<'_>,
    now: OffsetDateTime,
) -> Result<SignedDocument, RenderError> {
    let live = rows.secrets.into_iter().filter(|(_, ends)| ends.is_none_or(|ends| ends > now));
    let secrets = live.map(|(hash, ends)| StoredSecret {
        sha256: SecretHash::from_bytes(hash),
        expires_at: ends.map(unix),
    });
    let document = ClientDocument {
        status: rows.status,
        secrets: secrets.collect(),
        scopes: Scopes::new(rows.scopes)?,
        subject: match rows.device {
            Some(device) => ClientSubject::Device(device_claims(device)?),
            None => ClientSubject::Service,
        },
        jwks: rows.jwks.as_ref().map(ClientJwks::usable),
        audience: rows.audience,
        status_block: rows.status_block,
    };
    sign(leased, &document, None, keys, now)
}

pub(super) fn device(
    leased: &Leased,
    state: DeviceState,
    keys: &Keys<'_>,
    now: OffsetDateTime,
) -> Result<SignedDocument, RenderError> {
    match state {
        DeviceState::Known(document) => sign(leased, &document, None, keys, now),
        DeviceState::Refused { until } => {
            let document = DeviceDocument { status: ClientStatus::Disabled, clients: Vec::new(), pins: None };
            // Made anew then, it is none any more, and goes.
            let signed = sign(leased, &document, None, keys, now)?;
            Ok(SignedDocument { resign_at: Some(until), ..signed })
        }
    }
}

pub(super) fn revoked(
    leased: &Leased,
    rows: ShardRows,
    keys: &Keys<'_>,
    now: OffsetDateTime,
) -> Result<SignedDocument, RenderError> {
    let signed = sign(leased, &rows.document, Some(seconds(rows.max_staleness_seconds)), keys, now)?;
    let resign_at = [signed.resign_at, rows.changes_at].into_iter().flatten().min();
    Ok(SignedDocument { resign_at, ..signed })
}

/// The document of a pool that has been deleted: as it is kept, until the last of its tokens has expired.
pub(super) fn deleted_pool(
    leased: &Leased,
    rows: &DeletedPool,
    keys: &Keys<'_>,
    now: OffsetDateTime,
) -> Result<SignedDocument, RenderError> {
    let window = Duration::from_secs(unix(rows.until).since(unix(now)));
    let signed = sign(leased, &rows.document, Some(window), keys, now)?;
    Ok(SignedDocument { resign_at: Some(rows.until), ..signed })
}

/// A Token Status List of a pool that has been deleted, as it was signed then.
pub(super) fn deleted_status(list: DeletedStatus) -> SignedDocument {
    SignedDocument {
        digest: Sha256::digest(&list.token).into(),
        text: list.token,
        signed_by: Some(list.signed_by),
        resign_at: Some(list.until),
        lists: Vec::new(),
        names: None,
    }
}

/// A Token Status List that is to be signed with the pool's own key, for resource servers.
pub(super) struct StatusList<'a> {
    /// What it says.
    pub(super) claims: StatusListClaims,
    /// The key that signs it.
    pub(super) key: &'a KeyRow,
    /// Where its private half is.
    pub(super) private: &'a StoredPrivate,
    digest: [u8; 32],
    resign_at: OffsetDateTime,
}

impl<'a> StatusList<'a> {
    /// None where the pool has no key that signs.
    pub(super) fn of(
        list: u32,
        bits: &StatusBits,
        pool: &'a PoolRows,
        edge_url: &str,
        now: OffsetDateTime,
    ) -> Result<Option<Self>, RenderError> {
        let Some((key, signs)) = pool.signer(now) else { return Ok(None) };
        let window = seconds(pool.max_staleness_seconds);
        let iat = unix(now);
        let exp = iat + window.as_secs();
        let claims = StatusListClaims {
            sub: list_url(&PoolUrls::new(edge_url, pool.id).issuer, list),
            iat,
            exp: signs.ends_at.map_or(exp, |end| unix(end).min(exp)),
            ttl: STATUS_LIST_TTL,
            status_list: bits.compress(),
        };
        // What it says, without when.
        let content = serde_json::to_vec(&(&key.kid, &claims.sub, &claims.status_list))?;
        let digest = Sha256::digest(content).into();
        let resign_at = now + window / RESIGN_PART;
        Ok(Some(Self { claims, key, private: &signs.private, digest, resign_at }))
    }

    /// The document, from the list as it was signed.
    pub(super) fn signed(self, text: String) -> SignedDocument {
        SignedDocument {
            text,
            digest: self.digest,
            signed_by: Some(self.key.kid.clone()),
            resign_at: Some(self.resign_at),
            lists: Vec::new(),
            names: None,
        }
    }
}

/// A key that KMS has opened.
pub(super) fn opened_key(opened: &Opened, kid: &Kid) -> Result<Arc<PrivateKey>, Arc<EnvelopeError>> {
    opened.get(kid).cloned().unwrap_or_else(|| Err(Arc::new(EnvelopeError::NoTime)))
}

fn device_claims(device: DeviceRows) -> Result<DeviceClaims, RenderError> {
    // The environment's tag names with the device's values, and what the device has beyond them.
    let mut tags: BTreeMap<String, String> = device.tag_defaults;
    tags.extend(device.tags);
    let server_urls =
        if device.server_urls.is_empty() { device.default_server_urls } else { device.server_urls };
    Ok(DeviceClaims {
        device_id: device.id,
        client_app_id: device.client_app_id,
        metadata: device.metadata,
        tags: to_raw_value(&tags)?,
        primary_server_url: device.primary_server_url,
        server_urls,
    })
}

fn sign<T: Document>(
    leased: &Leased,
    document: &T,
    window: Option<Duration>,
    keys: &Keys<'_>,
    now: OffsetDateTime,
) -> Result<SignedDocument, RenderError> {
    let sign =
        |publisher: &PrivateKey| publisher.sign_document(&leased.key, stamp(leased, now, window), document);
    Ok(SignedDocument {
        text: keys.publisher.map(sign).transpose()?.unwrap_or_default(),
        digest: content_digest(document)?,
        signed_by: keys.publisher.map(|publisher| publisher.kid().clone()),
        resign_at: window.map(|window| now + window / RESIGN_PART),
        lists: Vec::new(),
        names: None,
    })
}

fn stamp(leased: &Leased, now: OffsetDateTime, window: Option<Duration>) -> Stamp {
    let iat = unix(now);
    Stamp { version: leased.version, iat, next_update: window.map(|window| iat + window.as_secs()) }
}
