//! The isolate's trust: the pinned root keys, and the publisher keys that the root has signed for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::held::{KV_CACHE_SECONDS, is_current, is_fresh, refresh_after, supersedes};
use super::platform::{LogLevel, Platform};
use super::{Context, EdgeConfig};
use crate::crypto::{Crypto, CryptoError};
use crate::document::{DocumentError, SignedDocument, Stamp, TrustDocument, UnverifiedDocument, Verified};
use crate::id::Kid;
use crate::jwk::EcPublicJwk;
use crate::kv_key::KvKey;
use crate::time::UnixTime;

/// The publisher keys of one verified `v1/trust`.
pub(super) struct Trust<C: Crypto> {
    stamp: Stamp,
    publisher_keys: HashMap<Kid, C::VerifyingKey>,
}

impl<C: Crypto> Trust<C> {
    /// Whether it still counts `grace` seconds past its `next_update`.
    pub(super) fn is_current(&self, now: UnixTime, grace: u64) -> bool {
        is_current(&self.stamp, now, grace)
    }

    /// Whether documents that `kid` signed count.
    pub(super) fn lists(&self, kid: &Kid) -> bool {
        self.publisher_keys.contains_key(kid)
    }

    /// Takes apart a document of a publisher and checks its signature.
    pub(super) async fn verify<'a>(
        &self,
        crypto: &C,
        text: &'a str,
    ) -> Result<SignedDocument<'a>, DocumentError> {
        let document = UnverifiedDocument::parse(text)?;
        let Some(verifying_key) = self.publisher_keys.get(document.kid()) else {
            return Err(DocumentError::UntrustedKey(document.kid().clone()));
        };
        document.verify(crypto, verifying_key).await
    }

    /// Does the work of verifying a document of usual size, for nothing: so that a client that does not exist takes as
    /// long as one that does.
    pub(super) async fn verify_nothing(&self, crypto: &C) -> Result<(), CryptoError> {
        if let Some(key) = self.publisher_keys.values().next() {
            crypto.verify(key, &[0; 1024], &[1; crate::crypto::ES256_SIGNATURE_LENGTH]).await?;
        }
        Ok(())
    }
}

struct Held<C: Crypto> {
    trust: Rc<Trust<C>>,
    read_at: UnixTime,
}

/// The isolate's copy of `v1/trust`.
pub(super) struct TrustStore<C: Crypto> {
    held: RefCell<Option<Held<C>>>,
}

impl<P: Platform> TrustStore<P> {
    pub(super) fn new() -> Self {
        Self { held: RefCell::new(None) }
    }

    /// The publisher keys, from the isolate's memory or from KV. They may have expired: ask
    /// [`Trust::is_current`]. None where no copy has ever verified here.
    pub(super) async fn load(&self, context: &Context<'_, P>, config: &EdgeConfig) -> Option<Rc<Trust<P>>> {
        self.load_younger_than(context, config, u64::MAX).await
    }

    /// The same, where a held copy of `max_age` seconds or more is read again whatever its own pace: for documents
    /// signed by a key that the held copy does not list.
    pub(super) async fn load_younger_than(
        &self,
        context: &Context<'_, P>,
        config: &EdgeConfig,
        max_age: u64,
    ) -> Option<Rc<Trust<P>>> {
        let held = self.held.borrow().as_ref().map(|held| (held.trust.clone(), held.read_at));
        if let Some((trust, read_at)) = &held {
            let fresh = is_fresh(*read_at, context.now, refresh_after(&trust.stamp).min(max_age));
            if fresh && trust.is_current(context.now, 0) {
                return Some(trust.clone());
            }
        }
        let held = held.map(|(trust, _)| trust);
        let read = self.read(context, config, held.as_deref()).await.map(Rc::new);
        let trust = match (read, self.newest()) {
            (Some(read), Some(held)) if !supersedes(&read.stamp, Some(&held.stamp)) => held,
            (Some(read), _) => read,
            (None, held) => held?,
        };
        *self.held.borrow_mut() = Some(Held { trust: trust.clone(), read_at: context.now });
        Some(trust)
    }

    /// What the isolate holds now, however old: after a wait, another request may have brought a newer one.
    pub(super) fn newest(&self) -> Option<Rc<Trust<P>>> {
        self.held.borrow().as_ref().map(|held| held.trust.clone())
    }

    /// Reads `v1/trust`. None where nothing came that may take the place of `held`; the log says why.
    async fn read(
        &self,
        context: &Context<'_, P>,
        config: &EdgeConfig,
        held: Option<&Trust<P>>,
    ) -> Option<Trust<P>> {
        let text = match context.platform.kv_get(&KvKey::Trust.to_string(), KV_CACHE_SECONDS).await {
            Ok(Some(text)) => text,
            Ok(None) => {
                context.log(LogLevel::Error, "document_missing", "v1/trust is not in KV");
                return None;
            }
            Err(error) => {
                context.log(LogLevel::Warn, "kv_unreadable", &format!("v1/trust: {error}"));
                return None;
            }
        };
        match verify(context.platform, config, &text).await {
            Ok(verified) if verified.stamp.version < config.min_trust_version => {
                context.log(
                    LogLevel::Error,
                    "document_refused",
                    &format!("v1/trust has version {}, below MIN_TRUST_VERSION", verified.stamp.version),
                );
                None
            }
            Ok(verified) if !supersedes(&verified.stamp, held.map(|held| &held.stamp)) => {
                context.log(LogLevel::Info, "document_older", "v1/trust is older than the copy held");
                None
            }
            Ok(verified) => Some(Trust {
                stamp: verified.stamp,
                publisher_keys: import(context, verified.document).await,
            }),
            Err(error) => {
                context.log(LogLevel::Error, "document_refused", &format!("v1/trust: {error}"));
                None
            }
        }
    }
}

/// Verifies `v1/trust` with the pinned root that it says to be signed by.
async fn verify<C: Crypto>(
    crypto: &C,
    config: &EdgeConfig,
    text: &str,
) -> Result<Verified<TrustDocument>, DocumentError> {
    let document = UnverifiedDocument::parse(text)?;
    let Some(root) = config.roots.iter().find(|root| root.thumbprint() == *document.kid()) else {
        return Err(DocumentError::UntrustedKey(document.kid().clone()));
    };
    let root = crypto.import_public(root).await?;
    document.verify(crypto, &root).await?.read(&KvKey::Trust)
}

/// Imports the listed keys. One that cannot be imported is left out, and with it only what it has signed.
async fn import<P: Platform>(
    context: &Context<'_, P>,
    document: TrustDocument,
) -> HashMap<Kid, P::VerifyingKey> {
    let mut keys = HashMap::new();
    for key in &document.publisher_keys {
        match import_one(context.platform, key).await {
            Ok((kid, imported)) => {
                keys.insert(kid, imported);
            }
            Err(error) => {
                context.log(LogLevel::Error, "publisher_key_refused", &format!("v1/trust: {error}"));
            }
        }
    }
    keys
}

async fn import_one<C: Crypto>(crypto: &C, key: &EcPublicJwk) -> Result<(Kid, C::VerifyingKey), CryptoError> {
    Ok((key.thumbprint(), crypto.import_public(key).await?))
}
