//! The checks of single values (the limits of api.md).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use base64ct::{Base64UrlUnpadded, Encoding};
use keypost_shared::id::{DeviceId, OrgId};
use keypost_shared::scope::Scopes;
use reqwest::Url;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::body::Invalid;
use crate::service::access::Permission;
use crate::service::device::{MAX_TAGS, TagsPatch};
use crate::service::has_control;
use crate::service::metadata::{self, MetadataPatch};
use crate::service::sso::name::{LONGEST_EMAIL, LONGEST_USERNAME};
use crate::service::sso::openid::redirect_uri;

const MAX_NAME: usize = 200;
const MAX_DESCRIPTION: usize = 2000;
const MAX_TAG_NAME: usize = 64;
const MAX_TAG_VALUE: usize = 256;
const MAX_URLS: usize = 32;
const MAX_URL_LENGTH: usize = 2048;
const MAX_JWKS_KEYS: usize = 10;
const MAX_METADATA_KEYS: usize = 64;

/// A text that is read by its type.
pub(super) fn parsed<T: FromStr<Err: Display>>(value: Value) -> Result<T, Invalid> {
    text(value)?.parse().map_err(Invalid::new)
}

/// The id of a device. `import` is no id: it is what stands in the place of one in the path of an import.
pub(super) fn device_id(value: Value) -> Result<DeviceId, Invalid> {
    let id: DeviceId = parsed(value)?;
    if id.as_str() == "import" { Err(Invalid::new("must not be import")) } else { Ok(id) }
}

/// A text of any content, for what is checked elsewhere.
pub(super) fn text(value: Value) -> Result<String, Invalid> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(Invalid::new("must be a string")),
    }
}

/// What a thing is called.
pub(super) fn name(value: Value) -> Result<String, Invalid> {
    let name = bounded(value, MAX_NAME)?;
    if name.trim().is_empty() { Err(Invalid::new("must not be empty")) } else { Ok(name) }
}

/// By what somebody says who they are: a username or an address. It need be none that there is, only one that there could be.
pub(super) fn sign_in_name(value: Value) -> Result<String, Invalid> {
    bounded(value, LONGEST_EMAIL.max(LONGEST_USERNAME))
}

/// What a thing is.
pub(super) fn description(value: Value) -> Result<String, Invalid> {
    bounded(value, MAX_DESCRIPTION)
}

/// A whole number.
pub(super) fn integer(value: Value, least: u32, most: u32) -> Result<u32, Invalid> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| Invalid::new(format!("must be a whole number from {least} to {most}")))
}

/// A time (RFC 3339), in UTC and whole milliseconds, as all times here are.
pub(super) fn time(value: Value) -> Result<OffsetDateTime, Invalid> {
    let text = text(value)?;
    parse_time(&text).ok_or_else(|| Invalid::new("must be a time such as 2027-01-31T00:00:00Z (RFC 3339)"))
}

/// Reads a time (RFC 3339) whose year in UTC has four digits.
pub(super) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)?;
    (0..=9999).contains(&time.year()).then(|| time.truncate_to_millisecond())
}

/// Permissions, of which there must be one at least.
pub(super) fn permissions(value: Value) -> Result<Vec<Permission>, Invalid> {
    let names = texts(value)?;
    if names.is_empty() {
        return Err(Invalid::new("must name at least one permission; leave it out for all"));
    }
    let known = Permission::names().count();
    if names.len() > known {
        return Err(Invalid::new(format!("must name at most {known} permissions, each once")));
    }
    let mut permissions = Vec::new();
    let mut errors = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match name.parse::<Permission>() {
            Ok(permission) if permissions.contains(&permission) => {
                errors.push((format!("[{index}]"), "must not be named twice".to_owned()));
            }
            Ok(permission) => permissions.push(permission),
            Err(error) => errors.push((format!("[{index}]"), error.to_string())),
        }
    }
    if errors.is_empty() { Ok(permissions) } else { Err(Invalid(errors)) }
}

/// Scopes, of which there must be one at least.
pub(super) fn scopes(value: Value) -> Result<Scopes, Invalid> {
    let scopes = Scopes::new(texts(value)?).map_err(Invalid::new)?;
    if scopes.is_empty() { Err(Invalid::new("must name at least one scope")) } else { Ok(scopes) }
}

/// One text, or several.
pub(super) fn audience(value: Value) -> Result<Vec<String>, Invalid> {
    let audience = match value {
        Value::String(one) => vec![one],
        several => texts(several)?,
    };
    if audience.len() > MAX_URLS {
        return Err(Invalid::new(format!("must have at most {MAX_URLS} entries")));
    }
    let mut distinct = audience.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < audience.len() {
        return Err(Invalid::new("must not name anybody twice"));
    }
    let fits = |one: &String| (1..=MAX_URL_LENGTH).contains(&one.len()) && !has_control(one);
    if audience.iter().all(fits) {
        Ok(audience)
    } else {
        Err(Invalid::new(format!(
            "must have 1 to {MAX_URL_LENGTH} characters each, and no control characters"
        )))
    }
}

