//! The rules of client pools.

use keypost_shared::document::{ClaimsProfile, MAX_TOKEN_TTL};
use keypost_shared::id::PoolId;
use keypost_shared::kv_key::KvKey;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::access::GlobalScope;
use super::audit::Event;
use super::change::Change;
use super::pool_keys::{self, Backend, CheckedKey, KeyPatch};
use super::precondition::Precondition;
use super::provisioning_policy::{self, ProvisioningPatch};
use super::{ChangeError, Context, CreateError, signing_key};
use crate::clock::seconds;
use crate::config::Mode;
use crate::key_maker::{KeyBackend, KmsMode};
use crate::store::client_pool::{ClientPool, EarlierTokenTtl};
use crate::store::environment::EnvScope;
use crate::store::publication::Priority;
use crate::store::signing_key::PoolOwner;
use crate::store::{self, StoreError};

/// What is to change; none leaves a rule as it is.
#[derive(Clone, Debug, Default, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct PoolChange {
    /// How long access tokens live, in seconds.
    pub token_ttl_seconds: Option<u32>,
    /// For how long the edge may believe a copy, in seconds.
    pub max_staleness_seconds: Option<u32>,
    /// How long a signing key signs before the next one takes over, in seconds.
    pub rotation_period_seconds: Option<u32>,
    /// Which claims tokens carry.
    #[schema(value_type = Option<String>)]
    pub claims_profile: Option<ClaimsProfile>,
    /// The tokens' `aud`.
    pub audience: Option<Vec<String>>,
    /// The origins that browsers may POST from.
    pub cors_origins: Option<Vec<String>>,
    /// Which devices may come with a certificate: a merge patch within the merge patch.
    #[schema(value_type = Option<ProvisioningPatch>)]
    pub provisioning: Option<Value>,
    /// Whether a token got by certificate is bound to it.
    pub bind_to_certificate: Option<bool>,
    /// Where its signing keys are kept: `local` or `aws_kms`. For a global admin key, as are the two below.
    #[schema(value_type = Option<String>)]
    pub key_backend: Option<Backend>,
    /// How AWS KMS is used: `envelope` or `kms_sign`.
    #[schema(value_type = Option<String>)]
    pub key_mode: Option<Option<KmsMode>>,
    /// The key in AWS KMS: its ARN, id or alias. Answers have its ARN.
    #[schema(value_type = Option<String>)]
    pub kms_key_id: Option<Option<String>>,
}

impl PoolChange {
    fn keys(&self) -> KeyPatch {
        KeyPatch { backend: self.key_backend, mode: self.key_mode, kms_key_id: self.kms_key_id.clone() }
    }
}

/// Adds the pool of an environment, or of the people of an organization, which the same transaction has added or locked: with
/// the default rules, and two keys, one that signs at once and the one that will follow it.
pub(super) async fn add(change: &mut Change, owner: &PoolOwner) -> Result<(), CreateError> {
    let now = change.now();
    // How long the tokens of people live is the deployment's to say.
    let token_ttl = owner.env().is_none().then(|| change.context().sso.access_token_ttl_seconds());
    let longest_window = store::snapshot::longest_window(change.tx()).await?;
    let window = store::client_pool::insert(change.tx(), owner, token_ttl, now).await?;
    signing_key::add_first(change, owner).await?;
    change.mark(KvKey::Pool(owner.pool()), Priority::Change);
    // Empty, and there: without them nothing is issued.
    for list in store::status_block::keys_of_lists(change.tx(), owner.pool()).await? {
        change.mark(list, Priority::Change);
    }
    if longest_window.is_none_or(|longest| longest < window) {
        change.mark(KvKey::Trust, Priority::Change);
    }
    Ok(())
}

/// Whose this pool is, an environment's or an organization's, for who has not been let in anywhere yet.
pub async fn owner_of(context: &Context, pool: PoolId) -> Result<Option<PoolOwner>, StoreError> {
    let mut connection = context.connection().await?;
    store::signing_key::owner_of(&mut connection, pool).await
}

/// The environment's pool.
pub async fn find(context: &Context, scope: &EnvScope) -> Result<Option<ClientPool>, StoreError> {
    let mut connection = context.connection().await?;
    store::client_pool::find(&mut connection, scope).await
}

/// Changes the rules of the environment's pool, and answers with all of them.
pub async fn change(
    context: &Context,
    scope: &EnvScope,
    precondition: &Precondition,
    rules: PoolChange,
    everything: Option<&GlobalScope>,
) -> Result<ClientPool, ChangeError> {
    check_bounds(context.mode, &rules)?;
    let patch = rules.keys();
    let checked = check_keys(context, scope, &patch, everything).await?;
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = store::client_pool::find_for_update(change.tx(), scope).await?.ok_or(ChangeError::Gone)?;
    precondition.check(before.updated_at)?;
    let longest_window = store::snapshot::longest_window(change.tx()).await?;
    let keys = pool_keys::wanted(&before, &patch)?;
    let mut after = apply(before.clone(), rules, change.touch(before.updated_at))?;
    if let Some(wanted) = keys {
        after.keys = take_keys(&mut change, scope, wanted, checked).await?;
    }
    store::client_pool::update(change.tx(), scope, &after).await?;
    change.mark(KvKey::Pool(after.id), Priority::Change);
    if longest_window.is_none_or(|longest| longest < after.max_staleness_seconds) {
        change.mark(KvKey::Trust, Priority::Change);
    }
    if before.max_staleness_seconds != after.max_staleness_seconds {
        // They end with the pool's window.
        for list in store::status_block::keys_of_lists(change.tx(), after.id).await? {
            change.mark(list, Priority::Change);
        }
    }
    change.record(Event::updated(scope.target("pool", after.id), &before, &after));
    change.commit().await?;
    Ok(after)
}

