//! Devices that come with a certificate: who gets a token, and every reason why somebody does not.

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::{Value, json as value};
use sha2::Digest;

use super::fleet::*;
use super::world::*;
use crate::certificate::tests::builder::{self, Draft};
use crate::certificate::{Fingerprint, oid};
use crate::client_jwk::{JwkCurve, PublicJwk};
use crate::device_certificate::{DeniedCertificate, ProvisioningMode};
use crate::document::{ClientStatus, ClientSubject, DeviceDocument};
use crate::edge::*;

/// The code of a refusal with `invalid_grant`.
fn code(response: &Response) -> String {
    assert_eq!(response.status, 400, "{}", refusal(response));
    let text = refusal(response);
    text.strip_prefix("invalid_grant: ").unwrap_or_else(|| panic!("{text}")).to_owned()
}

fn set(member: &'static str, new: Value) -> impl FnOnce(&mut Assertion) {
    move |assertion| assertion.claims[member] = new
}

fn set_header(member: &'static str, new: Value) -> impl FnOnce(&mut Assertion) {
    move |assertion| assertion.header[member] = new
}

#[test]
fn a_registered_device_gets_a_token_by_its_certificate() {
    let fleet = Fleet::registered();
    let response = fleet.grant_good();
    let (_, claims) = verified(&fleet, &response);
    assert_eq!(claims["sub"], DEVICE);
    assert_eq!(claims["client_id"], fleet.client.as_str());
    assert_eq!(claims["exp"], START.0 + 3600, "a published record's token lives as long as any other");
    assert!(claims.get("cnf").is_none());
    assert_eq!(json(&response)["scope"], "device other");
}

#[test]
fn a_scope_parameter_narrows_here_too() {
    let fleet = Fleet::registered();
    let narrowed = fleet.grant_with(&fleet.assertion().sign(), "&scope=device");
    assert_eq!(json(&narrowed)["scope"], "device");
    let widened = fleet.grant_with(&fleet.assertion().sign(), "&scope=admin");
    assert_eq!(outcome(&widened), "400 invalid_scope");
}

#[test]
fn an_audience_is_the_issuer_or_the_token_endpoint() {
    let fleet = Fleet::registered();
    let endpoint = format!("{}/oauth2/token", fleet.issuer());
    assert_eq!(outcome(&fleet.grant_changed(set("aud", value!(endpoint)))), "200");
    let other = fleet.issuer().replace("feed", "beef");
    for bad in [other.as_str(), "https://edge.example", &format!("{}/", fleet.issuer())] {
        assert_eq!(code(&fleet.grant_changed(set("aud", value!(bad)))), "aud_mismatch", "{bad}");
    }
}

#[test]
fn claims_out_of_time_are_refused_each_with_its_code() {
    let fleet = Fleet::registered();
    let now = START.0;
    assert_eq!(code(&fleet.grant_changed(set("exp", value!(now)))), "assertion_expired");
    assert_eq!(code(&fleet.grant_changed(set("exp", value!(now + 601)))), "assertion_too_long_lived");
    assert_eq!(code(&fleet.grant_changed(set("iat", value!(now + 61)))), "iat_in_future");
    assert_eq!(code(&fleet.grant_changed(set("nbf", value!(now + 61)))), "assertion_not_yet_valid");
    assert_eq!(code(&fleet.grant_changed(set("exp", Value::Null))), "exp_missing");
    assert_eq!(code(&fleet.grant_changed(set("jti", Value::Null))), "jti_missing");
}

