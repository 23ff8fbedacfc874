//! Hashing and checking one password: argon2id (RFC 9106), kept as a PHC string.

use argon2::password_hash::phc::{Error as PhcError, Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use keypost_shared::secret::SecretText;

use super::cost::PasswordCost;
use super::policy::Password;

/// As long as argon2's own recommendations (RFC 9106 §3.1).
pub(super) const SALT_LENGTH: usize = 16;
const OUTPUT_LENGTH: usize = 32;

/// What a check has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is another password, or there is none to compare with.
    Wrong,
    /// It is this one.
    Right {
        /// Whether its hash was made with less work than is asked for now: it is to be made anew.
        is_outdated: bool,
    },
}

/// A stored hash cannot be read, or argon2 could not do what is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenHash {
    /// Not a PHC string.
    #[error("a stored password hash cannot be read: {0}")]
    Phc(#[from] PhcError),
    /// Not a hash of this kind.
    #[error("a stored password hash is not argon2id of version 19, with salt and output")]
    Kind,
    /// argon2 refused.
    #[error("argon2: {0}")]
    Argon2(#[from] argon2::Error),
    /// Its parameters are none.
    #[error("a stored password hash has wrong parameters: {0}")]
    Parameters(#[from] argon2::password_hash::Error),
}

/// Memory for one hash at a time, which grows as needed.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

impl Memory {
    /// Gives memory back beyond what a hash of this cost needs, which an older hash has needed.
    pub(super) fn keep_at_most(&mut self, cost: PasswordCost) {
        if !u32::try_from(self.0.len()).is_ok_and(|kib| kib <= cost.memory_kib()) {
            *self = Self::default();
        }
    }

    fn blocks(&mut self, params: &Params) -> Result<&mut [Block], argon2::Error> {
        let missing = params.block_count().saturating_sub(self.0.len());
        self.0.try_reserve_exact(missing).map_err(|_| argon2::Error::OutOfMemory)?;
        self.0.resize(self.0.len() + missing, Block::new());
        Ok(&mut self.0)
    }
}

/// The hash of a password that somebody has chosen, to be kept.
pub(super) fn hash(
    password: &Password,
    salt: &[u8; SALT_LENGTH],
    cost: PasswordCost,
    memory: &mut Memory,
) -> Result<SecretText, BrokenHash> {
    let params = params(cost, OUTPUT_LENGTH)?;
    let mut output = [0; OUTPUT_LENGTH];
    run(&params, password, salt, &mut output, memory)?;
    Ok(SecretText::new(phc(&params, salt, &output)?))
}

/// A hash of no password: to be checked where there is no account, so that it takes as long as where there is one.
pub(super) fn dummy(cost: PasswordCost) -> SecretText {
    let (memory_kib, iterations) = (cost.memory_kib(), cost.iterations());
    // Zeros in base64. Whoever found a password with this output would gain nothing: nobody asks what the check has found.
    SecretText::new(format!("$argon2id$v=19$m={memory_kib},t={iterations},p=1${:A<22}${:A<43}", "", ""))
}

/// Checks a password, with as much work as a hash is now even where `stored` was made with less.
pub(super) fn verify(
    password: &Password,
    stored: &SecretText,
    cost: PasswordCost,
    memory: &mut Memory,
) -> Result<Verdict, BrokenHash> {
    let stored = PasswordHash::new(stored.expose())?;
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else { return Err(BrokenHash::Kind) };
    if stored.algorithm != ARGON2ID_IDENT || stored.version != Some(Version::V0x13.into()) {
        return Err(BrokenHash::Kind);
    }
    let params = Params::try_from(&stored)?;
    let mut output = [0; Output::MAX_LENGTH];
    let output = output.get_mut(..expected.len()).ok_or(BrokenHash::Kind)?;
    run(&params, password, &salt, output, memory)?;
    // Compared in constant time.
    let is_right = Output::new(output)? == expected;

    let spent = PasswordCost::new(params.m_cost(), params.t_cost()).ok_or(BrokenHash::Kind)?;
    if let Some(rest) = spent.rest_to(cost) {
        let mut unused = [0; OUTPUT_LENGTH];
        run(&self::params(rest, OUTPUT_LENGTH)?, password, &salt, &mut unused, memory)?;
    }
    let is_outdated = spent.falls_short_of(cost);
    Ok(if is_right { Verdict::Right { is_outdated } } else { Verdict::Wrong })
}

fn params(cost: PasswordCost, output_length: usize) -> Result<Params, argon2::Error> {
    Params::new(cost.memory_kib(), cost.iterations(), 1, Some(output_length))
}

fn run(
    params: &Params,
    password: &Password,
    salt: &[u8],
    output: &mut [u8],
    memory: &mut Memory,
) -> Result<(), argon2::Error> {
    let blocks = memory.blocks(params)?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone()).hash_password_into_with_memory(
        password.as_bytes(),
        salt,
        output,
        blocks,
    )
}

fn phc(params: &Params, salt: &[u8], output: &[u8]) -> Result<String, BrokenHash> {
    let hash = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params)?,
        salt: Some(Salt::new(salt)?),
        hash: Some(Output::new(output)?),
    };
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(memory_kib: u32, iterations: u32) -> PasswordCost {
        PasswordCost::new(memory_kib, iterations).unwrap()
    }

    fn checked(typed: &str, stored: &str, now: PasswordCost) -> Result<Verdict, BrokenHash> {
        verify(&Password::typed(typed), &SecretText::new(stored.to_owned()), now, &mut Memory::default())
    }

    fn hashed(text: &str, cost: PasswordCost) -> String {
        hash(&Password::typed(text), &[7; SALT_LENGTH], cost, &mut Memory::default())
            .unwrap()
            .expose()
            .to_owned()
    }

    #[test]
    fn a_hash_is_argon2id_with_its_parameters_and_is_checked() {
        let stored = hashed("a good password", cost(64, 2));
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=2,p=1$"), "{stored}");
        let right = Verdict::Right { is_outdated: false };
        assert_eq!(checked("a good password", &stored, cost(64, 2)), Ok(right));
        assert_eq!(checked("a good passwore", &stored, cost(64, 2)), Ok(Verdict::Wrong));
        assert_eq!(checked("", &stored, cost(64, 2)), Ok(Verdict::Wrong));
        // Where less is asked for than once, there is no need for another hash.
        assert_eq!(checked("a good password", &stored, cost(32, 1)), Ok(right));
    }

    #[test]
    fn other_implementations_hashes_are_read() {
        // From argon2's own reference implementation (`argon2 somesalt -id -t 2 -m 16 -p 1`), the password `password`.
        let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let now = cost(64, 1);
        assert_eq!(checked("password", stored, now), Ok(Verdict::Right { is_outdated: false }));
        assert_eq!(checked("passwore", stored, now), Ok(Verdict::Wrong));
    }

    #[test]
    fn a_hash_with_less_work_than_is_asked_for_now_is_outdated() {
        let stored = hashed("a good password", cost(64, 2));
        for now in [cost(65, 2), cost(64, 3), cost(4096, 1)] {
            assert_eq!(checked("a good password", &stored, now), Ok(Verdict::Right { is_outdated: true }));
            assert_eq!(checked("another one", &stored, now), Ok(Verdict::Wrong));
        }
    }

    #[test]
    fn the_hash_of_nobody_fits_no_password_and_costs_the_same() {
        let cost = cost(64, 2);
        let stored = dummy(cost);
        assert!(stored.expose().starts_with("$argon2id$v=19$m=64,t=2,p=1$"));
        assert_eq!(checked("a good password", stored.expose(), cost), Ok(Verdict::Wrong));
    }

    #[test]
    fn broken_hashes_are_errors_and_never_right() {
        let good = hashed("a good password", cost(64, 2));
        for broken in [
            "",
            "plain",
            "$argon2id$v=19$m=64,t=2,p=1",
            &good.replace("argon2id", "argon2i"),
            &good.replace("v=19", "v=16"),
            &good.replace("m=64", "m=1"),
            &good.replace("t=2", "t=0"),
        ] {
            assert!(checked("a good password", broken, cost(64, 2)).is_err(), "{broken}");
        }
    }

    #[test]
    fn memory_is_used_again() {
        let mut memory = Memory::default();
        let password = Password::typed("a good password");
        let first = hash(&password, &[1; SALT_LENGTH], cost(64, 1), &mut memory).unwrap();
        let again = hash(&password, &[1; SALT_LENGTH], cost(64, 1), &mut memory).unwrap();
        assert_eq!((first.expose(), memory.0.len()), (again.expose(), 64));
        memory.keep_at_most(cost(64, 1));
        assert_eq!(memory.0.len(), 64);
        hash(&password, &[1; SALT_LENGTH], cost(128, 1), &mut memory).unwrap();
        memory.keep_at_most(cost(64, 1));
        assert_eq!(memory.0.len(), 0, "what an older hash needed is given back");
    }
}
