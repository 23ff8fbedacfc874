//! What the documents are made from, read at one instant (design §5: "from the *current* rows").
//!
//! The publisher acts for nobody: it reads by KV key, which names the pool.

use std::collections::BTreeMap;

use keypost_shared::certificate::CertificateDer;
use keypost_shared::device_certificate::{
    CertificatePins, DeniedCertificate, DeviceDefaults, PoolTrustAnchor, ProvisioningPolicy,
};
use keypost_shared::document::{ClaimsProfile, ClientStatus, DeviceDocument, PoolKind};
use keypost_shared::edge::INTROSPECT_SCOPE;
use keypost_shared::id::{ClientAppId, ClientId, DeviceId, Kid, PoolId, SsoAppId};
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::status_list::StatusBlock;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::client_pool::{PolicyColumns, read_policy, read_profile};
use super::signing_key::read_private;
use super::{StoreError, corrupt, denied_certificate, fingerprint, hash, id};
use crate::envelope::SealedKey;
use crate::key_maker::StoredPrivate;

/// What `v1/trust` is made from.
#[derive(Debug)]
pub struct TrustRows {
    /// All publisher keys.
    pub publisher_keys: Vec<EcPublicJwk>,
    /// The longest window of all pools, in seconds.
    pub longest_window_seconds: Option<u32>,
}

/// What a pool's document is made from.
#[derive(Clone)]
pub struct PoolRows {
    /// The pool.
    pub id: PoolId,
    /// Who is in it.
    pub kind: PoolKind,
    /// How long tokens live, in seconds.
    pub token_ttl_seconds: u32,
    /// A longer lifetime that tokens still valid may have, and until when.
    pub earlier_token_ttl: Option<(u32, OffsetDateTime)>,
    /// Which claims tokens carry.
    pub claims_profile: ClaimsProfile,
    /// The tokens' `aud`.
    pub audience: Vec<String>,
    /// The origins that browsers may POST from.
    pub cors_origins: Vec<String>,
    /// For how long the edge may believe the document, in seconds.
    pub max_staleness_seconds: u32,
    /// The keys that verifiers may meet, oldest first.
    pub keys: Vec<KeyRow>,
    /// The roots of its devices, by fingerprint.
    pub trust_anchors: Vec<PoolTrustAnchor>,
    /// What must not be in any chain.
    pub denied_certificates: Vec<DeniedCertificate>,
    /// Which devices may come with a certificate.
    pub provisioning: ProvisioningPolicy,
    /// What a new device has from its environment.
    pub device_defaults: DeviceDefaults,
    /// Whether a token got by certificate is bound to it.
    pub bind_to_certificate: bool,
    /// In how many shards its revocation list stands.
    pub revocation_shards: u32,
    /// How many Token Status Lists it has.
    pub status_lists: u32,
}

impl PoolRows {
    /// The longest lifetime that a token still valid may have, in seconds.
    pub fn longest_token_ttl(&self, now: OffsetDateTime) -> u32 {
        let earlier = self.earlier_token_ttl.filter(|(_, until)| *until > now).map_or(0, |(ttl, _)| ttl);
        self.token_ttl_seconds.max(earlier)
    }

    /// The key that signs. Past its end a key signs nothing; that no other has taken its place is for the schedule to say.
    pub fn signer(&self, now: OffsetDateTime) -> Option<(&KeyRow, &SigningRow)> {
        let signing = self.keys.iter().find_map(|key| Some((key, key.signs.as_ref()?)));
        signing.filter(|(_, signs)| signs.ends_at.is_none_or(|end| end > now))
    }

    /// The key that signs, where it is encrypted under a data key.
    pub fn envelopes(&self) -> impl Iterator<Item = SealedKey> {
        self.keys.iter().filter_map(|key| match &key.signs.as_ref()?.private {
            StoredPrivate::Envelope { kms_key_id, data_key, sealed } => Some(SealedKey {
                pool: self.id,
                kid: key.kid.clone(),
                kms_key_id: kms_key_id.clone(),
                data_key: data_key.clone(),
                sealed: sealed.clone(),
            }),
            StoredPrivate::Local { .. } | StoredPrivate::KmsSign { .. } => None,
        })
    }
}

/// A signing key.
#[derive(Clone)]
pub struct KeyRow {
    /// The public half's thumbprint.
    pub kid: Kid,
    /// The public half.
    pub public: EcPublicJwk,
    /// For the one that signs: what it signs with.
    pub signs: Option<SigningRow>,
}

