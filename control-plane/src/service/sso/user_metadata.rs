//! What an app keeps with a person: a JSON object that every token carries, as it was sent.

use serde_json::Value;
use serde_json::value::RawValue;

use super::super::metadata::{self, MetadataError};

/// Names that mean something in a token, where somebody may look who takes the members of the metadata for claims: the
/// registered claims (RFC 7519 §4.1), those of OAuth and OpenID Connect, and Keypost's own. And the one that JavaScript
/// takes for something else.
pub const RESERVED: [&str; 26] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "sid",
    "client_id",
    "scope",
    "status",
    "cnf",
    "act",
    "azp",
    "nonce",
    "auth_time",
    "acr",
    "amr",
    "userId",
    "username",
    "userType",
    "organizationId",
    "organizationName",
    "clientAppId",
    "user_metadata",
    "__proto__",
];

/// Why something is no metadata of a person, for people: where in it, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongMetadata(pub Vec<(String, String)>);

/// Reads metadata from a JSON text without white space between its parts, and the value of that.
pub fn parse(value: &Value, text: String) -> Result<Box<RawValue>, WrongMetadata> {
    let whole = |error: MetadataError| WrongMetadata(vec![(String::new(), error.to_string())]);
    let metadata = metadata::parse(value, text).map_err(whole)?;
    let names = value.as_object().into_iter().flat_map(|object| object.keys());
    let reserved: Vec<(String, String)> = names
        .filter(|name| RESERVED.contains(&name.as_str()))
        .map(|name| (format!(".{name}"), "is a reserved name".to_owned()))
        .collect();
    if reserved.is_empty() { Ok(metadata) } else { Err(WrongMetadata(reserved)) }
}

/// The members that are not among those that may be brought along.
pub(super) fn others_than(metadata: &RawValue, allowed: &[String]) -> Vec<String> {
    let value: Value = serde_json::from_str(metadata.get()).unwrap_or_default();
    let names = value.as_object().into_iter().flat_map(|object| object.keys());
    names.filter(|name| !allowed.contains(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(value: Value) -> Result<String, WrongMetadata> {
        let text = value.to_string();
        parse(&value, text).map(|metadata| metadata.get().to_owned())
    }

    #[test]
    fn an_object_is_kept_and_anything_else_or_reserved_is_named() {
        let kept = json!({"role": "DRIVER", "empID": "E26241", "nested": {"sub": 1}});
        assert_eq!(parsed(kept.clone()), Ok(kept.to_string()));
        assert_eq!(parsed(json!({})), Ok("{}".to_owned()));
        for wrong in [json!([]), json!("text"), json!(7), json!({"a": "x".repeat(16 << 10)})] {
            assert_eq!(parsed(wrong).unwrap_err().0[0].0, "");
        }
        for name in RESERVED {
            let field = format!(".{name}");
            assert_eq!(parsed(json!({"a": 1, name: 2})).unwrap_err().0[0].0, field);
        }
    }

    #[test]
    fn what_may_not_be_brought_along_is_found() {
        let metadata = RawValue::from_string(r#"{"role":"DRIVER","empID":"E1"}"#.to_owned()).unwrap();
        assert_eq!(others_than(&metadata, &["role".to_owned()]), ["empID"]);
        assert!(others_than(&metadata, &["role".to_owned(), "empID".to_owned()]).is_empty());
    }
}