/// Asks KMS about the key that the pool is to have, if it is to have another.
async fn check_keys(
    context: &Context,
    scope: &EnvScope,
    patch: &KeyPatch,
    everything: Option<&GlobalScope>,
) -> Result<Option<(KeyBackend, CheckedKey)>, ChangeError> {
    if *patch == KeyPatch::default() {
        return Ok(None);
    }
    let before = find(context, scope).await?.ok_or(ChangeError::Gone)?;
    let Some(wanted) = pool_keys::wanted(&before, patch)? else { return Ok(None) };
    let everything = everything.ok_or(ChangeError::GlobalOnly("keyBackend, keyMode and kmsKeyId"))?;
    match &wanted {
        KeyBackend::Local => Ok(None),
        KeyBackend::AwsKms { mode, key_id } => {
            let key = pool_keys::check(context, everything, before.id, *mode, key_id).await?;
            Ok(Some((wanted, key)))
        }
    }
}

/// Lets the pool's next key be kept there. It takes over as in any other rotation.
async fn take_keys(
    change: &mut Change,
    scope: &EnvScope,
    wanted: KeyBackend,
    checked: Option<(KeyBackend, CheckedKey)>,
) -> Result<KeyBackend, ChangeError> {
    let now = change.now();
    let keys = match (&wanted, checked) {
        (KeyBackend::Local, _) => wanted,
        (KeyBackend::AwsKms { mode, .. }, Some((asked, key))) if asked == wanted => {
            pool_keys::claim(change.tx(), scope.pool(), *mode, &key, now).await?
        }
        // Somebody else has changed the pool since KMS was asked.
        (KeyBackend::AwsKms { .. }, _) => {
            let detail =
                "was not asked about in KMS, because the pool was changed at the same moment: try again";
            return Err(ChangeError::Taken { field: "kmsKeyId", detail });
        }
    };
    store::signing_key::set_due(change.tx(), &PoolOwner::from(scope), now).await?;
    Ok(keys)
}

fn check_bounds(mode: Mode, change: &PoolChange) -> Result<(), ChangeError> {
    let (shortest_ttl, shortest_window, shortest_period) = match mode {
        Mode::Dev => (1, 10, 1),
        Mode::Prod => (60, 900, 86_400),
    };
    let longest_ttl = u32::try_from(MAX_TOKEN_TTL).unwrap_or(u32::MAX);
    let check = |field, value: Option<u32>, least, most| match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(ChangeError::Wrong { field, detail: format!("must be from {least} to {most}") })
        }
        _ => Ok(()),
    };
    check("tokenTtlSeconds", change.token_ttl_seconds, shortest_ttl, longest_ttl)?;
    check("maxStalenessSeconds", change.max_staleness_seconds, shortest_window, 7 * 86_400)?;
    check("rotationPeriodSeconds", change.rotation_period_seconds, shortest_period, 5 * 365 * 86_400)
}

fn apply(before: ClientPool, change: PoolChange, now: OffsetDateTime) -> Result<ClientPool, ChangeError> {
    let token_ttl_seconds = change.token_ttl_seconds.unwrap_or(before.token_ttl_seconds);
    let provisioning = match change.provisioning {
        Some(patch) => provisioning_policy::patched(&before.provisioning, patch)
            .map_err(|wrong| ChangeError::WrongFields(wrong.0))?,
        None => before.provisioning.clone(),
    };
    Ok(ClientPool {
        earlier_token_ttl: earlier_token_ttl(&before, token_ttl_seconds, now),
        token_ttl_seconds,
        max_staleness_seconds: change.max_staleness_seconds.unwrap_or(before.max_staleness_seconds),
        rotation_period_seconds: change.rotation_period_seconds.unwrap_or(before.rotation_period_seconds),
        claims_profile: change.claims_profile.unwrap_or(before.claims_profile),
        audience: change.audience.unwrap_or(before.audience),
        cors_origins: change.cors_origins.unwrap_or(before.cors_origins),
        provisioning,
        bind_to_certificate: change.bind_to_certificate.unwrap_or(before.bind_to_certificate),
        updated_at: now,
        ..before
    })
}

/// What must be remembered of a longer lifetime: an edge may go by the old document for its whole window, and a token
/// that it issues then lives on for its own lifetime.
fn earlier_token_ttl(before: &ClientPool, after: u32, now: OffsetDateTime) -> Option<EarlierTokenTtl> {
    let ended_now = (before.token_ttl_seconds > after).then(|| EarlierTokenTtl {
        seconds: before.token_ttl_seconds,
        until: now + seconds(before.max_staleness_seconds) + seconds(before.token_ttl_seconds),
    });
    let remembered =
        before.earlier_token_ttl.filter(|earlier| earlier.until > now && earlier.seconds > after);
    match (ended_now, remembered) {
        // Of two, the longer lifetime until the later end: that is never too short.
        (Some(a), Some(b)) => {
            Some(EarlierTokenTtl { seconds: a.seconds.max(b.seconds), until: a.until.max(b.until) })
        }
        (one, other) => one.or(other),
    }
}