/// The key that signs.
#[derive(Clone)]
pub struct SigningRow {
    /// Where the private half is.
    pub private: StoredPrivate,
    /// When it signs no more, whatever happens.
    pub ends_at: Option<OffsetDateTime>,
}

/// What a client's document is made from.
pub struct ClientRows {
    /// The pool.
    pub pool_id: PoolId,
    /// The client.
    pub client_id: ClientId,
    /// Whether it, and the device if it has one, may have tokens.
    pub status: ClientStatus,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// The hashes of its secrets, the current one first, and until when each counts.
    pub secrets: Vec<([u8; 32], Option<OffsetDateTime>)>,
    /// The keys that it may prove itself with, as they were registered.
    pub jwks: Option<serde_json::Value>,
    /// The `aud` of its tokens, where it is not the pool's.
    pub audience: Vec<String>,
    /// The device that it is on, if it is on one.
    pub device: Option<DeviceRows>,
    /// Its place in the pool's status lists.
    pub status_block: Option<StatusBlock>,
}

/// What a device's document is made from.
pub struct DeviceDocumentRows {
    /// The pool.
    pub pool_id: PoolId,
    /// The device.
    pub device_id: DeviceId,
    /// What is known of it.
    pub state: DeviceState,
}

/// What is known of a device that has a document.
pub enum DeviceState {
    /// It exists.
    Known(DeviceDocument),
    /// It does not, and is kept out all the same until a time.
    Refused {
        /// Until when.
        until: OffsetDateTime,
    },
}

/// The device of a client, with what it has from its environment.
pub struct DeviceRows {
    /// The device.
    pub id: DeviceId,
    /// The app.
    pub client_app_id: ClientAppId,
    /// A JSON object.
    pub metadata: Box<RawValue>,
    /// Its own tags.
    pub tags: BTreeMap<String, String>,
    /// The environment's.
    pub tag_defaults: BTreeMap<String, String>,
    /// Its own first server, or else the environment's.
    pub primary_server_url: Option<String>,
    /// Its own servers.
    pub server_urls: Vec<String>,
    /// The environment's.
    pub default_server_urls: Vec<String>,
}

/// Makes all reads of the transaction see one instant. The transaction must not have read anything yet.
pub async fn freeze(tx: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query!("set transaction isolation level repeatable read, read only").execute(tx).await?;
    Ok(())
}

/// The longest window of all pools, in seconds.
pub async fn longest_window(tx: &mut PgConnection) -> Result<Option<u32>, StoreError> {
    let longest =
        sqlx::query_scalar!("select max(max_staleness_seconds) from client_pool").fetch_one(tx).await?;
    Ok(longest.map(|seconds| seconds.unsigned_abs()))
}

