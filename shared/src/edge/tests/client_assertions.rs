//! Clients that prove themselves by an assertion of their own key (`private_key_jwt`).

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use serde_json::{Value, json as value};

use super::fleet::*;
use super::world::*;
use crate::certificate::tests::builder;
use crate::client_jwk::ClientJwks;
use crate::document::{ClientStatus, ClientSubject};
use crate::edge::*;

const GENERIC: &str = "invalid_client: client authentication failed";

fn jwk(seed: &str) -> Value {
    let point = builder::key(seed).verifying_key().to_encoded_point(false);
    let text = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
    value!({"kty": "EC", "crv": "P-256", "x": text(point.x().unwrap()), "y": text(point.y().unwrap()), "kid": seed})
}

/// A service client with these keys registered, in a pool that knows nothing of certificates.
fn with_keys(keys: Value) -> Fleet {
    let fleet = Fleet::registered();
    let mut client = fleet.client_document();
    client.subject = ClientSubject::Service;
    client.secrets.clear();
    client.jwks = Some(ClientJwks::usable(&value!({"keys": keys})));
    fleet.put_client(&client);
    fleet
}

fn with_key() -> Fleet {
    with_keys(value!([jwk("the client's key")]))
}

/// A good client assertion, changed.
fn assertion(fleet: &Fleet, change: impl FnOnce(&mut Assertion)) -> String {
    let mut assertion = fleet.assertion();
    assertion.header = value!({"alg": "ES256"});
    assertion.claims["iss"] = value!(fleet.client.as_str());
    assertion.claims["sub"] = value!(fleet.client.as_str());
    assertion.key = builder::key("the client's key");
    change(&mut assertion);
    assertion.sign()
}

fn body(assertion: &str) -> String {
    let kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    format!("grant_type=client_credentials&client_assertion_type={kind}&client_assertion={assertion}")
}

fn ask(fleet: &Fleet, change: impl FnOnce(&mut Assertion)) -> Response {
    fleet.post(&body(&assertion(fleet, change)))
}

#[test]
fn a_client_gets_a_token_by_its_registered_key() {
    let fleet = with_key();
    let (_, claims) = verified(&fleet, &ask(&fleet, |_| {}));
    assert_eq!(claims["sub"], fleet.client.as_str());
    let named = format!("{}&client_id={}", body(&assertion(&fleet, |_| {})), fleet.client);
    assert_eq!(outcome(&fleet.post(&named)), "200", "a matching client_id is no second place");
}

#[test]
fn any_of_its_keys_will_do_and_a_kid_picks_one() {
    let fleet = with_keys(value!([jwk("old"), jwk("the client's key"), jwk("new")]));
    assert_eq!(outcome(&ask(&fleet, |_| {})), "200");
    assert_eq!(outcome(&ask(&fleet, |own| own.header["kid"] = value!("the client's key"))), "200");
    assert_eq!(refusal(&ask(&fleet, |own| own.header["kid"] = value!("new"))), GENERIC);
    assert_eq!(outcome(&ask(&fleet, |own| own.header["kid"] = value!("unheard of"))), "200");
}

#[test]
fn the_audience_is_the_issuer_alone() {
    let fleet = with_key();
    let endpoint = format!("{}/oauth2/token", fleet.issuer());
    let response = ask(&fleet, |own| own.claims["aud"] = value!(endpoint));
    assert_eq!(refusal(&response), "invalid_client: aud_mismatch");
    assert_eq!(response.status, 401);
}

#[test]
fn claims_are_held_to_the_same_rules_as_a_grants() {
    let fleet = with_key();
    let claim = |name: &'static str, new: Value| refusal(&ask(&fleet, |own| own.claims[name] = new));
    assert_eq!(claim("exp", value!(START.0)), "invalid_client: assertion_expired");
    assert_eq!(claim("exp", value!(START.0 + 601)), "invalid_client: assertion_too_long_lived");
    assert_eq!(claim("jti", Value::Null), "invalid_client: jti_missing");
    assert_eq!(claim("iss", value!("somebody")), "invalid_client: iss_mismatch");
    let header = |name: &'static str, new: Value| refusal(&ask(&fleet, |own| own.header[name] = new));
    assert_eq!(header("alg", value!("none")), "invalid_client: alg_not_allowed");
    assert_eq!(header("alg", value!("HS256")), "invalid_client: alg_not_allowed");
    assert_eq!(header("jku", value!("https://x.example")), "invalid_client: jku_not_allowed");
    assert_eq!(header("jwk", jwk("attacker")), "invalid_client: jwk_not_allowed");
}

