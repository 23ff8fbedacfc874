//! The rules: what may be done, and what follows from it. No HTTP here, and no SQL.
//!
//! What a function asks for says who may call it: an [`OrgScope`](access::OrgScope) or a
//! [`GlobalScope`](access::GlobalScope) is only to be had from an authorised [`Caller`](access::Caller).

pub mod access;
pub mod activation;
pub mod api_key;
pub mod api_key_use;
pub mod attempts;
pub mod audit;
pub mod audit_check;
pub mod audit_log;
pub mod cascade;
pub mod certificate_explanation;
pub mod change;
pub mod client_pool;
mod deleted_pool;
pub mod denied_certificate;
pub mod device;
pub mod device_app;
pub mod device_import;
pub mod edge_report;
pub mod environment;
pub mod metadata;
pub mod organization;
pub mod otp;
pub mod pool_keys;
pub mod pool_urls;
pub mod precondition;
pub mod provisioning_policy;
pub mod publisher_key;
pub mod revocation;
pub mod service_client;
pub mod signing_key;
pub mod sso;
pub mod sync;
pub mod trust_anchor;

use std::sync::Arc;
use std::time::{Duration, Instant};

use keypost_shared::edge_report::SharedSecret;
use keypost_shared::signing_key::Times;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres, Transaction};
use time::OffsetDateTime;
use tracing::Instrument;

use self::api_key_use::ApiKeyUses;
use self::precondition::Outdated;
use self::sso::SsoSettings;
use self::sso::password::Passwords;
use crate::clock::Clock;
use crate::config::Mode;
use crate::crypto_at_rest::{MasterKey, SealError};
use crate::entropy::{Entropy, Rng};
use crate::key_maker::KeyMaker;
use crate::kms::Kms;
use crate::metrics::Metrics;
use crate::publisher::Publications;
use crate::store::StoreError;
use crate::telemetry::traces;

/// How long an edge may go on by what stood in KV before a document was written: KV's propagation (60 s, on Cloudflare's
/// word), KV's cache (30 s) and the isolate's memory (30 s).
const EDGE_CATCHES_UP: Duration = Duration::from_secs(120);

/// What the rules work with.
#[derive(Clone)]
pub struct Context {
    /// The database.
    pub db: PgPool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Encrypts private keys at rest.
    pub master_key: MasterKey,
    /// Makes signing keys.
    pub key_maker: KeyMaker,
    /// How long signing keys stand before they sign.
    pub key_times: Times,
    /// AWS KMS, for the pools whose keys are there.
    pub kms: Kms,
    /// The publisher, as far as the rules know it.
    pub publications: Publications,
    /// What is counted.
    pub metrics: Metrics,
    /// Hashes and checks people's passwords.
    pub passwords: Passwords,
    /// When API keys were last used.
    pub api_key_uses: ApiKeyUses,
    /// The prefix of every issuer.
    pub edge_url: String,
    /// Where devices reach this control plane.
    pub public_url: String,
    /// Whether short times are allowed.
    pub mode: Mode,
    /// What the edge signs its reports with: one secret, or two while they are being rotated.
    pub edge_secrets: Vec<SharedSecret>,
    /// How long a document may wait to be published before that counts as late.
    pub late_after: Duration,
    /// How single sign-on goes.
    pub sso: SsoSettings,
}

impl Context {
    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    fn rng(&self) -> Rng {
        self.entropy.rng()
    }

    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        let asked = Instant::now();
        let begun = self.db.begin().instrument(traces::acquire()).await;
        self.metrics.acquired(asked.elapsed());
        Ok(begun?)
    }

    async fn connection(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        let asked = Instant::now();
        let acquired = self.db.acquire().instrument(traces::acquire()).await;
        self.metrics.acquired(asked.elapsed());
        Ok(acquired?)
    }
}

/// Whether a text has control characters (C0, DEL, C1), which nothing that people name may have (api.md).
pub(crate) fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Why something could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one with this id.
    #[error("the id is taken")]
    IdTaken,
    /// What it was to belong to has been deleted in the meantime.
    #[error("what it was to belong to is gone")]
    ParentGone,
    /// The database.
    #[error(transparent)]
    Store(StoreError),
    /// A key could not be encrypted.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<StoreError> for CreateError {
    fn from(error: StoreError) -> Self {
        if error.is_duplicate() {
            Self::IdTaken
        } else if error.is_dangling() {
            Self::ParentGone
        } else {
            Self::Store(error)
        }
    }
}

/// Why something was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It has been deleted in the meantime.
    #[error("it is gone")]
    Gone,
    /// It is not in the state that the change was meant for.
    #[error(transparent)]
    Outdated(#[from] Outdated),
    /// A field is not what this deployment allows.
    #[error("{field} {detail}")]
    Wrong {
        /// The field's name in the API.
        field: &'static str,
        /// What it must be.
        detail: String,
    },
    /// A field names something that is another's.
    #[error("{field} {detail}")]
    Taken {
        /// The field's name in the API.
        field: &'static str,
        /// Whose it is.
        detail: &'static str,
    },
    /// Only a global admin key may change this.
    #[error("only a global admin key may change {0}")]
    GlobalOnly(&'static str),
    /// AWS KMS cannot be asked at the moment.
    #[error("AWS KMS cannot be asked: {0}")]
    KmsUnavailable(String),
    /// Fields are not what they must be: each with what is wrong.
    #[error("{} fields are wrong", .0.len())]
    WrongFields(Vec<(String, String)>),
    /// It cannot be deleted as long as there is something that belongs to it, such as `devices`.
    #[error("it has {0}")]
    HasChildren(&'static str),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
