//! 55 chains with known verdicts (tests/vectors/README.md).

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Case {
    id: String,
    expected: String,
    time: Option<String>,
    max_depth: Option<usize>,
    roots: Vec<String>,
    x5c: Vec<String>,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/chains.json.gz");
    let mut json = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut json).unwrap();
    serde_json::from_str(&json).unwrap()
}

/// `2024-03-01T00:00:00+00:00`, as all times of the vectors are written.
fn seconds(text: &str) -> UnixTime {
    let digits: String = text.strip_suffix("+00:00").unwrap().chars().filter(char::is_ascii_digit).collect();
    let content = format!("{digits}Z");
    let element = super::super::asn1::Element {
        tag: der::Tag::GeneralizedTime,
        content: content.as_bytes(),
        whole: &[],
    };
    super::super::time::read(&element).unwrap()
}

/// Where a case names no time, any at which its certificates are valid will do: theirs end after the year 2900.
const SOME_TIME: UnixTime = UnixTime(1_760_000_000);

fn verdict(case: &Case) -> Result<(), Refusal> {
    use base64ct::{Base64, Encoding};
    let rules = Rules {
        at: case.time.as_deref().map_or(SOME_TIME, seconds),
        max_intermediates: case.max_depth.unwrap_or(DEFAULT_MAX_INTERMEDIATES),
        client_auth: false,
    };
    let chain = decode_x5c(&case.x5c, &rules)?;
    let anchors: Vec<_> = case
        .roots
        .iter()
        .filter_map(|root| TrustAnchor::from_der(Base64::decode_vec(root).unwrap()).ok())
        .collect();
    decide_by(&chain, &anchors, &rules).verdict.map(|_| ())
}

#[test]
fn every_vector_is_decided_as_its_suite_does() {
    let cases = cases();
    assert_eq!(cases.len(), 55);
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let started = Instant::now();
            let verdict = verdict(case);
            let took = started.elapsed();
            assert!(took < Duration::from_secs(1), "{}: {took:?}", case.id);
            let right = verdict.is_ok() == (case.expected == "SUCCESS");
            (!right).then(|| format!("{}: expected {}, got {verdict:?}", case.id, case.expected))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// That a chain is refused is not enough: it must be for what is wrong with it. Where that is in the root, there is no
/// root that could be trusted.
#[test]
fn vectors_are_refused_for_what_is_wrong_with_them() {
    let expected = [
        ("pathlen::intermediate-violates-pathlen-0", "path_length_exceeded"),
        ("pathlen::max-chain-depth-0-exhausted", "too_many_intermediates"),
        ("pathological::intermediate-cycle-distinct-cas", "unknown_issuer"),
        ("pathological::intermediate-cycle-distinct-cas-max-depth", "unknown_issuer"),
        ("pathological::intermediate-cycle-same-logical-ca", "unknown_issuer"),
        ("pathological::nc-dos-1", "too_large"),
        ("pathological::pathological-chain-distinct-subject-distinct-key", "too_many_certificates"),
        ("rfc5280::nc::excluded-dns-match", "name_excluded"),
        ("rfc5280::nc::excluded-dns-match-second", "name_excluded"),
        ("rfc5280::nc::excluded-ipv4-match", "name_excluded"),
        ("rfc5280::nc::excluded-match-permitted-and-excluded", "name_excluded"),
        ("rfc5280::nc::invalid-email-address", "unknown_issuer"),
        ("rfc5280::nc::intermediate-with-san-rejected-by-intermediate-nc", "name_excluded"),
        ("rfc5280::nc::intermediate-with-san-rejected-by-root-nc", "name_not_permitted"),
        ("rfc5280::nc::nc-permits-invalid-ip-san", "malformed"),
        ("rfc5280::nc::nc-permits-email-literal-asterisk-rejects-subdomain", "name_not_permitted"),
        ("rfc5280::nc::nc-permits-email-literal-double-asterisk-rejects-single", "name_not_permitted"),
        ("rfc5280::san::malformed", "malformed"),
        ("rfc5280::serial::negative", "unknown_issuer"),
        ("rfc5280::validity::expired-leaf", "expired"),
        ("rfc5280::validity::expired-5-seconds", "expired"),
        ("rfc5280::validity::not-yet-valid-1-second", "not_yet_valid"),
        ("rfc5280::ee-empty-issuer", "issuer_empty"),
        ("rfc5280::chain-untrusted-root", "unknown_issuer"),
        ("rfc5280::intermediate-ca-without-ca-bit", "not_a_ca"),
        ("rfc5280::ee-critical-aia-invalid", "unknown_critical_extension"),
        ("rfc5280::duplicate-extensions", "duplicate_extension"),
        ("expired-intermediate/not-after", "expired"),
        ("expired-intermediate/not-before", "not_yet_valid"),
        ("expired-root/not-before-ta-with-expiration", "not_yet_valid"),
        ("incorrect-trust-anchor/main", "unknown_issuer"),
        ("intermediate-basic-constraints-ca-false/main", "not_a_ca"),
        ("intermediate-eku-mlsclientauth/any", "unknown_critical_extension"),
        ("intermediate-lacks-signing-key-usage/main", "may_not_sign_certificates"),
        ("many-names/toomany-dirnames-excluded", "too_many_name_comparisons"),
        ("many-names/toomany-ips-permitted", "too_many_name_comparisons"),
        ("root-basic-constraints-ca-false/ta-with-constraints", "not_a_ca"),
        ("root-lacks-keycertsign-key-usage/ta-with-constraints", "may_not_sign_certificates"),
    ];
    let cases = cases();
    let codes: Vec<_> = expected
        .iter()
        .map(|(id, _)| {
            let case = cases.iter().find(|case| case.id == *id).unwrap();
            (*id, verdict(case).map_or_else(|refusal| refusal.code(), |()| "valid"))
        })
        .collect();
    assert_eq!(codes, expected);
}
