//! The control plane on a real PostgreSQL, a database for each test, with a small KV server that can misbehave.
// Whole routers and services are nested in each test's future.
#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail"
)]

mod access;
mod activation;
mod agreement;
mod api_keys;
mod audit;
mod bad_input;
mod certificates;
mod cli;
mod device_lists;
mod devices;
mod edge_reports;
mod environments;
mod first_key;
mod housekeeping;
mod import;
mod kms;
mod kms_pools;
mod kms_root;
mod limits;
mod management;
mod master_key;
mod metrics;
mod openapi;
mod provisioning;
mod publisher;
mod publisher_faults;
mod revocation;
mod secrecy;
mod service_clients;
mod serving;
mod signing_keys;
mod sso;
mod store_scoping;
mod support;
mod sync;
mod traces;
mod upgrade;
mod walk;
