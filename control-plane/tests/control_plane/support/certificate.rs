use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, Signature, SigningKey};
use rand_core::OsRng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const ECDSA_WITH_SHA256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const EC_PUBLIC_KEY: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x06, 3, 0x55, 4, 10];
/// basicConstraints, critical, CA.
const IS_CA: &[u8] = &[0x30, 15, 0x06, 3, 0x55, 0x1d, 0x13, 0x01, 1, 0xff, 0x04, 5, 0x30, 3, 0x01, 1, 0xff];

/// A root with a key of its own.
pub(crate) struct Ca {
    name: Vec<u8>,
    key: SigningKey,
    pub(crate) der: Vec<u8>,
}

/// A device's certificate, of version 1 as openssl makes it without an extension file, with its key.
pub(crate) struct DeviceCertificate {
    key: SigningKey,
    pub(crate) der: Vec<u8>,
}

impl Ca {
    /// A root that is valid until 2040.
    pub(crate) fn root(name: &str) -> Self {
        Self::root_until(name, "400101000000Z")
    }

    pub(crate) fn root_until(name: &str, not_after: &str) -> Self {
        let (name, key) = (distinguished(&[(COMMON_NAME, name)]), SigningKey::random(&mut OsRng));
        let der = certificate(&name, &name, not_after, &key, Some(IS_CA), &key, 1);
        Self { name, key, der }
    }

    pub(crate) fn device(&self, organization: &str, common_name: &str) -> DeviceCertificate {
        self.device_with(organization, common_name, 2)
    }

    pub(crate) fn device_with(&self, organization: &str, common_name: &str, serial: u8) -> DeviceCertificate {
        let subject = distinguished(&[(ORGANIZATION, organization), (COMMON_NAME, common_name)]);
        let key = SigningKey::random(&mut OsRng);
        let der = certificate(&self.name, &subject, "400101000000Z", &key, None, &self.key, serial);
        DeviceCertificate { key, der }
    }

    pub(crate) fn pem(&self) -> String {
        pem(&self.der)
    }

    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(&self.der)
    }
}

impl DeviceCertificate {
    pub(crate) fn pem(&self) -> String {
        pem(&self.der)
    }

    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(&self.der)
    }

    /// The one entry of `x5c`.
    pub(crate) fn x5c(&self) -> String {
        Base64::encode_string(&self.der)
    }

    /// An assertion of these claims.
    pub(crate) fn assertion(&self, claims: &Value) -> String {
        let encode = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
        let input = format!("{}.{}", encode(&json!({"alg": "ES256", "x5c": [self.x5c()]})), encode(claims));
        let signature: Signature = self.key.sign(input.as_bytes());
        format!("{input}.{}", Base64UrlUnpadded::encode_string(&signature.to_bytes()))
    }
}

fn certificate(
    issuer: &[u8],
    subject: &[u8],
    not_after: &str,
    key: &SigningKey,
    extension: Option<&[u8]>,
    signer: &SigningKey,
    serial: u8,
) -> Vec<u8> {
    let point = key.verifying_key().to_encoded_point(false);
    let algorithm = tlv(0x30, &[ECDSA_WITH_SHA256]);
    let version: &[u8] = if extension.is_some() { &[0xa0, 3, 0x02, 1, 2] } else { &[] };
    let extensions = extension.map_or_else(Vec::new, |one| tlv(0xa3, &[&tlv(0x30, &[one])]));
    let tbs = tlv(
        0x30,
        &[
            version,
            &tlv(0x02, &[&[serial]]),
            &algorithm,
            issuer,
            &tlv(0x30, &[&tlv(0x17, &[b"200101000000Z"]), &tlv(0x17, &[not_after.as_bytes()])]),
            subject,
            &tlv(0x30, &[&tlv(0x30, &[EC_PUBLIC_KEY, P256]), &tlv(0x03, &[&[0], point.as_bytes()])]),
            &extensions,
        ],
    );
    let signature: DerSignature = signer.sign(&tbs);
    tlv(0x30, &[&tbs, &algorithm, &tlv(0x03, &[&[0], signature.as_bytes()])])
}

fn distinguished(attributes: &[(&[u8], &str)]) -> Vec<u8> {
    let one =
        |(kind, value): &(&[u8], &str)| tlv(0x31, &[&tlv(0x30, &[kind, &tlv(0x0c, &[value.as_bytes()])])]);
    let all: Vec<u8> = attributes.iter().flat_map(one).collect();
    tlv(0x30, &[&all])
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len();
    let head = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content].concat()
}

fn pem(der: &[u8]) -> String {
    let text = Base64::encode_string(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|octet| format!("{octet:02x}")).collect()
}
