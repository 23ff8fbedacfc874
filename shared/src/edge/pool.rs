//! The isolate's pools: verified, their signing keys imported.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::rc::Rc;

use super::apart::apart;
use super::bounded::Bounded;
use super::held::{KV_CACHE_SECONDS, is_current, is_fresh, refresh_after, supersedes};
use super::kms::{KmsSignError, KmsSigner};
use super::on_demand::OnDemand;
use super::platform::{LogLevel, Platform};
use super::trust::Trust;
use super::{Context, Edge};
use crate::crypto::{Crypto, CryptoError, ES256_SIGNATURE_LENGTH};
use crate::document::{
    DocumentError, MAX_TOKEN_TTL, PoolDocument, PoolSigningKey, PrivateHalf, SignedDocument, Stamp, Verified,
};
use crate::id::{Kid, PoolId};
use crate::jwe::SplitJwe;
use crate::jwk::Jwk;
use crate::jws::JwsHeader;
use crate::kms::KmsKeyArn;
use crate::kv_key::KvKey;
use crate::oauth::OAuthError;
use crate::time::UnixTime;

/// The most pools that an isolate holds.
const MAX_POOLS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// The most that they may take together, counted as their documents' length in KV.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;

/// A pool as the isolate holds it.
pub(super) struct Pool<C: Crypto> {
    pub(super) id: PoolId,
    pub(super) document: PoolDocument,
    pub(super) stamp: Stamp,
    pub(super) signer: Option<PoolSigner<C>>,
    pub(super) on_demand: OnDemand,
    signed_by: Kid,
    /// The keys of the key set that tokens have been verified with, imported.
    verifying_keys: RefCell<HashMap<Kid, Rc<C::VerifyingKey>>>,
    /// The document's length in KV, in bytes.
    length: usize,
}

/// The pool's active key, ready to sign.
pub(super) struct PoolSigner<C: Crypto> {
    pub(super) kid: Kid,
    pub(super) key: Rc<SigningKey<C>>,
}

/// What signs.
pub(super) enum SigningKey<C: Crypto> {
    /// The key itself.
    Here(C::SigningKey),
    /// AWS KMS, which has it.
    Kms(KmsSigner<C::VerifyingKey>),
}

impl<C: Crypto> SigningKey<C> {
    /// Whether it is still good for the private half that a document names. A key that was opened stays good however it
    /// is sealed.
    fn is_of(&self, private: &PrivateHalf) -> bool {
        match (self, private) {
            (Self::Here(_), PrivateHalf::Jwe(_)) => true,
            (Self::Kms(signer), PrivateHalf::Kms(key)) => signer.is_of(key),
            (_, _) => false,
        }
    }
}

impl<P: Platform> SigningKey<P> {
    /// Signs with ES256.
    pub(super) async fn sign(
        &self,
        context: &Context<'_, P>,
        message: &[u8],
    ) -> Result<[u8; ES256_SIGNATURE_LENGTH], KmsSignError> {
        match self {
            Self::Here(key) => Ok(context.platform.sign(key, message).await?),
            Self::Kms(signer) => apart(signer.sign(context, message)).await,
        }
    }
}

impl<C: Crypto> Pool<C> {
    /// How long the pool's documents are used before KV is asked again, in seconds.
    pub(super) fn refresh_after(&self) -> u64 {
        refresh_after(&self.stamp)
    }
}

impl<P: Platform> Pool<P> {
    /// The key of the key set that a token names, ready to verify with.
    pub(super) async fn verifying_key(
        &self,
        context: &Context<'_, P>,
        header: &JwsHeader,
    ) -> Result<Option<Rc<P::VerifyingKey>>, CryptoError> {
        let named = |key: &&Jwk| key.kid == header.kid && key.alg == header.alg;
        let Some(public) = self.document.jwks.keys.iter().find(named) else { return Ok(None) };
        let held = self.verifying_keys.borrow().get(&public.kid).cloned();
        if held.is_some() {
            return Ok(held);
        }
        let key = Rc::new(context.platform.import_public(&public.key).await?);
        self.verifying_keys.borrow_mut().insert(public.kid.clone(), key.clone());
        Ok(Some(key))
    }
}

struct Held<C: Crypto> {
    pool: Rc<Pool<C>>,
    read_at: UnixTime,
}

/// The isolate's pools.
pub(super) struct PoolStore<C: Crypto> {
    held: RefCell<Bounded<PoolId, Held<C>>>,
}

/// A pool, and the trust that it stands on.
pub(super) struct Loaded<C: Crypto> {
    pub(super) pool: Rc<Pool<C>>,
    pub(super) trust: Rc<Trust<C>>,
    /// How current what is asked of it has to be.
    pub(super) freshness: Freshness,
}

/// How current a pool must be for what is asked of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Before `next_update`: for whatever depends on what is no longer allowed.
    Current,
    /// At most one longest token lifetime after it: for what verifiers need of tokens already issued, and for revoking.
    /// Later there is no token left.
    Verifiable,
}

