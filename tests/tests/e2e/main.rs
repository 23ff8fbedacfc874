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
mod bench;
mod bounds;
mod bulk;
mod certificate_edge;
mod certificates;
mod changes;
mod contract;
mod documents;
mod faults;
mod first_token;
mod keys;
mod kms;
mod management;
mod publisher_faults;
mod restart;
mod restore;
mod revocation_edge;
mod secret_rotation;
mod service_clients;
mod sso_edge;
mod sso_openid;
mod standard_clients;
mod stolen_publisher_key;
mod token_errors;
mod wycheproof;
