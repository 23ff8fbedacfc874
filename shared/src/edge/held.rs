//! Documents that the isolate holds verified, and when they are read again.
//!
//! Two rules (design §4): a version lower than the one held is ignored, and what fails to verify never displaces a
//! verified copy of a document that expires.

use crate::document::Stamp;
use crate::time::UnixTime;

/// The longest that a held copy is used before KV is asked again, in seconds.
const MAX_AGE: u64 = 30;

/// How old an answer of the location's KV cache may be, in seconds: Cloudflare's least.
pub(super) const KV_CACHE_SECONDS: u32 = 30;

/// How long a document of this stamp is used before KV is asked again: 30 s, or a quarter of its window where that is
/// shorter.
pub(super) fn refresh_after(stamp: &Stamp) -> u64 {
    let quarter = stamp.next_update.map_or(MAX_AGE, |end| end.since(stamp.iat) / 4);
    quarter.clamp(1, MAX_AGE)
}

/// Whether a document that expires still counts `grace` seconds past its `next_update`.
pub(super) fn is_current(stamp: &Stamp, now: UnixTime, grace: u64) -> bool {
    stamp.next_update.is_some_and(|end| now < end + grace)
}

/// Whether a copy that was read at `read_at` may be used without asking KV again. One from the future, of a clock that
/// has gone back since, may not.
pub(super) fn is_fresh(read_at: UnixTime, now: UnixTime, max_age: u64) -> bool {
    read_at <= now && now.since(read_at) < max_age
}

/// Whether a document may take the place of the one that is held, if any.
///
/// To be asked in the moment of taking the place: while a request waits, others go on and learn newer things.
pub(super) fn supersedes(new: &Stamp, held: Option<&Stamp>) -> bool {
    held.is_none_or(|held| new.version >= held.version)
}
