//! What a pool lets certificates do (api.md §1, `provisioning`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::attributes::Attributes;
use super::matching::CertificateMatch;
use super::template::{DeviceIdTemplate, Template};
use crate::id::ClientAppId;
use crate::scope::Scopes;

/// The scope that an app must hold for its device to authenticate by certificate.
pub const DEVICE_SCOPE: &str = "device";

/// The most characters that a tag made from a certificate may have, as any other (api.md).
const MAX_TAG_LENGTH: usize = 256;

/// Who may authenticate by certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProvisioningMode {
    /// Nobody.
    Off,
    /// Devices that exist and have an app with the `device` scope.
    #[default]
    Registered,
    /// Those, and unknown devices that match: they come to exist by it.
    Auto,
}

/// A pool's rules for certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProvisioningPolicy {
    /// Who may authenticate by certificate.
    pub mode: ProvisioningMode,
    /// Which unknown devices may come in; none where nobody has said.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<CertificateMatch>,
    /// The app that a new device has.
    pub client_app_id: ClientAppId,
    /// That app's scopes.
    pub scopes: Scopes,
    /// Which device a certificate is of.
    pub device_id_template: DeviceIdTemplate,
    /// The tags that a new device gets. One whose attribute the certificate does not have, or has more than once, is left
    /// out.
    pub tags: BTreeMap<String, Template>,
    /// The most new devices an hour. The edge only brakes, per location; the control plane counts.
    pub max_per_hour: u32,
}

impl Default for ProvisioningPolicy {
    /// The policy of a new pool.
    fn default() -> Self {
        Self {
            mode: ProvisioningMode::default(),
            matching: None,
            client_app_id: ClientAppId::device_default(),
            scopes: Scopes::device_default(),
            device_id_template: DeviceIdTemplate::default(),
            tags: BTreeMap::new(),
            max_per_hour: 1000,
        }
    }
}

impl ProvisioningPolicy {
    /// The tags that a device of this certificate gets.
    pub fn tags_of(&self, attributes: &Attributes) -> BTreeMap<String, String> {
        let filled =
            self.tags.iter().filter_map(|(name, template)| Some((name, template.fill(attributes).ok()?)));
        let fitting = filled.filter(|(_, value)| value.chars().count() <= MAX_TAG_LENGTH);
        fitting.map(|(name, value)| (name.clone(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_written_and_read_as_the_api_has_it() {
        let json = json!({
            "mode": "auto", "match": {"o": "05243"}, "client_app_id": "pos", "scopes": ["device", "x"],
            "device_id_template": "{o}-{cn}", "tags": {"business_unit_id": "{o}"}, "max_per_hour": 7,
        });
        let policy: ProvisioningPolicy = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&policy).unwrap(), json);
        let default: ProvisioningPolicy = serde_json::from_value(json!({})).unwrap();
        assert_eq!(default, ProvisioningPolicy::default());
        assert_eq!(default.mode, ProvisioningMode::Registered);
        assert_eq!(
            (default.client_app_id.as_str(), default.scopes.to_string().as_str()),
            ("client", "device")
        );
    }

    #[test]
    fn a_tag_that_cannot_be_told_is_left_out() {
        let tags = json!({"unit": "unit {o}", "group": "{ou}", "state": "{st}", "fixed": "yes"});
        let policy: ProvisioningPolicy = serde_json::from_value(json!({"tags": tags})).unwrap();
        let attributes = Attributes::made_of(&[("o", "05243"), ("ou", "a"), ("ou", "b")]);
        let expected = json!({"unit": "unit 05243", "fixed": "yes"});
        assert_eq!(serde_json::to_value(policy.tags_of(&attributes)).unwrap(), expected);
        let long = Attributes::made_of(&[("o", &"x".repeat(252))]);
        assert!(!policy.tags_of(&long).contains_key("unit"));
    }
}