impl<P: Platform> Edge<P> {
    /// A pool's verified document: from the isolate's memory, or from KV where that copy is missing or due.
    pub(super) async fn load_pool(
        &self,
        context: &Context<'_, P>,
        id: PoolId,
        freshness: Freshness,
    ) -> Result<Loaded<P>, OAuthError> {
        let Some(mut trust) = self.trust.load(context, &self.config).await else {
            return Err(OAuthError::TemporarilyUnavailable);
        };
        let held = self.pools.held.borrow_mut().get(&id).map(|held| (held.pool.clone(), held.read_at));
        let held = match held {
            Some((pool, read_at)) => {
                let fresh = is_fresh(read_at, context.now, pool.refresh_after());
                let current = is_current(&pool.stamp, context.now, 0) && trust.lists(&pool.signed_by);
                if fresh && current && trust.is_current(context.now, 0) {
                    return Ok(Loaded { pool, trust, freshness });
                }
                Some(pool)
            }
            None => None,
        };
        let read = self.read_pool(context, id, &mut trust, held.as_ref()).await;
        // What counts is what the isolate knows by now, not what it knew when this request began to read.
        trust = self.trust.newest().unwrap_or(trust);
        // A publisher key that has left v1/trust has signed nothing that counts.
        let held = self.pools.peek(id).map(|(pool, _)| pool).filter(|pool| trust.lists(&pool.signed_by));
        let pool = match (read, held) {
            (Read::Pool(read), held)
                if trust.lists(&read.signed_by)
                    && supersedes(&read.stamp, held.as_ref().map(|held| &held.stamp)) =>
            {
                read
            }
            (_, Some(held)) => held,
            (Read::Missing, None) => return Err(OAuthError::UnknownPool),
            (_, _) => return Err(OAuthError::TemporarilyUnavailable),
        };
        let held = Held { pool: pool.clone(), read_at: context.now };
        self.pools.held.borrow_mut().put(id, held, pool.length);

        let grace = match freshness {
            Freshness::Current => 0,
            Freshness::Verifiable => pool.document.longest_token_ttl,
        };
        if !is_current(&pool.stamp, context.now, grace) {
            context.log(
                LogLevel::Error,
                "document_expired",
                &format!("v1/pool/{id} is past its next_update"),
            );
            return Err(OAuthError::TemporarilyUnavailable);
        }
        if !trust.is_current(context.now, grace) {
            context.log(LogLevel::Error, "document_expired", "v1/trust is past its next_update");
            return Err(OAuthError::TemporarilyUnavailable);
        }
        Ok(Loaded { pool, trust, freshness })
    }

    /// The same, for whatever ends with the pool: one that has been deleted is unknown.
    pub(super) async fn load_live_pool(
        &self,
        context: &Context<'_, P>,
        id: PoolId,
        freshness: Freshness,
    ) -> Result<Loaded<P>, OAuthError> {
        let loaded = self.load_pool(context, id, freshness).await?;
        if loaded.pool.document.deleted { Err(OAuthError::UnknownPool) } else { Ok(loaded) }
    }

    async fn read_pool(
        &self,
        context: &Context<'_, P>,
        id: PoolId,
        trust: &mut Rc<Trust<P>>,
        held: Option<&Rc<Pool<P>>>,
    ) -> Read<P> {
        let key = KvKey::Pool(id);
        let text = match context.platform.kv_get(&key.to_string(), KV_CACHE_SECONDS).await {
            Ok(Some(text)) => text,
            Ok(None) => {
                context.log(LogLevel::Info, "document_missing", &format!("{key} is not in KV"));
                return Read::Missing;
            }
            Err(error) => {
                context.log(LogLevel::Warn, "kv_unreadable", &format!("{key}: {error}"));
                return Read::Nothing;
            }
        };
        let signed = apart(self.verify(context, trust, &text)).await;
        let verified: Verified<PoolDocument> = match signed.and_then(|signed| signed.read(&key)) {
            Ok(verified) => verified,
            Err(error) => {
                context.log(LogLevel::Error, "document_refused", &format!("{key}: {error}"));
                return Read::Nothing;
            }
        };
        let PoolDocument { token_ttl, longest_token_ttl, .. } = verified.document;
        if token_ttl > longest_token_ttl || longest_token_ttl > MAX_TOKEN_TTL {
            let detail =
                format!("{key}: a token lifetime of {token_ttl} s, {longest_token_ttl} s at the longest");
            context.log(LogLevel::Error, "document_refused", &detail);
            return Read::Nothing;
        }
        let held = held.filter(|held| trust.lists(&held.signed_by));
        if !supersedes(&verified.stamp, held.map(|held| &held.stamp)) {
            context.log(LogLevel::Info, "document_older", &format!("{key} is older than the copy held"));
            return Read::Nothing;
        }
        Read::Pool(Rc::new(self.prepare(context, id, verified, text.len(), held).await))
    }

