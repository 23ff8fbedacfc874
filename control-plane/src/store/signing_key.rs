//! `signing_key`: the keys of client pools.
//!
//! Whoever changes a pool's keys has [locked](lock_pool) the pool. Keys are locked in the order of their ids, and before
//! any row of `publication`.

use keypost_shared::id::{EnvId, Kid, OrgId, PoolId};
use keypost_shared::jwk::SigningAlg;
use keypost_shared::signing_key::{Policy, SigningKey, Snapshot, State, Times};
use keypost_shared::time::UnixTime;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::environment::EnvScope;
use super::{StoreError, corrupt, id};
use crate::clock::{from_unix, unix};
use crate::key_maker::{KeyBackend, KmsMode, MadeKey, StoredPrivate};
use crate::service::audit::Target;

/// A pool, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOwner {
    org: OrgId,
    env: Option<EnvId>,
    pool: PoolId,
}

impl PoolOwner {
    /// The pool of an organization's people.
    pub fn of_people(org: &OrgId, pool: PoolId) -> Self {
        Self { org: org.clone(), env: None, pool }
    }

    /// The organization.
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// The environment; none for the pool of an organization's people.
    pub fn env(&self) -> Option<&EnvId> {
        self.env.as_ref()
    }

    /// The pool.
    pub fn pool(&self) -> PoolId {
        self.pool
    }

    /// One of its keys, as audit events name it.
    pub fn target(&self, kid: &Kid) -> Target {
        self.target_of("signing_key", kid)
    }

    /// Something of the pool, as audit events name it.
    pub fn target_of(&self, kind: &'static str, id: impl ToString) -> Target {
        Target { org: Some(self.org.clone()), env: self.env.clone(), kind, id: id.to_string() }
    }
}

impl From<&EnvScope> for PoolOwner {
    fn from(scope: &EnvScope) -> Self {
        Self { org: scope.org().clone(), env: Some(scope.env().clone()), pool: scope.pool() }
    }
}

/// What is decided on.
#[derive(Clone, Debug)]
pub struct PoolKeys {
    /// The keys.
    pub snapshot: Snapshot,
    /// The pool's times.
    pub policy: Policy,
    /// How new keys are kept.
    pub backend: KeyBackend,
}

/// A key as it is told of.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// The public half's thumbprint.
    pub kid: Kid,
    /// What it signs with.
    pub alg: SigningAlg,
    /// `local` or `aws_kms`.
    pub backend: String,
    /// `envelope` or `kms_sign`, for `aws_kms`.
    pub key_mode: Option<String>,
    /// `next`, `active`, `retiring`, `gone` or `revoked`.
    pub state: String,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When a pool document with it was first known to be in KV.
    pub published_at: Option<OffsetDateTime>,
    /// When it began to sign.
    pub activated_at: Option<OffsetDateTime>,
    /// When it stopped.
    pub retired_at: Option<OffsetDateTime>,
    /// When it left the key set.
    pub removed_at: Option<OffsetDateTime>,
    /// Until when tokens that it signed may be valid.
    pub tokens_until: Option<OffsetDateTime>,
}

/// Whose this pool is, for who has not been let in anywhere yet.
pub async fn owner_of(tx: &mut PgConnection, pool: PoolId) -> Result<Option<PoolOwner>, StoreError> {
    let row = sqlx::query!("select org_id, env_id from client_pool where id = $1", pool.0)
        .fetch_optional(tx)
        .await?;
    row.map(|row| {
        let env = row.env_id.map(|env| id("client_pool.env_id", &env)).transpose()?;
        Ok(PoolOwner { org: id("client_pool.org_id", &row.org_id)?, env, pool })
    })
    .transpose()
}

