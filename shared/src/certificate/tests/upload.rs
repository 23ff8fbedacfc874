//! What people upload for a root.

use base64ct::{Base64, Encoding};

use super::super::root_upload::{RootUploadError, check};
use super::builder::{
    Draft, SERVER_AUTH, basic_constraints, ecdsa_with_sha256, key, purposes, sequence, tlv, utc,
};
use super::*;

fn root() -> Draft {
    Draft::ca("Retail root", "Retail root")
}

fn pem(der: &[u8]) -> String {
    let body = Base64::encode_string(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn upload(text: impl AsRef<[u8]>) -> Result<TrustAnchor, RootUploadError> {
    pollster::block_on(check(&HostCrypto, text.as_ref(), NOW))
}

fn code(text: impl AsRef<[u8]>) -> Option<&'static str> {
    upload(text).err().map(|error| error.code())
}

fn changed(change: impl FnOnce(&mut Draft)) -> Option<&'static str> {
    let mut draft = root();
    change(&mut draft);
    code(pem(&draft.sign()))
}

#[test]
fn a_root_is_taken_in_as_it_is() {
    let der = root().sign();
    let anchor = upload(pem(&der)).unwrap();
    assert_eq!(anchor.der(), der);
    assert_eq!(anchor.fingerprint(), Fingerprint::of(&der));
    let certificate = anchor.certificate().unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=Retail root");
    assert_eq!(certificate.not_after(), UnixTime(2_208_988_800));
}

#[test]
fn the_ways_of_writing_pem_are_understood() {
    let pem = pem(&root().sign());
    assert_eq!(code(pem.replace('\n', "\r\n")), None);
    assert_eq!(code(pem.trim_end()), None);
    assert_eq!(code(format!("\u{feff}{pem}")), None);
    assert_eq!(code(format!("Certificate:\n    Data:\n        Version: 3\n{pem}\nthe end\n")), None);
    let one_line = pem.replace('\n', "").replacen("CERTIFICATE-----", "CERTIFICATE-----\n", 1);
    assert_eq!(code(one_line), None);
}

