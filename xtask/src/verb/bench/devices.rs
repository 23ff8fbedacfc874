//! Tokens by certificate: of devices whose chain the isolate has validated before, and of devices that it has never seen.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
};

use super::{
    chains::{Chains, Order},
    edge::Edge,
    fleet::Fleet,
    load::{self, FORM, Requests},
    measure::{Pace, Refill, Subject},
    yardsticks::TOKEN,
};
use crate::{Error, repo::Repo, setup::node::Node};

pub(super) const SEEN: &str = "jwt-bearer, RSA-2048 under RSA-4096, chain seen before";
pub(super) const NEVER_SEEN: &str = "jwt-bearer, the same, chain never seen";

/// How many devices there are. Each is new to each pool, so that there are as many chains never seen as pools times devices.
const DEVICES: u32 = 64;

/// The numbers of their pools.
const FIRST_POOL: u128 = 1_000;

/// Pools of devices with certificates.
#[derive(Debug)]
pub(super) struct Devices {
    chains: Arc<Chains>,
    /// The issuer of each pool.
    issuers: Vec<String>,
    requests_a_run: usize,
}

impl Devices {
    /// Makes certificates, and pools enough for every run.
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
        let chains =
            Chains::make(state.join("chains"), node, repo.path("bench/assertions.js"), DEVICES).await?;
        let requests_a_run = pace.fresh_requests;
        // One for the chains that are seen before.
        let pools = 1 + (requests_a_run * (pace.rounds + 1)).div_ceil(DEVICES as usize);
        let mut issuers = Vec::new();
        for number in 0..pools {
            issuers.push(chains.publish_pool(fleet, FIRST_POOL + number as u128)?.document.issuer);
        }
        Ok(Self { chains: Arc::new(chains), issuers, requests_a_run })
    }

    /// What is measured.
    pub(super) fn subjects(&self, edge: &Edge) -> Vec<Subject> {
        let seen: Vec<Order> = (0..DEVICES).map(|device| self.order(0, device)).collect();
        let unseen = (1..self.issuers.len()).flat_map(|pool| (0..DEVICES).map(move |device| (pool, device)));
        let unseen = unseen.map(|(pool, device)| self.order(pool, device)).collect();
        vec![self.subject(SEEN, seen, edge), self.subject(NEVER_SEEN, unseen, edge)]
    }

    fn order(&self, pool: usize, device: u32) -> Order {
        Order { device, issuer: self.issuers.get(pool).cloned().unwrap_or_default() }
    }

    /// A subject that goes through these orders in turn, and begins again after the last.
    fn subject(&self, job: &'static str, orders: Vec<Order>, edge: &Edge) -> Subject {
        let address = edge.address();
        let (chains, length) = (self.chains.clone(), self.requests_a_run);
        let mut next = orders.into_iter().cycle();
        let refill: Refill = Box::new(move || {
            let orders: Vec<Order> = next.by_ref().take(length).collect();
            let (chains, address) = (chains.clone(), address.clone());
            Box::pin(async move {
                let assertions = chains.sign(&orders, super::now().unix_timestamp()).await?;
                let texts =
                    orders.iter().zip(assertions).map(|(order, assertion)| request(order, &assertion));
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

fn request(order: &Order, assertion: &str) -> Vec<u8> {
    let pool = order.issuer.rsplit('/').next().unwrap_or_default();
    let body =
        format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
    load::post(&format!("/{pool}/oauth2/token"), FORM, "", &body)
}
