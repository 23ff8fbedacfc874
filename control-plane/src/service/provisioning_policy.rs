//! A pool's policy for certificates as the API has it: a JSON object, which is changed by merge patches (RFC 7396).

use std::collections::BTreeMap;

use keypost_shared::device_certificate::{
    CertificateMatch, DEVICE_SCOPE, MatchError, ProvisioningMode, ProvisioningPolicy, Template,
};
use keypost_shared::scope::Scopes;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::has_control;

/// The most tags that a device may have (api.md).
const MAX_TAGS: usize = 64;
/// The most characters of a tag's name.
const MAX_TAG_NAME: usize = 64;
/// The most scopes of an app that a policy makes.
const MAX_SCOPES: usize = 64;
/// The most devices that a policy may let in within an hour.
const MAX_PER_HOUR: u64 = 1_000_000;

/// What is to change of a policy for certificates. What is absent stays, `null` is reset.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it describes what is read by hand")]
pub struct ProvisioningPatch {
    /// `off`, `registered` or `auto`.
    #[schema(pattern = "^(off|registered|auto)$")]
    mode: Option<String>,
    /// Which certificates may bring in a device that nobody has registered: "any", or an object of `o`, `ou`, `san` and
    /// `root`, each with one alternative or several.
    #[schema(value_type = Option<Value>)]
    r#match: Option<Value>,
    /// The app that a new device has.
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
    client_app_id: Option<String>,
    /// That app's scopes.
    scopes: Option<Vec<String>>,
    /// Which device a certificate is of, such as `{o}-{cn}`.
    #[schema(max_length = 256)]
    device_id_template: Option<String>,
    /// The tags of a new device: templates, by name.
    #[schema(value_type = Option<Object>)]
    tags: Option<Value>,
    /// The most new devices an hour.
    #[schema(minimum = 0, maximum = 1_000_000)]
    max_per_hour: Option<u32>,
}

/// What is wrong with a policy: the field, and what.
#[derive(Debug, PartialEq, Eq)]
pub struct WrongPolicy(pub Vec<(String, String)>);

/// A policy by the names that the API has for its parts.
pub fn to_json(policy: &ProvisioningPolicy) -> Value {
    json!({
        "mode": policy.mode,
        "match": policy.matching,
        "clientAppId": policy.client_app_id,
        "scopes": policy.scopes.iter().collect::<Vec<_>>(),
        "deviceIdTemplate": policy.device_id_template,
        "tags": policy.tags,
        "maxPerHour": policy.max_per_hour,
    })
}

/// The policy that a merge patch makes of another one.
pub fn patched(policy: &ProvisioningPolicy, patch: Value) -> Result<ProvisioningPolicy, WrongPolicy> {
    let mut merged = to_json(policy);
    merge(&mut merged, patch);
    let Value::Object(merged) = merged else { return Ok(ProvisioningPolicy::default()) };
    from_json(merged)
}

/// RFC 7396 §2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(&name);
            } else {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
    }
}

fn from_json(mut fields: Map<String, Value>) -> Result<ProvisioningPolicy, WrongPolicy> {
    let mut wrong = Vec::new();
    let default = ProvisioningPolicy::default();
    let mut take = |name: &str| fields.remove(name).filter(|value| !value.is_null());
    let policy = ProvisioningPolicy {
        mode: read(take("mode"), default.mode, "mode", &mut wrong, |value| {
            serde_json::from_value(value).map_err(|_| "must be off, registered or auto".to_owned())
        }),
        matching: read(take("match"), None, "match", &mut wrong, |value| matching(value).map(Some)),
        client_app_id: read(take("clientAppId"), default.client_app_id, "clientAppId", &mut wrong, parsed),
        scopes: read(take("scopes"), default.scopes, "scopes", &mut wrong, scopes),
        device_id_template: read(
            take("deviceIdTemplate"),
            default.device_id_template,
            "deviceIdTemplate",
            &mut wrong,
            parsed,
        ),
        tags: match take("tags") {
            Some(value) => tags(value, &mut wrong),
            None => default.tags,
        },
        max_per_hour: read(take("maxPerHour"), default.max_per_hour, "maxPerHour", &mut wrong, |value| {
            let number = value.as_u64().filter(|number| *number <= MAX_PER_HOUR);
            number
                .and_then(|number| u32::try_from(number).ok())
                .ok_or_else(|| format!("must be a whole number from 0 to {MAX_PER_HOUR}"))
        }),
    };
    wrong.extend(fields.keys().map(|name| (format!("provisioning.{name}"), "is unknown".to_owned())));
    if wrong.is_empty() {
        wrong.extend(contradiction(&policy));
    }
    if wrong.is_empty() { Ok(policy) } else { Err(WrongPolicy(wrong)) }
}