/// The rows of `v1/trust`.
pub async fn trust(tx: &mut PgConnection) -> Result<TrustRows, StoreError> {
    let keys = sqlx::query_scalar!(
        r#"select public_jwk as "public_jwk: Json<EcPublicJwk>" from publisher_key order by created_at, kid"#
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(TrustRows {
        publisher_keys: keys.into_iter().map(|key| key.0).collect(),
        longest_window_seconds: longest_window(tx).await?,
    })
}

/// The rows of these pools, as far as they exist.
pub async fn pools(tx: &mut PgConnection, pools: &[PoolId]) -> Result<Vec<PoolRows>, StoreError> {
    let ids: Vec<Uuid> = pools.iter().map(|pool| pool.0).collect();
    let mut keys: BTreeMap<PoolId, Vec<KeyRow>> = BTreeMap::new();
    let key_rows = sqlx::query!(
        r#"select pool_id, kid, public_jwk as "public_jwk: Json<EcPublicJwk>", state, backend, key_mode, kms_key_id,
                  kms_data_key, private_sealed, ends_at
             from signing_key
            where pool_id = any($1) and state in ('next', 'active', 'retiring')
            order by created_at, kid"#,
        &ids,
    )
    .fetch_all(&mut *tx)
    .await?;
    for row in key_rows {
        let signs = if row.state == "active" {
            let (mode, sealed) = (row.key_mode.as_deref(), row.private_sealed);
            let private = read_private(&row.backend, mode, row.kms_key_id, row.kms_data_key, sealed)?;
            private.map(|private| SigningRow { private, ends_at: row.ends_at })
        } else {
            None
        };
        let kid = id("signing_key.kid", &row.kid)?;
        keys.entry(PoolId(row.pool_id)).or_default().push(KeyRow { kid, public: row.public_jwk.0, signs });
    }
    let mut certificates = certificates(tx, &ids).await?;
    let status_lists = super::status_block::list_counts(tx, &ids).await?;
    let mut defaults = device_defaults(tx, &ids).await?;
    let rows = sqlx::query!(
        r#"select id, kind, token_ttl_seconds, earlier_token_ttl_seconds, earlier_token_ttl_until, claims_profile,
                  audience, cors_origins, max_staleness_seconds, provisioning_mode, provisioning_match,
                  provisioning_client_app_id, provisioning_scopes, device_id_template,
                  provisioning_tags as "provisioning_tags: Json<BTreeMap<String, String>>",
                  provisioning_max_per_hour, bind_to_certificate, revocation_shards
             from client_pool
            where id = any($1)"#,
        &ids,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let id = PoolId(row.id);
            let earlier = row.earlier_token_ttl_seconds.zip(row.earlier_token_ttl_until);
            let (trust_anchors, denied_certificates) = certificates.remove(&id).unwrap_or_default();
            Ok(PoolRows {
                id,
                kind: if row.kind == "sso" { PoolKind::Sso } else { PoolKind::Device },
                token_ttl_seconds: row.token_ttl_seconds.unsigned_abs(),
                earlier_token_ttl: earlier.map(|(seconds, until)| (seconds.unsigned_abs(), until)),
                claims_profile: read_profile(&row.claims_profile)?,
                audience: row.audience,
                cors_origins: row.cors_origins,
                max_staleness_seconds: row.max_staleness_seconds.unsigned_abs(),
                keys: keys.remove(&id).unwrap_or_default(),
                trust_anchors,
                denied_certificates,
                provisioning: read_policy(PolicyColumns {
                    mode: row.provisioning_mode,
                    matching: row.provisioning_match,
                    client_app_id: row.provisioning_client_app_id,
                    scopes: row.provisioning_scopes,
                    device_id_template: row.device_id_template,
                    tags: row.provisioning_tags.0,
                    max_per_hour: row.provisioning_max_per_hour,
                })?,
                device_defaults: defaults.remove(&id).unwrap_or_default(),
                bind_to_certificate: row.bind_to_certificate,
                revocation_shards: row.revocation_shards.unsigned_abs(),
                status_lists: status_lists.get(&id).copied().unwrap_or_else(|| super::status_block::lists(0)),
            })
        })
        .collect()
}

type PoolCertificates = (Vec<PoolTrustAnchor>, Vec<DeniedCertificate>);

/// The roots and denials of these pools.
async fn certificates(
    tx: &mut PgConnection,
    pools: &[Uuid],
) -> Result<BTreeMap<PoolId, PoolCertificates>, StoreError> {
    let mut certificates: BTreeMap<PoolId, PoolCertificates> = BTreeMap::new();
    let anchors = sqlx::query!(
        "select pool_id, certificate, replaces from trust_anchor where pool_id = any($1) order by fingerprint",
        pools,
    )
    .fetch_all(&mut *tx)
    .await?;
    for row in anchors {
        let replaces = row.replaces.map(|bytes| fingerprint("trust_anchor.replaces", bytes)).transpose()?;
        let anchor = PoolTrustAnchor { certificate: CertificateDer::new(row.certificate), replaces };
        certificates.entry(PoolId(row.pool_id)).or_default().0.push(anchor);
    }
    let denied = sqlx::query!(
        "select pool_id, fingerprint, issuer, serial from denied_certificate where pool_id = any($1) order by id",
        pools,
    )
    .fetch_all(tx)
    .await?;
    for row in denied {
        let denial = denied_certificate::read(row.fingerprint, row.issuer, row.serial)?;
        certificates.entry(PoolId(row.pool_id)).or_default().1.push(denial);
    }
    Ok(certificates)
}

/// What new devices of these pools have from their environments.
async fn device_defaults(
    tx: &mut PgConnection,
    pools: &[Uuid],
) -> Result<BTreeMap<PoolId, DeviceDefaults>, StoreError> {
    let rows = sqlx::query!(
        r#"select p.id, e.tag_defaults as "tags: Json<BTreeMap<String, String>>", e.primary_server_url, e.server_urls
             from client_pool p
             join environment e on e.org_id = p.org_id and e.id = p.env_id
            where p.id = any($1)"#,
        pools,
    )
    .fetch_all(tx)
    .await?;
    let defaults = rows.into_iter().map(|row| {
        let Json(tags) = row.tags;
        let defaults =
            DeviceDefaults { tags, primary_server_url: row.primary_server_url, server_urls: row.server_urls };
        (PoolId(row.id), defaults)
    });
    Ok(defaults.collect())
}

