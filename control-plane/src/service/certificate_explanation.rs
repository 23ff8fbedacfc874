//! Why a device does or does not get in by its certificate: the edge's own decision, step by step (api.md §1).

use keypost_shared::crypto::CryptoError;
use keypost_shared::device_certificate::{CertificateRules, Explanation, PoolAnchors, Question, explain};
use keypost_shared::document::{ClientStatus, DeviceDocument};
use keypost_shared::host::HostCrypto;
use keypost_shared::id::DeviceId;
use time::OffsetDateTime;

use super::Context;
use super::pool_urls::PoolUrls;
use crate::clock::unix;
use crate::store::environment::EnvScope;
use crate::store::snapshot::DeviceState;
use crate::store::{StoreError, snapshot};

/// What somebody wants to have explained.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A chain, as the entries of `x5c`.
    Chain(Vec<String>),
    /// An assertion.
    Assertion(String),
}

/// Why nothing was explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The pool has gone.
    #[error("the pool is gone")]
    Gone,
    /// The cryptography failed, never for what was asked.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Explains the decision as of `at`, by the rules and records of now. It issues nothing.
pub async fn explained(
    context: &Context,
    scope: &EnvScope,
    asked: &Asked,
    at: Option<OffsetDateTime>,
) -> Result<Explanation, ExplainError> {
    let now = context.now();
    let mut connection = context.connection().await?;
    let pool = snapshot::pools(&mut connection, &[scope.pool()]).await?.pop().ok_or(ExplainError::Gone)?;
    let (anchors, _) = PoolAnchors::read(&pool.trust_anchors);
    let rules =
        CertificateRules { anchors: &anchors, policy: &pool.provisioning, denied: &pool.denied_certificates };
    let issuer = PoolUrls::new(&context.edge_url, pool.id).issuer;
    let question = match asked {
        Asked::Chain(x5c) => Question::Chain(x5c),
        Asked::Assertion(text) => Question::Assertion { text, issuer: &issuer },
    };
    let record = async |device: &DeviceId| {
        let found = snapshot::devices(&mut connection, &[(scope.pool(), device.clone(), now)]).await?;
        Ok::<_, ExplainError>(found.into_iter().next().map(|rows| match rows.state {
            DeviceState::Known(document) => document,
            DeviceState::Refused { .. } => {
                DeviceDocument { status: ClientStatus::Disabled, clients: Vec::new(), pins: None }
            }
        }))
    };
    explain(&HostCrypto, pool.id, rules, question, unix(at.unwrap_or(now)), record).await
}
