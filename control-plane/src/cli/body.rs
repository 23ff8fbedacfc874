//! Bodies of requests, made from what the command line gives.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::api::{Answer, Api, Place};
use super::error::CommandError;

/// `KEY=VALUE`.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// What stands before the first `=`.
    pub(super) key: String,
    /// What stands after it.
    pub(super) value: String,
}

impl FromStr for Pair {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("must be KEY=VALUE"),
        }
    }
}

/// JSON, given as it is or as `@FILE`. It is passed on to the digit.
#[derive(Clone, Debug)]
pub(super) struct Json(Box<RawValue>);

impl FromStr for Json {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = match text.strip_prefix('@') {
            Some(path) => fs::read_to_string(Path::new(path))
                .map_err(|reason| format!("the file cannot be read: {reason}"))?,
            None => text.to_owned(),
        };
        // Where in the text it goes wrong is said, what stands there is not.
        RawValue::from_string(text).map(Self).map_err(|error| format!("is not JSON: {error}"))
    }
}

/// The fields of a body.
#[derive(Debug, Default)]
pub(super) struct Body(BTreeMap<String, Box<RawValue>>);

impl Body {
    /// With a field.
    pub(super) fn with(
        mut self,
        name: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Self, CommandError> {
        self.0.insert(name.to_owned(), to_raw_value(value)?);
        Ok(self)
    }

    /// With a field, if there is a value for it.
    pub(super) fn with_some(self, name: &str, value: Option<&impl Serialize>) -> Result<Self, CommandError> {
        match value {
            Some(value) => self.with(name, value),
            None => Ok(self),
        }
    }

    /// With a field of several values, if there are any.
    pub(super) fn with_list(self, name: &str, values: &[impl Serialize]) -> Result<Self, CommandError> {
        if values.is_empty() { Ok(self) } else { self.with(name, values) }
    }

    /// With a field of JSON, if there is any.
    pub(super) fn with_json(mut self, name: &str, json: Option<&Json>) -> Self {
        if let Some(json) = json {
            self.0.insert(name.to_owned(), json.0.clone());
        }
        self
    }

    /// With an object of texts; a merge patch also says which of them go.
    pub(super) fn with_pairs(
        self,
        name: &str,
        pairs: &[Pair],
        gone: &[String],
    ) -> Result<Self, CommandError> {
        let gone = gone.iter().map(|key| (key.as_str(), None));
        let set = pairs.iter().map(|pair| (pair.key.as_str(), Some(pair.value.as_str())));
        let object: BTreeMap<&str, Option<&str>> = gone.chain(set).collect();
        if object.is_empty() { Ok(self) } else { self.with(name, &object) }
    }

    /// With the fields of a merge patch that the person wrote. Options that name the same field count for more.
    pub(super) fn over(mut self, patch: Option<&Json>) -> Result<Self, CommandError> {
        if let Some(patch) = patch {
            let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(patch.0.get())
                .map_err(|_| CommandError::Usage("--patch must be a JSON object"))?;
            fields.append(&mut self.0);
            self.0 = fields;
        }
        Ok(self)
    }

    /// With these fields cleared, in a merge patch.
    pub(super) fn without(mut self, fields: &[String]) -> Self {
        self.0.extend(fields.iter().map(|field| (field.clone(), RawValue::NULL.to_owned())));
        self
    }

    /// The body as it is sent.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, CommandError> {
        Ok(serde_json::to_vec(&self.0)?)
    }
}

/// What to change in something that can only be replaced.
#[derive(Debug)]
pub(super) struct Change<'a> {
    /// All fields that a replacement may have. What else the thing has is the server's.
    pub(super) writable: &'a [&'a str],
    /// The new values.
    pub(super) set: Body,
    /// The fields that are to have none.
    pub(super) clear: &'a [String],
    /// An object of texts, of which some change.
    pub(super) pairs: Option<(&'a str, &'a [Pair], &'a [String])>,
}

impl Change<'_> {
    /// Reads the thing, changes it, and writes it back if nobody else has changed it since.
    pub(super) async fn make(self, api: &Api, place: &Place) -> Result<Answer, CommandError> {
        let current = api.get(place).await?;
        let version = current.etag.clone().ok_or(CommandError::NoVersion)?;
        let mut fields: BTreeMap<String, Box<RawValue>> = current.read()?;
        fields.retain(|name, value| {
            self.writable.contains(&name.as_str())
                && !self.clear.contains(name)
                && value.get() != RawValue::NULL.get()
        });
        if let Some((name, set, gone)) = self.pairs {
            let mut pairs: BTreeMap<String, String> = match fields.get(name) {
                Some(raw) => serde_json::from_str(raw.get())
                    .map_err(|error| CommandError::Answer(error.to_string()))?,
                None => BTreeMap::new(),
            };
            pairs.retain(|key, _| !gone.contains(key));
            pairs.extend(set.iter().map(|pair| (pair.key.clone(), pair.value.clone())));
            fields.insert(name.to_owned(), to_raw_value(&pairs)?);
        }
        fields.extend(self.set.0);
        api.replace(place, version, Body(fields).to_bytes()?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(body: Body) -> String {
        String::from_utf8(body.to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn json_is_passed_on_to_the_digit() {
        let metadata: Json = r#"{"n": 12345678901234567890123, "f": 1.10}"#.parse().unwrap();
        let body = Body::default().with_json("metadata", Some(&metadata));
        assert_eq!(sent(body), r#"{"metadata":{"n": 12345678901234567890123, "f": 1.10}}"#);
        assert!("{".parse::<Json>().is_err());
        assert!("@/nowhere/at/all".parse::<Json>().is_err());
    }

    #[test]
    fn options_count_for_more_than_a_patch() {
        let patch: Json = r#"{"name": "A", "audience": ["b"]}"#.parse().unwrap();
        let body = Body::default().with("name", "C").unwrap().over(Some(&patch)).unwrap();
        assert_eq!(sent(body), r#"{"audience":["b"],"name":"C"}"#);
        let list: Json = "[]".parse().unwrap();
        assert!(matches!(Body::default().over(Some(&list)), Err(CommandError::Usage(_))));
    }

    #[test]
    fn a_merge_patch_sets_takes_away_and_clears() {
        let pairs = ["a=1=2".parse().unwrap(), "b=".parse().unwrap()];
        let body = Body::default().with_pairs("tags", &pairs, &["c".to_owned()]).unwrap();
        assert_eq!(
            sent(body.without(&["description".to_owned()])),
            r#"{"description":null,"tags":{"a":"1=2","b":"","c":null}}"#
        );
        assert!("=v".parse::<Pair>().is_err() && "k".parse::<Pair>().is_err());
    }
}
