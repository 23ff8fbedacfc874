//! The set-up of everything that Keypost needs on a machine, and the local stack: real PostgreSQL, the control
//! plane, and the Worker in workerd. `cargo xtask` is a thin shell over this library; the end-to-end tests use
//! it too.

pub mod command;
pub mod error;
pub mod files;
pub mod interrupt;
pub mod progress;
pub mod repo;
pub mod secret;
pub mod setup;
pub mod stack;
pub mod test_env;
pub mod verb;

pub use error::Error;
