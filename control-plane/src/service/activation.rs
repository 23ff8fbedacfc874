//! Activation: a device turns a one-time password into a client id and a secret.

use std::sync::Arc;
use std::time::Duration;

use keypost_shared::id::DeviceId;
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::{Otp, SecretText, generate_secret};
use serde_json::json;

use super::Context;
use super::attempts::{FailedAttempts, TooMany};
use super::audit::{Actor, ActorKind, Event, RequestSource, Target};
use super::change::Change;
use crate::store::oauth_client::EarlierSecrets;
use crate::store::otp::UsedOtp;
use crate::store::publication::{Mark, Priority};
use crate::store::{self, StoreError};

/// How long the secret before stays good: whoever still uses it, in a far city or because the answer with the new one was
/// lost, has time to be activated again.
const PREVIOUS_SECRET_LASTS: Duration = Duration::from_secs(600);
/// The try with a wrong device that ends a password.
const MOST_TRIES: i16 = 5;

/// What a device gets, once.
#[derive(Debug)]
pub struct Activation {
    /// Whom it is for.
    pub client: UsedOtp,
    /// The new secret.
    pub client_secret: SecretText,
    /// Whether the client's document is in KV.
    pub published: bool,
}

/// Why a device was not activated.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// There is no such password, or it has been used, has expired, has been tried too often, is another device's, or the
    /// device is disabled: all the same to the outside.
    #[error("the one-time password is not valid")]
    InvalidOtp,
    /// Too many failures from this address.
    #[error("too many failed attempts")]
    TooMany(#[from] TooMany),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Uses up the one-time password `typed` and gives the client that it is for a new secret.
///
/// `source` is who asks: failures count against its address.
pub async fn activate(
    context: &Context,
    attempts: &FailedAttempts,
    source: RequestSource,
    typed: &str,
    device: Option<&DeviceId>,
) -> Result<Activation, ActivationError> {
    let done = activate_uncounted(context, attempts, source, typed, device).await;
    context.metrics.activation(match &done {
        Ok(_) => "activated",
        Err(ActivationError::InvalidOtp) => "invalid_otp",
        Err(ActivationError::TooMany(_)) => "too_many_attempts",
        Err(ActivationError::Store(_)) => "error",
    });
    done
}

async fn activate_uncounted(
    context: &Context,
    attempts: &FailedAttempts,
    source: RequestSource,
    typed: &str,
    device: Option<&DeviceId>,
) -> Result<Activation, ActivationError> {
    let attempt = attempts.begin(source.address, context.now())?;
    let actor = Arc::new(source.actor(ActorKind::Otp, None, None));
    let activated = match Otp::parse(typed) {
        Some(otp) => use_otp(context, &actor, &otp, device).await,
        None => Err(ActivationError::InvalidOtp),
    };
    match activated {
        Err(ActivationError::InvalidOtp) => attempt.failed(context.now()),
        // Waiting for KV is no part of the attempt.
        _ => drop(attempt),
    }
    let (client, client_secret, marks) = activated?;

    let published = context.publications.published(&marks).await;
    tracing::info!(
        org = %client.org_id, env = %client.env_id, device = %client.device_id, client = %client.client_id, published,
        "a device has been activated"
    );
    Ok(Activation { client, client_secret, published })
}

/// One transaction: the password is used up only if the client gets its secret and KV will be told.
async fn use_otp(
    context: &Context,
    actor: &Arc<Actor>,
    otp: &Otp,
    device: Option<&DeviceId>,
) -> Result<(UsedOtp, SecretText, Vec<Mark>), ActivationError> {
    let now = context.now();
    let mut change = Change::begin(context, actor).await?;
    let hmacs = context.master_key.otp_hmacs(otp);
    let hmac = store::otp::stored(change.tx(), &hmacs).await?.unwrap_or(context.master_key.otp_hmac(otp));
    store::otp::lock_device(change.tx(), &hmac).await?;
    let Some(client) = store::otp::use_up(change.tx(), &hmac, device, MOST_TRIES, now).await? else {
        if let Some(device) = device {
            let exhausted =
                store::otp::count_wrong_device(change.tx(), &hmac, device, MOST_TRIES, now).await?;
            if let Some(otp) = exhausted {
                let target = Target {
                    org: Some(otp.org_id),
                    env: Some(otp.env_id),
                    kind: "otp",
                    id: otp.device_app_id.to_string(),
                };
                let changes = json!({"after": {"device": otp.device_id, "wrongDevices": MOST_TRIES}});
                change.record(Event::new(target, "exhaust", changes));
            }
            change.commit().await?;
        }
        return Err(ActivationError::InvalidOtp);
    };
    let secret = generate_secret(&mut change.rng());
    let previous_expires_at = now + PREVIOUS_SECRET_LASTS;
    let earlier =
        store::oauth_client::activate(change.tx(), &client, &secret.hash(), now, previous_expires_at).await?;
    // The transaction is dropped, and the password stays as it was.
    let earlier = earlier.ok_or(ActivationError::InvalidOtp)?;
    let key = KvKey::Client(client.pool_id, client.client_id.clone());
    match earlier {
        EarlierSecrets { previous_expires_at: Some(_), .. } => change.lose(key),
        EarlierSecrets { had_one: true, .. } => change.lose_later(key, previous_expires_at),
        EarlierSecrets { had_one: false, .. } => change.mark(key, Priority::Change),
    }
    change.set_actor(Arc::new(Actor { id: Some(client.device_id.to_string()), ..Actor::clone(actor) }));
    let target = Target {
        org: Some(client.org_id.clone()),
        env: Some(client.env_id.clone()),
        kind: "device",
        id: client.device_id.to_string(),
    };
    let changes = json!({"after": {"app": client.device_app_id, "clientId": client.client_id}});
    change.record(Event::new(target, "activate", changes));
    Ok((client, secret, change.commit().await?))
}
