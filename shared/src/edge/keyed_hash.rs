//! Short names for long texts, for the isolate's own memory: SipHash-1-3 of 128 bits under a key that never leaves it.
//!
//! Who knows the key could find two texts of one name; nobody does. SHA-256 needs no key, and was the function of ours
//! that took longest for a chain of certificates that had been seen before.

use std::cell::OnceCell;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::platform::Platform;

/// The isolate's key, made when it is first needed.
#[derive(Default)]
pub(super) struct KeyedHash(OnceCell<[u8; 16]>);

impl KeyedHash {
    /// The name of these parts in this order.
    pub(super) fn of<'a, P: Platform>(
        &self,
        platform: &P,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> u128 {
        let key = self.0.get_or_init(|| {
            let mut key = [0; 16];
            platform.fill_random(&mut key);
            key
        });
        let mut hasher = SipHasher13::new_with_key(key);
        for part in parts {
            // The lengths keep one part's end from being taken for the next one's beginning.
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
        hasher.finish128().as_u128()
    }
}
