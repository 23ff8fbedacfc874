//! `client_pool`.

use std::collections::BTreeMap;

use keypost_shared::device_certificate::{CertificateMatch, ProvisioningMode, ProvisioningPolicy};
use keypost_shared::document::ClaimsProfile;
use keypost_shared::id::{EnvId, OrgId, PoolId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::scope::Scopes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::environment::EnvScope;
use super::revoked_record::SHARDS;
use super::signing_key::{PoolOwner, read_backend};
use super::{StoreError, corrupt, id};
use crate::key_maker::{KeyBackend, KmsMode};
use crate::service::provisioning_policy;

/// An environment's client pool: its issuer's rules.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientPool {
    /// Its id, part of its issuer.
    pub id: PoolId,
    /// How long access tokens live, in seconds.
    pub token_ttl_seconds: u32,
    /// A longer lifetime that tokens still valid may have.
    #[serde(skip)]
    pub earlier_token_ttl: Option<EarlierTokenTtl>,
    /// Which claims tokens carry.
    pub claims_profile: ClaimsProfile,
    /// The tokens' `aud`.
    pub audience: Vec<String>,
    /// The origins that browsers may POST from.
    pub cors_origins: Vec<String>,
    /// How its signing keys are kept.
    #[serde(flatten, serialize_with = "backend_with_api_names")]
    pub keys: KeyBackend,
    /// How long a signing key signs, in seconds.
    pub rotation_period_seconds: u32,
    /// For how long the edge may believe a copy, in seconds (design §2, promise 3).
    pub max_staleness_seconds: u32,
    /// Which devices may come with a certificate, and what they are then (design §8).
    #[serde(serialize_with = "with_api_names")]
    pub provisioning: ProvisioningPolicy,
    /// Whether a token got by certificate is bound to it.
    pub bind_to_certificate: bool,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A token lifetime that was lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlierTokenTtl {
    /// The lifetime, in seconds.
    pub seconds: u32,
    /// When the last token with it has expired.
    pub until: OffsetDateTime,
}

/// Adds the pool of an environment, or of an organization's people, with the default rules. Answers with its window, in
/// seconds. [`StoreError::is_duplicate`] where there is one already.
pub async fn insert(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    token_ttl_seconds: Option<u32>,
    now: OffsetDateTime,
) -> Result<u32, StoreError> {
    let window = sqlx::query_scalar!(
        "insert into client_pool (id, org_id, env_id, kind, token_ttl_seconds, created_at, updated_at)
         values ($1, $2, $3, case when $3::text is null then 'sso' else 'device' end, coalesce($5, 3600), $4, $4)
         returning max_staleness_seconds",
        owner.pool().0,
        owner.org().as_str(),
        owner.env().map(EnvId::as_str),
        now,
        token_ttl_seconds.map(integer),
    )
    .fetch_one(tx)
    .await?;
    Ok(window.unsigned_abs())
}

/// The environment's pool.
pub async fn find(tx: &mut PgConnection, scope: &EnvScope) -> Result<Option<ClientPool>, StoreError> {
    select(tx, scope).await
}

/// The environment's pool, locked until the transaction ends.
pub async fn find_for_update(
    tx: &mut PgConnection,
    scope: &EnvScope,
) -> Result<Option<ClientPool>, StoreError> {
    // A statement of its own, so that one list of columns serves both.
    sqlx::query!(
        "select id from client_pool where org_id = $1 and env_id = $2 and id = $3 for update",
        scope.org().as_str(),
        scope.env().as_str(),
        scope.pool().0,
    )
    .fetch_optional(&mut *tx)
    .await?;
    select(tx, scope).await
}

/// Lets the tokens of people live this long, in the pools where it is otherwise, at most `limit` of them. Answers with the
/// pools. Tokens that live longer may be there for a while.
pub async fn set_token_ttl_of_people(
    tx: &mut PgConnection,
    seconds: u32,
    limit: i64,
    now: OffsetDateTime,
) -> Result<Vec<PoolId>, StoreError> {
    let pools = sqlx::query_scalar!(
        "with due as (
             select id from client_pool where kind = 'sso' and token_ttl_seconds <> $1
              order by id limit $2 for no key update
         )
         update client_pool p
            set earlier_token_ttl_seconds = case
                    when p.earlier_token_ttl_until > $3
                    then greatest(p.token_ttl_seconds, p.earlier_token_ttl_seconds)
                    else p.token_ttl_seconds end,
                earlier_token_ttl_until = greatest(
                    p.earlier_token_ttl_until,
                    $3::timestamptz + make_interval(secs => p.max_staleness_seconds + p.token_ttl_seconds)),
                token_ttl_seconds = $1, updated_at = $3
           from due
          where p.id = due.id
         returning p.id",
        integer(seconds),
        limit,
        now,
    )
    .fetch_all(tx)
    .await?;
    Ok(pools.into_iter().map(PoolId).collect())
}

