//! The parsers of single values. Reasons never repeat the value: it may be a secret in the wrong variable.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use keypost_shared::kms::KmsKeyArn;
use keypost_shared::publisher_key::Schedule;
use keypost_shared::secret::{ApiKey, KeyKind, SecretText};
use keypost_shared::signing_key::Times;
use reqwest::Url;
use sqlx::postgres::PgConnectOptions;

use super::Mode;
use crate::root::RootPlace;
use crate::service::sso::origin::CorsOrigins;
use crate::telemetry::traces::TracesSampler;

pub(super) fn mode(text: &str) -> Result<Mode, &'static str> {
    match text {
        "dev" => Ok(Mode::Dev),
        "prod" => Ok(Mode::Prod),
        _ => Err("must be dev or prod"),
    }
}

pub(super) fn database_url(text: &str) -> Result<PgConnectOptions, &'static str> {
    let wrong = "must be a PostgreSQL URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE";
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(wrong);
    }
    PgConnectOptions::from_str(text).map_err(|_| wrong)
}

pub(super) fn integer<T: TryFrom<u32>>(text: &str, least: u32, most: u32) -> Result<T, String> {
    let number = text.parse::<u32>().ok().filter(|number| (least..=most).contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("must be a number from {least} to {most}"))
}

pub(super) fn boolean(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "must be true or false")
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "must be an address and a port, such as 127.0.0.1:8080")
}

/// Origins with commas between them; `*` for all, in development.
pub(super) fn cors_origins(text: &str, mode: Mode) -> Result<CorsOrigins, String> {
    if text == "*" {
        return match mode {
            Mode::Dev => Ok(CorsOrigins::Any),
            Mode::Prod => Err("must name origins in prod, not *".to_owned()),
        };
    }
    let named = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    Ok(CorsOrigins::These(named.map(|one| origin(one, mode)).collect::<Result<_, _>>()?))
}

/// A scheme, a host and perhaps a port, spelt as browsers spell it: issuers begin with it, to the letter.
pub(super) fn origin(text: &str, mode: Mode) -> Result<String, String> {
    let url = http_url(text, mode)?;
    // A host may hold an asterisk, to the letter; nobody who writes one means that.
    if url.origin().ascii_serialization() == text && !text.contains('*') {
        Ok(text.to_owned())
    } else {
        Err("must be a scheme, a host in lower case and a port where it is not the scheme's own, without a path \
             or a slash at the end, such as https://edge.example.com"
            .to_owned())
    }
}

pub(super) fn kv_api_url(text: &str, mode: Mode) -> Result<Url, String> {
    let url = http_url(text, mode)?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if text.contains("/storage/kv") || text.ends_with('/') || !plain || url.password().is_some() {
        return Err(
            "must be the part of the API's URL before /storage/kv/, without a slash at its end, such as \
                    https://api.cloudflare.com/client/v4/accounts/ACCOUNT"
                .to_owned(),
        );
    }
    Ok(url)
}

fn http_url(text: &str, mode: Mode) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "must be a URL".to_owned())?;
    match (url.scheme(), mode) {
        ("https", _) | ("http", Mode::Dev) if url.has_host() => Ok(url),
        ("http", Mode::Prod) => Err("must be https where KEYPOST_ENV is prod".to_owned()),
        _ => Err("must be an https URL".to_owned()),
    }
}

pub(super) fn namespace_id(text: &str) -> Result<String, &'static str> {
    let good = text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if good {
        Ok(text.to_owned())
    } else {
        Err("must be at most 64 letters, digits, hyphens and underscores")
    }
}

/// A secret that goes into a header.
pub(super) fn header_secret(text: &str) -> Result<SecretText, &'static str> {
    let good = text.len() <= 4096 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(SecretText::new(text.to_owned())) } else { Err("must be printable ASCII without spaces") }
}

pub(super) fn admin_api_key(text: &str) -> Result<ApiKey, &'static str> {
    ApiKey::parse(text)
        .filter(|key| key.kind() == KeyKind::Admin)
        .ok_or("must be a key of the form kp_admin_…, as `keypost apikey generate` makes it")
}

/// Not an alias: it could be pointed at another key, which no Worker knows.
pub(super) fn root_signer(text: &str) -> Result<RootPlace, &'static str> {
    let is_id = text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if text == "local" {
        Ok(RootPlace::Local)
    } else if (is_id && text.len() > 8) || text.parse::<KmsKeyArn>().is_ok() {
        Ok(RootPlace::Kms(text.to_owned()))
    } else {
        Err("must be local, or the ARN or id of a key in AWS KMS (not an alias)")
    }
}

/// Without TLS, whoever is on the way sees what is signed and opened.
pub(super) fn kms_endpoint(text: &str, mode: Mode) -> Result<(), String> {
    http_url(text, mode).map(|_| ())
}

pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, &'static str> {
    let network =
        |part: &str| part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)).ok();
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| network(part).ok_or("must be addresses or networks parted by commas, such as 10.0.0.0/8"))
        .collect()
}

/// A collector on this machine has no certificate, so plain HTTP will do in prod too.
pub(super) fn otlp_endpoint(text: &str) -> Result<Url, &'static str> {
    let wrong = "must be an http or https URL without a user, such as http://127.0.0.1:4318";
    let url = Url::parse(text).map_err(|_| wrong)?;
    let plain = url.username().is_empty() && url.password().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && plain { Ok(url) } else { Err(wrong) }
}

pub(super) fn otlp_protocol(text: &str) -> Result<(), &'static str> {
    if text == "http/protobuf" { Ok(()) } else { Err("must be http/protobuf: there is no other") }
}

pub(super) fn share(text: &str) -> Result<f64, &'static str> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or("must be a number from 0 to 1")
}

pub(super) fn traces_sampler(text: &str, share: f64) -> Result<TracesSampler, &'static str> {
    let (follow_caller, name) = match text.strip_prefix("parentbased_") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let share = match name {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => share,
        _ => return Err("must be always_on, always_off or traceidratio, or one of them after parentbased_"),
    };
    Ok(TracesSampler { follow_caller, share })
}

/// Shorter than an hour a key would not have reached every edge before it signs; on one machine it has.
pub(super) fn publisher_key_seconds(text: &str, mode: Mode) -> Result<Schedule, String> {
    let least = if mode == Mode::Dev { 1 } else { 3600 };
    let seconds: u32 = integer(text, least, 7 * 86_400)?;
    Ok(Schedule { stand: seconds.into(), sign: seconds.into() })
}

/// Verifiers keep key sets for minutes: an hour covers them all. On one machine they can be asked to be quicker.
pub(super) fn signing_key_seconds(text: &str, mode: Mode) -> Result<Times, String> {
    let least = if mode == Mode::Dev { 1 } else { 3600 };
    let seconds: u32 = integer(text, least, 7 * 86_400)?;
    Ok(Times::standing(seconds.into()))
}

/// Whether 32 bytes may have come from a random generator. That fewer than 16 of them differ, or that all are printable,
/// happens to less than one random key in a billion: such a key was typed by somebody.
pub(super) fn looks_random(bytes: &[u8; 32]) -> bool {
    let mut distinct = bytes.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct.len() >= 16 && !bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}