/// The rows of these clients, as far as they exist.
pub async fn clients(
    tx: &mut PgConnection,
    clients: &[(PoolId, ClientId)],
) -> Result<Vec<ClientRows>, StoreError> {
    let pools: Vec<Uuid> = clients.iter().map(|(pool, _)| pool.0).collect();
    let ids: Vec<String> = clients.iter().map(|(_, client)| client.as_str().to_owned()).collect();
    let mut blocks = super::status_block::of_clients(tx, clients).await?;
    let rows = sqlx::query!(
        r#"select c.pool_id, c.client_id, c.scopes, c.secret_hash, c.previous_secret_hash,
                  c.previous_secret_expires_at, c.jwks, c.audience,
                  (c.status = 'enabled' and d.status is distinct from 'disabled') as "enabled!",
                  d.id as "device_id?", a.client_app_id as "client_app_id?",
                  d.metadata as "metadata?: Json<Box<RawValue>>",
                  d.tags as "tags?: Json<BTreeMap<String, String>>",
                  e.tag_defaults as "tag_defaults?: Json<BTreeMap<String, String>>",
                  coalesce(d.primary_server_url, e.primary_server_url) as primary_server_url,
                  d.server_urls as "server_urls?", e.server_urls as "default_server_urls?"
             from unnest($1::uuid[], $2::text[]) as wanted (pool_id, client_id)
             join oauth_client c on c.client_id = wanted.client_id and c.pool_id = wanted.pool_id
             left join device_app a
               on a.org_id = c.org_id and a.env_id = c.env_id and a.id = c.device_app_id
             left join device d on d.org_id = a.org_id and d.env_id = a.env_id and d.id = a.device_id
             left join environment e on e.org_id = d.org_id and e.id = d.env_id"#,
        &pools,
        &ids,
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut found = client_apps(tx, clients).await?;
    for row in rows {
        let device = match (row.device_id, row.client_app_id, row.metadata, row.tags, row.tag_defaults) {
            (Some(device), Some(app), Some(metadata), Some(tags), Some(tag_defaults)) => Some(DeviceRows {
                id: id("device.id", &device)?,
                client_app_id: id("device_app.client_app_id", &app)?,
                metadata: metadata.0,
                tags: tags.0,
                tag_defaults: tag_defaults.0,
                primary_server_url: row.primary_server_url,
                server_urls: row.server_urls.unwrap_or_default(),
                default_server_urls: row.default_server_urls.unwrap_or_default(),
            }),
            (None, None, None, None, None) => None,
            _ => return Err(corrupt("oauth_client.device_app_id", "half a device")),
        };
        let current = row.secret_hash.map(|bytes| Ok((hash("oauth_client.secret_hash", bytes)?, None)));
        let previous = row
            .previous_secret_hash
            .zip(row.previous_secret_expires_at)
            .map(|(bytes, until)| Ok((hash("oauth_client.previous_secret_hash", bytes)?, Some(until))));
        let secrets: Result<_, StoreError> = current.into_iter().chain(previous).collect();
        let key = (PoolId(row.pool_id), id("oauth_client.client_id", &row.client_id)?);
        let status_block = blocks.remove(&key);
        let (pool_id, client_id) = key;
        found.push(ClientRows {
            pool_id,
            client_id,
            status_block,
            status: if row.enabled { ClientStatus::Enabled } else { ClientStatus::Disabled },
            scopes: row.scopes,
            secrets: secrets?,
            jwks: row.jwks,
            audience: row.audience,
            device,
        });
    }
    Ok(found)
}

/// The rows of those of the clients that are client apps, which are clients of their organization's pool of people.
async fn client_apps(
    tx: &mut PgConnection,
    clients: &[(PoolId, ClientId)],
) -> Result<Vec<ClientRows>, StoreError> {
    let apps =
        clients.iter().filter_map(|(pool, client)| Some((pool.0, Uuid::try_parse(client.as_str()).ok()?)));
    let (pools, ids): (Vec<Uuid>, Vec<Uuid>) = apps.unzip();
    // The key that does not end is the current one.
    let rows = sqlx::query!(
        r#"select wanted.pool_id as "pool_id!", a.id,
                  array_agg(k.hash order by k.expires_at desc nulls first, k.id)
                      filter (where k.id is not null) as "hashes?",
                  array_agg(k.expires_at order by k.expires_at desc nulls first, k.id)
                      filter (where k.id is not null) as "ends?: Vec<Option<OffsetDateTime>>"
             from unnest($1::uuid[], $2::uuid[]) as wanted (pool_id, id)
             join client_pool p on p.id = wanted.pool_id and p.kind = 'sso'
             join client_app a on a.org_id = p.org_id and a.id = wanted.id
             left join sso_key k on k.org_id = a.org_id and k.client_app_id = a.id
            group by wanted.pool_id, a.id"#,
        &pools,
        &ids,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let keys = row.hashes.unwrap_or_default().into_iter().zip(row.ends.unwrap_or_default());
            let secrets: Result<_, StoreError> =
                keys.map(|(bytes, ends)| Ok((hash("sso_key.hash", bytes)?, ends))).collect();
            Ok(ClientRows {
                pool_id: PoolId(row.pool_id),
                client_id: SsoAppId(row.id).into(),
                status: ClientStatus::Enabled,
                scopes: vec![INTROSPECT_SCOPE.to_owned()],
                secrets: secrets?,
                jwks: None,
                audience: Vec::new(),
                device: None,
                status_block: None,
            })
        })
        .collect()
}

