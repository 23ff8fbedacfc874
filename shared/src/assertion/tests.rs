//! What can be told of an assertion without a key.

use base64ct::{Base64UrlUnpadded, Encoding};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::certificate::{Curve, Hash, SignatureAlgorithm};
use crate::time::UnixTime;

const NOW: UnixTime = UnixTime(1_700_000_000);

fn text(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    format!("{}.{}.AAAA", part(header), part(claims))
}

fn header() -> Value {
    json!({"alg": "RS256", "typ": "JWT", "x5c": ["MIIB", "MIIC"]})
}

fn claims() -> Value {
    json!({"iss": "pos-1", "sub": "pos-1", "aud": "https://edge.example/p", "exp": NOW.0 + 300, "jti": "1"})
}

/// The code of the refusal by form, header or claims; empty where there is none.
fn code(header: &Value, claims: &Value) -> String {
    let text = text(header, claims);
    let checked = UnverifiedAssertion::parse(&text).and_then(|assertion| {
        assertion.claims.check(&["https://edge.example/p", "https://edge.example/p/oauth2/token"], NOW)
    });
    checked.err().map(|problem| problem.code().to_string()).unwrap_or_default()
}

fn with(mut value: Value, member: &str, new: Value) -> Value {
    value[member] = new;
    value
}

fn without(mut value: Value, member: &str) -> Value {
    value.as_object_mut().unwrap().remove(member);
    value
}

#[test]
fn a_good_one_is_taken_apart() {
    let text = text(&header(), &claims());
    let assertion = UnverifiedAssertion::parse(&text).unwrap();
    assert_eq!(assertion.header.alg, AssertionAlg::RS256);
    assert_eq!(assertion.header.x5c.as_deref(), Some(&["MIIB".to_owned(), "MIIC".to_owned()][..]));
    assert_eq!((assertion.claims.iss.as_str(), assertion.claims.jti.as_str()), ("pos-1", "1"));
    let check = assertion.signature_check(KeyKind::Rsa, b"key").unwrap();
    assert_eq!(check.algorithm, SignatureAlgorithm::RsaPkcs1(Hash::Sha256));
    assert_eq!(check.message, text.rsplit_once('.').unwrap().0.as_bytes());
    assert_eq!(&*check.signature, [0, 0, 0]);
    assert_eq!(code(&header(), &claims()), "");
}

#[test]
fn an_alg_goes_with_one_kind_of_key() {
    let kinds = [KeyKind::Rsa, KeyKind::Ec(Curve::P256), KeyKind::Ec(Curve::P384)];
    for name in AssertionAlg::NAMES {
        let alg = AssertionAlg::parse(name).unwrap();
        assert_eq!(alg.name(), name);
        let fitting: Vec<_> = kinds.iter().filter(|kind| alg.with(**kind).is_some()).collect();
        assert_eq!(fitting.len(), 1, "{name}");
    }
    for bad in ["none", "None", "HS256", "HS512", "ES512", "PS384", "EdDSA", "rs256", ""] {
        assert_eq!(code(&with(header(), "alg", json!(bad)), &claims()), "alg_not_allowed", "{bad}");
    }
}

#[test]
fn a_signature_of_another_length_than_the_curves_is_none() {
    let text = text(&with(header(), "alg", json!("ES256")), &claims());
    let assertion = UnverifiedAssertion::parse(&text).unwrap();
    let refused = assertion.signature_check(KeyKind::Ec(Curve::P256), b"key").unwrap_err();
    assert_eq!(refused, AssertionProblem::BadSignature);
    let refused = assertion.signature_check(KeyKind::Rsa, b"key").unwrap_err();
    assert_eq!(refused, AssertionProblem::AlgKeyMismatch);
}

#[test]
fn a_header_that_points_elsewhere_is_refused() {
    let of = |member: &str, value: Value| code(&with(header(), member, value), &claims());
    assert_eq!(of("crit", json!(["b64"])), "crit_not_supported");
    assert_eq!(of("jku", json!("https://attacker.example/jwks.json")), "jku_not_allowed");
    assert_eq!(of("x5u", json!("https://attacker.example/chain.pem")), "x5u_not_allowed");
    assert_eq!(of("jwk", json!({"kty": "EC"})), "jwk_not_allowed");
    assert_eq!(of("something", json!("unknown")), "", "what is unknown says nothing (RFC 7515 §4)");
}

