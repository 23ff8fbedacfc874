//! Everything that has to be on the machine before the stack can be built and run. Each module makes one thing
//! sure, at once if it is there already.

pub mod cache;
pub mod chromium;
mod debian;
pub mod node;
pub mod postgres;
pub mod python;
pub mod tools;
pub mod wasm;
pub mod worker;