#[test]
fn iss_and_sub_are_the_device_or_its_client() {
    let fleet = Fleet::registered();
    let client = fleet.client.as_str().to_owned();
    for (iss, sub) in [(DEVICE, client.as_str()), (&client, DEVICE), (&client, &client)] {
        let response = fleet.grant_changed(|assertion| {
            assertion.claims["iss"] = value!(iss);
            assertion.claims["sub"] = value!(sub);
        });
        assert_eq!(verified(&fleet, &response).1["client_id"], client, "{iss} {sub}");
    }
    assert_eq!(code(&fleet.grant_changed(set("sub", value!("05243-002")))), "sub_mismatch");
    assert_eq!(code(&fleet.grant_changed(set("iss", value!("05243-002")))), "iss_mismatch");
    assert_eq!(code(&fleet.grant_changed(set("sub", value!("a b")))), "sub_mismatch");
    assert_eq!(code(&fleet.grant_changed(set("iss", value!("a b")))), "iss_mismatch");
    let two = fleet.grant_changed(|assertion| {
        assertion.claims["iss"] = value!("somebody");
        assertion.claims["sub"] = value!(client);
    });
    assert_eq!(code(&two), "iss_mismatch");
}

#[test]
fn an_assertion_works_once() {
    let mut fleet = Fleet::registered();
    let assertion = fleet.assertion().sign();
    assert_eq!(outcome(&fleet.grant(&assertion)), "200");
    assert_eq!(code(&fleet.grant(&assertion)), "assertion_replayed");
    fleet.world.restart();
    assert_eq!(code(&fleet.grant(&assertion)), "assertion_replayed", "another isolate of the location");
    let same_jti = |assertion: &mut Assertion| {
        assertion.claims["jti"] = value!("jti-0");
        assertion.claims["exp"] = value!(START.0 + 301);
    };
    assert_eq!(code(&fleet.grant_changed(same_jti)), "assertion_replayed", "signed anew");
    fleet.advance(302);
    assert_eq!(
        outcome(&fleet.grant_changed(set("jti", value!("jti-0")))),
        "200",
        "once the first one is over"
    );
}

#[test]
fn an_assertion_that_is_refused_uses_nothing_up() {
    let fleet = Fleet::registered();
    let good = fleet.assertion();
    let forged = good.with_signature(&[1; 64]);
    assert_eq!(code(&fleet.grant(&forged)), "signature_invalid");
    assert_eq!(outcome(&fleet.grant_with(&good.sign(), "&scope=admin")), "400 invalid_scope");
    assert_eq!(outcome(&fleet.grant(&good.sign())), "200");
}

#[test]
fn alg_none_and_hmacs_are_refused() {
    let fleet = Fleet::registered();
    for alg in ["none", "HS256", "ES512", "EdDSA"] {
        assert_eq!(code(&fleet.grant_changed(set_header("alg", value!(alg)))), "alg_not_allowed", "{alg}");
    }
    let mut unsigned = fleet.assertion();
    unsigned.header["alg"] = value!("none");
    assert_eq!(code(&fleet.grant(&unsigned.with_signature(&[]))), "alg_not_allowed");
}

#[test]
fn an_hmac_by_the_public_key_is_no_signature() {
    use hmac::{Hmac, Mac};
    let fleet = Fleet::registered();
    for alg in ["HS256", "ES256"] {
        let mut assertion = fleet.assertion();
        assertion.header["alg"] = value!(alg);
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&builder::public_key(&assertion.key)).unwrap();
        mac.update(assertion.input().as_bytes());
        let forged = assertion.with_signature(&mac.finalize().into_bytes());
        let expected = if alg == "HS256" { "alg_not_allowed" } else { "signature_invalid" };
        assert_eq!(code(&fleet.grant(&forged)), expected);
    }
}

#[test]
fn an_alg_of_another_kind_of_key_is_refused() {
    let fleet = Fleet::registered();
    for alg in ["RS256", "PS256", "ES384"] {
        assert_eq!(code(&fleet.grant_changed(set_header("alg", value!(alg)))), "alg_key_mismatch", "{alg}");
    }
}

