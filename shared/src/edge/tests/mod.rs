//! The edge's behaviour on a simulated platform: KV is a map that a test may write what it likes into, and time is a
//! number.

mod documents;
mod interleaving;
mod requests;
mod world;
