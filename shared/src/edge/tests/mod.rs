//! The edge's behaviour on a simulated platform: KV is a map that a test may write what it likes into, and time is a
//! number.

mod certificates;
mod client_assertions;
mod documents;
mod fleet;
mod interleaving;
mod kms;
mod provisioning;
mod requests;
mod revocation_list;
mod world;
