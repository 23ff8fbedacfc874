//! The record of a device that comes to exist by its certificate: made in the same way by the edge, for the first token,
//! and by the control plane, for good.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::identity::DeviceIdentity;
use super::policy::ProvisioningPolicy;
use crate::document::{ClientDocument, ClientStatus, ClientSubject, DeviceClaims};

/// What every device of a pool has from its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceDefaults {
    /// The tags, with the value of a device that sets none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Where devices find their first server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_server_url: Option<String>,
    /// Where they find all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub server_urls: Vec<String>,
}

/// The client of a new device: no secret, no metadata, the policy's app and scopes, the environment's tags with those that
/// the policy makes of the certificate.
pub fn new_client(
    policy: &ProvisioningPolicy,
    defaults: &DeviceDefaults,
    identity: &DeviceIdentity,
) -> Result<ClientDocument, serde_json::Error> {
    let mut tags = defaults.tags.clone();
    tags.extend(identity.tags.clone());
    Ok(ClientDocument {
        status: ClientStatus::Enabled,
        secrets: Vec::new(),
        scopes: policy.scopes.clone(),
        subject: ClientSubject::Device(DeviceClaims {
            device_id: identity.device_id.clone(),
            client_app_id: policy.client_app_id.clone(),
            metadata: RawValue::from_string("{}".to_owned())?,
            tags: to_raw_value(&tags)?,
            primary_server_url: defaults.primary_server_url.clone(),
            server_urls: defaults.server_urls.clone(),
        }),
        jwks: None,
        audience: Vec::new(),
        status_block: None,
    })
}
