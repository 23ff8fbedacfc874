//! What is made of a pool's document when somebody first needs it: most isolates are asked for tokens alone, and most
//! pools have no certificates.

use std::cell::OnceCell;

use sha2::{Digest, Sha256};

use super::Context;
use super::http::{JSON, Page};
use super::platform::{LogLevel, Platform};
use super::pool::Pool;
use crate::device_certificate::{CertificateRules, PoolAnchors};
use crate::oauth::{AuthorizationServerMetadata, OAuthError};

/// The parts that have been needed so far.
#[derive(Default)]
pub(super) struct OnDemand {
    jwks: OnceCell<Page>,
    metadata: OnceCell<Page>,
    certificates: OnceCell<Certificates>,
}

/// What the pool says about certificates.
struct Certificates {
    anchors: PoolAnchors,
    /// A hash of all that a decision on a chain rests on.
    digest: [u8; 32],
}

impl<P: Platform> Pool<P> {
    /// The key set, rendered.
    pub(super) fn jwks(&self, context: &Context<'_, P>) -> Result<&Page, OAuthError> {
        let render = || Ok(Page::new(JSON, serde_json::to_vec(&self.document.jwks)?));
        once(context, &self.on_demand.jwks, render)
    }

    /// The metadata, rendered.
    pub(super) fn metadata(&self, context: &Context<'_, P>) -> Result<&Page, OAuthError> {
        let metadata = || AuthorizationServerMetadata::of(&self.document);
        once(context, &self.on_demand.metadata, || Ok(Page::new(JSON, serde_json::to_vec(&metadata())?)))
    }

    /// What a chain is judged by, and a hash of all that a decision on one rests on.
    pub(super) fn certificate_rules(
        &self,
        context: &Context<'_, P>,
    ) -> Result<(CertificateRules<'_>, &[u8; 32]), OAuthError> {
        let Self { id, document, .. } = self;
        let Certificates { anchors, digest } = once(context, &self.on_demand.certificates, || {
            let (anchors, problems) = PoolAnchors::read(&document.trust_anchors);
            for problem in problems {
                let detail = format!("v1/pool/{id}: a root that cannot be read: {problem}");
                context.log(LogLevel::Error, "trust_anchor_refused", &detail);
            }
            // Signing the document again changes nothing of it, so what the isolate knows of chains outlives that.
            let rules = (id, &document.trust_anchors, &document.denied_certificates, &document.provisioning);
            Ok(Certificates { anchors, digest: Sha256::digest(serde_json::to_vec(&rules)?).into() })
        })?;
        let rules = CertificateRules {
            anchors,
            policy: &document.provisioning,
            denied: &document.denied_certificates,
        };
        Ok((rules, digest))
    }
}

fn once<'a, T, P: Platform>(
    context: &Context<'_, P>,
    cell: &'a OnceCell<T>,
    make: impl FnOnce() -> Result<T, serde_json::Error>,
) -> Result<&'a T, OAuthError> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make().map_err(|error| {
        context.log(LogLevel::Error, "rendering_failed", &error.to_string());
        OAuthError::TemporarilyUnavailable
    })?;
    Ok(cell.get_or_init(|| made))
}
