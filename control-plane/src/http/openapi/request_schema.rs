//! What the fields of requests must be, as JSON Schema. A name means the same in every request of this API, so what
//! `fields` checks is described here once, by name.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// No control characters (C0, DEL, C1).
const NO_CONTROL: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// The same, and not blank.
const NOT_BLANK: &str =
    r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
const TAG_NAME: &str = "^[A-Za-z0-9._:-]{1,64}$";
/// RFC 6749 §3.3.
const SCOPE: &str = r"^[\x21\x23-\x5b\x5d-\x7e]+$";
const ORIGIN: &str = "^https?://[^/ ]+$";
const HTTP_URL: &str = "^https?://[^ /?#][^ ]*$";

/// Completes the schemas of what requests send: their fields' limits, and that there are no others.
pub(super) fn complete(document: &mut Value) {
    let mut names = BTreeSet::new();
    if let Some(paths) = document.get("paths") {
        find_request_schemas(paths, &mut names);
    }
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else {
        return;
    };
    for name in names {
        if let Some(schema) = schemas.get_mut(&name).and_then(Value::as_object_mut) {
            close(schema);
        }
    }
}

/// The names of the schemas that request bodies refer to.
fn find_request_schemas(value: &Value, names: &mut BTreeSet<String>) {
    let Some(object) = value.as_object() else { return };
    for (name, value) in object {
        match name.as_str() {
            "requestBody" => find_references(value, names),
            _ => find_request_schemas(value, names),
        }
    }
}

fn find_references(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        // Of a form, OAuth ignores what it does not know, and its names are OAuth's.
        Value::Object(object) if object.contains_key("application/x-www-form-urlencoded") => {}
        Value::Object(object) => {
            let reference = object.get("$ref").and_then(Value::as_str);
            names.extend(reference.and_then(|path| path.rsplit('/').next()).map(str::to_owned));
            object.values().for_each(|value| find_references(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| find_references(value, names)),
        _ => {}
    }
}

fn close(schema: &mut Map<String, Value>) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (name, property) in properties {
        let (nullable, nullable_values) =
            (is_nullable(property), property.get("additionalProperties").is_some_and(is_nullable));
        if let (Some(known), Some(property)) = (known(name, nullable), property.as_object_mut()) {
            property.extend(known);
            let values = property.get_mut("additionalProperties").and_then(Value::as_object_mut);
            if let Some(values) = values.filter(|_| nullable_values) {
                values.insert("type".to_owned(), json!(["string", "null"]));
            }
        }
    }
    schema.insert("additionalProperties".to_owned(), json!(false));
}

fn is_nullable(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_array).is_some_and(|types| types.contains(&json!("null")))
}

/// What a field of this name must be.
fn known(name: &str, nullable: bool) -> Option<Map<String, Value>> {
    let kind = |kind: &str| if nullable { json!([kind, "null"]) } else { json!(kind) };
    let url = json!({"type": "string", "pattern": HTTP_URL, "maxLength": 2048});
    let schema = match name {
        "name" => json!({"type": kind("string"), "minLength": 1, "maxLength": 200, "pattern": NOT_BLANK}),
        "description" => json!({"type": kind("string"), "maxLength": 2000, "pattern": NO_CONTROL}),
        "primaryServerUrl" => {
            json!({"type": kind("string"), "pattern": HTTP_URL, "maxLength": 2048})
        }
        "serverUrls" => json!({"type": kind("array"), "maxItems": 32, "items": url}),
        "tags" | "tagDefaults" => json!({
            "type": kind("object"),
            "maxProperties": 64,
            "propertyNames": {"pattern": TAG_NAME},
            "additionalProperties": {"type": "string", "maxLength": 256, "pattern": NO_CONTROL},
        }),
        "scopes" => json!({
            "type": kind("array"),
            "minItems": 1,
            "maxItems": 64,
            "items": {"type": "string", "pattern": SCOPE, "maxLength": 128},
        }),
        "audience" => json!({
            "type": if nullable { json!(["string", "array", "null"]) } else { json!(["string", "array"]) },
            "maxItems": 32,
            "uniqueItems": true,
            "items": {"type": "string", "minLength": 1, "maxLength": 2048, "pattern": NO_CONTROL},
            "minLength": 1,
            "maxLength": 2048,
            "pattern": NO_CONTROL,
        }),
        "claimsProfile" => json!({"type": kind("string"), "enum": ["device", "rfc9068", null]}),
        "corsOrigins" => {
            json!({"type": kind("array"), "maxItems": 32, "items": {"type": "string", "pattern": ORIGIN}})
        }
        _ => return None,
    };
    match schema {
        Value::Object(schema) => Some(schema),
        _ => None,
    }
}
