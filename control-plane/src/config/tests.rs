use std::collections::HashMap;
use std::ffi::OsString;

use super::*;
use crate::service::sso::origin::CorsOrigins;

/// Base64url of 32 bytes that look random, different for each `n`.
fn secret(n: u8) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding};
    let mut bytes = [0_u8; 32];
    for (byte, position) in bytes.iter_mut().zip(0_u8..) {
        *byte = position.wrapping_mul(97).wrapping_add(n.wrapping_mul(53)).wrapping_add(131);
    }
    Base64UrlUnpadded::encode_string(&bytes)
}

fn good() -> HashMap<&'static str, String> {
    HashMap::from([
        ("DATABASE_URL", "postgres://u:hunter2@localhost/d".to_owned()),
        ("KEYPOST_EDGE_URL", "https://edge.example.com".to_owned()),
        ("KEYPOST_PUBLIC_URL", "https://keypost.example.com".to_owned()),
        ("KEYPOST_KV_API_URL", "https://api.cloudflare.com/client/v4/accounts/a".to_owned()),
        ("KEYPOST_KV_NAMESPACE_ID", "0f2ac74b498b48028cb68387c421e279".to_owned()),
        ("KEYPOST_KV_API_TOKEN", "kv-api-token".to_owned()),
        ("KEYPOST_MASTER_KEY", secret(1)),
        ("KEYPOST_EDGE_SEALING_KEY", secret(2)),
        ("KEYPOST_EDGE_SHARED_SECRET", secret(3)),
    ])
}

fn read(variables: &HashMap<&'static str, String>) -> Result<ServeConfig, ConfigErrors> {
    ServeConfig::read(&|name| variables.get(name).map(OsString::from))
}