#[test]
fn a_header_that_points_elsewhere_is_refused_each_with_its_code() {
    let fleet = Fleet::registered();
    let of = |member: &'static str, new: &str| code(&fleet.grant_changed(set_header(member, value!(new))));
    assert_eq!(of("jku", "https://attacker.example/jwks.json"), "jku_not_allowed");
    assert_eq!(of("x5u", "https://attacker.example/chain.pem"), "x5u_not_allowed");
    assert_eq!(of("crit", "exp"), "crit_not_supported");
    assert_eq!(of("kid", "another key"), "kid_mismatch");
    assert_eq!(of("kid", ""), "kid_mismatch");
    assert_eq!(of("x5t#S256", &Fingerprint::of(b"x").to_base64url()), "x5t_mismatch");
    let jwk = set_header("jwk", value!({"kty": "EC"}));
    assert_eq!(code(&fleet.grant_changed(jwk)), "jwk_not_allowed");
}

#[test]
fn a_kid_may_name_the_certificate() {
    let fleet = Fleet::registered();
    let thumbprint = fleet.thumbprint();
    let jwk = PublicJwk::from_spki(&builder::public_key(&builder::key("the device's key"))).unwrap();
    for kid in [DEVICE, "01", &thumbprint.to_string(), &thumbprint.to_base64url(), &jwk.thumbprint()] {
        assert_eq!(outcome(&fleet.grant_changed(set_header("kid", value!(kid)))), "200", "{kid}");
    }
    let x5t = set_header("x5t#S256", value!(thumbprint.to_base64url()));
    assert_eq!(outcome(&fleet.grant_changed(x5t)), "200");
}

#[test]
fn the_certificate_of_somebody_else_is_of_no_use() {
    let fleet = Fleet::registered();
    let signed_by_another = fleet.grant_changed(|assertion| assertion.key = builder::key("another"));
    assert_eq!(code(&signed_by_another), "signature_invalid");
    // By the intermediate's key, whose certificate is in the chain too.
    let by_intermediate = fleet.grant_changed(|assertion| assertion.key = builder::key("intermediate"));
    assert_eq!(code(&by_intermediate), "signature_invalid");
    // Known by now, and still of no use.
    assert_eq!(outcome(&fleet.grant_good()), "200");
    let again = fleet.grant_changed(|assertion| assertion.key = builder::key("another"));
    assert_eq!(code(&again), "signature_invalid");
}

#[test]
fn a_chain_is_there_and_leads_to_a_root_of_this_pool() {
    let mut fleet = Fleet::registered();
    let without = |assertion: &mut Assertion| drop(assertion.header.as_object_mut().unwrap().remove("x5c"));
    assert_eq!(code(&fleet.grant_changed(without)), "x5c_missing");
    assert_eq!(code(&fleet.grant_changed(set_header("x5c", value!([])))), "chain_empty");
    let url_safe: Vec<String> = fleet.x5c().iter().map(|text| text.replace(['+', '/', '='], "-")).collect();
    assert_eq!(code(&fleet.grant_changed(set_header("x5c", value!(url_safe)))), "chain_not_base64");
    let leaf_alone = value!([fleet.x5c()[0]]);
    assert_eq!(code(&fleet.grant_changed(set_header("x5c", leaf_alone))), "chain_unknown_issuer");
    let reversed: Vec<String> = fleet.x5c().into_iter().rev().collect();
    assert_eq!(code(&fleet.grant_changed(set_header("x5c", value!(reversed)))), "chain_not_in_order");
    let mut with_root = fleet.x5c();
    with_root.push(Base64::encode_string(&fleet.root.sign()));
    assert_eq!(outcome(&fleet.grant_changed(set_header("x5c", value!(with_root)))), "200");

    fleet.intermediate = Draft::ca("intermediate", "another pool's root");
    assert_eq!(code(&fleet.grant_good()), "chain_unknown_issuer");
    fleet.intermediate = Draft::ca("intermediate", "root");
    fleet.intermediate.signer = builder::key("another root of the same name");
    assert_eq!(code(&fleet.grant_good()), "chain_bad_signature");
}

