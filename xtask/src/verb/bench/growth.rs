//! How the cost of a token grows: with the clients in a pool, and with the pools that one isolate serves. It should not.
//!
//! Who is asked for is drawn evenly from all of them, the worst case for an isolate's memory. Only those who are drawn have
//! documents: nobody looks at the others.

use std::{future::Future, pin::Pin};

use keypost_shared::id::PoolId;
use rand_core::{OsRng, RngCore as _};

use super::{
    edge::Edge,
    fleet::{Fleet, client_id, device_id, pool_id},
    load::Requests,
    measure::{Measured, Pace, Subject},
    report::Row,
    yardsticks::{GRANT, TOKEN, by_secret},
};
use crate::Error;

const CLIENTS: [(u32, &str); 4] = [
    (1, "tokens, 1 client in the pool"),
    (1_000, "tokens, 1,000 clients in the pool"),
    (100_000, "tokens, 100,000 clients in the pool"),
    (1_000_000, "tokens, 1,000,000 clients in the pool"),
];

const POOLS: [(u32, &str); 3] = [
    (1, "tokens, 1 pool in the isolate"),
    (100, "tokens, 100 pools in the isolate"),
    (10_000, "tokens, 10,000 pools in the isolate (it holds 1,000)"),
];

/// The first numbers of their pools, which nobody else uses.
const FIRST_CLIENTS_POOL: u128 = 1_000_000;
const FIRST_POOL: u128 = 2_000_000;

/// What is measured, all with the same Worker.
///
/// # Errors
/// When a document cannot be made.
pub(super) fn subjects(fleet: &Fleet, edge: &Edge, pace: Pace) -> Result<Vec<Subject>, Error> {
    let runs = pace.rounds + 1;
    let mut subjects = Vec::new();
    for (at, (clients, job)) in CLIENTS.into_iter().enumerate() {
        let pool = fleet.pool(FIRST_CLIENTS_POOL + at as u128)?;
        fleet.publish_pool(&pool)?;
        let drawn = draw(clients, pace.fresh_requests * runs);
        let mut known = drawn.clone();
        known.sort_unstable();
        known.dedup();
        fleet.publish_clients(&pool, known)?;
        let mut texts = Vec::with_capacity(drawn.len());
        for device in drawn {
            texts.push(token_request(pool.id, device)?);
        }
        subjects.push(subject(job, edge, texts, pace));
    }
    for (pools, job) in POOLS {
        // Each draw of a large number is another pool, about: there the documents of a run's pools are all that is needed.
        let drawn = draw(pools, pace.fresh_requests * runs);
        let mut known = drawn.clone();
        known.sort_unstable();
        known.dedup();
        let name = |number: u32| FIRST_POOL + u128::from(pools) * 100_000 + u128::from(number);
        for number in known {
            let pool = fleet.pool(name(number))?;
            fleet.publish_pool(&pool)?;
            fleet.publish_clients(&pool, vec![0])?;
        }
        let mut texts = Vec::with_capacity(drawn.len());
        for number in drawn {
            texts.push(token_request(pool_id(name(number))?, 0)?);
        }
        subjects.push(subject(job, edge, texts, pace));
    }
    Ok(subjects)
}

/// A row for each, with the ratio to the first of its kind.
pub(super) fn rows(measured: &[Measured]) -> Vec<Row> {
    let find = |job: &str| measured.iter().find(|measured| measured.job == job);
    let mut rows = Vec::new();
    for jobs in [CLIENTS.map(|(_, job)| job).as_slice(), POOLS.map(|(_, job)| job).as_slice()] {
        let Some(first) = jobs.first().and_then(|first| find(first)) else { continue };
        rows.extend(jobs.iter().filter_map(|job| find(job)).map(|own| Row::of(own).beside(own, first)));
    }
    rows
}

/// Whether any of these jobs is wanted.
pub(super) fn jobs() -> impl Iterator<Item = &'static str> {
    CLIENTS.into_iter().map(|(_, job)| job).chain(POOLS.into_iter().map(|(_, job)| job))
}

fn draw(below: u32, count: usize) -> Vec<u32> {
    (0..count).map(|_| OsRng.next_u32() % below).collect()
}

fn token_request(pool: PoolId, device: u32) -> Result<Vec<u8>, Error> {
    let client = client_id(pool, &device_id(device)?)?;
    Ok(by_secret(&format!("/{pool}/oauth2/token"), client.as_str(), GRANT))
}

/// A subject that asks each of these once, a run's share in each run.
fn subject(job: &'static str, edge: &Edge, texts: Vec<Vec<u8>>, pace: Pace) -> Subject {
    let mut shares = texts.chunks(pace.fresh_requests).map(<[_]>::to_vec).collect::<Vec<_>>().into_iter();
    let address = edge.address();
    let refill = move || -> Pin<Box<dyn Future<Output = Result<Requests, Error>>>> {
        let texts = shares.next().unwrap_or_default();
        let requests = Requests { once: true, ..Requests::of(address.clone(), texts, TOKEN) };
        Box::pin(std::future::ready(Ok(requests)))
    };
    Subject::fresh(job, edge.pid(), Box::new(refill))
}
