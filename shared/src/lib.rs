//! The pure core of Keypost: everything that the control plane and the edge must agree on, and everything that
//! deserves to be tested without a network. No I/O, no clock and no randomness of its own: those come in as parameters.
//!
//! - [`id`], [`scope`], [`secret`], [`time`]: the types that are parsed at the door
//! - [`jwk`], [`jws`], [`jwe`]: the JOSE formats (RFC 7515 to 7518), without a cryptographic library; [`client_jwk`]:
//!   the keys of others
//! - [`crypto`]: what a platform's cryptography must be able to do; [`host`] is one, the Worker's WebCrypto the other
//! - [`kv_key`], [`document`]: what stands in KV, how it is signed and how it is checked
//! - [`kms`]: AWS KMS, as far as the edge speaks to it itself
//! - [`publisher_key`], [`signing_key`]: when which publisher key signs documents, and which of a pool's keys its tokens
//! - [`oauth`], [`access_token`]: requests, errors, metadata and the access token
//! - [`assertion`]: the JWTs by which clients and devices prove who they are
//! - [`certificate`]: certificate chains of devices, and the roots that they lead to
//! - [`device_certificate`]: what a chain entitles its device to; [`edge_report`]: how the control plane hears of it
//! - [`status_list`]: by which verifiers learn of revoked tokens; [`issued_token`]: a token that somebody presents
//! - [`edge`]: the Worker's whole behaviour, over traits
#![warn(missing_docs)]

pub mod access_token;
pub mod assertion;
pub mod certificate;
pub mod client_jwk;
pub mod crypto;
pub mod device_certificate;
pub mod document;
pub mod edge;
pub mod edge_report;
#[cfg(feature = "host")]
pub mod host;
pub mod id;
pub mod issued_token;
pub mod jwe;
pub mod jwk;
pub mod jws;
pub mod kms;
pub mod kv_key;
pub mod oauth;
pub mod publisher_key;
pub mod scope;
pub mod secret;
pub mod signing_key;
pub mod status_list;
pub mod time;
