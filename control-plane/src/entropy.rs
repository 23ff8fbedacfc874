//! Randomness, as a parameter.

use rand_core::{CryptoRngCore, OsRng};
use uuid::Uuid;

/// A random number generator fit for keys.
pub type Rng = Box<dyn CryptoRngCore + Send>;

/// Where randomness comes from.
pub trait Entropy: Send + Sync {
    /// A generator for one use.
    fn rng(&self) -> Rng;
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn rng(&self) -> Rng {
        Box::new(OsRng)
    }
}

/// A random UUID (version 4, RFC 9562 §5.4).
pub fn random_uuid(rng: &mut impl CryptoRngCore) -> Uuid {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