/// The rows of these devices' documents: of those that exist, and of those that are refused at the time that they come with.
pub async fn devices(
    tx: &mut PgConnection,
    devices: &[(PoolId, DeviceId, OffsetDateTime)],
) -> Result<Vec<DeviceDocumentRows>, StoreError> {
    let pools: Vec<Uuid> = devices.iter().map(|(pool, ..)| pool.0).collect();
    let ids: Vec<String> = devices.iter().map(|(_, device, _)| device.as_str().to_owned()).collect();
    let times: Vec<OffsetDateTime> = devices.iter().map(|(.., at)| *at).collect();
    let rows = sqlx::query!(
        r#"select wanted.pool_id as "pool_id!", wanted.device_id as "device_id!", d.status as "status?",
                  d.pinned_organization as "pinned_organization?", d.pinned_common_name as "pinned_common_name?",
                  d.pinned_roots as "pinned_roots?", r.until as "refused_until?",
                  array(select c.client_id
                          from device_app a
                          join oauth_client c
                            on c.org_id = a.org_id and c.env_id = a.env_id and c.device_app_id = a.id
                         where a.org_id = d.org_id and a.env_id = d.env_id and a.device_id = d.id
                           and c.status = 'enabled' and 'device' = any(c.scopes)
                         order by a.created_at, a.id) as "clients!"
             from unnest($1::uuid[], $2::text[], $3::timestamptz[]) as wanted (pool_id, device_id, as_of)
             join client_pool p on p.id = wanted.pool_id
             left join device d on d.org_id = p.org_id and d.env_id = p.env_id and d.id = wanted.device_id
             left join refused_device r
               on r.pool_id = p.id and r.device_id = wanted.device_id and r.until > wanted.as_of
            where d.id is not null or r.device_id is not null"#,
        &pools,
        &ids,
        &times,
    )
    .fetch_all(tx)
    .await?;
    let mut found = Vec::new();
    for row in rows {
        let state = match (row.status, row.refused_until) {
            (Some(status), _) => {
                let roots = row.pinned_roots.map(|roots| {
                    let one = |bytes| fingerprint("device.pinned_roots", bytes);
                    roots.into_iter().map(one).collect::<Result<Vec<_>, _>>()
                });
                let (organization, common_name) = (row.pinned_organization, row.pinned_common_name);
                let disabled = status == "disabled";
                let clients = row.clients.iter().map(|client| id("oauth_client.client_id", client));
                DeviceState::Known(DeviceDocument {
                    status: if disabled { ClientStatus::Disabled } else { ClientStatus::Enabled },
                    clients: clients.collect::<Result<_, _>>()?,
                    pins: roots.transpose()?.map(|roots| CertificatePins {
                        organization,
                        common_name,
                        roots,
                    }),
                })
            }
            (None, Some(until)) => DeviceState::Refused { until },
            (None, None) => continue,
        };
        let device_id = id("device.id", &row.device_id)?;
        found.push(DeviceDocumentRows { pool_id: PoolId(row.pool_id), device_id, state });
    }
    Ok(found)
}
