//! Assertions that have been used. Best effort, as api.md says: the isolate remembers exactly, the location by its cache,
//! and simultaneous or distant replays may pass.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

use super::bounded::Bounded;
use super::platform::Platform;
use super::{Context, Edge};
use crate::assertion::Claims;
use crate::id::PoolId;
use crate::time::UnixTime;

/// The most assertions that an isolate remembers: only genuine ones get here, and none lives longer than 10 minutes.
const MAX_ASSERTIONS: NonZeroUsize = NonZeroUsize::new(32_768).unwrap();

/// The isolate's memory of used assertions, with the end of each.
pub(super) struct ReplayStore {
    used: RefCell<Bounded<[u8; 32], UnixTime>>,
}

impl ReplayStore {
    pub(super) fn new() -> Self {
        Self { used: RefCell::new(Bounded::new(MAX_ASSERTIONS, usize::MAX)) }
    }

    /// Whether the assertion is used for the first time.
    fn use_up(&self, id: [u8; 32], exp: UnixTime, now: UnixTime) -> bool {
        let mut used = self.used.borrow_mut();
        if used.get(&id).is_some_and(|end| now < *end) {
            return false;
        }
        used.put(id, exp, 0);
        true
    }
}

impl<P: Platform> Edge<P> {
    /// Uses an assertion up, whose signature has been verified. False where that was done before.
    pub(super) async fn use_up(&self, context: &Context<'_, P>, pool: PoolId, claims: &Claims) -> bool {
        let mut hash = Sha256::new();
        hash.update(pool.0.as_bytes());
        hash.update((claims.iss.len() as u64).to_be_bytes());
        hash.update(&claims.iss);
        hash.update(&claims.jti);
        let id: [u8; 32] = hash.finalize().into();
        if !self.replays.use_up(id, claims.exp, context.now) {
            return false;
        }
        let seconds = u32::try_from(claims.exp.since(context.now)).unwrap_or(u32::MAX);
        let name = format!("assertion/{}", Base64UrlUnpadded::encode_string(&id));
        context.platform.note_first(&name, seconds.max(1)).await
    }
}
