use serde::{Deserialize, Serialize};

use super::{ClientStatus, Document};
use crate::device_certificate::CertificatePins;
use crate::id::ClientId;

/// `v1/device/{pool}/{device}`: as which client a device authenticates by certificate, and what the certificate must have.
///
/// Every device has one, whether it has ever been seen with a certificate or not: where there is none the device is
/// unknown, and a pool may let unknown devices in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceDocument {
    /// Whether the device may have tokens.
    pub status: ClientStatus,
    /// The clients of its enabled apps that hold the scope `device`, the oldest app first. That one is meant where an
    /// assertion names the device.
    pub clients: Vec<ClientId>,
    /// What its certificate must have. None for a device that somebody registered and that has never been seen with a
    /// certificate: any valid one that names it will do, and the control plane pins what the first one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<CertificatePins>,
}

impl Document for DeviceDocument {
    const TYP: &'static str = "keypost-device+jws";
    const EXPIRES: bool = false;
}
