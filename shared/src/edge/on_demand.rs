//! What is made of a pool's document when somebody first needs it: most isolates are asked for tokens alone, and most pools have
//! no certificates.

use std::cell::OnceCell;

use sha2::{Digest, Sha256};

use super::Context;
use super::http::{JSON, Page};
use super::platform::{LogLevel, Platform};
use crate::device_certificate::{CertificateRules, PoolAnchors};
use crate::document::PoolDocument;
use crate::id::PoolId;
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

impl OnDemand {
    /// The key set, rendered.
    pub(super) fn jwks<P: Platform>(
        &self,
        context: &Context<'_, P>,
        document: &PoolDocument,
    ) -> Result<&Page, OAuthError> {
        once(context, &self.jwks, || Ok(Page::new(JSON, serde_json::to_vec(&document.jwks)?)))
    }

    /// The metadata, rendered.
    pub(super) fn metadata<P: Platform>(
        &self,
        context: &Context<'_, P>,
        document: &PoolDocument,
    ) -> Result<&Page, OAuthError> {
        let render = || Ok(Page::new(JSON, serde_json::to_vec(&AuthorizationServerMetadata::of(document))?));
        once(context, &self.metadata, render)
    }

    /// What a chain is judged by, and its hash.
    pub(super) fn certificate_rules<'a, P: Platform>(
        &'a self,
        context: &Context<'_, P>,
        id: PoolId,
        document: &'a PoolDocument,
    ) -> Result<(CertificateRules<'a>, &'a [u8; 32]), OAuthError> {
        let Certificates { anchors, digest } = once(context, &self.certificates, || {
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