/// Organizations without a pool for their people, at most `limit`.
pub async fn organizations_without_people(
    tx: &mut PgConnection,
    limit: i64,
) -> Result<Vec<OrgId>, StoreError> {
    let found = sqlx::query_scalar!(
        "select o.id from organization o
          where not exists (select from client_pool p where p.org_id = o.id and p.kind = 'sso')
          order by o.id
          limit $1",
        limit,
    )
    .fetch_all(tx)
    .await?;
    found.iter().map(|org| id("organization.id", org)).collect()
}

/// Deletes a pool with its keys, certificates and revocations. Nothing else may belong to it any more.
pub async fn delete(tx: &mut PgConnection, owner: &PoolOwner) -> Result<(), StoreError> {
    super::device_certificate::delete_all(tx, owner).await?;
    super::revoked_record::delete_all(tx, owner).await?;
    super::revoked_token::delete_all(tx, owner).await?;
    super::status_block::delete_all(tx, owner).await?;
    sqlx::query!(
        "delete from signing_key where org_id = $1 and pool_id = $2",
        owner.org().as_str(),
        owner.pool().0,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from client_pool where org_id = $1 and id = $2",
        owner.org().as_str(),
        owner.pool().0,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Lets the edge ask for the revocation lists of pools from before there were any, once these have been in KV for a while.
/// Answers with the pools' keys.
pub async fn begin_revocation_lists(
    tx: &mut PgConnection,
    published_before: OffsetDateTime,
) -> Result<Vec<KvKey>, StoreError> {
    let pools = sqlx::query_scalar!(
        "update client_pool c set revocation_shards = $2::integer
          where c.revocation_shards = 0
            and $2::integer = (select count(*)
                        from generate_series(0, $2::integer - 1) shard
                        join publication p on p.key = 'v1/revoked/' || c.id || '/' || shard
                       where p.published_at < $1)
         returning c.id",
        published_before,
        integer(SHARDS),
    )
    .fetch_all(tx)
    .await?;
    Ok(pools.into_iter().map(|pool| KvKey::Pool(PoolId(pool))).collect())
}

/// Locks the environment's pool against changes of its rules, roots and denials until the transaction ends.
pub async fn lock(tx: &mut PgConnection, scope: &EnvScope) -> Result<(), StoreError> {
    sqlx::query!(
        "select id from client_pool where org_id = $1 and env_id = $2 and id = $3 for no key update",
        scope.org().as_str(),
        scope.env().as_str(),
        scope.pool().0,
    )
    .fetch_optional(tx)
    .await?;
    Ok(())
}

/// Writes the rules that may be changed.
pub async fn update(tx: &mut PgConnection, scope: &EnvScope, pool: &ClientPool) -> Result<(), StoreError> {
    let policy = &pool.provisioning;
    let tags: BTreeMap<&String, String> =
        policy.tags.iter().map(|(name, template)| (name, template.to_string())).collect();
    // What it says can be said in JSON: texts and lists of texts.
    let matching = policy.matching.as_ref().and_then(|matching| serde_json::to_value(matching).ok());
    sqlx::query!(
        "update client_pool
            set token_ttl_seconds = $4, earlier_token_ttl_seconds = $5, earlier_token_ttl_until = $6,
                claims_profile = $7, audience = $8, cors_origins = $9, max_staleness_seconds = $10, updated_at = $11,
                provisioning_mode = $12, provisioning_match = $13, provisioning_client_app_id = $14,
                provisioning_scopes = $15, device_id_template = $16, provisioning_tags = $17,
                provisioning_max_per_hour = $18, bind_to_certificate = $19, rotation_period_seconds = $20,
                key_backend = $21, key_mode = $22, kms_key_id = $23,
                keys_due_at = case when rotation_period_seconds = $20 then keys_due_at else '-infinity' end
          where org_id = $1 and env_id = $2 and id = $3",
        scope.org().as_str(),
        scope.env().as_str(),
        pool.id.0,
        integer(pool.token_ttl_seconds),
        pool.earlier_token_ttl.map(|earlier| integer(earlier.seconds)),
        pool.earlier_token_ttl.map(|earlier| earlier.until),
        profile_name(pool.claims_profile),
        &pool.audience,
        &pool.cors_origins,
        integer(pool.max_staleness_seconds),
        pool.updated_at,
        mode_name(policy.mode),
        matching,
        policy.client_app_id.as_str(),
        &Vec::from(policy.scopes.clone()),
        policy.device_id_template.to_string(),
        Json(&tags) as _,
        integer(policy.max_per_hour),
        pool.bind_to_certificate,
        integer(pool.rotation_period_seconds),
        backend_name(&pool.keys),
        pool.keys.mode().map(mode_of_kms),
        pool.keys.kms_key_id(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn select(tx: &mut PgConnection, scope: &EnvScope) -> Result<Option<ClientPool>, StoreError> {
    let row = sqlx::query!(
        r#"select id, token_ttl_seconds, earlier_token_ttl_seconds, earlier_token_ttl_until, claims_profile, audience,
                  cors_origins, key_backend, key_mode, kms_key_id, rotation_period_seconds, max_staleness_seconds,
                  provisioning_mode, provisioning_match, provisioning_client_app_id, provisioning_scopes,
                  device_id_template, provisioning_tags as "provisioning_tags: Json<BTreeMap<String, String>>",
                  provisioning_max_per_hour, bind_to_certificate, created_at, updated_at
             from client_pool
            where org_id = $1 and env_id = $2 and id = $3"#,
        scope.org().as_str(),
        scope.env().as_str(),
        scope.pool().0,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        let earlier = row.earlier_token_ttl_seconds.zip(row.earlier_token_ttl_until);
        Ok(ClientPool {
            id: PoolId(row.id),
            token_ttl_seconds: row.token_ttl_seconds.unsigned_abs(),
            earlier_token_ttl: earlier
                .map(|(seconds, until)| EarlierTokenTtl { seconds: seconds.unsigned_abs(), until }),
            claims_profile: read_profile(&row.claims_profile)?,
            audience: row.audience,
            cors_origins: row.cors_origins,
            keys: read_backend(&row.key_backend, row.key_mode.as_deref(), row.kms_key_id)?,
            rotation_period_seconds: row.rotation_period_seconds.unsigned_abs(),
            max_staleness_seconds: row.max_staleness_seconds.unsigned_abs(),
            provisioning: read_policy(PolicyColumns {
                mode: row.provisioning_mode,
                matching: row.provisioning_match,
                client_app_id: row.provisioning_client_app_id,
                scopes: row.provisioning_scopes,
                device_id_template: row.device_id_template,
                tags: row.provisioning_tags.0,
                max_per_hour: row.provisioning_max_per_hour,
            })?,
            bind_to_certificate: row.bind_to_certificate,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    })
    .transpose()
}

/// The profile's name in the database, which is its name in the API.
pub fn profile_name(profile: ClaimsProfile) -> &'static str {
    match profile {
        ClaimsProfile::Device => "device",
        ClaimsProfile::Rfc9068 => "rfc9068",
    }
}

pub(super) fn read_profile(name: &str) -> Result<ClaimsProfile, StoreError> {
    match name {
        "device" => Ok(ClaimsProfile::Device),
        "rfc9068" => Ok(ClaimsProfile::Rfc9068),
        _ => Err(corrupt("client_pool.claims_profile", "unknown")),
    }
}

/// The columns of a policy.
pub(super) struct PolicyColumns {
    pub(super) mode: String,
    pub(super) matching: Option<Value>,
    pub(super) client_app_id: String,
    pub(super) scopes: Vec<String>,
    pub(super) device_id_template: String,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) max_per_hour: i32,
}

/// The policy that the columns say.
pub(super) fn read_policy(columns: PolicyColumns) -> Result<ProvisioningPolicy, StoreError> {
    let template = |(name, text): (String, String)| match text.parse() {
        Ok(template) => Ok((name, template)),
        Err(error) => Err(corrupt("client_pool.provisioning_tags", error)),
    };
    let matching = columns.matching.map(serde_json::from_value::<CertificateMatch>).transpose();
    Ok(ProvisioningPolicy {
        mode: [ProvisioningMode::Off, ProvisioningMode::Registered, ProvisioningMode::Auto]
            .into_iter()
            .find(|mode| mode_name(*mode) == columns.mode)
            .ok_or_else(|| corrupt("client_pool.provisioning_mode", "unknown"))?,
        matching: matching.map_err(|error| corrupt("client_pool.provisioning_match", error))?,
        client_app_id: id("client_pool.provisioning_client_app_id", &columns.client_app_id)?,
        scopes: Scopes::new(columns.scopes)
            .map_err(|error| corrupt("client_pool.provisioning_scopes", error))?,
        device_id_template: columns
            .device_id_template
            .parse()
            .map_err(|error| corrupt("client_pool.device_id_template", error))?,
        tags: columns.tags.into_iter().map(template).collect::<Result<_, _>>()?,
        max_per_hour: columns.max_per_hour.unsigned_abs(),
    })
}

/// The mode's name in the database, which is its name in the API.
pub fn mode_name(mode: ProvisioningMode) -> &'static str {
    match mode {
        ProvisioningMode::Off => "off",
        ProvisioningMode::Registered => "registered",
        ProvisioningMode::Auto => "auto",
    }
}

/// The backend's name in the database, which is its name in the API.
pub fn backend_name(backend: &KeyBackend) -> &'static str {
    match backend {
        KeyBackend::Local => "local",
        KeyBackend::AwsKms { .. } => "aws_kms",
    }
}

/// The mode's name in the database, which is its name in the API.
pub fn mode_of_kms(mode: KmsMode) -> &'static str {
    match mode {
        KmsMode::Envelope => "envelope",
        KmsMode::KmsSign => "kms_sign",
    }
}

/// A backend for audit events, by the names that the API has for its parts.
fn backend_with_api_names<S: Serializer>(backend: &KeyBackend, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(3))?;
    map.serialize_entry("keyBackend", backend_name(backend))?;
    map.serialize_entry("keyMode", &backend.mode().map(mode_of_kms))?;
    map.serialize_entry("kmsKeyId", &backend.kms_key_id())?;
    map.end()
}

/// A policy for audit events, by the names that the API has for its parts.
fn with_api_names<S: Serializer>(policy: &ProvisioningPolicy, serializer: S) -> Result<S::Ok, S::Error> {
    provisioning_policy::to_json(policy).serialize(serializer)
}

/// PostgreSQL has no unsigned integers; every number here is bounded far below the limit at the door.
fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Keeps the pool's row from being deleted, or locked for a change, until the transaction ends: for whoever is about to
/// refer to it, and locks something else before.
pub async fn share(tx: &mut PgConnection, pool: PoolId) -> Result<(), StoreError> {
    sqlx::query!("select from client_pool where id = $1 for key share", pool.0).fetch_optional(tx).await?;
    Ok(())
}
