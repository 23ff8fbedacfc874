//! The whole path, over real HTTP: real PostgreSQL, the real control plane, the Worker in real workerd, real clients.
//! One binary, so that most tests share one stack.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends there"
)]

mod activation;
mod certificate_edge;
mod certificates;
mod changes;
mod contract;
mod documents;
mod faults;
mod first_token;
mod keys;
mod management;
mod revocation_edge;
mod service_clients;
mod standard_clients;
mod token_errors;
mod wycheproof;
