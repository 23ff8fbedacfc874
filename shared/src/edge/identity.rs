//! Chains that the isolate has validated: a chain that was seen before costs one signature, the assertion's. One that was
//! not costs two where its intermediates have come with another device: their signatures have been verified then.

use std::cell::RefCell;
use std::iter;
use std::num::NonZeroUsize;
use std::rc::Rc;

use super::bounded::Bounded;
use super::keyed_hash::KeyedHash;
use super::platform::{LogLevel, Platform};
use super::pool::Pool;
use super::{Context, Edge};
use crate::certificate::{Place, Rules, SignatureCheck, VerifySignature, decode_x5c};
use crate::crypto::CryptoError;
use crate::device_certificate::{DeviceIdentity, DeviceRefusal, Trace, identify};
use crate::oauth::OAuthError;

/// The most chains that an isolate remembers.
const MAX_CHAINS: NonZeroUsize = NonZeroUsize::new(8_192).unwrap();
/// The most that they may take, in bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The most signatures on intermediates that it remembers.
const MAX_SIGNATURES: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();
/// What one takes beside its texts, about.
const OVERHEAD: usize = 512;

/// The isolate's validated chains, by the name of the chain, as it was sent, and of all the pool's rules that the decision
/// rests on.
pub(super) struct IdentityStore {
    held: RefCell<Bounded<u128, Rc<DeviceIdentity>>>,
    signatures: KnownSignatures,
    hash: KeyedHash,
}

impl IdentityStore {
    pub(super) fn new() -> Self {
        let signatures = KnownSignatures(RefCell::new(Bounded::new(MAX_SIGNATURES, usize::MAX)));
        Self {
            held: RefCell::new(Bounded::new(MAX_CHAINS, MAX_BYTES)),
            signatures,
            hash: KeyedHash::default(),
        }
    }
}

/// Signatures on intermediates that have been verified, by the name of all that the verification takes. Whether one is right
/// is a fact: no rule, no denial and no time changes it, and those are looked at each time.
struct KnownSignatures(RefCell<Bounded<u128, ()>>);

/// The platform's cryptography, which is not asked again for what is known.
struct Remembering<'a, P> {
    platform: &'a P,
    known: &'a KnownSignatures,
    hash: &'a KeyedHash,
}

impl<P: Platform> VerifySignature for Remembering<'_, P> {
    async fn verify_signature(&self, check: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
        // A device's own certificate is seldom met again before its whole chain is known.
        if !matches!(check.place, Place::Certificate(1..)) {
            return self.platform.verify_signature(check).await;
        }
        let algorithm = format!("{:?}", check.algorithm);
        let parts = [algorithm.as_bytes(), check.public_key, check.message, check.signature.as_ref()];
        let fact = self.hash.of(self.platform, parts);
        if self.known.0.borrow_mut().get(&fact).is_some() {
            return Ok(true);
        }
        let verified = self.platform.verify_signature(check).await?;
        if verified {
            self.known.0.borrow_mut().put(fact, (), 0);
        }
        Ok(verified)
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
        let texts = x5c.iter().map(String::as_bytes);
        let (rules, digest) = pool.certificate_rules(context)?;
        let parts = iter::once(digest.as_slice()).chain(texts);
        let key = self.identities.hash.of(context.platform, parts);
        let held = self.identities.held.borrow_mut().get(&key).cloned();
        if let Some(identity) = held
            && (identity.not_before..=identity.not_after).contains(&now)
        {
            return Ok(Ok(identity));
        }
        let ders = match decode_x5c(x5c, &Rules::for_device(now)) {
            Ok(ders) => ders,
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let IdentityStore { signatures, hash, .. } = &self.identities;
        let verifier = Remembering { platform: context.platform, known: signatures, hash };
        let outcome = identify(&verifier, &ders, rules, now, &mut Trace::discarded()).await;
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