#[test]
fn the_certificate_of_another_pool_gets_nothing_even_for_its_own_audience() {
    let fleet = Fleet::auto();
    let other = Fleet::auto();
    other.change_pool(|pool| pool.trust_anchors = vec![anchor(&Draft::ca("other", "other"))]);
    let assertion = fleet.assertion();
    assert_eq!(code(&other.grant(&assertion.sign())), "chain_unknown_issuer");
    assert!(other.platform.delivered.borrow().is_empty());
}

#[test]
fn an_expired_chain_ends_although_the_isolate_knows_it() {
    let mut fleet = Fleet::registered();
    // Some minutes after the start.
    fleet.leaf.not_after = builder::utc("231114221500Z");
    assert_eq!(outcome(&fleet.grant_good()), "200");
    fleet.advance(60);
    assert_eq!(outcome(&fleet.grant_good()), "200");
    fleet.advance(60);
    assert_eq!(code(&fleet.grant_good()), "chain_expired");
}

#[test]
fn a_version_1_certificate_is_taken() {
    let mut fleet = Fleet::registered();
    fleet.leaf = fleet.leaf.clone().version_1();
    assert_eq!(outcome(&fleet.grant_good()), "200");
}

#[test]
fn a_chain_that_was_seen_before_costs_one_signature() {
    let fleet = Fleet::registered();
    let cost = || {
        let before = fleet.platform.signature_checks.get();
        assert_eq!(outcome(&fleet.grant_good()), "200");
        fleet.platform.signature_checks.get() - before
    };
    assert_eq!(cost(), 3, "the intermediate's, the device's, and the assertion's");
    assert_eq!(cost(), 1);
    fleet.change_pool(|pool| pool.token_ttl = 60);
    assert_eq!(cost(), 1, "what has nothing to do with chains changes nothing");
    fleet.change_pool(|pool| {
        pool.denied_certificates.push(DeniedCertificate::Fingerprint(Fingerprint::of(b"x")))
    });
    assert_eq!(cost(), 2, "a denial may be of this chain; the intermediate's signature has been verified");
}

#[test]
fn the_signature_of_an_intermediate_that_was_verified_says_nothing_of_another_ones() {
    let mut fleet = Fleet::auto();
    assert_eq!(outcome(&fleet.grant_good()), "200");
    let genuine = fleet.intermediate.signer.clone();
    fleet.intermediate.signer = builder::key("somebody");
    assert_eq!(code(&fleet.grant_good()), "chain_bad_signature");
    assert_eq!(code(&fleet.grant_good()), "chain_bad_signature", "a refusal is not remembered as right");
    fleet.intermediate.signer = genuine;
    assert_eq!(outcome(&fleet.grant_good()), "200");
}

#[test]
fn a_denial_takes_effect_on_a_chain_that_the_isolate_knows() {
    for denied in [Fleet::thumbprint, |fleet: &Fleet| Fingerprint::of(&fleet.intermediate.tbs())] {
        let fleet = Fleet::registered();
        assert_eq!(outcome(&fleet.grant_good()), "200");
        let denied = DeniedCertificate::Fingerprint(denied(&fleet));
        fleet.change_pool(|pool| pool.denied_certificates = vec![denied]);
        assert_eq!(code(&fleet.grant_good()), "certificate_denied");
    }
    let fleet = Fleet::registered();
    let (issuer, serial) = ("CN=intermediate".parse().unwrap(), "1".parse().unwrap());
    fleet.change_pool(|pool| {
        pool.denied_certificates = vec![DeniedCertificate::IssuerAndSerial { issuer, serial }];
    });
    assert_eq!(code(&fleet.grant_good()), "certificate_denied");
}

#[test]
fn mode_off_takes_no_certificate_at_all() {
    let fleet = Fleet::registered();
    fleet.change_pool(|pool| pool.provisioning.mode = ProvisioningMode::Off);
    assert_eq!(code(&fleet.grant_good()), "certificates_off");
    assert_eq!(code(&fleet.grant("rubbish")), "certificates_off");
}

