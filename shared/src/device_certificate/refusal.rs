//! Why a certificate does not get its device in, with a stable code for each reason.

use std::fmt;

use super::template::NoDeviceId;
use crate::assertion::AssertionProblem;
use crate::certificate::{Refusal, SubjectError};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRefusal {
    /// The pool takes no certificates.
    #[error("the pool's provisioning mode is off")]
    CertificatesOff,
    /// The assertion is not as it should be.
    #[error(transparent)]
    Assertion(#[from] AssertionProblem),
    /// The chain is not valid.
    #[error(transparent)]
    Chain(#[from] Refusal),
    /// A certificate of the chain is denied.
    #[error("certificate {0} of the chain is denied, the device's being 0")]
    Denied(usize),
    /// The device's key is not for signing.
    #[error("the certificate's key usage does not include digital signatures")]
    MayNotSign,
    /// The subject could be read in two ways.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The certificate names no device.
    #[error(transparent)]
    NoDeviceId(#[from] NoDeviceId),
    /// Nobody has registered the device, and the pool does not take in unknown ones.
    #[error("there is no such device")]
    Unknown,
    /// Nobody has registered the device, and its certificate is not one of those that may bring it in.
    #[error("there is no such device, and the certificate does not match the policy's {0}")]
    NoMatch(&'static str),
    /// The device, or the client that was named, is disabled.
    #[error("the device is disabled")]
    Disabled,
    /// The certificate is not like the one that the device was provisioned with.
    #[error("the device was provisioned with another {0}")]
    SubjectMismatch(&'static str),
    /// No app of the device holds the scope `device`.
    #[error("the device has no enabled app with the scope device")]
    NoDeviceScope,
    /// A client was named that is none of this device's.
    #[error("the client that was named is none of the device's that may authenticate by certificate")]
    OtherClient,
    /// Too many new devices within the hour.
    #[error("as many new devices as the policy allows have come within the hour")]
    TooMany,
}

/// A stable code, as `error_description` carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalCode {
    /// Whether it is a chain's, whose codes are all prefixed.
    of_chain: bool,
    code: &'static str,
}

impl RefusalCode {
    /// A code of its own.
    pub const fn plain(code: &'static str) -> Self {
        Self { of_chain: false, code }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.of_chain { "chain_" } else { "" })?;
        f.write_str(self.code)
    }
}

impl DeviceRefusal {
    /// The stable code.
    pub fn code(&self) -> RefusalCode {
        RefusalCode::plain(match self {
            Self::Chain(refusal) => match refusal.code() {
                code if code.starts_with("chain_") => code,
                code => return RefusalCode { of_chain: true, code },
            },
            Self::Assertion(problem) => return problem.code(),
            Self::CertificatesOff => "certificates_off",
            Self::Denied(_) => "certificate_denied",
            Self::MayNotSign => "certificate_may_not_sign",
            Self::Subject(error) => error.code(),
            Self::NoDeviceId(NoDeviceId::Attribute(..)) => "device_id_missing",
            Self::NoDeviceId(NoDeviceId::NotAnId(_)) => "device_id_malformed",
            Self::Unknown => "device_unknown",
            Self::NoMatch(_) => "device_not_matched",
            Self::Disabled => "device_disabled",
            Self::SubjectMismatch(_) => "subject_mismatch",
            Self::NoDeviceScope => "no_device_scope",
            Self::OtherClient => "sub_mismatch",
            Self::TooMany => "too_many_new_devices",
        })
    }
}
