//! What an isolate keeps of what it has read: the most recently used, in bounded memory however long each one is.

use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;

/// A cache bounded by the length of what it holds, and by its number.
pub(super) struct Bounded<K, V> {
    entries: LruCache<K, Entry<V>>,
    bytes: usize,
    max_bytes: usize,
}

struct Entry<V> {
    value: V,
    length: usize,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    /// An empty cache that holds at most `max_entries` values of together at most `max_bytes` bytes.
    pub(super) fn new(max_entries: NonZeroUsize, max_bytes: usize) -> Self {
        // `unbounded` allocates as it grows, `new` all at once.
        let mut entries = LruCache::unbounded();
        entries.resize(max_entries);
        Self { entries, bytes: 0, max_bytes }
    }

    /// A value, which counts as used now.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// A value, without using it.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.entries.peek(key).map(|entry| &entry.value)
    }

    /// Holds a value of this many bytes, and lets go of the least recently used ones, or of this one, where there is no
    /// room.
    pub(super) fn put(&mut self, key: K, value: V, length: usize) {
        self.bytes += length;
        if let Some((_, displaced)) = self.entries.push(key, Entry { value, length }) {
            self.bytes -= displaced.length;
        }
        while self.bytes > self.max_bytes {
            let Some((_, oldest)) = self.entries.pop_lru() else { break };
            self.bytes -= oldest.length;
        }
    }

    /// Lets go of a value.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(removed) = self.entries.pop(key) {
            self.bytes -= removed.length;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Bounded::new(NonZeroUsize::new(2).unwrap(), 10);
        cache.put("a", 1, 4);
        cache.put("b", 2, 4);
        assert_eq!(cache.get(&"a"), Some(&1));
        cache.put("c", 3, 1);
        assert_eq!(
            (cache.peek(&"a"), cache.peek(&"b"), cache.peek(&"c")),
            (Some(&1), None, Some(&3)),
            "by number"
        );
        cache.put("c", 4, 7);
        assert_eq!((cache.peek(&"a"), cache.peek(&"c")), (None, Some(&4)), "by length");
        cache.put("d", 5, 11);
        assert_eq!((cache.peek(&"c"), cache.peek(&"d")), (None, None), "what is too long is not held");
    }

    proptest! {
        #[test]
        fn it_counts_what_it_holds(steps in prop::collection::vec((0..6_u8, 0..40_usize, any::<bool>()), 0..200)) {
            let mut cache = Bounded::new(NonZeroUsize::new(4).unwrap(), 64);
            for (key, length, keep) in steps {
                if keep { cache.put(key, (), length) } else { cache.remove(&key) }
                let held: usize = cache.entries.iter().map(|(_, entry)| entry.length).sum();
                prop_assert_eq!(cache.bytes, held);
                prop_assert!(held <= 64 && cache.entries.len() <= 4);
            }
        }
    }
}
