//! The rules of client pools.

use keypost_shared::document::{ClaimsProfile, MAX_TOKEN_TTL};
use keypost_shared::kv_key::KvKey;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::audit::Event;
use super::change::Change;
use super::precondition::Precondition;
use super::provisioning_policy::{self, ProvisioningPatch};
use super::{ChangeError, Context};
use crate::clock::seconds;
use crate::config::Mode;
use crate::store::client_pool::{ClientPool, EarlierTokenTtl};
use crate::store::environment::EnvScope;
use crate::store::publication::Priority;
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
) -> Result<ClientPool, ChangeError> {
    check_bounds(context.mode, &rules)?;
    let mut change = Change::begin(context, scope.actor()).await?;
    let before = store::client_pool::find_for_update(change.tx(), scope).await?.ok_or(ChangeError::Gone)?;
    precondition.check(before.updated_at)?;
    let longest_window = store::snapshot::longest_window(change.tx()).await?;
    let after = apply(before.clone(), rules, change.touch(before.updated_at))?;
    store::client_pool::update(change.tx(), scope, &after).await?;
    change.mark(KvKey::Pool(after.id), Priority::Change);
    if longest_window.is_none_or(|longest| longest < after.max_staleness_seconds) {
        change.mark(KvKey::Trust, Priority::Change);
    }
    change.record(Event::updated(scope.target("pool", after.id), &before, &after));
    change.commit().await?;
    Ok(after)
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