/// Pools whose keys somebody must look after now: the oldest due first.
pub async fn due_pools(
    tx: &mut PgConnection,
    limit: i64,
    now: OffsetDateTime,
) -> Result<Vec<PoolOwner>, StoreError> {
    let rows = sqlx::query!(
        "select id, org_id, env_id from client_pool where keys_due_at <= $1 order by keys_due_at limit $2",
        now,
        limit,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(PoolOwner {
                org: id("client_pool.org_id", &row.org_id)?,
                env: row.env_id.map(|env| id("client_pool.env_id", &env)).transpose()?,
                pool: PoolId(row.id),
            })
        })
        .collect()
}

/// Locks a pool and its keys until the transaction ends, and answers with what is decided on; none where it is gone.
pub async fn lock_pool(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    times: Times,
    now: OffsetDateTime,
) -> Result<Option<PoolKeys>, StoreError> {
    sqlx::query!(
        "select id from client_pool where org_id = $1 and id = $2 for no key update",
        owner.org.as_str(),
        owner.pool.0,
    )
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query!(
        "select kid from signing_key
          where org_id = $1 and pool_id = $2 and state in ('next', 'active', 'retiring')
          order by kid
            for no key update",
        owner.org.as_str(),
        owner.pool.0,
    )
    .fetch_all(&mut *tx)
    .await?;
    read_pool(tx, owner, times, now).await
}

