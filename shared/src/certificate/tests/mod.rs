//! Chains made here, chains that openssl made, and the vectors of two public suites.

pub(crate) mod builder;
mod chain;
mod extensions;
mod hostile;
mod leaf;
mod name_constraints;
mod openssl;
mod policies;
mod reading;
mod signatures;
mod upload;
mod vectors;

use builder::Chain;

use super::*;
use crate::crypto::CryptoError;
use crate::host::HostCrypto;

/// The instant of every test that names no other: within the validity of what the builder makes.
const NOW: UnixTime = UnixTime(1_800_000_000);

/// Validates with the device rules at [`NOW`].
fn decide<'a>(chain: &'a [Vec<u8>], anchors: &'a [TrustAnchor]) -> Decision<'a> {
    decide_by(chain, anchors, &Rules::for_device(NOW))
}

fn decide_by<'a>(chain: &'a [Vec<u8>], anchors: &'a [TrustAnchor], rules: &Rules) -> Decision<'a> {
    pollster::block_on(validate(&HostCrypto, chain, anchors, rules)).unwrap()
}

/// The code of a refusal and its place; `None` for a valid chain.
fn refusal(decision: &Decision<'_>) -> Option<(Place, &'static str)> {
    decision.verdict.as_ref().err().map(|refusal| (refusal.place, refusal.code()))
}

/// Changes the usual chain of three and says how that is decided.
fn changed(change: impl FnOnce(&mut Chain)) -> Option<(Place, &'static str)> {
    let mut chain = Chain::usual();
    change(&mut chain);
    let anchors = [chain.anchor()];
    refusal(&decide(&chain.x5c(), &anchors))
}

const LEAF: Place = Place::Certificate(0);
const INTERMEDIATE: Place = Place::Certificate(1);
const ROOT: Place = Place::Anchor(0);