fn wrong(changes: &[(&'static str, &str)]) -> Vec<&'static str> {
    let mut variables = good();
    variables.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let errors = read(&variables).expect_err("must be refused").0;
    errors.iter().map(|error| error.variable).collect()
}

#[test]
fn a_good_environment_is_read_with_its_defaults() {
    let config = read(&good()).unwrap();
    assert_eq!(config.mode, Mode::Prod);
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.kv.batch_size, 10_000);
    assert!(config.trusted_proxies.is_empty() && config.admin_api_key.is_none());
    assert_eq!(config.audit_retention, None, "for ever");
    assert_eq!((config.password_cost.memory_kib(), config.password_cost.iterations()), (19_456, 2));
}

#[test]
fn every_error_is_reported_at_once_by_name() {
    let errors = read(&HashMap::new()).unwrap_err();
    let names: Vec<_> = errors.0.iter().map(|error| error.variable).collect();
    assert_eq!(
        names,
        [
            "DATABASE_URL",
            "KEYPOST_EDGE_URL",
            "KEYPOST_PUBLIC_URL",
            "KEYPOST_MASTER_KEY",
            "KEYPOST_EDGE_SEALING_KEY",
            "KEYPOST_EDGE_SHARED_SECRET",
            "KEYPOST_KV_API_URL",
            "KEYPOST_KV_NAMESPACE_ID",
            "KEYPOST_KV_API_TOKEN",
        ]
    );
    assert!(errors.to_string().contains("\n  KEYPOST_MASTER_KEY is not set"));
}

#[test]
fn each_wrong_value_names_its_variable() {
    for (variable, value) in [
        ("DATABASE_URL", "mysql://u@h/d"),
        ("KEYPOST_DATABASE_CONNECTIONS", "1"),
        ("KEYPOST_ENV", "staging"),
        ("KEYPOST_LISTEN", "8080"),
        ("KEYPOST_LOG", "xml,info"),
        ("KEYPOST_LOG", "json,=,="),
        ("KEYPOST_LOG", "json,loud"),
        ("KEYPOST_EDGE_URL", "https://edge.example.com/"),
        ("KEYPOST_EDGE_URL", "https://edge.example.com/path"),
        ("KEYPOST_EDGE_URL", "https://EDGE.example.com"),
        ("KEYPOST_EDGE_URL", "https://edge.example.com:443"),
        ("KEYPOST_EDGE_URL", "https://u:p@edge.example.com"),
        ("KEYPOST_EDGE_URL", "http://edge.example.com"),
        ("KEYPOST_EDGE_URL", "ftp://edge.example.com"),
        ("KEYPOST_PUBLIC_URL", "http://keypost.example.com"),
        ("KEYPOST_KV_API_URL", "http://api.example.com"),
        ("KEYPOST_KV_API_URL", "https://api.example.com/a/storage/kv/namespaces"),
        ("KEYPOST_KV_API_URL", "https://api.example.com/a?b"),
        ("KEYPOST_KV_NAMESPACE_ID", "../x"),
        ("KEYPOST_KV_API_TOKEN", "two words"),
        ("KEYPOST_KV_BATCH_SIZE", "10001"),
        ("KEYPOST_MASTER_KEY", "short"),
        ("KEYPOST_MASTER_KEY_PREVIOUS", "short"),
        ("KEYPOST_SIGNING_KEY_SECONDS", "3599"),
        ("KEYPOST_EDGE_SEALING_KEY", "a,b,c"),
        ("KEYPOST_ROOT_SIGNER", "arn:aws:kms:x"),
        ("KEYPOST_ROOT_SIGNER", "alias/root"),
        ("KEYPOST_ROOT_SIGNER", "Local"),
        ("AWS_ENDPOINT_URL_KMS", "http://kms.example.com"),
        ("KEYPOST_ADMIN_API_KEY", "kp_admin_0123456789"),
        ("KEYPOST_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("KEYPOST_PUBLISHER_KEY_SECONDS", "60"),
        ("KEYPOST_RATE_LIMIT_PER_ADDRESS", "0"),
        ("KEYPOST_RATE_LIMIT_PER_KEY", "unlimited"),
        ("KEYPOST_AUDIT_RETENTION_DAYS", "0"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://user:password@collector.example.com"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
    ] {
        assert_eq!(wrong(&[(variable, value)]), [variable], "{variable}={value}");
    }
}

#[test]
fn pages_of_any_origin_may_call_in_development_alone() {
    let origins = |mode: &str, text: &str| {
        let mut variables = good();
        variables.extend([("KEYPOST_ENV", mode.to_owned()), ("KEYPOST_CORS_ORIGINS", text.to_owned())]);
        read(&variables).map(|config| config.sso.cors_origins)
    };
    let these = |origins: &[&str]| CorsOrigins::These(origins.iter().map(|one| (*one).to_owned()).collect());
    assert_eq!(origins("prod", "").unwrap(), these(&[]));
    let two = "https://a.example, https://b.example:8443";
    assert_eq!(origins("prod", two).unwrap(), these(&["https://a.example", "https://b.example:8443"]));
    assert_eq!(origins("dev", "*").unwrap(), CorsOrigins::Any);
    for text in ["*", "https://a.example/", "https://*.example", "a.example", "http://a.example", "null"] {
        assert!(origins("prod", text).is_err(), "{text}");
    }
}

#[test]
fn production_refuses_secrets_that_somebody_typed_and_secrets_used_twice() {
    let zero = "A".repeat(43);
    assert_eq!(wrong(&[("KEYPOST_MASTER_KEY", &zero)]), ["KEYPOST_MASTER_KEY"]);
    assert_eq!(wrong(&[("KEYPOST_MASTER_KEY_PREVIOUS", &zero)]), ["KEYPOST_MASTER_KEY_PREVIOUS"]);
    assert_eq!(wrong(&[("KEYPOST_MASTER_KEY_PREVIOUS", &secret(1))]), ["KEYPOST_MASTER_KEY_PREVIOUS"]);
    // "development-development-developm"
    let typed = "ZGV2ZWxvcG1lbnQtZGV2ZWxvcG1lbnQtZGV2ZWxvcG0";
    assert_eq!(wrong(&[("KEYPOST_EDGE_SHARED_SECRET", typed)]), ["KEYPOST_EDGE_SHARED_SECRET"]);
    assert_eq!(wrong(&[("KEYPOST_EDGE_SEALING_KEY", &secret(1))]), ["KEYPOST_EDGE_SEALING_KEY"]);
    let second_is_zero = format!("{},{zero}", secret(2));
    assert_eq!(wrong(&[("KEYPOST_EDGE_SEALING_KEY", &second_is_zero)]), ["KEYPOST_EDGE_SEALING_KEY"]);
}

#[test]
fn development_takes_plain_http_and_no_token() {
    let mut variables = good();
    variables.remove("KEYPOST_KV_API_TOKEN");
    variables.remove("KEYPOST_PUBLIC_URL");
    variables.insert("KEYPOST_ENV", "dev".to_owned());
    variables.insert("KEYPOST_EDGE_URL", "http://127.0.0.1:8787".to_owned());
    variables.insert("KEYPOST_KV_API_URL", "http://127.0.0.1:8787/cdn-cgi/local/explorer/api".to_owned());
    variables.insert("KEYPOST_MASTER_KEY", "A".repeat(43));
    variables.insert("KEYPOST_PUBLISHER_KEY_SECONDS", "5".to_owned());
    variables.insert("KEYPOST_SIGNING_KEY_SECONDS", "2".to_owned());
    let config = read(&variables).unwrap();
    assert_eq!(config.public_url, "http://127.0.0.1:8080");
    assert!(config.kv.api_token.is_none());
    assert_eq!(config.key_times, Times::standing(2));
}

#[test]
fn traces_are_off_unless_there_is_somewhere_to_send_them() {
    let mut variables = good();
    variables.insert("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned());
    variables.insert("OTEL_TRACES_SAMPLER_ARG", "0.25".to_owned());
    assert_eq!(read(&variables).unwrap().traces, None);
    variables.insert("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/".to_owned());
    let traces = read(&variables).unwrap().traces.unwrap();
    assert_eq!(traces.endpoint.as_str(), "http://collector:4318/v1/traces");
    assert_eq!(traces.service_name, "keypost");
    assert!(traces.sampler.follow_caller && traces.sampler.share == 0.25);
    // The one for traces alone is taken as it stands.
    variables.insert("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector.example.com/x".to_owned());
    let traces = read(&variables).unwrap().traces.unwrap();
    assert_eq!(traces.endpoint.as_str(), "https://collector.example.com/x");
}

#[test]
fn an_empty_variable_counts_as_absent() {
    let mut variables = good();
    variables.insert("KEYPOST_LISTEN", String::new());
    assert!(read(&variables).is_ok());
    assert_eq!(wrong(&[("KEYPOST_MASTER_KEY", "")]), ["KEYPOST_MASTER_KEY"]);
}

#[test]
fn no_error_and_no_debug_output_repeats_a_secret() {
    let secrets = [secret(1), secret(2), secret(3), "kv-api-token".to_owned(), "hunter2".to_owned()];
    let printed = format!("{:?}", read(&good()).unwrap());
    for secret in &secrets {
        assert!(!printed.contains(secret.as_str()), "{printed}");
    }
    let mut swapped = good();
    for name in ["DATABASE_URL", "KEYPOST_EDGE_URL", "KEYPOST_LISTEN", "KEYPOST_ADMIN_API_KEY", "KEYPOST_LOG"]
    {
        swapped.insert(name, format!("{}!", secret(1)));
    }
    let errors = read(&swapped).unwrap_err();
    assert!(!errors.to_string().contains(&secret(1)), "{errors}");
    assert!(!format!("{errors:?}").contains(&secret(1)));
}

#[test]
fn passwords_cost_in_prod_what_owasp_asks_for_and_in_dev_what_one_likes() {
    const MEMORY: &str = "KEYPOST_ARGON2_MEMORY_KIB";
    const ITERATIONS: &str = "KEYPOST_ARGON2_ITERATIONS";
    assert_eq!(wrong(&[(MEMORY, "19455")]), [MEMORY]);
    assert_eq!(wrong(&[(MEMORY, "19456"), (ITERATIONS, "1")]), [MEMORY]);
    assert_eq!(wrong(&[(MEMORY, "7"), (ITERATIONS, "0")]), [MEMORY, ITERATIONS]);
    assert_eq!(wrong(&[(MEMORY, "1048577"), (ITERATIONS, "65")]), [MEMORY, ITERATIONS]);
    let mut variables = good();
    variables.insert(MEMORY, "47104".to_owned());
    variables.insert(ITERATIONS, "1".to_owned());
    assert_eq!(read(&variables).unwrap().password_cost.memory_kib(), 47_104);
    variables.insert("KEYPOST_ENV", "dev".to_owned());
    variables.insert(MEMORY, "8".to_owned());
    assert_eq!(read(&variables).unwrap().password_cost.memory_kib(), 8);
}
