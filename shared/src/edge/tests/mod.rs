//! The edge's behaviour on a simulated platform: KV is a map that a test may write what it likes into, and time is a
//! number.

mod certificates;
mod client_assertions;
mod documents;
mod fleet;
mod interleaving;
mod introspection;
mod kms;
mod people;
mod provisioning;
mod requests;
mod revocation;
mod revocation_list;
mod status_lists;
mod world;