#[test]
fn mode_registered_knows_registered_devices_alone() {
    let fleet = Fleet::registered();
    fleet.platform.kv.borrow_mut().remove(&fleet.device_key().to_string());
    assert_eq!(code(&fleet.grant_good()), "device_unknown");
    assert!(fleet.platform.delivered.borrow().is_empty());
}

#[test]
fn a_disabled_device_stays_out_in_every_mode() {
    for mode in [ProvisioningMode::Registered, ProvisioningMode::Auto] {
        let fleet = Fleet::registered();
        fleet.change_pool(|pool| pool.provisioning.mode = mode);
        fleet.put_device(&DeviceDocument { status: ClientStatus::Disabled, ..fleet.device_document() });
        assert_eq!(code(&fleet.grant_good()), "device_disabled");
        // Or its client alone.
        fleet.put_device(&fleet.device_document());
        let mut client = fleet.client_document();
        client.status = ClientStatus::Disabled;
        fleet.put_client(&client);
        assert_eq!(code(&fleet.grant_good()), "device_disabled");
        assert!(fleet.platform.delivered.borrow().is_empty());
    }
}

#[test]
fn a_disabled_device_is_shut_out_of_an_isolate_that_knew_it() {
    let fleet = Fleet::registered();
    assert_eq!(outcome(&fleet.grant_good()), "200");
    fleet.put_device(&DeviceDocument { status: ClientStatus::Disabled, ..fleet.device_document() });
    fleet.advance(31);
    assert_eq!(code(&fleet.grant_good()), "device_disabled");
    // And comes back without waiting.
    fleet.put_device(&fleet.device_document());
    assert_eq!(outcome(&fleet.grant_good()), "200");
}

#[test]
fn a_device_without_an_app_of_the_scope_gets_invalid_scope() {
    let fleet = Fleet::registered();
    fleet.put_device(&DeviceDocument { clients: vec![], ..fleet.device_document() });
    assert_eq!(refusal(&fleet.grant_good()), "invalid_scope: no_device_scope");
    fleet.put_device(&fleet.device_document());
    let mut client = fleet.client_document();
    client.scopes = "other".parse().unwrap();
    fleet.put_client(&client);
    assert_eq!(refusal(&fleet.grant_good()), "invalid_scope: no_device_scope");
}

#[test]
fn a_client_of_another_device_is_not_this_ones() {
    let fleet = Fleet::registered();
    let mut client = fleet.client_document();
    if let ClientSubject::Device(claims) = &mut client.subject {
        claims.device_id = "05243-002".parse().unwrap();
    }
    fleet.put_client(&client);
    assert_ne!(outcome(&fleet.grant_good()), "200");
}

#[test]
fn the_same_name_under_another_organization_or_root_is_another_device() {
    let mut fleet = Fleet::registered();
    fleet.pin();
    assert_eq!(outcome(&fleet.grant_good()), "200");
    fleet.leaf.subject = subject("05244", DEVICE);
    assert_eq!(code(&fleet.grant_good()), "subject_mismatch");
    fleet.leaf.subject = subject("05243", DEVICE);
    let second = Draft::ca("second", "second");
    fleet.change_pool(|pool| pool.trust_anchors.push(anchor(&second)));
    assert_eq!(outcome(&fleet.grant_good()), "200");
    fleet.intermediate = Draft::ca("intermediate", "second");
    assert_eq!(code(&fleet.grant_good()), "subject_mismatch");
    fleet.change_pool(|pool| drop(pool.trust_anchors.remove(0)));
    assert_eq!(outcome(&fleet.grant_good()), "200", "the old root has gone: nobody is locked out");
}

#[test]
fn a_device_document_that_does_not_verify_is_not_the_same_as_none() {
    let fleet = Fleet::registered();
    fleet.change_pool(|pool| pool.provisioning.mode = ProvisioningMode::Auto);
    fleet.put(&fleet.device_key(), "rubbish".to_owned());
    assert_eq!(outcome(&fleet.grant_good()), "503 temporarily_unavailable");
}