fn read<T>(
    value: Option<Value>,
    default: T,
    name: &str,
    wrong: &mut Vec<(String, String)>,
    check: impl FnOnce(Value) -> Result<T, String>,
) -> T {
    match value.map(check) {
        None => default,
        Some(Ok(read)) => read,
        Some(Err(detail)) => {
            wrong.push((format!("provisioning.{name}"), detail));
            default
        }
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(value: Value) -> Result<T, String> {
    let text = value.as_str().ok_or("must be a string")?;
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// Whether any text in a value has a control character.
fn any_control(value: &Value) -> bool {
    match value {
        Value::String(text) => has_control(text),
        Value::Array(values) => values.iter().any(any_control),
        Value::Object(fields) => fields.iter().any(|(name, value)| has_control(name) || any_control(value)),
        _ => false,
    }
}

fn matching(value: Value) -> Result<CertificateMatch, String> {
    const RULES: [&str; 4] = ["o", "ou", "san", "root"];
    if any_control(&value) {
        return Err("must not have control characters".to_owned());
    }
    if let Some(rules) = value.as_object() {
        if let Some(name) = rules.keys().find(|name| !RULES.contains(&name.as_str())) {
            let name: String = name.chars().take(64).collect();
            return Err(format!("has {name}, which is no rule: there are o, ou, san and root"));
        }
        // An error of the untagged form would not say which of the rules is wrong.
        let texts = |value: &Value| value.is_string();
        let several = |value: &Value| value.as_array().is_some_and(|values| values.iter().all(texts));
        if let Some((name, _)) = rules.iter().find(|(_, value)| !texts(value) && !several(value)) {
            return Err(format!("must have a string or an array of strings for {name}"));
        }
        let roots =
            rules.get("root").map(|root| root.as_array().cloned().unwrap_or_else(|| vec![root.clone()]));
        let fingerprints = |root: &Value| parsed::<keypost_shared::certificate::Fingerprint>(root.clone());
        if let Some(detail) = roots.unwrap_or_default().iter().find_map(|root| fingerprints(root).err()) {
            return Err(format!("root {detail}"));
        }
        if rules.is_empty() {
            return Err(MatchError::Empty.to_string());
        }
    } else if value.as_str() != Some("any") {
        return Err(MatchError::NotAny.to_string());
    }
    serde_json::from_value(value).map_err(|_| MatchError::Alternatives.to_string())
}

fn scopes(value: Value) -> Result<Scopes, String> {
    let texts: Vec<String> =
        serde_json::from_value(value).map_err(|_| "must be an array of strings".to_owned())?;
    if !(1..=MAX_SCOPES).contains(&texts.len()) {
        return Err(format!("must name 1 to {MAX_SCOPES} scopes"));
    }
    Scopes::new(texts).map_err(|error| error.to_string())
}

fn tags(value: Value, wrong: &mut Vec<(String, String)>) -> BTreeMap<String, Template> {
    let Value::Object(tags) = value else {
        wrong.push(("provisioning.tags".to_owned(), "must be an object of strings".to_owned()));
        return BTreeMap::new();
    };
    if tags.len() > MAX_TAGS {
        wrong.push(("provisioning.tags".to_owned(), format!("must have at most {MAX_TAGS} entries")));
        return BTreeMap::new();
    }
    let good_name = |name: &str| {
        (1..=MAX_TAG_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
    };
    let mut read = BTreeMap::new();
    for (name, value) in tags {
        let template = match good_name(&name) {
            true => parsed::<Template>(value),
            false => {
                Err("must have a name of at most 64 letters, digits, dots, colons, hyphens and underscores"
                    .to_owned())
            }
        };
        match template {
            Ok(template) => drop(read.insert(name, template)),
            Err(detail) => wrong.push((format!("provisioning.tags.{name}"), detail)),
        }
    }
    read
}

/// What depends on several parts of a policy.
fn contradiction(policy: &ProvisioningPolicy) -> Option<(String, String)> {
    if policy.mode != ProvisioningMode::Auto {
        None
    } else if policy.matching.is_none() {
        let detail = "must be set where the mode is auto: an object of o, ou, san and root, or \"any\"";
        Some(("provisioning.match".to_owned(), detail.to_owned()))
    } else if !policy.scopes.contains(DEVICE_SCOPE) {
        let detail = "must have the scope device where the mode is auto: without it no new device gets in";
        Some(("provisioning.scopes".to_owned(), detail.to_owned()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(patches: &[Value]) -> Value {
        let patch = |policy, patch: &Value| patched(&policy, patch.clone()).unwrap();
        to_json(&patches.iter().fold(ProvisioningPolicy::default(), patch))
    }

    fn wrong(patch: Value) -> Vec<String> {
        let WrongPolicy(wrong) = patched(&ProvisioningPolicy::default(), patch).unwrap_err();
        wrong.into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_resets_it() {
        let auto =
            json!({"mode": "auto", "match": {"o": ["05243", "05244"]}, "tags": {"unit": "{o}", "x": "y"}});
        let policy = after(std::slice::from_ref(&auto));
        assert_eq!(policy["match"], json!({"o": ["05243", "05244"]}));
        assert_eq!(policy["maxPerHour"], 1000);
        // RFC 7396 goes into objects: the rules and the tags that are not named stay.
        let more = json!({"match": {"ou": "tills", "o": null}, "tags": {"x": null}, "maxPerHour": 5});
        let policy = after(&[auto.clone(), more]);
        assert_eq!((&policy["match"], &policy["tags"]), (&json!({"ou": "tills"}), &json!({"unit": "{o}"})));
        assert_eq!(after(&[auto.clone(), json!({"match": "any"})])["match"], "any");
        assert_eq!(after(&[auto, Value::Null]), to_json(&ProvisioningPolicy::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (patch, fields) in [
            (json!({"mode": "automatic"}), &["provisioning.mode"][..]),
            (json!({"mode": "auto"}), &["provisioning.match"]),
            (json!({"mode": "auto", "match": {}}), &["provisioning.match"]),
            (json!({"match": "all"}), &["provisioning.match"]),
            (json!({"match": {"cn": "x"}}), &["provisioning.match"]),
            (json!({"match": {"o": 5}}), &["provisioning.match"]),
            (json!({"match": {"o": []}}), &["provisioning.match"]),
            (json!({"match": {"root": "abc"}}), &["provisioning.match"]),
            (json!({"mode": "auto", "match": "any", "scopes": ["x"]}), &["provisioning.scopes"]),
            (json!({"scopes": []}), &["provisioning.scopes"]),
            (json!({"scopes": ["a b"]}), &["provisioning.scopes"]),
            (json!({"clientAppId": "A"}), &["provisioning.clientAppId"]),
            (json!({"deviceIdTemplate": "till"}), &["provisioning.deviceIdTemplate"]),
            (json!({"deviceIdTemplate": "{x}"}), &["provisioning.deviceIdTemplate"]),
            (
                json!({"tags": {"unit": "{o", "a b": "x"}}),
                &["provisioning.tags.a b", "provisioning.tags.unit"],
            ),
            (json!({"maxPerHour": -1}), &["provisioning.maxPerHour"]),
            (json!({"maxPerHour": 1_000_001}), &["provisioning.maxPerHour"]),
            (json!({"colour": 1, "mode": 1}), &["provisioning.mode", "provisioning.colour"]),
        ] {
            assert_eq!(wrong(patch.clone()), fields, "{patch}");
        }
    }
}
