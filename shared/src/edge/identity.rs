//! Chains that the isolate has validated: a chain that was seen before costs one signature, the assertion's.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::bounded::Bounded;
use super::platform::{LogLevel, Platform};
use super::pool::Pool;
use super::{Context, Edge};
use crate::certificate::{Rules, decode_x5c};
use crate::device_certificate::{DeviceIdentity, DeviceRefusal, Trace, identify};
use crate::oauth::OAuthError;

/// The most chains that an isolate remembers.
const MAX_CHAINS: NonZeroUsize = NonZeroUsize::new(8_192).unwrap();
/// The most that they may take, in bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// What one takes beside its texts, about.
const OVERHEAD: usize = 512;

/// The isolate's validated chains, by a hash of the chain and of all the pool's rules that the decision rests on.
pub(super) struct IdentityStore {
    held: RefCell<Bounded<[u8; 32], Rc<DeviceIdentity>>>,
}

impl IdentityStore {
    pub(super) fn new() -> Self {
        Self { held: RefCell::new(Bounded::new(MAX_CHAINS, MAX_BYTES)) }
    }
}

impl<P: Platform> Edge<P> {
    /// Whose chain this is, as the entries of `x5c` came.
    pub(super) async fn identify(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        x5c: &[String],
    ) -> Result<Result<Rc<DeviceIdentity>, DeviceRefusal>, OAuthError> {
        let now = context.now;
        let ders = match decode_x5c(x5c, &Rules::for_device(now)) {
            Ok(ders) => ders,
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let key = digest(&pool.certificate_rules_digest, &ders);
        let held = self.identities.held.borrow_mut().get(&key).cloned();
        if let Some(identity) = held
            && (identity.not_before..=identity.not_after).contains(&now)
        {
            return Ok(Ok(identity));
        }
        let rules = pool.certificate_rules();
        let outcome = identify(context.platform, &ders, rules, now, &mut Trace::discarded()).await;
        let outcome = outcome.map_err(|error| {
            context.log(LogLevel::Error, "crypto_failed", &error.to_string());
            OAuthError::TemporarilyUnavailable
        })?;
        Ok(outcome.map(|identity| {
            let identity = Rc::new(identity);
            let tags: usize = identity.tags.iter().map(|(name, value)| name.len() + value.len()).sum();
            let length = OVERHEAD + identity.public_key.len() + tags;
            self.identities.held.borrow_mut().put(key, identity.clone(), length);
            identity
        }))
    }
}

/// The lengths keep one certificate's end from being taken for the next one's beginning.
fn digest(rules: &[u8; 32], ders: &[Vec<u8>]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(rules);
    for der in ders {
        hash.update((der.len() as u64).to_be_bytes());
        hash.update(der);
    }
    hash.finalize().into()
}
