//! What the end-to-end tests stand on: a running stack, an administrator, a device, and KV as an attacker sees it.
//!
//! Tests that only use a stack share one; tests that break something have one of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends there"
)]

pub mod admin;
pub mod clients;
pub mod edge;
pub mod kms;
pub mod kv;
pub mod load;
pub mod lone_control_plane;
pub mod lone_edge;
pub mod openssl;
pub mod stack;
pub mod wait;