#[test]
fn claims_are_there_and_of_now() {
    let of = |member: &str, value: Value| code(&header(), &with(claims(), member, value));
    for (member, expected) in [
        ("iss", "iss_missing"),
        ("sub", "sub_missing"),
        ("aud", "aud_mismatch"),
        ("exp", "exp_missing"),
        ("jti", "jti_missing"),
    ] {
        assert_eq!(code(&header(), &without(claims(), member)), expected);
        assert_eq!(of(member, json!(null)), expected);
        assert_eq!(of(member, json!({})), "claims_malformed");
    }
    assert_eq!(of("jti", json!("")), "jti_missing");
    assert_eq!(of("jti", json!("x".repeat(257))), "jti_too_long");

    assert_eq!(of("exp", json!(NOW.0)), "assertion_expired");
    assert_eq!(of("exp", json!(NOW.0 + 1)), "");
    assert_eq!(of("exp", json!(NOW.0 + 600)), "");
    assert_eq!(of("exp", json!(NOW.0 + 601)), "assertion_too_long_lived");
    assert_eq!(of("exp", json!(1e300)), "assertion_too_long_lived");
    assert_eq!(of("exp", json!(NOW.0 as f64 + 0.5)), "assertion_expired");
    assert_eq!(of("exp", json!("1700000300")), "claims_malformed");
    assert_eq!(of("iat", json!(NOW.0 + 60)), "");
    assert_eq!(of("iat", json!(NOW.0 + 61)), "iat_in_future");
    assert_eq!(of("iat", json!(0)), "", "exp bounds its life");
    assert_eq!(of("nbf", json!(NOW.0 + 60)), "");
    assert_eq!(of("nbf", json!(NOW.0 + 61)), "assertion_not_yet_valid");
}

#[test]
fn an_audience_is_one_and_to_the_letter() {
    let of = |value: Value| code(&header(), &with(claims(), "aud", value));
    assert_eq!(of(json!("https://edge.example/p/oauth2/token")), "");
    assert_eq!(of(json!(["https://edge.example/p"])), "");
    for bad in ["https://edge.example/p/", "https://edge.example/q", "https://EDGE.example/p", ""] {
        assert_eq!(of(json!(bad)), "aud_mismatch", "{bad}");
    }
    for bad in [json!([]), json!(["https://edge.example/p", "https://elsewhere.example"])] {
        assert_eq!(of(bad), "claims_malformed");
    }
}

#[test]
fn what_is_no_assertion_is_refused() {
    let problem = |text: &str| UnverifiedAssertion::parse(text).err();
    let good = text(&header(), &claims());
    for bad in ["", ".", "..", "a.b.c", &format!("{good}.AA"), &format!(" {good}"), &format!("{good}=")] {
        assert_eq!(problem(bad), Some(AssertionProblem::Malformed), "{bad}");
    }
    let twice = Base64UrlUnpadded::encode_string(br#"{"alg":"RS256","alg":"ES256"}"#);
    let rest = good.split_once('.').unwrap().1;
    assert_eq!(problem(&format!("{twice}.{rest}")), Some(AssertionProblem::Malformed), "a member twice");
    assert_eq!(problem(&"A".repeat(MAX_ASSERTION + 1)), Some(AssertionProblem::TooLarge));
    let long = with(claims(), "x", json!("x".repeat(MAX_CLAIMS)));
    assert_eq!(problem(&text(&header(), &long)), Some(AssertionProblem::TooLarge));
    assert_eq!(problem(&format!("{good}{}", "A".repeat(MAX_SIGNATURE))), Some(AssertionProblem::TooLarge));
}

#[test]
fn of_a_long_chain_only_enough_is_kept_to_see_that_it_is_too_long() {
    let long = with(header(), "x5c", json!(vec!["A"; 20_000]));
    let text = text(&long, &claims());
    assert_eq!(UnverifiedAssertion::parse(&text).unwrap().header.x5c.unwrap().len(), 7);
    for bad in [json!("MIIB"), json!([1]), json!({}), json!([null])] {
        assert_eq!(code(&with(header(), "x5c", bad), &claims()), "assertion_malformed");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(parts in prop::collection::vec(any::<Vec<u8>>(), 0..4), raw in "\\PC{0,60}") {
        let encoded: Vec<String> = parts.iter().map(|part| Base64UrlUnpadded::encode_string(part)).collect();
        let _ = UnverifiedAssertion::parse(&encoded.join("."));
        let _ = UnverifiedAssertion::parse(&raw);
    }

    #[test]
    fn no_claims_make_it_panic(exp in any::<f64>(), iat in any::<i64>(), now in any::<i64>()) {
        let odd = json!({"iss": "", "sub": "", "aud": "a", "exp": exp, "iat": iat, "nbf": iat, "jti": "x"});
        let text = text(&header(), &odd);
        if let Ok(assertion) = UnverifiedAssertion::parse(&text) {
            let _ = assertion.claims.check(&["a"], UnixTime(now));
        }
    }
}
