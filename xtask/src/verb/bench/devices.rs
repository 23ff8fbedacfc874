//! Tokens by certificate: of devices whose chain the isolate has validated before, and of devices that it has never seen.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
};

use super::{
    chains::Chains,
    edge::Edge,
    fleet::Fleet,
    load::{self, FORM, Requests},
    measure::{Pace, Refill, Subject},
    yardsticks::TOKEN,
};
use crate::{Error, repo::Repo, setup::node::Node};

pub(super) const SEEN: &str = "jwt-bearer, RSA-2048 under RSA-4096, chain seen before";
pub(super) const NEVER_SEEN: &str = "jwt-bearer, the same, chain never seen";

/// How many devices come again and again.
const KNOWN: u32 = 64;

/// So many times more requests has a run of those: they need no certificates.
const KNOWN_REQUESTS: usize = 3;

/// The number of their pool.
const POOL: u128 = 1_000;

/// A pool of devices with certificates.
#[derive(Debug)]
pub(super) struct Devices {
    chains: Arc<Chains>,
    issuer: String,
    requests_a_run: usize,
}

impl Devices {
    /// Makes the devices that come again, and as many as every run needs of those that come once.
    ///
    /// # Errors
    /// When openssl fails, or a document cannot be made.
    pub(super) async fn make(
        repo: &Repo,
        node: &Node,
        state: &Path,
        fleet: &Fleet,
        pace: Pace,
    ) -> Result<Self, Error> {
        let requests_a_run = pace.fresh_requests;
        // The warm-up is a run too.
        let once = u32::try_from(requests_a_run * (pace.rounds + 1)).unwrap_or(u32::MAX);
        let chains =
            Chains::make(state.join("chains"), node, repo.path("bench/devices"), KNOWN + once).await?;
        let issuer = chains.publish_pool(fleet, POOL)?.document.issuer;
        Ok(Self { chains: Arc::new(chains), issuer, requests_a_run })
    }

    /// What is measured.
    pub(super) fn subjects(&self, edge: &Edge) -> Vec<Subject> {
        let (known, unknown) = (0..KNOWN, KNOWN..self.chains.devices());
        vec![
            self.subject(SEEN, known.cycle(), self.requests_a_run * KNOWN_REQUESTS, edge),
            self.subject(NEVER_SEEN, unknown, self.requests_a_run, edge),
        ]
    }

    /// A subject that is asked for these devices' tokens, in order, so many a run.
    fn subject(
        &self,
        job: &'static str,
        mut devices: impl Iterator<Item = u32> + 'static,
        length: usize,
        edge: &Edge,
    ) -> Subject {
        let (chains, issuer, address) = (self.chains.clone(), self.issuer.clone(), edge.address());
        let refill: Refill = Box::new(move || {
            let devices: Vec<u32> = devices.by_ref().take(length).collect();
            let (chains, issuer, address) = (chains.clone(), issuer.clone(), address.clone());
            Box::pin(async move {
                let assertions = chains.sign(&issuer, &devices, super::now().unix_timestamp()).await?;
                let texts = assertions.iter().map(|assertion| request(&issuer, assertion));
                Ok(Requests {
                    address,
                    texts: Arc::new(texts.collect()),
                    next: Arc::new(AtomicUsize::new(0)),
                    once: true,
                    expected: TOKEN,
                })
            })
        });
        Subject::fresh(job, edge.pid(), refill)
    }
}

fn request(issuer: &str, assertion: &str) -> Vec<u8> {
    let pool = issuer.rsplit('/').next().unwrap_or_default();
    let body =
        format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
    load::post(&format!("/{pool}/oauth2/token"), FORM, "", &body)
}