#[test]
fn a_pool_may_bind_tokens_to_the_certificate() {
    let fleet = Fleet::registered();
    fleet.change_pool(|pool| pool.bind_to_certificate = true);
    let (_, claims) = verified(&fleet, &fleet.grant_good());
    assert_eq!(claims["cnf"], value!({"x5t#S256": fleet.thumbprint().to_base64url()}));
    assert!(verified(&fleet, &fleet.token()).1.get("cnf").is_none(), "by secret there is nothing to bind to");
}

#[test]
fn client_authentication_beside_the_assertion_is_an_invalid_request() {
    let fleet = Fleet::registered();
    let assertion = fleet.assertion().sign();
    for more in ["&client_secret=x", "&client_assertion=x", "&client_assertion_type=x", "&client_id=other"] {
        let response = fleet.grant_with(&assertion, more);
        assert_eq!(outcome(&response), "400 invalid_request", "{more}");
    }
    assert_eq!(outcome(&fleet.grant("")), "400 invalid_request");
    let own = format!("&client_id={}", fleet.client);
    assert_eq!(outcome(&fleet.grant_with(&assertion, &own)), "200");
}

#[test]
fn hostile_chains_are_refused_before_they_cost_anything() {
    let fleet = Fleet::auto();
    let x5c = fleet.x5c();
    let twenty: Vec<String> = x5c.iter().cycle().take(20).cloned().collect();
    let megabyte = Base64::encode_string(&vec![0x30; 1 << 20]);
    let long = Base64::encode_string(&vec![0x30; 40 * 1024]);
    let loops = vec![x5c[0].clone(), x5c[1].clone(), x5c[1].clone()];
    let mut cross = vec![fleet.leaf.sign()];
    cross.extend([Draft::ca("intermediate", "b"), Draft::ca("b", "intermediate")].map(|draft| draft.sign()));
    cross.push(Draft::ca("intermediate", "b").sign());
    let cross: Vec<String> = cross.iter().map(|der| Base64::encode_string(der)).collect();
    for (chain, expected) in [
        (value!(twenty), "invalid_grant: chain_too_many_certificates"),
        (value!(vec!["A"; 10_000]), "invalid_grant: chain_too_many_certificates"),
        (value!([long]), "invalid_grant: chain_too_large"),
        (value!([megabyte]), "invalid_grant: assertion_too_large"),
        (value!(loops), "invalid_grant: chain_certificate_repeated"),
        (value!(cross), "invalid_grant: chain_certificate_repeated"),
    ] {
        assert_eq!(refusal(&fleet.grant_changed(set_header("x5c", chain))), expected);
    }
    assert_eq!(fleet.platform.signature_checks.get(), 0);
    let path = format!("/{}/oauth2/token", fleet.pool);
    let too_large = Request { body: Body::TooLarge, ..post(&path, b"") };
    assert_eq!(fleet.handle(too_large).status, 413);
}

#[test]
fn a_stranger_costs_one_signature_check_at_most() {
    let mut fleet = Fleet::auto();
    fleet.intermediate.signer = builder::key("somebody");
    assert_eq!(code(&fleet.grant_good()), "chain_bad_signature");
    assert_eq!(fleet.platform.signature_checks.get(), 1);
    let reads = fleet.platform.kv_reads.get();
    assert_eq!(code(&fleet.grant_good()), "chain_bad_signature");
    assert_eq!(fleet.platform.kv_reads.get(), reads, "nobody looks for its device");
}

#[test]
fn refusals_are_logged_with_their_reason() {
    let fleet = Fleet::registered();
    fleet.grant_changed(set("aud", value!("elsewhere\nforged")));
    assert!(fleet.logged("assertion_refused"));
    assert!(fleet.platform.log.borrow().iter().all(|line| !line.contains("forged")));
}

