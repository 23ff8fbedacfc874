//! The control plane of Keypost.
//!
//! Three layers, each knowing only the next: [`http`] (what comes in and goes out) → [`service`] (the rules) → [`store`]
//! (the SQL). Beside them the [`publisher`] makes KV say what PostgreSQL says. Time ([`clock`]) and randomness
//! ([`entropy`]) are parameters.
#![warn(missing_docs)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto_at_rest;
pub mod edge_reports;
pub mod entropy;
pub mod envelope;
pub mod housekeeping;
pub mod http;
pub mod key_maker;
pub mod kms;
pub mod kv;
pub mod metrics;
pub mod publisher;
pub mod rewrap;
pub mod root;
pub mod server;
pub mod service;
pub mod signing_keys;
pub mod store;
pub mod telemetry;
