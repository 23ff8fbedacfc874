//! Passwords (api.md §4): what may be one, and how it is kept and checked without a storm of sign-ins eating the machine.

mod common;
mod cost;
mod hash;
mod hashing;
mod policy;

pub use self::cost::PasswordCost;
pub use self::hash::{BrokenHash, Verdict};
pub use self::hashing::{PasswordError, Passwords};
pub use self::policy::{Password, PolicyError};