/// The URL of a server.
pub(super) fn server_url(value: Value) -> Result<String, Invalid> {
    let text = text(value)?;
    check_server_url(&text).map_err(Invalid::new)?;
    Ok(text)
}

/// The URLs of servers.
pub(super) fn server_urls(value: Value) -> Result<Vec<String>, Invalid> {
    let urls = texts(value)?;
    if urls.len() > MAX_URLS {
        return Err(Invalid::new(format!("must have at most {MAX_URLS} entries")));
    }
    each(urls.iter().enumerate().map(|(index, url)| (format!("[{index}]"), check_server_url(url))))?;
    Ok(urls)
}

/// Web origins (RFC 6454 §6.2), spelt as browsers send them.
pub(super) fn origins(value: Value) -> Result<Vec<String>, Invalid> {
    let origins = texts(value)?;
    if origins.len() > MAX_URLS {
        return Err(Invalid::new(format!("must have at most {MAX_URLS} entries")));
    }
    let check = |origin: &str| match Url::parse(origin) {
        Ok(url)
            if matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == origin =>
        {
            Ok(())
        }
        _ => Err("must be an origin, such as https://app.example.com"),
    };
    each(origins.iter().enumerate().map(|(index, origin)| (format!("[{index}]"), check(origin))))?;
    Ok(origins)
}

/// Where an authorization code may be sent (RFC 6749 §3.1.2, RFC 8252 §7).
pub(super) fn redirect_uris(value: Value) -> Result<Vec<String>, Invalid> {
    let uris = texts(value)?;
    if uris.len() > MAX_URLS {
        return Err(Invalid::new(format!("must have at most {MAX_URLS} entries")));
    }
    each(uris.iter().enumerate().map(|(index, uri)| (format!("[{index}]"), redirect_uri::check(uri))))?;
    Ok(uris)
}

/// Names of members of `user_metadata`.
pub(super) fn metadata_keys(value: Value) -> Result<Vec<String>, Invalid> {
    let names = texts(value)?;
    if names.len() > MAX_METADATA_KEYS {
        return Err(Invalid::new(format!("must have at most {MAX_METADATA_KEYS} entries")));
    }
    let check = |name: &str| match name {
        _ if name.is_empty() || name.chars().count() > MAX_NAME => Err("must have 1 to 200 characters"),
        _ if has_control(name) => Err("must not have control characters"),
        _ => Ok(()),
    };
    each(names.iter().enumerate().map(|(index, name)| (format!("[{index}]"), check(name))))?;
    Ok(names)
}

/// True or false.
pub(super) fn boolean(value: Value) -> Result<bool, Invalid> {
    value.as_bool().ok_or_else(|| Invalid::new("must be true or false"))
}

/// The id of an organization. Some stand for something else in paths.
pub(super) fn organization_id(value: Value) -> Result<OrgId, Invalid> {
    let id: OrgId = parsed(value)?;
    match id.as_str() {
        "me" | "client-apps" => Err(Invalid::new("must not be me or client-apps")),
        _ => Ok(id),
    }
}

/// Tags: an object of texts.
pub(super) fn tags(value: Value) -> Result<BTreeMap<String, String>, Invalid> {
    let Value::Object(object) = value else {
        return Err(Invalid::new("must be an object of strings"));
    };
    if object.len() > MAX_TAGS {
        return Err(Invalid::new(format!("must have at most {MAX_TAGS} entries")));
    }
    each(object.iter().map(|(name, value)| (format!(".{name}"), check_tag(name, value))))?;
    let text = |value| match value {
        Value::String(text) => text,
        _ => String::new(),
    };
    Ok(object.into_iter().map(|(name, value)| (name, text(value))).collect())
}

/// Changes of tags: an object of texts, and of nulls for those to be taken away.
pub(super) fn tags_patch(value: Value) -> Result<TagsPatch, Invalid> {
    let Value::Object(object) = value else {
        return Err(Invalid::new("must be an object of strings and nulls"));
    };
    // What is to be taken away may have any name.
    let set = object.iter().filter(|(_, value)| !value.is_null());
    each(set.map(|(name, value)| (format!(".{name}"), check_tag(name, value))))?;
    let text = |value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    Ok(TagsPatch::Merge(object.into_iter().map(|(name, value)| (name, text(value))).collect()))
}

/// Metadata: a JSON object, kept as it was sent.
pub(super) fn metadata(value: Value, text: String) -> Result<Box<RawValue>, Invalid> {
    metadata::parse(&value, text).map_err(Invalid::new)
}

/// Changes of metadata: a JSON object. How long it may be is a question of what comes of it.
pub(super) fn metadata_patch(value: Value, text: String) -> Result<MetadataPatch, Invalid> {
    match value {
        Value::Null => Ok(MetadataPatch::Reset),
        Value::Object(object) => {
            metadata::check_object(&object).map_err(Invalid::new)?;
            RawValue::from_string(text)
                .map(MetadataPatch::Merge)
                .map_err(|_| Invalid::new("must be an object"))
        }
        _ => Err(Invalid::new("must be an object")),
    }
}