#[test]
fn what_is_not_pem_is_not_guessed_at() {
    let der = root().sign();
    let pem = pem(&der);
    assert_eq!(code(&der), Some("not_pem"));
    assert_eq!(code(""), Some("not_pem"));
    assert_eq!(code([0xff, 0xfe]), Some("not_pem"));
    assert_eq!(code(pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE")), Some("not_pem"));
    assert_eq!(code(pem.replace("-----END CERTIFICATE-----", "")), Some("not_pem"));
    assert_eq!(code(pem.replace("M", "!")), Some("not_pem"));
    assert_eq!(code("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"), Some("unusable_root"));
    assert_eq!(code("-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----"), Some("not_pem"));
    let request =
        format!("{pem}-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n");
    assert_eq!(code(request), Some("not_pem"));
    let cut = pem.replacen("\nMI", "\n", 1);
    assert!(matches!(code(cut), Some("not_pem" | "unusable_root")));
}

#[test]
fn a_private_key_is_recognised_wherever_it_is() {
    let pem = pem(&root().sign());
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
        let key = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        assert_eq!(code(&key), Some("private_key"));
        assert_eq!(code(format!("{pem}{key}")), Some("private_key"));
        assert_eq!(code(format!("{key}{pem}")), Some("private_key"));
    }
}

#[test]
fn one_root_at_a_time() {
    let pem = pem(&root().sign());
    assert_eq!(upload(format!("{pem}{pem}")).unwrap_err(), RootUploadError::SeveralCertificates(2));
}

#[test]
fn an_upload_has_a_limit() {
    let pem = pem(&root().sign());
    assert_eq!(code(format!("{}{pem}", " ".repeat(4 * MAX_CERTIFICATE_LENGTH))), Some("too_large"));
    let padded = root().with(&oid::SUBJECT_KEY_IDENTIFIER, false, vec![0; MAX_CERTIFICATE_LENGTH]);
    assert_eq!(code(super::upload::pem(&padded.sign())), Some("too_large"));
}

#[test]
fn only_a_ca_can_be_a_root() {
    assert_eq!(changed(|root| root.remove(&oid::BASIC_CONSTRAINTS)), Some("not_a_ca"));
    let not_a_ca = basic_constraints(false, None);
    assert_eq!(changed(|root| root.set(&oid::BASIC_CONSTRAINTS, true, not_a_ca)), Some("not_a_ca"));
    let signs_no_certificates = super::builder::DIGITAL_SIGNATURE.to_vec();
    assert_eq!(changed(|root| root.set(&oid::KEY_USAGE, true, signs_no_certificates)), Some("not_a_ca"));
    assert_eq!(changed(|root| *root = root.clone().version_1()), Some("not_a_ca"));
    assert_eq!(changed(|root| root.remove(&oid::KEY_USAGE)), None);
}

#[test]
fn only_who_signed_himself_can_be_a_root() {
    assert_eq!(changed(|root| *root = Draft::ca("intermediate", "root")), Some("not_self_signed"));
    assert_eq!(changed(|root| root.signer = key("somebody else")), Some("not_self_signed"));
    let rsa = sequence(&[&super::builder::dotted("1.2.840.113549.1.1.11"), &[5, 0]]);
    assert_eq!(
        changed(|root| {
            root.inner_algorithm = rsa.clone();
            root.outer_algorithm = rsa;
        }),
        Some("not_self_signed")
    );
}

#[test]
fn a_root_is_valid_now() {
    assert_eq!(changed(|root| root.not_after = utc("270115075959Z")), Some("expired"));
    assert_eq!(changed(|root| root.not_after = utc("270115080000Z")), None);
    assert_eq!(changed(|root| root.not_before = utc("270115080001Z")), Some("not_yet_valid"));
}

#[test]
fn a_root_that_no_chain_could_use_is_not_taken_in() {
    let unknown = der::oid::ObjectIdentifier::new_unwrap("1.2.3.4");
    assert_eq!(changed(|root| root.set(&unknown, true, vec![])), Some("unusable_root"));
    let server = purposes(&[SERVER_AUTH]);
    assert_eq!(changed(|root| root.set(&oid::EXTENDED_KEY_USAGE, false, server)), Some("unusable_root"));
    assert_eq!(changed(|root| root.set(&oid::NAME_CONSTRAINTS, true, sequence(&[]))), Some("unusable_root"));
    assert_eq!(changed(|root| root.serial = tlv(0x02, &[0])), None);
}

#[test]
fn weak_roots_are_told_apart() {
    let sha1 = sequence(&[&super::builder::dotted("1.2.840.10045.4.1")]);
    assert_eq!(
        changed(|root| {
            root.inner_algorithm = sha1.clone();
            root.outer_algorithm = sha1;
        }),
        Some("weak_hash")
    );
    let off_the_curve = sequence(&[
        &sequence(&[
            &super::builder::dotted("1.2.840.10045.2.1"),
            &super::builder::dotted("1.2.840.10045.3.1.7"),
        ]),
        &super::builder::bits(&[&[4], &[1; 64][..]].concat()),
    ]);
    assert_eq!(changed(|root| root.public_key = off_the_curve), Some("weak_key"));
    assert_eq!(root().outer_algorithm, ecdsa_with_sha256());
}

#[test]
fn a_platform_that_fails_is_not_the_uploads_fault() {
    struct Broken;
    impl VerifySignature for Broken {
        async fn verify_signature(&self, _: &SignatureCheck<'_>) -> Result<bool, CryptoError> {
            Err(CryptoError::Platform("gone".to_owned()))
        }
    }
    let verdict = pollster::block_on(check(&Broken, pem(&root().sign()).as_bytes(), NOW));
    assert!(matches!(verdict, Err(RootUploadError::Crypto(_))));
}
