//! How much work a password's hash is.

/// What argon2id is asked to do for a password. One lane: the cores are better used by several passwords at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    memory_kib: u32,
    iterations: u32,
}

/// The least memory and iterations that OWASP's Password Storage Cheat Sheet counts as enough, in each of its trade-offs.
const OWASP: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];
/// The least that argon2 takes with one lane (RFC 9106 §3.1).
const LEAST_MEMORY_KIB: u32 = 8;

impl PasswordCost {
    /// So much. None where argon2 cannot do it.
    pub fn new(memory_kib: u32, iterations: u32) -> Option<Self> {
        (memory_kib >= LEAST_MEMORY_KIB && iterations > 0).then_some(Self { memory_kib, iterations })
    }

    /// The memory of one hash, in KiB.
    pub fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// How often that memory is gone through.
    pub fn iterations(self) -> u32 {
        self.iterations
    }

    /// Whether it is as much as OWASP asks for.
    pub fn is_enough(self) -> bool {
        OWASP.iter().any(|(memory, iterations)| self.memory_kib >= *memory && self.iterations >= *iterations)
    }

    /// Whether less than `wanted` was asked of a hash: memory or iterations.
    pub(super) fn falls_short_of(self, wanted: Self) -> bool {
        self.memory_kib < wanted.memory_kib || self.iterations < wanted.iterations
    }

    /// What is to be done besides to have worked as much as for `wanted`; none where it is not worth it.
    pub(super) fn rest_to(self, wanted: Self) -> Option<Self> {
        let missing = wanted.blocks().checked_sub(self.blocks())?;
        let memory_kib = u32::try_from(missing / u64::from(wanted.iterations)).ok()?;
        Self::new(memory_kib, wanted.iterations)
    }

    fn blocks(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.iterations)
    }
}

impl Default for PasswordCost {
    /// 19 MiB, twice: OWASP's first recommendation.
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(memory_kib: u32, iterations: u32) -> PasswordCost {
        PasswordCost::new(memory_kib, iterations).unwrap()
    }

    #[test]
    fn owasps_trade_offs_are_enough_and_nothing_below_them() {
        assert!(PasswordCost::default().is_enough());
        for (memory, iterations) in OWASP {
            assert!(cost(memory, iterations).is_enough());
            assert!(!cost(memory - 1, iterations).is_enough());
        }
        assert!(!cost(7_168, 4).is_enough());
        assert!(PasswordCost::new(7, 1).is_none() && PasswordCost::new(8, 0).is_none());
    }

    #[test]
    fn an_older_hash_and_its_rest_are_as_much_work_as_a_new_one() {
        let wanted = cost(19_456, 2);
        for older in [cost(7_168, 1), cost(12_288, 3), cost(19_456, 1), cost(64, 1)] {
            let rest = older.rest_to(wanted).map_or(0, PasswordCost::blocks);
            let missing = wanted.blocks() - older.blocks();
            assert!(missing - rest < 2 * u64::from(LEAST_MEMORY_KIB), "{older:?}");
        }
        assert_eq!(wanted.rest_to(wanted), None);
        assert_eq!(cost(47_104, 1).rest_to(wanted), None);
        assert!(cost(47_104, 1).falls_short_of(wanted) && !wanted.falls_short_of(wanted));
    }
}