#[test]
fn an_assertion_by_p384_and_by_rsa_is_taken() {
    use p384::ecdsa::signature::Signer;
    use rsa::pkcs8::EncodePublicKey;
    let mut fleet = Fleet::registered();
    let key = p384::ecdsa::SigningKey::from_slice(&[7; 48]).unwrap();
    let point = key.verifying_key().to_encoded_point(false);
    let text = |coordinate: Option<&p384::FieldBytes>| Base64UrlUnpadded::encode_string(coordinate.unwrap());
    let jwk = PublicJwk::EC { crv: JwkCurve::P384, x: text(point.x()), y: text(point.y()) };
    fleet.leaf.public_key = jwk.to_spki().unwrap();
    let mut assertion = fleet.assertion();
    assertion.header["alg"] = value!("ES384");
    let signature: p384::ecdsa::Signature = key.sign(assertion.input().as_bytes());
    assert_eq!(outcome(&fleet.grant(&assertion.with_signature(&signature.to_bytes()))), "200");

    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let key = rsa::RsaPrivateKey::new(&mut rng, 2048).unwrap();
    fleet.leaf.public_key = key.to_public_key().to_public_key_der().unwrap().into_vec();
    let digest = |alg: &str, input: &str| match alg {
        "RS384" => sha2::Sha384::digest(input).to_vec(),
        "RS512" => sha2::Sha512::digest(input).to_vec(),
        _ => sha2::Sha256::digest(input).to_vec(),
    };
    for alg in ["RS256", "RS384", "RS512", "PS256"] {
        let mut assertion = fleet.assertion();
        assertion.header["alg"] = value!(alg);
        let digest = digest(alg, &assertion.input());
        let signature = match alg {
            "RS256" => key.sign(rsa::Pkcs1v15Sign::new::<sha2::Sha256>(), &digest),
            "RS384" => key.sign(rsa::Pkcs1v15Sign::new::<sha2::Sha384>(), &digest),
            "RS512" => key.sign(rsa::Pkcs1v15Sign::new::<sha2::Sha512>(), &digest),
            _ => key.sign_with_rng(&mut rng, rsa::Pss::new::<sha2::Sha256>(), &digest),
        }
        .unwrap();
        assert_eq!(outcome(&fleet.grant(&assertion.with_signature(&signature))), "200", "{alg}");
        let mut wrong = signature.clone();
        wrong[100] ^= 1;
        let again = fleet.grant(&assertion.with_signature(&wrong));
        assert_eq!(code(&again), "signature_invalid", "{alg}");
    }
}

#[test]
fn a_leaf_that_may_not_sign_is_refused() {
    let mut fleet = Fleet::registered();
    fleet.leaf.set(&oid::KEY_USAGE, true, vec![0x03, 0x02, 0x05, 0x20]);
    assert_eq!(code(&fleet.grant_good()), "certificate_may_not_sign");
}

#[test]
fn the_grant_is_listed_where_it_is_offered() {
    let grants = |world: &World| {
        let response = world.get_path(&format!("/{}/.well-known/oauth-authorization-server", world.pool));
        json(&response)["grant_types_supported"].clone()
    };
    let both = value!(["client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer"]);
    let fleet = Fleet::registered();
    assert_eq!(grants(&fleet), both);
    fleet.change_pool(|pool| pool.provisioning.mode = ProvisioningMode::Off);
    assert_eq!(grants(&fleet), value!(["client_credentials"]));
    let world = World::new();
    assert_eq!(grants(&world), value!(["client_credentials"]), "a pool without a root");
    let metadata = json(&world.get_path(&format!("/{}/.well-known/openid-configuration", world.pool)));
    assert_eq!(
        metadata["token_endpoint_auth_methods_supported"],
        value!(["client_secret_basic", "client_secret_post", "private_key_jwt"])
    );
    assert_eq!(
        metadata["token_endpoint_auth_signing_alg_values_supported"],
        value!(["RS256", "RS384", "RS512", "PS256", "ES256", "ES384"])
    );
}
