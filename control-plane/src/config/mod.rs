//! The configuration: environment variables, all read and checked before anything starts (api.md §5).
//!
//! Every wrong variable is reported, not just the first, by name and reason and never by value. `.env.example` lists all.

mod reader;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;
use keypost_shared::edge_report::SharedSecret;
use keypost_shared::jwe::SealingKey;
use keypost_shared::publisher_key::Schedule;
use keypost_shared::secret::{ApiKey, SecretText};
use keypost_shared::signing_key::Times;
use reqwest::Url;
use sqlx::postgres::PgConnectOptions;

use self::reader::Reader;
use crate::crypto_at_rest::MasterKey;
use crate::root::RootPlace;
use crate::service::sso::SsoSettings;
use crate::service::sso::password::PasswordCost;
use crate::telemetry::LogConfig;
use crate::telemetry::traces::TracesConfig;

/// Whether this is a real deployment or one on a developer's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Short times and plain HTTP are allowed.
    Dev,
    /// They are not, and neither are secrets that anybody could guess.
    Prod,
}

/// All that is wrong with the environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// What is wrong with one variable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {reason}")]
pub struct ConfigError {
    /// The variable's name.
    pub variable: &'static str,
    /// What is wrong, without the value.
    pub reason: String,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

/// Looks a variable up: [`std::env::var_os`], or a test's table.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Where the database is.
#[derive(Clone)]
pub struct DatabaseConfig {
    /// `DATABASE_URL`.
    pub options: PgConnectOptions,
    /// `KEYPOST_DATABASE_CONNECTIONS`: the most connections that this process opens.
    pub connections: u32,
}

impl fmt::Debug for DatabaseConfig {
    /// The options print their password, so they are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// What every command but `apikey generate` reads.
#[derive(Debug)]
pub struct CommonConfig {
    /// `KEYPOST_LOG`.
    pub log: LogConfig,
    /// `DATABASE_URL` and what belongs to it.
    pub database: DatabaseConfig,
}

/// What `root` reads.
#[derive(Debug)]
pub struct RootConfig {
    /// What every command reads.
    pub common: CommonConfig,
    /// `KEYPOST_MASTER_KEY` and, while it is being replaced, `KEYPOST_MASTER_KEY_PREVIOUS`.
    pub master_key: MasterKey,
    /// `KEYPOST_ROOT_SIGNER`.
    pub root: RootPlace,
}

/// What `serve` reads.
#[derive(Debug)]
pub struct ServeConfig {
    /// What every command reads.
    pub common: CommonConfig,
    /// `KEYPOST_ENV`.
    pub mode: Mode,
    /// `KEYPOST_LISTEN`.
    pub listen: SocketAddr,
    /// `KEYPOST_EDGE_URL`: the prefix of every issuer, an origin without a slash at its end.
    pub edge_url: String,
    /// `KEYPOST_PUBLIC_URL`: where devices reach this control plane, without a slash at its end.
    pub public_url: String,
    /// `KEYPOST_MASTER_KEY` and, while it is being replaced, `KEYPOST_MASTER_KEY_PREVIOUS`.
    pub master_key: MasterKey,
    /// `KEYPOST_EDGE_SEALING_KEY`: the key to seal with. A second one may be given, which the Worker still opens with.
    pub sealing_key: SealingKey,
    /// `KEYPOST_EDGE_SHARED_SECRET`: what the edge signs its reports with.
    pub edge_secrets: Vec<SharedSecret>,
    /// `KEYPOST_ROOT_SIGNER`.
    pub root: RootPlace,
    /// `KEYPOST_ADMIN_API_KEY`.
    pub admin_api_key: Option<ApiKey>,
    /// `KEYPOST_TRUSTED_PROXIES`: whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNet>,
    /// `KEYPOST_RATE_LIMIT_PER_*`.
    pub rate_limits: RateLimitConfig,
    /// `KEYPOST_AUDIT_RETENTION_DAYS`: how long audit events are kept; none for ever.
    pub audit_retention: Option<time::Duration>,
    /// `KEYPOST_ARGON2_*`: how much work the hash of a person's password is.
    pub password_cost: PasswordCost,
    /// `OTEL_*`; none unless an endpoint is set.
    pub traces: Option<TracesConfig>,
    /// `KEYPOST_KV_*`.
    pub kv: KvConfig,
    /// `KEYPOST_SIGNING_KEY_SECONDS`: how long a pool's key stands in its key set before it signs.
    pub key_times: Times,
    /// `KEYPOST_PUBLISHER_KEY_SECONDS`: how long a publisher key stands in `v1/trust`, and then signs.
    pub publisher_schedule: Schedule,
    /// `KEYPOST_PUBLISHING_LATE_SECONDS`: how long a document may wait to be published before that counts as late.
    pub late_after: Duration,
    /// `KEYPOST_ACCESS_TOKEN_TTL`, `KEYPOST_REFRESH_TOKEN_TTL`, `KEYPOST_PUBLIC_SIGNUP` and
    /// `KEYPOST_CORS_ORIGINS`.
    pub sso: SsoSettings,
}

/// How many requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitConfig {
    /// `KEYPOST_RATE_LIMIT_PER_ADDRESS`: requests a minute from one address (of IPv6: from one /64).
    pub per_address: NonZeroU32,
    /// `KEYPOST_RATE_LIMIT_PER_KEY`: requests a minute with one API key.
    pub per_key: NonZeroU32,
}

impl Default for RateLimitConfig {
    /// 2,000 a second each: more than a script gets done that waits for each answer.
    fn default() -> Self {
        const A_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(119_999);
        Self { per_address: A_MINUTE, per_key: A_MINUTE }
    }
}

/// Where KV is.
#[derive(Clone, Debug)]
pub struct KvConfig {
    /// `KEYPOST_KV_API_URL`: everything before `/storage/kv/`.
    pub api_url: Url,
    /// `KEYPOST_KV_NAMESPACE_ID`.
    pub namespace_id: String,
    /// `KEYPOST_KV_API_TOKEN`; none for an API without authentication, as `wrangler dev` has.
    pub api_token: Option<SecretText>,
    /// `KEYPOST_KV_BATCH_SIZE`: the most pairs in one call.
    pub batch_size: u16,
    /// `KEYPOST_KV_TIMEOUT_SECONDS`: how long a call may take.
    pub timeout: Duration,
}

impl CommonConfig {
    /// Reads and checks what every command needs.
    pub fn read(lookup: Lookup<'_>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(lookup);
        let config = read_common(&mut reader);
        reader.finish(config)
    }
}

impl RootConfig {
    /// Reads and checks what `root` needs.
    pub fn read(lookup: Lookup<'_>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(lookup);
        let config = read_root(&mut reader);
        reader.finish(config)
    }
}

impl ServeConfig {
    /// Reads and checks what `serve` needs.
    pub fn read(lookup: Lookup<'_>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(lookup);
        let config = read_serve(&mut reader);
        reader.finish(config)
    }
}

// Each of these reads every variable before the first `?`, so that every error is found.

fn read_common(reader: &mut Reader<'_>) -> Option<CommonConfig> {
    let mode = read_mode(reader);
    let default_log = if mode == Some(Mode::Dev) { "pretty,info" } else { "json,info" };
    let log = reader.optional("KEYPOST_LOG", default_log, LogConfig::parse);
    let options = reader.required("DATABASE_URL", values::database_url);
    let connections =
        reader.optional("KEYPOST_DATABASE_CONNECTIONS", "20", |text| values::integer(text, 5, 1000));
    Some(CommonConfig {
        log: log?,
        database: DatabaseConfig { options: options?, connections: connections? },
    })
}

fn read_root(reader: &mut Reader<'_>) -> Option<RootConfig> {
    let common = read_common(reader);
    let master_key = read_master_key(reader).map(|(current, previous)| combined(current, previous.as_ref()));
    let mode = read_mode(reader).unwrap_or(Mode::Prod);
    let root = read_root_place(reader, mode);
    Some(RootConfig { common: common?, master_key: master_key?, root: root? })
}

fn read_serve(reader: &mut Reader<'_>) -> Option<ServeConfig> {
    let common = read_common(reader);
    // Where the mode is wrong, the rest is checked as strictly as can be; the mode's own error stops the start.
    let mode = read_mode(reader).unwrap_or(Mode::Prod);
    let listen = reader.optional("KEYPOST_LISTEN", "127.0.0.1:8080", values::socket_address);
    let edge_url = reader.required("KEYPOST_EDGE_URL", |text| values::origin(text, mode));
    let public_url = read_public_url(reader, mode, listen);
    let secrets = read_secrets(reader, mode);
    let root = read_root_place(reader, mode);
    let admin_api_key = reader.optional_or_none("KEYPOST_ADMIN_API_KEY", values::admin_api_key);
    let trusted_proxies = reader.optional("KEYPOST_TRUSTED_PROXIES", "", values::networks);
    let rate_limits = read_rate_limits(reader);
    let audit_retention = reader.optional_or_none("KEYPOST_AUDIT_RETENTION_DAYS", |text| {
        values::integer::<i64>(text, 1, 36_500).map(time::Duration::days)
    });
    let password_cost = read_password_cost(reader, mode);
    let traces = read_traces(reader);
    let kv = read_kv(reader, mode);
    let publisher_schedule = reader
        .optional("KEYPOST_PUBLISHER_KEY_SECONDS", "86400", |text| values::publisher_key_seconds(text, mode));
    let key_times = reader
        .optional("KEYPOST_SIGNING_KEY_SECONDS", "3600", |text| values::signing_key_seconds(text, mode));
    let late_after = reader.optional("KEYPOST_PUBLISHING_LATE_SECONDS", "300", |text| {
        values::integer(text, 1, 86_400).map(Duration::from_secs)
    });
    let sso = read_sso(reader, mode);
    let (master_key, sealing_key, edge_secrets) = secrets?;
    Some(ServeConfig {
        common: common?,
        mode,
        listen: listen?,
        edge_url: edge_url?,
        public_url: public_url?,
        master_key,
        sealing_key,
        edge_secrets,
        root: root?,
        admin_api_key: admin_api_key?,
        trusted_proxies: trusted_proxies?,
        rate_limits: rate_limits?,
        audit_retention: audit_retention?,
        password_cost: password_cost?,
        traces: traces?,
        kv: kv?,
        publisher_schedule: publisher_schedule?,
        key_times: key_times?,
        late_after: late_after?,
        sso: sso?,
    })
}

fn read_sso(reader: &mut Reader<'_>, mode: Mode) -> Option<SsoSettings> {
    let seconds = |text: &str, most| values::integer::<i64>(text, 1, most).map(time::Duration::seconds);
    let access = reader.optional("KEYPOST_ACCESS_TOKEN_TTL", "3600", |text| seconds(text, 86_400));
    let refresh = reader.optional("KEYPOST_REFRESH_TOKEN_TTL", "604800", |text| seconds(text, 31_536_000));
    let default_signup = if mode == Mode::Dev { "true" } else { "false" };
    let public_signup = reader.optional("KEYPOST_PUBLIC_SIGNUP", default_signup, values::boolean);
    let origins = reader.optional("KEYPOST_CORS_ORIGINS", "", |text| values::cors_origins(text, mode));
    Some(SsoSettings {
        cors_origins: origins?,
        access_token_ttl: access?,
        refresh_token_ttl: refresh?,
        public_signup: public_signup?,
    })
}

/// The other variables of AWS are its library's to read, when something is to be done in KMS.
fn read_root_place(reader: &mut Reader<'_>, mode: Mode) -> Option<RootPlace> {
    let endpoint = reader.optional_or_none("AWS_ENDPOINT_URL_KMS", |text| values::kms_endpoint(text, mode));
    let root = reader.optional("KEYPOST_ROOT_SIGNER", "local", values::root_signer);
    endpoint?;
    root
}

fn read_mode(reader: &mut Reader<'_>) -> Option<Mode> {
    reader.optional("KEYPOST_ENV", "prod", values::mode)
}

fn read_public_url(reader: &mut Reader<'_>, mode: Mode, listen: Option<SocketAddr>) -> Option<String> {
    match (mode, listen) {
        (Mode::Dev, Some(listen)) => {
            let default = format!("http://{listen}");
            reader.optional("KEYPOST_PUBLIC_URL", &default, |text| values::origin(text, mode))
        }
        _ => reader.required("KEYPOST_PUBLIC_URL", |text| values::origin(text, mode)),
    }
}

const MASTER: &str = "KEYPOST_MASTER_KEY";
const PREVIOUS_MASTER: &str = "KEYPOST_MASTER_KEY_PREVIOUS";

/// The master key, and the other one that counts while it is being replaced.
fn read_master_key(reader: &mut Reader<'_>) -> Option<(MasterKey, Option<MasterKey>)> {
    let current = reader.required(MASTER, MasterKey::parse);
    let previous = reader.optional_or_none(PREVIOUS_MASTER, MasterKey::parse);
    Some((current?, previous?))
}

fn combined(current: MasterKey, previous: Option<&MasterKey>) -> MasterKey {
    match previous {
        Some(previous) => current.accepting(previous),
        None => current,
    }
}

fn read_secrets(reader: &mut Reader<'_>, mode: Mode) -> Option<(MasterKey, SealingKey, Vec<SharedSecret>)> {
    const SEALING: &str = "KEYPOST_EDGE_SEALING_KEY";
    const SHARED: &str = "KEYPOST_EDGE_SHARED_SECRET";

    let master = read_master_key(reader);
    let sealing = reader.required(SEALING, SealingKey::parse_list);
    let shared = reader.required(SHARED, SharedSecret::parse_list);
    if mode == Mode::Prod {
        let mut seen: Vec<([u8; 32], &'static str)> = Vec::new();
        let previous = master.iter().filter_map(|(_, previous)| previous.as_ref());
        let all = (master.iter().map(|(key, _)| (*key.as_bytes(), MASTER)))
            .chain(previous.map(|key| (*key.as_bytes(), PREVIOUS_MASTER)))
            .chain(sealing.iter().flatten().map(|key| (*key.as_bytes(), SEALING)))
            .chain(shared.iter().flatten().map(|key| (*key.as_bytes(), SHARED)));
        for (bytes, variable) in all {
            if !values::looks_random(&bytes) {
                reader.refuse(variable, "does not look random: make one with `openssl rand`");
            }
            if let Some((_, other)) = seen.iter().find(|(earlier, _)| *earlier == bytes) {
                reader.refuse(variable, &format!("is the same secret as in {other}: each needs its own"));
            }
            seen.push((bytes, variable));
        }
    }
    let (current, previous) = master?;
    Some((combined(current, previous.as_ref()), sealing?.into_iter().next()?, shared?))
}

fn read_rate_limits(reader: &mut Reader<'_>) -> Option<RateLimitConfig> {
    let default = RateLimitConfig::default();
    let mut limit = |variable, default: NonZeroU32| {
        reader.optional(variable, &default.to_string(), |text| values::integer(text, 1, 10_000_000))
    };
    let per_address = limit("KEYPOST_RATE_LIMIT_PER_ADDRESS", default.per_address);
    let per_key = limit("KEYPOST_RATE_LIMIT_PER_KEY", default.per_key);
    Some(RateLimitConfig { per_address: per_address?, per_key: per_key? })
}

/// In prod as much as OWASP asks for, in one of its trade-offs between memory and time.
fn read_password_cost(reader: &mut Reader<'_>, mode: Mode) -> Option<PasswordCost> {
    const MEMORY: &str = "KEYPOST_ARGON2_MEMORY_KIB";
    const ITERATIONS: &str = "KEYPOST_ARGON2_ITERATIONS";

    let default = PasswordCost::default();
    let memory_kib = reader
        .optional(MEMORY, &default.memory_kib().to_string(), |text| values::integer::<u32>(text, 8, 1 << 20));
    let iterations = reader
        .optional(ITERATIONS, &default.iterations().to_string(), |text| values::integer::<u32>(text, 1, 64));
    let cost = PasswordCost::new(memory_kib?, iterations?)?;
    if mode == Mode::Prod && !cost.is_enough() {
        let least = "is too little where KEYPOST_ENV is prod: with KEYPOST_ARGON2_ITERATIONS of 1, 2, 3, 4 or 5 it must be \
                     47104, 19456, 12288, 9216 or 7168 at least";
        reader.refuse(MEMORY, least);
        return None;
    }
    Some(cost)
}

/// The names are OpenTelemetry's own. What else its library reads (headers, batches) needs no check to be safe.
fn read_traces(reader: &mut Reader<'_>) -> Option<Option<TracesConfig>> {
    let traces = reader.optional_or_none("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", values::otlp_endpoint);
    let all = reader.optional_or_none("OTEL_EXPORTER_OTLP_ENDPOINT", |text| {
        values::otlp_endpoint(&format!("{}/v1/traces", text.trim_end_matches('/')))
    });
    for variable in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        reader.optional(variable, "http/protobuf", values::otlp_protocol);
    }
    let service_name =
        reader.optional("OTEL_SERVICE_NAME", "keypost", |text| Ok::<_, String>(text.to_owned()));
    let share = reader.optional("OTEL_TRACES_SAMPLER_ARG", "1", values::share);
    let sampler = reader.optional("OTEL_TRACES_SAMPLER", "parentbased_always_on", |text| {
        values::traces_sampler(text, share.unwrap_or(1.0))
    });
    let (endpoint, service_name, sampler) = (traces?.or(all?), service_name?, sampler?);
    share?;
    Some(endpoint.map(|endpoint| TracesConfig { endpoint, service_name, sampler }))
}

fn read_kv(reader: &mut Reader<'_>, mode: Mode) -> Option<KvConfig> {
    let api_url = reader.required("KEYPOST_KV_API_URL", |text| values::kv_api_url(text, mode));
    let namespace_id = reader.required("KEYPOST_KV_NAMESPACE_ID", values::namespace_id);
    let api_token = match mode {
        Mode::Dev => reader.optional_or_none("KEYPOST_KV_API_TOKEN", values::header_secret),
        Mode::Prod => reader.required("KEYPOST_KV_API_TOKEN", values::header_secret).map(Some),
    };
    let batch_size =
        reader.optional("KEYPOST_KV_BATCH_SIZE", "10000", |text| values::integer(text, 1, 10_000));
    let least_timeout = if mode == Mode::Dev { 1 } else { 5 };
    let timeout = reader.optional("KEYPOST_KV_TIMEOUT_SECONDS", "20", |text| {
        values::integer(text, least_timeout, 120).map(Duration::from_secs)
    });
    Some(KvConfig {
        api_url: api_url?,
        namespace_id: namespace_id?,
        api_token: api_token?,
        batch_size: batch_size?,
        timeout: timeout?,
    })
}
