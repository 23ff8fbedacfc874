//! Token Status Lists of a large pool: how long they take to make, and how long they are.

use std::time::Instant;

use keypost_shared::status_list::{LIST_BLOCKS, StatusBits};
use rand_core::{OsRng, RngCore as _};

use super::{
    fleet::{Fleet, FleetPool},
    report::Row,
};
use crate::Error;

const CLIENTS: u32 = 1_000_000;

/// One client in so many has had a token revoked.
const REVOKED: u32 = 1_000;

/// The first blocks of each list, whose tokens others introspect.
const UNTOUCHED: u32 = 1_000;

/// The name of the row.
pub(super) const JOB: &str = "status lists of 1,000,000 clients, 1 in 1,000 revoked, made and signed";

/// Makes the lists of a million clients, by this program, which is not optimised much: the row, with what all of them take
/// in milliseconds and KiB, and the first list.
///
/// # Errors
/// When one cannot be made.
pub(super) fn make(fleet: &Fleet, pool: &FleetPool) -> Result<(Row, String), Error> {
    let mut lists = Vec::new();
    for _ in 0..CLIENTS.div_ceil(LIST_BLOCKS) {
        let mut bits = StatusBits::new();
        for _ in 0..LIST_BLOCKS / REVOKED {
            bits.revoke(UNTOUCHED + OsRng.next_u32() % (LIST_BLOCKS - UNTOUCHED), 1);
        }
        lists.push(bits);
    }
    let started = Instant::now();
    let mut texts = Vec::new();
    for (number, bits) in (0_u32..).zip(&lists) {
        texts.push(fleet.status_list(pool, number, &bits.compress())?);
    }
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    let length: usize = texts.iter().map(String::len).sum();
    let row = Row {
        job: format!("{JOB}: {} lists, {} KiB", texts.len(), length.div_ceil(1024)),
        p50_ms: Some(milliseconds.round()),
        ..Row::default()
    };
    Ok((row, texts.into_iter().next().unwrap_or_default()))
}