#[test]
fn an_unknown_client_a_wrong_key_and_a_disabled_client_look_the_same() {
    let fleet = with_key();
    let unknown = |own: &mut Assertion| {
        own.claims["iss"] = value!("nobody");
        own.claims["sub"] = value!("nobody");
    };
    assert_eq!(refusal(&ask(&fleet, unknown)), GENERIC);
    let impossible = |own: &mut Assertion| {
        own.claims["iss"] = value!("no body");
        own.claims["sub"] = value!("no body");
    };
    assert_eq!(refusal(&ask(&fleet, impossible)), GENERIC);
    assert_eq!(refusal(&ask(&fleet, |own| own.key = builder::key("another"))), GENERIC);
    assert_eq!(refusal(&ask(&fleet, |own| own.header["alg"] = value!("RS256"))), GENERIC);
    let mut client = fleet.client_document();
    client.jwks = Some(ClientJwks::usable(&value!({"keys": [jwk("the client's key")]})));
    client.status = ClientStatus::Disabled;
    fleet.put_client(&client);
    fleet.advance(31);
    assert_eq!(refusal(&ask(&fleet, |_| {})), GENERIC);
    client.status = ClientStatus::Enabled;
    client.jwks = None;
    fleet.put_client(&client);
    assert_eq!(refusal(&ask(&fleet, |_| {})), GENERIC, "a client without keys");
}

#[test]
fn a_key_that_was_registered_for_one_alg_is_for_that_alone() {
    let mut key = jwk("the client's key");
    key["alg"] = value!("ES384");
    let fleet = with_keys(value!([key]));
    assert_eq!(refusal(&ask(&fleet, |_| {})), GENERIC);
}

#[test]
fn a_new_key_works_at_once() {
    let fleet = with_keys(value!([jwk("old")]));
    assert_eq!(refusal(&ask(&fleet, |_| {})), GENERIC);
    let mut client = fleet.client_document();
    client.jwks = Some(ClientJwks::usable(&value!({"keys": [jwk("the client's key")]})));
    fleet.put_client(&client);
    assert_eq!(outcome(&ask(&fleet, |_| {})), "200");
}

#[test]
fn a_client_assertion_works_once() {
    let fleet = with_key();
    let one = assertion(&fleet, |_| {});
    assert_eq!(outcome(&fleet.post(&body(&one))), "200");
    assert_eq!(refusal(&fleet.post(&body(&one))), "invalid_client: assertion_replayed");
}

#[test]
fn an_assertion_and_basic_together_are_an_invalid_request() {
    let fleet = with_key();
    let path = format!("/{}/oauth2/token", fleet.pool);
    let body = body(&assertion(&fleet, |_| {}));
    let basic = format!("Basic {}", Base64::encode_string(format!("{}:{SECRET}", fleet.client).as_bytes()));
    let mut request = post(&path, body.as_bytes());
    request.headers.authorization = Some(&basic);
    assert_eq!(outcome(&fleet.handle(request)), "400 invalid_request");
    assert_eq!(outcome(&fleet.post(&format!("{body}&client_secret=x"))), "400 invalid_request");
    assert_eq!(outcome(&fleet.post(&format!("{body}&client_id=other"))), "400 invalid_request");
    assert_eq!(outcome(&fleet.post(&body)), "200", "nothing of it was used up");
}

#[test]
fn a_device_may_authenticate_its_client_by_certificate() {
    let fleet = Fleet::registered();
    let by_certificate = |change: fn(&mut Assertion)| {
        let mut own = fleet.assertion();
        own.claims["iss"] = value!(fleet.client.as_str());
        own.claims["sub"] = value!(fleet.client.as_str());
        change(&mut own);
        fleet.post(&body(&own.sign()))
    };
    let (_, claims) = verified(&fleet, &by_certificate(|_| {}));
    assert_eq!(claims["sub"], DEVICE);
    assert_eq!(fleet.platform.delivered.borrow().len(), 1, "its first certificate is reported here too");
    assert_eq!(refusal(&by_certificate(|own| own.key = builder::key("another"))), GENERIC);
    let chain = by_certificate(|own| own.header["x5c"] = value!([]));
    assert_eq!(refusal(&chain), "invalid_client: chain_empty");
    let device_id = by_certificate(|own| {
        own.claims["iss"] = value!(DEVICE);
        own.claims["sub"] = value!(DEVICE);
    });
    assert_eq!(refusal(&device_id), GENERIC, "iss and sub are the client (RFC 7523 §3)");
    fleet.change_pool(|pool| pool.bind_to_certificate = true);
    let (_, claims) = verified(&fleet, &by_certificate(|_| {}));
    assert_eq!(claims["cnf"]["x5t#S256"], fleet.thumbprint().to_base64url());
}

#[test]
fn client_authentication_brings_no_device_into_being() {
    let fleet = Fleet::auto();
    let mut own = fleet.assertion();
    own.claims["iss"] = value!(fleet.new_client().as_str());
    own.claims["sub"] = value!(fleet.new_client().as_str());
    assert_eq!(refusal(&fleet.post(&body(&own.sign()))), GENERIC);
    assert!(fleet.platform.delivered.borrow().is_empty());
    fleet.put_client(&fleet.client_document());
    let mut own = fleet.assertion();
    own.claims["iss"] = value!(fleet.client.as_str());
    own.claims["sub"] = value!(fleet.client.as_str());
    assert_eq!(refusal(&fleet.post(&body(&own.sign()))), GENERIC, "nor where only its client is known");
}