    /// Imports the signing key.
    async fn prepare(
        &self,
        context: &Context<'_, P>,
        id: PoolId,
        verified: Verified<PoolDocument>,
        length: usize,
        held: Option<&Rc<Pool<P>>>,
    ) -> Pool<P> {
        let Verified { stamp, signed_by, document } = verified;
        let signer = match &document.signing_key {
            None => None,
            Some(named) => {
                let same = held
                    .and_then(|held| held.signer.as_ref())
                    .filter(|signer| signer.kid == named.kid && signer.key.is_of(&named.private));
                let public = document.jwks.keys.iter().find(|key| key.kid == named.kid);
                let key = match (public, same) {
                    (None, _) => {
                        let detail = format!("v1/pool/{id}, key {}: it is not in the key set", named.kid);
                        context.log(LogLevel::Error, "signing_key_refused", &detail);
                        None
                    }
                    (Some(_), Some(signer)) => Some(signer.key.clone()),
                    (Some(public), None) => self.ready(context, id, named, public).await.map(Rc::new),
                };
                key.map(|key| PoolSigner { kid: named.kid.clone(), key })
            }
        };
        Pool {
            id,
            document,
            stamp,
            signer,
            on_demand: OnDemand::default(),
            signed_by,
            verifying_keys: RefCell::default(),
            length,
        }
    }

    /// Makes the pool's key ready to sign. None, and a line in the log, where that cannot be: the pool's key set and
    /// metadata are served all the same.
    async fn ready(
        &self,
        context: &Context<'_, P>,
        id: PoolId,
        named: &PoolSigningKey,
        public: &Jwk,
    ) -> Option<SigningKey<P>> {
        let refuse = |reason: &str| {
            let detail = format!("v1/pool/{id}, key {}: {reason}", named.kid);
            context.log(LogLevel::Error, "signing_key_refused", &detail);
        };
        let outcome = match &named.private {
            PrivateHalf::Jwe(jwe) => self.open(context, id, &named.kid, jwe).await.map(SigningKey::Here),
            PrivateHalf::Kms(key) => apart(self.ask_kms(context, key, public)).await.map(SigningKey::Kms),
        };
        outcome.inspect_err(|reason| refuse(reason)).ok()
    }

    /// Opens a sealed key. The error is for the log.
    async fn open(
        &self,
        context: &Context<'_, P>,
        id: PoolId,
        kid: &Kid,
        jwe: &str,
    ) -> Result<P::SigningKey, String> {
        let jwe = SplitJwe::parse(jwe).map_err(|error| error.to_string())?;
        if jwe.header.pool != id || jwe.header.signing_kid != *kid {
            return Err("it was sealed for another pool or as another key".to_owned());
        }
        let sealing_key = self.config.sealing_keys.iter().find(|key| key.id() == jwe.header.kid);
        let sealing_key =
            sealing_key.ok_or("it was sealed under a key that EDGE_SEALING_KEY does not hold")?;
        context.platform.open_signing_key(sealing_key, &jwe).await.map_err(|error| error.to_string())
    }

    /// Prepares to ask KMS, which is not asked yet. The error is for the log.
    async fn ask_kms(
        &self,
        context: &Context<'_, P>,
        key: &KmsKeyArn,
        public: &Jwk,
    ) -> Result<KmsSigner<P::VerifyingKey>, String> {
        let access = self.config.kms.as_ref();
        let access =
            access.ok_or("it is in KMS, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set")?;
        let public = context.platform.import_public(&public.key).await.map_err(|error| error.to_string())?;
        let signer = KmsSigner::new(key, access, public);
        signer.ok_or_else(|| "it is in a part of AWS that needs AWS_ENDPOINT_URL_KMS".to_owned())
    }

    /// Verifies a publisher's document; where the held trust does not list its key, with a newer one.
    pub(super) async fn verify<'a>(
        &self,
        context: &Context<'_, P>,
        trust: &mut Rc<Trust<P>>,
        text: &'a str,
    ) -> Result<SignedDocument<'a>, DocumentError> {
        match trust.verify(context.platform, text).await {
            Err(DocumentError::UntrustedKey(_)) => {
                let again = async {
                    if let Some(newer) = self.trust.load_younger_than(context, &self.config, 1).await {
                        *trust = newer;
                    }
                    trust.verify(context.platform, text).await
                };
                apart(again).await
            }
            result => result,
        }
    }
}

enum Read<C: Crypto> {
    Pool(Rc<Pool<C>>),
    Missing,
    Nothing,
}

impl<C: Crypto> PoolStore<C> {
    pub(super) fn new() -> Self {
        Self { held: RefCell::new(Bounded::new(MAX_POOLS, MAX_HELD_BYTES)) }
    }

    /// What the isolate holds of a pool, and when it was read: for `/healthz`.
    pub(super) fn peek(&self, id: PoolId) -> Option<(Rc<Pool<C>>, UnixTime)> {
        self.held.borrow().peek(&id).map(|held| (held.pool.clone(), held.read_at))
    }
}
