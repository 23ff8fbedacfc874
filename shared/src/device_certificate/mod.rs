//! Devices that prove who they are by certificate (design §8): one decision, for the edge and for whoever asks the control
//! plane to explain it.
//!
//! 1. [`identify`]: is the chain valid, is nothing in it denied, and which device does it name? That depends on the chain
//!    and the pool's rules alone, so that the edge may keep the answer.
//! 2. [`prove`]: is the assertion by that certificate's key?
//! 3. [`admit`]: may that device come in, and as which client? That depends on its record.
//!
//! [`Trace`] collects the steps, and [`explain`] takes them all at once. What a new device is made of is in [`new_client`]; how the control plane hears of
//! it, in [`crate::edge_report`].

mod admission;
mod anchors;
mod attributes;
mod denied;
mod explain;
mod identity;
mod matching;
mod pins;
mod policy;
mod proof;
mod record;
mod refusal;
mod template;
#[cfg(test)]
mod tests;
mod trace;

pub use admission::{Admission, Named, admit};
pub use anchors::{PoolAnchors, PoolTrustAnchor};
pub use attributes::{Attribute, Attributes, NoValue};
pub use denied::{DeniedCertificate, HexSerial, HexSerialError, IssuerName, IssuerNameError};
pub use explain::{Explanation, Question, explain};
pub use identity::{CertificateRules, DeviceIdentity, identify};
pub use matching::{Alternatives, CertificateMatch, MatchError, MatchRules};
pub use pins::CertificatePins;
pub use policy::{DEVICE_SCOPE, ProvisioningMode, ProvisioningPolicy};
pub use proof::prove;
pub use record::{DeviceDefaults, new_client};
pub use refusal::{DeviceRefusal, RefusalCode};
pub use template::{DeviceIdTemplate, NoDeviceId, Template, TemplateError};
pub use trace::{Trace, TraceStep};