/// A text to look for.
pub(super) fn search_text(text: String, most: usize) -> Result<String, String> {
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else if text.chars().count() > most {
        Err(format!("must have at most {most} characters"))
    } else if has_control(&text) {
        Err("must not have control characters".to_owned())
    } else {
        Ok(text)
    }
}

/// A tag to look for.
pub(super) fn check_tag_text(name: &str, value: &str) -> Result<(), &'static str> {
    check_tag(name, &Value::from(value))
}

/// A JWK Set (RFC 7517 §5) of public keys.
pub(super) fn public_jwks(value: Value) -> Result<Value, Invalid> {
    const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
    let keys = value.get("keys").and_then(Value::as_array);
    let Some(keys) = keys.filter(|keys| (1..=MAX_JWKS_KEYS).contains(&keys.len())) else {
        return Err(Invalid::new(format!("must be a JWK Set of 1 to {MAX_JWKS_KEYS} keys")));
    };
    let check = |key: &Value| match key.as_object() {
        Some(key) if PRIVATE.iter().any(|member| key.contains_key(*member)) => {
            Err("must be a public key: this one has private members, so do not use it any more")
        }
        Some(key) if is_ec_key(key) || is_rsa_key(key) => Ok(()),
        _ => Err("must be a JWK of P-256, P-384, or RSA with 2048 to 4096 bits"),
    };
    each(keys.iter().enumerate().map(|(index, key)| (format!(".keys[{index}]"), check(key))))?;
    match value.as_object() {
        Some(object) => metadata::check_object(object).map_err(Invalid::new)?,
        None => return Err(Invalid::new("must be an object")),
    }
    if value.to_string().len() > metadata::MAX_BYTES {
        return Err(Invalid::new(format!("must have at most {} bytes as JSON", metadata::MAX_BYTES)));
    }
    Ok(value)
}

/// RFC 7518 §6.2.1.
fn is_ec_key(key: &Map<String, Value>) -> bool {
    let length = match (text_of(key, "kty"), text_of(key, "crv")) {
        (Some("EC"), Some("P-256")) => 32,
        (Some("EC"), Some("P-384")) => 48,
        _ => return false,
    };
    ["x", "y"].iter().all(|member| bytes_of(key, member) == Some(length))
}

/// RFC 7518 §6.3.1.
fn is_rsa_key(key: &Map<String, Value>) -> bool {
    text_of(key, "kty") == Some("RSA")
        && bytes_of(key, "n").is_some_and(|length| (256..=512).contains(&length))
        && bytes_of(key, "e").is_some_and(|length| (1..=8).contains(&length))
}

fn text_of<'a>(key: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    key.get(member).and_then(Value::as_str)
}

/// How many bytes a member holds in base64url.
fn bytes_of(key: &Map<String, Value>, member: &str) -> Option<usize> {
    let bytes = Base64UrlUnpadded::decode_vec(text_of(key, member)?).ok()?;
    Some(bytes.len())
}

fn bounded(value: Value, most: usize) -> Result<String, Invalid> {
    let text = text(value)?;
    if text.chars().count() > most {
        Err(Invalid::new(format!("must have at most {most} characters")))
    } else if has_control(&text) {
        Err(Invalid::new("must not have control characters"))
    } else {
        Ok(text)
    }
}

fn texts(value: Value) -> Result<Vec<String>, Invalid> {
    let wrong = || Invalid::new("must be an array of strings");
    let Value::Array(values) = value else { return Err(wrong()) };
    values.into_iter().map(|value| text(value).map_err(|_| wrong())).collect()
}

fn check_server_url(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_URL_LENGTH {
        return Err("must have at most 2048 characters");
    }
    // The text goes out as it came in, so what a parser would quietly mend or drop is refused.
    let clean = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    // Nor does the scheme have another spelling.
    let after_scheme = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let clean = clean && after_scheme.is_some_and(|rest| !rest.starts_with(['/', '?', '#']));
    match Url::parse(text) {
        Ok(url) if clean && matches!(url.scheme(), "http" | "https") && url.has_host() => {
            if url.username().is_empty() && url.password().is_none() {
                Ok(())
            } else {
                Err("must not have a user name or a password")
            }
        }
        _ => Err("must be an http or https URL"),
    }
}

fn check_tag(name: &str, value: &Value) -> Result<(), &'static str> {
    let good_name = (1..=MAX_TAG_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'));
    match value {
        _ if !good_name => {
            Err("must have a name of at most 64 letters, digits, dots, colons, hyphens and underscores")
        }
        Value::String(text) if text.chars().count() > MAX_TAG_VALUE => {
            Err("must have at most 256 characters")
        }
        Value::String(text) if has_control(text) => Err("must not have control characters"),
        Value::String(_) => Ok(()),
        _ => Err("must be a string"),
    }
}

/// Collects what is wrong with the parts of a value.
fn each<E: ToString>(parts: impl Iterator<Item = (String, Result<(), E>)>) -> Result<(), Invalid> {
    let errors: Vec<(String, String)> = parts
        .filter_map(|(place, checked)| checked.err().map(|detail| (place, detail.to_string())))
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(Invalid(errors)) }
}
