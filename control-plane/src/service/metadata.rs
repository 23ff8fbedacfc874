//! A device's metadata: a JSON object that is kept as it was sent, to the digit.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::has_control;

/// The most bytes of the JSON text.
pub const MAX_BYTES: usize = 16 << 10;
/// How deep it may be nested.
pub const MAX_DEPTH: u32 = 32;

/// Why something is no metadata, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Not an object.
    #[error("must be an object")]
    NotAnObject,
    /// Too many objects in each other.
    #[error("must not be nested that deeply")]
    TooDeep,
    /// A control character, in a name or a text.
    #[error("must not have control characters")]
    ControlCharacter,
    /// Too long a text.
    #[error("must have at most {MAX_BYTES} bytes as JSON")]
    TooLong,
}

/// What is to become of the metadata.
#[derive(Clone, Debug)]
pub enum MetadataPatch {
    /// Nothing is to be left of it.
    Reset,
    /// A merge patch (RFC 7396), an object.
    Merge(Box<RawValue>),
}

/// Checks an object that is to be metadata or a part of it, but for its length.
pub fn check_object(object: &Map<String, Value>) -> Result<(), MetadataError> {
    check_members(object, MAX_DEPTH)
}

/// Reads metadata from a JSON text without white space between its parts, and the value of that.
pub fn parse(value: &Value, text: String) -> Result<Box<RawValue>, MetadataError> {
    check_object(value.as_object().ok_or(MetadataError::NotAnObject)?)?;
    if text.len() > MAX_BYTES {
        return Err(MetadataError::TooLong);
    }
    RawValue::from_string(text).map_err(|_| MetadataError::NotAnObject)
}

/// Metadata after a merge patch. What the patch does not touch stays as it is, to the digit.
pub fn apply(before: &RawValue, patch: &MetadataPatch) -> Result<Box<RawValue>, MetadataError> {
    let text = match patch {
        MetadataPatch::Reset => "{}".to_owned(),
        MetadataPatch::Merge(patch) => merge(before.get(), patch.get())?,
    };
    let value: Value = serde_json::from_str(&text).map_err(|_| MetadataError::TooDeep)?;
    parse(&value, text)
}

/// RFC 7396 §2, on the texts. Both are JSON without white space between its parts, and nested no deeper than
/// [`MAX_DEPTH`].
fn merge(before: &str, patch: &str) -> Result<String, MetadataError> {
    let mut merged = String::with_capacity(before.len() + patch.len());
    write_merged(&mut merged, Some(before), patch)?;
    Ok(merged)
}

fn write_merged(out: &mut String, before: Option<&str>, patch: &str) -> Result<(), MetadataError> {
    if !is_object(patch) {
        out.push_str(patch);
        return Ok(());
    }
    let Members(changes) = members(patch)?;
    let Members(kept) = match before.filter(|before| is_object(before)) {
        Some(before) => members(before)?,
        None => Members(Vec::new()),
    };
    let mut pending: BTreeMap<&str, &str> =
        changes.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
    let mut first = true;
    out.push('{');
    for (name, value) in &kept {
        match pending.remove(name.as_str()) {
            None => {
                write_name(out, &mut first, name);
                out.push_str(value.get());
            }
            Some("null") => {}
            Some(change) => {
                write_name(out, &mut first, name);
                write_merged(out, Some(value.get()), change)?;
            }
        }
    }
    // What is new comes in the order of the patch.
    for (name, _) in &changes {
        match pending.get(name.as_str()) {
            None | Some(&"null") => {}
            Some(change) => {
                write_name(out, &mut first, name);
                write_merged(out, None, change)?;
            }
        }
    }
    out.push('}');
    Ok(())
}

fn write_name(out: &mut String, first: &mut bool, name: &str) {
    if !*first {
        out.push(',');
    }
    *first = false;
    out.push_str(&Value::from(name).to_string());
    out.push(':');
}

fn is_object(text: &str) -> bool {
    text.starts_with('{')
}

fn members(text: &str) -> Result<Members<'_>, MetadataError> {
    serde_json::from_str(text).map_err(|_| MetadataError::NotAnObject)
}

/// The members of an object in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

fn check_members(object: &Map<String, Value>, depth: u32) -> Result<(), MetadataError> {
    if object.keys().any(|name| has_control(name)) {
        return Err(MetadataError::ControlCharacter);
    }
    object.values().try_for_each(|value| check_value(value, depth))
}

fn check_value(value: &Value, depth: u32) -> Result<(), MetadataError> {
    let inside = depth.checked_sub(1).ok_or(MetadataError::TooDeep)?;
    match value {
        Value::Object(object) => check_members(object, inside),
        Value::Array(values) => values.iter().try_for_each(|value| check_value(value, inside)),
        Value::String(text) if has_control(text) => Err(MetadataError::ControlCharacter),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// RFC 7396 §2, word for word.
    fn reference(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = if let Value::Object(target) = target { target } else { Map::new() };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                let before = target.remove(name).unwrap_or(Value::Null);
                target.insert(name.clone(), reference(before, value));
            }
        }
        Value::Object(target)
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            "[a-c\"\\\\]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inside| {
            prop_oneof![
                prop::collection::vec(inside.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c\"ü]{0,1}", inside, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn merging_texts_is_merging_values(before in any_json(), patch in any_json()) {
            let merged = merge(&before.to_string(), &patch.to_string()).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&merged).unwrap(), reference(before, &patch));
        }
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for (before, patch, after) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"[1,2]"#, r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(merge(before, patch).unwrap(), after, "{before} {patch}");
        }
    }

    #[test]
    fn what_is_not_touched_stays_to_the_digit() {
        let before = r#"{"z":1e300,"n":12345678901234567890123,"o":{"x":-0,"y":0.10}}"#;
        let merged = merge(before, r#"{"o":{"y":0.20,"w":1E5}}"#).unwrap();
        assert_eq!(merged, r#"{"z":1e300,"n":12345678901234567890123,"o":{"x":-0,"y":0.20,"w":1E5}}"#);
    }

    #[test]
    fn what_a_patch_makes_must_be_metadata_too() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let patched = |before: &str, patch: &str| apply(&raw(before), &MetadataPatch::Merge(raw(patch)));
        let half = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_BYTES / 2));
        let other = format!(r#"{{"b":"{}"}}"#, "x".repeat(MAX_BYTES / 2));
        assert_eq!(patched(&half, &other).unwrap_err(), MetadataError::TooLong);
        assert_eq!(patched(&half, r#"{"a":null}"#).unwrap().get(), "{}");
        assert_eq!(patched("{}", "[1]").unwrap_err(), MetadataError::NotAnObject);
        assert_eq!(apply(&raw(&half), &MetadataPatch::Reset).unwrap().get(), "{}");
        assert!(check_object(json!({"a": "\u{7}"}).as_object().unwrap()).is_err());
    }
}