/// The same without a lock, for who only wants to know.
pub async fn read_pool(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    times: Times,
    now: OffsetDateTime,
) -> Result<Option<PoolKeys>, StoreError> {
    let pool = sqlx::query!(
        "select key_backend, key_mode, kms_key_id, rotation_period_seconds, max_staleness_seconds,
                token_ttl_seconds, earlier_token_ttl_seconds, earlier_token_ttl_until
           from client_pool
          where org_id = $1 and id = $2",
        owner.org.as_str(),
        owner.pool.0,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(pool) = pool else { return Ok(None) };
    let earlier = pool.earlier_token_ttl_seconds.zip(pool.earlier_token_ttl_until);
    let earlier = earlier.filter(|(_, until)| *until > now).map_or(0, |(seconds, _)| seconds);
    let policy = Policy {
        stand: times.stand,
        skew: times.skew,
        linger: times.linger,
        overrun: times.overrun,
        period: pool.rotation_period_seconds.unsigned_abs().into(),
        window: pool.max_staleness_seconds.unsigned_abs().into(),
        longest_token_ttl: pool.token_ttl_seconds.max(earlier).unsigned_abs().into(),
    };
    let backend = read_backend(&pool.key_backend, pool.key_mode.as_deref(), pool.kms_key_id)?;
    let rows = sqlx::query_as!(
        Row,
        "select kid, state, backend, key_mode, kms_key_id, created_at, published_at, activated_at, ends_at,
                tokens_until, rotation_asked_at
           from signing_key
          where org_id = $1 and pool_id = $2 and state in ('next', 'active', 'retiring')
          order by kid",
        owner.org.as_str(),
        owner.pool.0,
    )
    .fetch_all(&mut *tx)
    .await?;
    // Of the keys that have ever signed, the last.
    let last = sqlx::query_scalar!(
        "select state from signing_key
          where org_id = $1 and pool_id = $2 and activated_at is not null
          order by activated_at desc
          limit 1",
        owner.org.as_str(),
        owner.pool.0,
    )
    .fetch_optional(tx)
    .await?;
    let seconds = |time: Option<OffsetDateTime>| time.map(unix);
    let key = |row: Row| -> Result<SigningKey, StoreError> {
        let created_at = unix(row.created_at);
        let since = seconds(row.activated_at).unwrap_or(created_at);
        let state = match row.state.as_str() {
            "next" => State::Next,
            "active" => State::Active {
                since,
                ends_at: seconds(row.ends_at).unwrap_or(since + policy.period + policy.overrun),
                tokens_until: seconds(row.tokens_until),
                rotation_asked: row.rotation_asked_at.is_some(),
            },
            "retiring" => State::Retiring {
                tokens_until: seconds(row.tokens_until)
                    .ok_or_else(|| corrupt("signing_key.tokens_until", "missing"))?,
            },
            _ => return Err(corrupt("signing_key.state", "unknown")),
        };
        let fits = match (&backend, read_backend(&row.backend, row.key_mode.as_deref(), row.kms_key_id)?) {
            (KeyBackend::AwsKms { mode: KmsMode::KmsSign, .. }, KeyBackend::AwsKms { mode, .. }) => {
                mode == KmsMode::KmsSign
            }
            (wanted, is) => *wanted == is,
        };
        let kid = id("signing_key.kid", &row.kid)?;
        Ok(SigningKey { kid, state, fits, created_at, published_at: seconds(row.published_at) })
    };
    let keys = rows.into_iter().map(key).collect::<Result<_, _>>()?;
    let hurry = last.is_none_or(|state| state == "revoked");
    Ok(Some(PoolKeys { snapshot: Snapshot { keys, hurry }, policy, backend }))
}

struct Row {
    kid: String,
    state: String,
    backend: String,
    key_mode: Option<String>,
    kms_key_id: Option<String>,
    created_at: OffsetDateTime,
    published_at: Option<OffsetDateTime>,
    activated_at: Option<OffsetDateTime>,
    ends_at: Option<OffsetDateTime>,
    tokens_until: Option<OffsetDateTime>,
    rotation_asked_at: Option<OffsetDateTime>,
}

/// Notes when somebody must look after the pool's keys again.
pub async fn set_due(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    due_at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update client_pool set keys_due_at = $3 where org_id = $1 and id = $2",
        owner.org.as_str(),
        owner.pool.0,
        due_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Adds a key to the pool, as the next one.
pub async fn insert(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    key: &MadeKey,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let (backend, mode, kms_key_id, data_key, sealed) = match &key.private {
        StoredPrivate::Local { sealed } => ("local", None, None, None, Some(sealed)),
        StoredPrivate::Envelope { kms_key_id, data_key, sealed } => {
            ("aws_kms", Some("envelope"), Some(kms_key_id), Some(data_key), Some(sealed))
        }
        StoredPrivate::KmsSign { kms_key_id } => ("aws_kms", Some("kms_sign"), Some(kms_key_id), None, None),
    };
    sqlx::query!(
        "insert into signing_key
             (kid, org_id, pool_id, alg, backend, key_mode, kms_key_id, kms_data_key, state, public_jwk,
              private_sealed, created_at)
         values ($1, $2, $3, 'ES256', $4, $5, $6, $7, 'next', $8, $9, $10)",
        key.kid.as_str(),
        owner.org.as_str(),
        owner.pool.0,
        backend,
        mode,
        kms_key_id,
        data_key,
        Json(&key.public) as _,
        sealed,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Lets a key sign from now on. The one before has been retired or revoked.
pub async fn activate(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    kid: &Kid,
    ends_at: UnixTime,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update signing_key set state = 'active', activated_at = $4, ends_at = $5
          where org_id = $1 and pool_id = $2 and kid = $3 and state = 'next'",
        owner.org.as_str(),
        owner.pool.0,
        kid.as_str(),
        now,
        from_unix(ends_at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Lets a key sign no more.
pub async fn retire(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    kid: &Kid,
    tokens_until: UnixTime,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update signing_key
            set state = 'retiring', retired_at = $4, tokens_until = greatest(tokens_until, $5), rotation_asked_at = null
          where org_id = $1 and pool_id = $2 and kid = $3 and state = 'active'",
        owner.org.as_str(),
        owner.pool.0,
        kid.as_str(),
        now,
        from_unix(tokens_until),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes a key out of the key set because nobody needs it any more, and forgets its private half.
pub async fn remove(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    kid: &Kid,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update signing_key set state = 'gone', removed_at = $4, private_sealed = null, kms_data_key = null
          where org_id = $1 and pool_id = $2 and kid = $3 and state in ('next', 'retiring')",
        owner.org.as_str(),
        owner.pool.0,
        kid.as_str(),
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes a key out of use and out of the key set, whatever it does, and forgets its private half.
pub async fn revoke(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    kid: &Kid,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update signing_key
            set state = 'revoked', removed_at = coalesce(removed_at, $4), private_sealed = null, kms_data_key = null,
                rotation_asked_at = null
          where org_id = $1 and pool_id = $2 and kid = $3",
        owner.org.as_str(),
        owner.pool.0,
        kid.as_str(),
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that somebody has asked for the successor of the key that signs.
pub async fn ask_for_rotation(
    tx: &mut PgConnection,
    owner: &PoolOwner,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update signing_key set rotation_asked_at = coalesce(rotation_asked_at, $3)
          where org_id = $1 and pool_id = $2 and state = 'active'",
        owner.org.as_str(),
        owner.pool.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The pool's keys, also those that are gone, newest first; after `after`.
pub async fn list(
    tx: &mut PgConnection,
    scope: &EnvScope,
    after: Option<&Kid>,
    rows: i64,
) -> Result<Vec<KeyRecord>, StoreError> {
    let found = sqlx::query_as!(
        RecordRow,
        "select kid, alg, backend, key_mode, state, created_at, published_at, activated_at, retired_at, removed_at,
                tokens_until
           from signing_key
          where org_id = $1 and pool_id = $2
            and ($3::text is null
                 or (created_at, kid) < (select a.created_at, a.kid from signing_key a
                                          where a.org_id = $1 and a.pool_id = $2 and a.kid = $3))
          order by created_at desc, kid desc
          limit $4",
        scope.org().as_str(),
        scope.pool().0,
        after.map(Kid::as_str),
        rows,
    )
    .fetch_all(tx)
    .await?;
    found.into_iter().map(KeyRecord::try_from).collect()
}

/// One of the pool's keys.
pub async fn find(
    tx: &mut PgConnection,
    scope: &EnvScope,
    kid: &Kid,
) -> Result<Option<KeyRecord>, StoreError> {
    let found = sqlx::query_as!(
        RecordRow,
        "select kid, alg, backend, key_mode, state, created_at, published_at, activated_at, retired_at, removed_at,
                tokens_until
           from signing_key
          where org_id = $1 and pool_id = $2 and kid = $3",
        scope.org().as_str(),
        scope.pool().0,
        kid.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    found.map(KeyRecord::try_from).transpose()
}

struct RecordRow {
    kid: String,
    alg: String,
    backend: String,
    key_mode: Option<String>,
    state: String,
    created_at: OffsetDateTime,
    published_at: Option<OffsetDateTime>,
    activated_at: Option<OffsetDateTime>,
    retired_at: Option<OffsetDateTime>,
    removed_at: Option<OffsetDateTime>,
    tokens_until: Option<OffsetDateTime>,
}

impl TryFrom<RecordRow> for KeyRecord {
    type Error = StoreError;

    fn try_from(row: RecordRow) -> Result<Self, StoreError> {
        if row.alg != "ES256" {
            return Err(corrupt("signing_key.alg", "unknown"));
        }
        Ok(Self {
            kid: id("signing_key.kid", &row.kid)?,
            alg: SigningAlg::ES256,
            backend: row.backend,
            key_mode: row.key_mode,
            state: row.state,
            created_at: row.created_at,
            published_at: row.published_at,
            activated_at: row.activated_at,
            retired_at: row.retired_at,
            removed_at: row.removed_at,
            tokens_until: row.tokens_until,
        })
    }
}

/// What a document that is about to be sent says of the key that signs.
#[derive(Clone, Debug)]
pub struct Named {
    /// The pool.
    pub pool: PoolId,
    /// The key that it names.
    pub kid: Kid,
    /// Until when a token may be valid that is issued by this document.
    pub tokens_until: OffsetDateTime,
}

/// Notes, before they are sent, which keys documents let sign and how long their tokens may be valid. Answers with those
/// that are not to sign any more: their documents must not be sent.
pub async fn note_named(tx: &mut PgConnection, named: &[Named]) -> Result<Vec<PoolId>, StoreError> {
    let kids: Vec<String> = named.iter().map(|named| named.kid.clone().into()).collect();
    let until: Vec<OffsetDateTime> = named.iter().map(|named| named.tokens_until).collect();
    let noted = sqlx::query_scalar!(
        "with held as (
             select kid from signing_key where kid = any($1) and state = 'active' order by kid for no key update
         )
         update signing_key k
            set tokens_until = greatest(k.tokens_until, named.until)
           from held
           join unnest($1::text[], $2::timestamptz[]) as named (kid, until) on named.kid = held.kid
          where k.kid = held.kid
         returning k.kid",
        &kids,
        &until,
    )
    .fetch_all(tx)
    .await?;
    let outdated = named.iter().filter(|named| !noted.iter().any(|kid| kid == named.kid.as_str()));
    Ok(outdated.map(|named| named.pool).collect())
}

/// Locks those of these keys of which it is not known yet that they have been published.
pub async fn lock_unpublished(tx: &mut PgConnection, kids: &[Kid]) -> Result<Vec<Kid>, StoreError> {
    let kids: Vec<String> = kids.iter().cloned().map(String::from).collect();
    let found = sqlx::query_scalar!(
        "select kid from signing_key where kid = any($1) and published_at is null order by kid for no key update",
        &kids,
    )
    .fetch_all(tx)
    .await?;
    found.iter().map(|kid| id("signing_key.kid", kid)).collect()
}

/// Notes that documents with these keys are in KV.
pub async fn set_published(
    tx: &mut PgConnection,
    kids: &[Kid],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let kids: Vec<String> = kids.iter().cloned().map(String::from).collect();
    sqlx::query!(
        "update signing_key set published_at = $2 where kid = any($1) and published_at is null",
        &kids,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A backend, as its columns say.
pub(super) fn read_backend(
    backend: &str,
    mode: Option<&str>,
    kms_key_id: Option<String>,
) -> Result<KeyBackend, StoreError> {
    match (backend, mode, kms_key_id) {
        ("local", None, None) => Ok(KeyBackend::Local),
        ("aws_kms", Some("envelope"), Some(key_id)) => {
            Ok(KeyBackend::AwsKms { mode: KmsMode::Envelope, key_id })
        }
        ("aws_kms", Some("kms_sign"), Some(key_id)) => {
            Ok(KeyBackend::AwsKms { mode: KmsMode::KmsSign, key_id })
        }
        _ => Err(corrupt("key_backend", "unknown")),
    }
}

/// The private half of a key, wherever it is, as its columns say; none where it is forgotten.
pub fn read_private(
    backend: &str,
    mode: Option<&str>,
    kms_key_id: Option<String>,
    data_key: Option<Vec<u8>>,
    sealed: Option<Vec<u8>>,
) -> Result<Option<StoredPrivate>, StoreError> {
    Ok(match (read_backend(backend, mode, kms_key_id)?, data_key, sealed) {
        (KeyBackend::Local, _, Some(sealed)) => Some(StoredPrivate::Local { sealed }),
        (KeyBackend::AwsKms { mode: KmsMode::Envelope, key_id }, Some(data_key), Some(sealed)) => {
            Some(StoredPrivate::Envelope { kms_key_id: key_id, data_key, sealed })
        }
        (KeyBackend::AwsKms { mode: KmsMode::KmsSign, key_id }, ..) => {
            Some(StoredPrivate::KmsSign { kms_key_id: key_id })
        }
        _ => None,
    })
}
