//! From a device to a client: what the pool's records decide, once the certificate has said which device it is.

use super::identity::{CertificateRules, DeviceIdentity};
use super::policy::{DEVICE_SCOPE, ProvisioningMode};
use super::refusal::DeviceRefusal;
use super::trace::Trace;
use crate::assertion::AssertionProblem;
use crate::document::{ClientStatus, DeviceDocument};
use crate::id::{ClientId, DeviceId, PoolId};

/// Who gets a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A client of a device that is known.
    Known {
        /// The client.
        client_id: ClientId,
        /// Whether the certificate is the first that was seen of the device: the control plane should hear of it, so
        /// that it can pin what the certificate has.
        first_seen: bool,
    },
    /// The client of a device that comes to exist by this.
    New {
        /// The client, by the policy.
        client_id: ClientId,
    },
}

/// Who an assertion says that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// The device: its oldest enabled app with the scope `device`.
    Device,
    /// One of its clients.
    Client(ClientId),
    /// One of its clients, by the `iss` alone: the `sub` is the device.
    ClientByIss(ClientId),
}

impl Named {
    fn client(&self) -> Option<&ClientId> {
        match self {
            Self::Device => None,
            Self::Client(client) | Self::ClientByIss(client) => Some(client),
        }
    }

    /// The refusal where the client is not one of the device's.
    fn refusal(&self) -> DeviceRefusal {
        match self {
            Self::ClientByIss(_) => AssertionProblem::IssMismatch.into(),
            Self::Device | Self::Client(_) => DeviceRefusal::OtherClient,
        }
    }

    /// Reads a `sub` or an `iss`. None where it names neither this device nor any client.
    pub fn read(text: &str, device: &DeviceId) -> Option<Self> {
        if text == device.as_str() {
            return Some(Self::Device);
        }
        text.parse().ok().map(Self::Client)
    }
}

/// Decides whether the device of a certificate may come in, given its record, if it has one.
pub fn admit(
    pool: PoolId,
    rules: CertificateRules<'_>,
    identity: &DeviceIdentity,
    record: Option<&DeviceDocument>,
    named: &Named,
    trace: &mut Trace,
) -> Result<Admission, DeviceRefusal> {
    match record {
        Some(record) => known(rules, identity, record, named, trace),
        None => unknown(pool, rules, identity, named, trace),
    }
}

fn known(
    rules: CertificateRules<'_>,
    identity: &DeviceIdentity,
    record: &DeviceDocument,
    named: &Named,
    trace: &mut Trace,
) -> Result<Admission, DeviceRefusal> {
    trace.holds("device", format_args!("{} is known", identity.device_id));
    if record.status == ClientStatus::Disabled {
        return Err(trace.refuse("status", DeviceRefusal::Disabled));
    }
    match &record.pins {
        Some(pins) => {
            if let Some(pin) = pins.unmet(identity, rules.anchors) {
                return Err(trace.refuse("pins", DeviceRefusal::SubjectMismatch(pin)));
            }
            trace.holds("pins", "O, CN and root are those that the device was provisioned with");
        }
        None => trace.holds("pins", "nothing is pinned yet: the first certificate that is seen will be"),
    }
    let Some(oldest) = record.clients.first() else {
        return Err(trace.refuse("client", DeviceRefusal::NoDeviceScope));
    };
    let client_id = named.client().unwrap_or(oldest);
    if !record.clients.contains(client_id) {
        return Err(trace.refuse("client", named.refusal()));
    }
    trace.holds("client", client_id);
    Ok(Admission::Known { client_id: client_id.clone(), first_seen: record.pins.is_none() })
}

fn unknown(
    pool: PoolId,
    rules: CertificateRules<'_>,
    identity: &DeviceIdentity,
    named: &Named,
    trace: &mut Trace,
) -> Result<Admission, DeviceRefusal> {
    let policy = rules.policy;
    if policy.mode != ProvisioningMode::Auto {
        return Err(trace.refuse("device", DeviceRefusal::Unknown));
    }
    if let Some(rule) = identity.unmatched {
        return Err(trace.refuse("match", DeviceRefusal::NoMatch(rule)));
    }
    trace.holds("match", "the certificate may bring in a device that nobody has registered");
    if !policy.scopes.contains(DEVICE_SCOPE) {
        return Err(trace.refuse("client", DeviceRefusal::NoDeviceScope));
    }
    let client_id = ClientId::of_device_app(pool, &identity.device_id, &policy.client_app_id);
    if named.client().is_some_and(|named| *named != client_id) {
        return Err(trace.refuse("client", named.refusal()));
    }
    trace.holds("client", format_args!("{client_id}, which is new"));
    Ok(Admission::New { client_id })
}
