//! Certificate chains of devices (design §8): X.509 path validation by RFC 5280 §6, in order and within a budget.
//!
//! rustls-webpki was considered: it checks signatures synchronously, where WebCrypto's answers are awaited, takes a root
//! for a name and a key (it ignores its validity, path length and usage), compares names byte by byte, and refuses the
//! version 1 certificates that openssl makes for devices. x509-parser reads more leniently than DER and brings a great
//! deal along; so certificates are read here, over the strict `der` crate, and the walk is a straight one because `x5c`
//! is in order (RFC 7515 §4.1.6).
//!
//! - [`decode_x5c`], [`validate`], [`ValidChain`], [`Decision`]: the way of a chain. [`Refusal`]: why not, with a code
//! - [`Certificate`], [`Name`], [`Subject`], [`GeneralName`]: what is read from one
//! - [`TrustAnchor`], [`root_upload`]: roots
//! - [`SignatureCheck`], [`VerifySignature`]: what the platform does; [`host`] does it by RustCrypto
//!
//! # What a stranger can cost
//!
//! At most six certificates of 64 KiB together are decoded; names, extensions and purposes are limited in number; then
//! the anchor's signature is checked first. What can be long (alternative names, name constraints, policies) is left
//! unread until every signature has verified, and then bounded as well. Many roots of one name end in a budget of
//! signature checks.
//!
//! # Where verifiers differ
//!
//! Accepted: a missing authorityKeyIdentifier, subjectKeyIdentifier or keyUsage; basicConstraints that is not critical;
//! nameConstraints that is not critical; version 1 for the device's certificate; a root that is not self-signed; a root
//! with the serial number 0; a leading dot in a dNSName constraint (the names below it). Refused: an expired root; a root
//! whose own path length, key usage, extended key usage, name constraints or critical extensions do not hold; SHA-1 and
//! SHA-224, DSA, RSA outside of 2048 to 4096 bits, other curves than P-256 and P-384, explicit curve parameters and
//! compressed points; key identifiers marked critical; a CA's certificate, or one with a CA's rights, as a device's;
//! nameConstraints in a device's certificate; version 2. A CA that renews itself (self-issued) does not count for path
//! lengths, but does for the greatest number of intermediates. Extended key usage binds every certificate of the path
//! that has one; anyExtendedKeyUsage will do for a CA, not for a device.

pub(crate) mod asn1;
pub(crate) mod asn1_write;
mod extension;
mod fingerprint;
mod general_name;
#[cfg(feature = "host")]
pub mod host;
mod name;
mod name_constraint;
pub(crate) mod oid;
mod parsed;
mod path;
mod policy;
mod public_key;
mod refusal;
pub mod root_upload;
mod signature;
mod subject;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod time;
mod trust_anchor;
mod twin;
mod validate;
mod x5c;

pub use fingerprint::{Fingerprint, FingerprintError};
pub use general_name::{GeneralName, NameForm};
pub use name::Name;
pub use parsed::{Certificate, SerialNumber};
pub use public_key::{Curve, KeyKind, key_kind};
pub use refusal::{Place, Problem, Refusal};
pub use signature::{Hash, SignatureAlgorithm, SignatureCheck, VerifySignature, ecdsa_from_der};
pub use subject::{Subject, SubjectError};
pub use trust_anchor::TrustAnchor;
pub use validate::{Decision, Step, ValidChain, validate};
pub use x5c::{CertificateDer, decode_x5c};

use crate::time::UnixTime;

/// The most bytes that one certificate may have. The usual has one or two thousand.
pub const MAX_CERTIFICATE_LENGTH: usize = 32 * 1024;

/// The most bytes that a chain may have.
pub const MAX_CHAIN_LENGTH: usize = 64 * 1024;

/// So many intermediates may stand between a device and its root.
pub const DEFAULT_MAX_INTERMEDIATES: usize = 4;

/// What a chain is held to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The instant at which every certificate must be valid, the root's included.
    pub at: UnixTime,
    /// The most intermediates.
    pub max_intermediates: usize,
    /// Whether an extended key usage, where there is one, must include clientAuth; a CA's may be any.
    pub client_auth: bool,
}
